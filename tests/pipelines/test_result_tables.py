"""Exporting a job's rows as a Lance dataset or a Delta table: read back by those projects' own readers."""

from __future__ import annotations

import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.folder import JobFolder
from pipelines.layout import SUCCESS, shard_name
from pipelines.result_rows import RESULT_COLUMNS
from pipelines.result_tables import ROWS_HELD
from pipelines.results import export
from skipvision.errors import ConfigError
from tests.pipelines.committed_jobs import commit, planned_job

TABLES = ["lance", "delta"]
USER_COLUMNS = pa.schema([("note", pa.string()), ("tags", pa.list_(pa.string()))])
NOTES = ["é 🙂 \u2028\x00", None, "", "seen", "b"]

KEPT: dict[str, tuple[pa.DataType, Any]] = {
    "raw": (pa.binary(), b"\xff\x00"),
    "least": (pa.int64(), -(2**63)),
    "small": (pa.int8(), -128),
    "share": (pa.float32(), 0.5),
    "yes": (pa.bool_(), True),
    "at": (pa.timestamp("us", tz="UTC"), datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)),
    "there": (pa.timestamp("us"), datetime.datetime(1, 1, 1)),
    "day": (pa.date32(), datetime.date(2026, 1, 2)),
    "price": (pa.decimal128(38, 10), Decimal("-1234567890123456789012345678.0123456789")),
    "boxes": (
        pa.list_(pa.struct([("of", pa.string()), ("at", pa.list_(pa.float64()))])),
        [{"of": "é", "at": [1.5, None]}],
    ),
    "of": (pa.struct([("a", pa.binary()), ("n", pa.int32())]), {"a": b"x", "n": None}),
    "counts": (pa.map_(pa.string(), pa.int64()), [("a", 2**62), ("b", None)]),
    "kind": (pa.dictionary(pa.int32(), pa.string()), "jpeg"),
}
"""Types that come back with the values they held."""


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """A finished job of three shards, and five rows."""
    folder = planned_job(tmp_path, USER_COLUMNS)
    for shard, rows in enumerate([slice(0, 2), slice(2, 4), slice(4, 5)]):
        keys = [f"k{row}" for row in range(5)]
        commit(folder, shard, {"row_key": keys[rows], "note": NOTES[rows]}, USER_COLUMNS)
    folder.create(SUCCESS, b"")
    return folder


def read(to: str, output: str | Path) -> pa.Table:
    """A table by its own project's reader, sorted by key, since Delta keeps no order."""
    if to == "lance":
        return lance.dataset(str(output)).to_table().sort_by("row_key")
    return deltalake.DeltaTable(str(output)).to_pyarrow_table().sort_by("row_key")


def versions(to: str, output: Path) -> int:
    if to == "lance":
        return len(lance.dataset(str(output)).versions())
    return deltalake.DeltaTable(str(output)).version() + 1


@pytest.mark.parametrize("to", TABLES)
def test_a_table_holds_every_row_once_in_the_same_columns_as_a_file(job, tmp_path, to):
    done = export(job.address, to, output=tmp_path / "rows")
    export(job.address, "parquet", output=tmp_path / "rows.parquet")
    table = read(to, tmp_path / "rows")
    assert table.equals(pq.read_table(tmp_path / "rows.parquet").cast(table.schema))
    assert table.column_names == [*USER_COLUMNS.names, *RESULT_COLUMNS.names]
    assert (done.rows, done.finished) == (5, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "rows", "rows.parquet"]


def test_a_lance_dataset_keeps_the_order_of_the_input(job, tmp_path):
    export(job.address, "lance", output=tmp_path / "rows")
    assert lance.dataset(str(tmp_path / "rows")).to_table()["note"].to_pylist() == NOTES


@pytest.mark.parametrize("to", TABLES)
def test_every_kind_of_value_comes_back_as_it_was(tmp_path, to):
    columns = pa.schema([(name, kind) for name, (kind, _) in KEPT.items()])
    folder = planned_job(tmp_path, columns)
    for shard, row in enumerate(["k0", "k1"]):  # of two shards: their dictionaries differ
        commit(folder, shard, {"row_key": [row, f"{row}-"]} | {n: [v, None] for n, (_, v) in KEPT.items()}, columns)
    export(folder.address, to, output=tmp_path / "rows")
    table = read(to, tmp_path / "rows")
    assert {name: table[name].to_pylist() for name in KEPT} == {n: [v, None] * 2 for n, (_, v) in KEPT.items()}


WIDER: dict[str, tuple[pa.DataType, Any, pa.DataType]] = {
    "most": (pa.uint64(), 2**64 - 1, pa.decimal128(20, 0)),
    "many": (pa.list_(pa.uint32()), [2**32 - 1], pa.list_(pa.int64())),
    "byte": (pa.uint8(), 255, pa.int16()),
    "half": (pa.float16(), 1.5, pa.float32()),
    "then": (pa.timestamp("ns"), datetime.datetime(2026, 1, 2, 3, 4, 5, 6), pa.timestamp("us")),
    "vector": (pa.list_(pa.float32(), 2), [0.5, 1.5], pa.list_(pa.float32())),
}


def test_what_delta_lacks_gets_a_type_that_holds_every_value(tmp_path):
    columns = pa.schema([(name, kind) for name, (kind, _, _) in WIDER.items()])
    folder = planned_job(tmp_path, columns)
    commit(folder, 0, {"row_key": ["k"]} | {name: [value] for name, (_, value, _) in WIDER.items()}, columns)
    export(folder.address, "delta", output=tmp_path / "rows")
    [row] = deltalake.DeltaTable(tmp_path / "rows").to_pyarrow_table().to_pylist()
    schema = pa.schema(deltalake.DeltaTable(tmp_path / "rows").schema().to_arrow())
    assert {name: row[name] for name in WIDER} == {name: value for name, (_, value, _) in WIDER.items()}
    for name, (_, _, wider) in WIDER.items():
        assert schema.field(name).type == wider


