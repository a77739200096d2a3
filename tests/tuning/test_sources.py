"""Files of samples: any sample at any time, and an order that a seed decides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skipvision.errors import ConfigError, SampleError
from skipvision.tuning.sources import Samples

ROWS = [{"id": at, "conversations": [{"from": "human", "value": f"q{at}"}]} for at in range(30)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {kind: tmp_path / f"rows.{kind}" for kind in ("jsonl", "json", "parquet")}
    paths["jsonl"].write_text("\n\n".join(map(json.dumps, ROWS)))  # blank lines between, no end of line at the end
    paths["json"].write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), paths["parquet"], row_group_size=4)
    return paths


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_any_sample_can_be_read_at_any_time(files: dict[str, Path], kind: str) -> None:
    samples = Samples([files[kind]])
    assert len(samples) == 30
    assert [samples[at] for at in (29, 0, 13, 13)] == [ROWS[29], ROWS[0], ROWS[13], ROWS[13]]


def test_files_follow_each_other(files: dict[str, Path]) -> None:
    samples = Samples([files["parquet"], files["jsonl"]])
    assert len(samples) == 60
    assert samples[29]["id"] == 29
    assert samples[30]["id"] == 0


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(files: dict[str, Path], kind: str) -> None:
    samples = Samples([files[kind]])
    orders = [samples.order(seed=1, epoch=epoch) for epoch in range(2)]
    assert all(sorted(order) == [*range(30)] for order in orders)
    assert not np.array_equal(*orders)
    assert np.array_equal(orders[0], samples.order(seed=1, epoch=0))
    assert not np.array_equal(orders[0], samples.order(seed=2, epoch=0))
    assert not np.array_equal(orders[0], np.arange(30))


def test_a_window_of_an_order_stays_within_few_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(40_000)}), tmp_path / "big.parquet", row_group_size=1000)
    order = Samples([tmp_path / "big.parquet"]).order(seed=0, epoch=0)
    assert sorted(order) == [*range(40_000)]
    assert len(np.unique(order[:5000] // 1000)) == 5
    assert not np.all(np.diff(order[:1000]) == 1)


def test_a_line_that_is_no_json_is_an_error_of_that_sample(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": 0}\n{"id": \n{"id": 2}\n')
    samples = Samples([tmp_path / "rows.jsonl"])
    with pytest.raises(SampleError, match="not valid JSON"):
        samples[1]
    assert samples[2] == {"id": 2}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.txt", "", r"\.jsonl"),
        ("rows.jsonl", "", "no sample"),
        ("rows.json", '{"id": 0}', "list of samples"),
        ("rows.json", "[", "not valid JSON"),
        ("rows.parquet", "PAR0", "not a Parquet file"),
        ("rows.csv", "a,b", "must end in"),
        (None, "", "no data file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / (name or "missing.jsonl")
    if name:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words) as refusal:
        Samples([path])
    assert path.name in str(refusal.value)