@pytest.mark.parametrize(
    ("to", "name", "kind", "value", "says"),
    [
        ("delta", "t", pa.time64("us"), datetime.time(1), "column 't' holds time64.*a Delta table cannot"),
        ("delta", "took", pa.duration("us"), datetime.timedelta(1), "holds duration"),
        ("delta", "price", pa.decimal256(50, 2), Decimal(1), "holds decimal256"),
        ("delta", "then", pa.timestamp("ns"), 1, "column 'then' holds values that timestamp.us. does not"),
        ("delta", "Answer", pa.string(), "x", "two columns named 'answer' but for case"),
        ("delta", "s", pa.list_(pa.struct([("a", pa.int8()), ("A", pa.int8())])), None, "two fields of 's'"),
        ("lance", "a.b", pa.string(), "x", "column named 'a.b'"),
        ("lance", "_rowid", pa.int64(), 1, "column named '_rowid'"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_and_nothing_is_left(tmp_path, to, name, kind, value, says):
    columns = pa.schema([(name, kind)])
    folder = planned_job(tmp_path, columns)
    commit(folder, 0, {"row_key": ["k"], name: pa.array([value], kind)}, columns)
    with pytest.raises(ConfigError, match=f"{says}.*export to parquet"):
        export(folder.address, to, output=tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


@pytest.mark.parametrize("to", TABLES)
def test_a_second_export_is_one_new_version_even_with_other_columns(job, tmp_path, to):
    (tmp_path / "other").mkdir()
    other = planned_job(tmp_path / "other", pa.schema([("page", pa.int64())]))
    commit(other, 0, {"row_key": ["k9"], "page": [9]}, pa.schema([("page", pa.int64())]))
    export(job.address, to, output=tmp_path / "rows")
    export(other.address, to, output=tmp_path / "rows")
    assert versions(to, tmp_path / "rows") == 2
    assert read(to, tmp_path / "rows")["page"].to_pylist() == [9]


@pytest.mark.parametrize("to", TABLES)
def test_an_export_that_fails_leaves_the_old_table_as_it_was(job, tmp_path, to):
    export(job.address, to, output=tmp_path / "rows")
    before = read(to, tmp_path / "rows")
    (job.path / shard_name(2)).write_bytes(b"not parquet")
    with pytest.raises(pa.ArrowInvalid, match="Parquet"):
        export(job.address, to, output=tmp_path / "rows")
    assert versions(to, tmp_path / "rows") == 1
    assert read(to, tmp_path / "rows").equals(before)


@pytest.mark.parametrize("to", TABLES)
def test_a_first_export_that_fails_leaves_nothing(job, tmp_path, to):
    (job.path / shard_name(2)).write_bytes(b"not parquet")
    with pytest.raises(pa.ArrowInvalid, match="Parquet"):
        export(job.address, to, output=tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


@pytest.mark.parametrize("to", TABLES)
def test_a_job_without_a_committed_shard_gives_an_empty_table(tmp_path, to):
    folder = planned_job(tmp_path, USER_COLUMNS)
    assert export(folder.address, to, output=tmp_path / "rows").rows == 0
    table = read(to, tmp_path / "rows")
    assert (table.num_rows, table.column_names) == (0, [*USER_COLUMNS.names, *RESULT_COLUMNS.names])


def test_what_delta_holds_in_memory_is_bounded_by_rows(tmp_path):
    folder = planned_job(tmp_path, pa.schema([]))
    for shard in range(3):
        commit(folder, shard, {"row_key": [f"{shard}-{row}" for row in range(ROWS_HELD)]}, pa.schema([]))
    export(folder.address, "delta", output=tmp_path / "rows")
    parts = [pq.read_metadata(path) for path in (tmp_path / "rows").glob("*.parquet")]
    groups = [part.row_group(number).num_rows for part in parts for number in range(part.num_row_groups)]
    assert (sum(groups), max(groups) <= ROWS_HELD) == (3 * ROWS_HELD, True)


@pytest.mark.parametrize("to", TABLES)
def test_a_folder_or_file_that_is_no_such_table_is_refused_and_kept(job, tmp_path, to):
    other = next(kind for kind in TABLES if kind != to)
    export(job.address, other, output=tmp_path / "other")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"sand")
    (tmp_path / "file").write_text("old")
    for name in ("other", "holiday", "file", "job"):
        with pytest.raises(ConfigError, match="is left alone"):
            export(job.address, to, output=tmp_path / name)
    assert (tmp_path / "holiday" / "beach.jpg").read_bytes() == b"sand"
    assert (tmp_path / "file").read_text() == "old"
    assert read(other, tmp_path / "other").num_rows == 5


@pytest.mark.parametrize("to", TABLES)
def test_an_empty_folder_is_filled_and_a_missing_one_is_named(job, tmp_path, to):
    (tmp_path / "empty").mkdir()
    export(job.address, to, output=tmp_path / "empty")
    assert read(to, tmp_path / "empty").num_rows == 5
    with pytest.raises(ConfigError, match="there is no folder"):
        export(job.address, to, output=tmp_path / "missing" / "rows")


@pytest.mark.parametrize(("to", "package"), [("lance", "lance"), ("delta", "deltalake")])
def test_a_package_that_is_missing_is_named_with_its_extra(job, tmp_path, monkeypatch, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'skipvision\[{to}\]'"):
        export(job.address, to, output=tmp_path / "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["job"]
