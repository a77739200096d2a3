"""Exporting a job's rows: nothing lost, nothing reordered, nothing written where it does not belong."""

from __future__ import annotations

import json
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.committed
from pipelines.folder import JobFolder
from pipelines.freeze import parquet_bytes
from pipelines.frozen import ROW, frozen_name
from pipelines.layout import SUCCESS, shard_name
from pipelines.result_rows import result_schema
from pipelines.results import export
from skipvision.errors import ConfigError
from tests.pipelines.committed_jobs import commit, planned_job

HOSTILE = 'a "quoted", comma\nand a new line; =cmd() <b> \u2028 é 🙂'
USER_COLUMNS = pa.schema([("note", pa.string()), ("tags", pa.list_(pa.string()))])
SHARDS = [
    {"row_key": ["k0", "k1"], "answer": [HOSTILE, None], "note": [None, None], "tags": [["x", "y"], []]},
    {"row_key": ["k2"], "answer": ["a red circle"], "note": ["seen"], "tags": [None]},
    {"row_key": ["k3", "k4"], "answer": ["", "two\ttabs"], "note": ["b", None], "tags": [["z"], None]},
]
KEYS = ["k0", "k1", "k2", "k3", "k4"]


@pytest.fixture
def job(tmp_path) -> JobFolder:
    """A finished job of three shards, committed out of order."""
    folder = planned_job(tmp_path, USER_COLUMNS)
    for shard in (2, 0, 1):
        commit(folder, shard, SHARDS[shard], USER_COLUMNS)
    folder.create(SUCCESS, b"")
    return folder


@pytest.mark.parametrize("per_heap", [1, 2, 3, 1000])
def test_rows_that_were_put_together_by_image_are_exported_in_input_order(tmp_path, monkeypatch, per_heap):
    monkeypatch.setattr(pipelines.committed, "ROWS_PER_HEAP", per_heap)
    folder = planned_job(tmp_path, USER_COLUMNS, is_regrouped=True)
    for shard, numbers in enumerate([[0, 3], [1, 4], [2]]):
        folder.create(frozen_name("i", shard), parquet_bytes(pa.table({ROW: pa.array(numbers, pa.int64())})))
        commit(folder, shard, {"row_key": [f"k{number}" for number in numbers]}, USER_COLUMNS)
    export(folder.address, "parquet", output=tmp_path / "rows.parquet")
    exported = pq.read_table(tmp_path / "rows.parquet")
    assert exported.column("row_key").to_pylist() == KEYS
    assert exported.schema.remove_metadata().equals(result_schema(USER_COLUMNS))
    (folder.path / shard_name(1)).unlink()
    export(folder.address, "parquet", output=tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").column("row_key").to_pylist() == ["k0", "k2", "k3"]


@pytest.mark.parametrize("to", ["jsonl", "csv", "parquet"])
def test_an_export_holds_every_row_once_in_input_order(job, tmp_path, to):
    done = export(job.address, to, output=tmp_path / f"rows.{to}")
    held = duckdb.sql(f"select row_key, answer from '{tmp_path}/rows.{to}'").fetchall()
    assert [row[0] for row in held] == KEYS
    assert held[0][1] == HOSTILE
    assert (done.rows, done.finished) == (5, True)


def test_a_parquet_export_equals_what_the_job_committed(job, tmp_path):
    export(job.address, "parquet", output=tmp_path / "rows.parquet")
    committed = f"select * from read_parquet('{job.path}/data/*.parquet', union_by_name=true)"
    exported = f"select * from '{tmp_path}/rows.parquet'"
    assert duckdb.sql(f"({committed}) except all ({exported})").fetchall() == []
    assert duckdb.sql(f"({exported}) except all ({committed})").fetchall() == []


def test_jsonl_keeps_nulls_and_lists(job, tmp_path):
    export(job.address, "jsonl", output=tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().split("\n") if line]
    assert rows[1]["answer"] is None
    assert (rows[0]["tags"], rows[1]["tags"]) == (["x", "y"], [])
    assert rows[2]["note"] == "seen"


def test_bytes_moments_and_what_is_no_number_have_a_form_in_json(tmp_path):
    kinds = {
        "raw": pa.binary(),
        "at": pa.timestamp("us", tz="UTC"),
        "score": pa.float64(),
        "price": pa.decimal128(5, 2),
    }
    columns = pa.schema([*kinds.items(), ("of", pa.struct([("a", pa.binary())]))])
    folder = planned_job(tmp_path, columns)
    values = {"raw": b"\xff\x00", "at": 0, "score": float("nan"), "price": Decimal("1.50"), "of": {"a": b"x"}}
    commit(folder, 0, {"row_key": ["k"], **{name: [value] for name, value in values.items()}}, columns)
    export(folder.address, "jsonl", output=tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert {name: row[name] for name in values} == {
        "raw": "/wA=",
        "at": "1970-01-01T00:00:00+00:00",
        "score": None,
        "price": "1.50",
        "of": {"a": "eA=="},
    }


def test_an_unfinished_job_gives_what_it_has_and_says_so(job, tmp_path):
    job.remove([SUCCESS, shard_name(1)])
    done = export(job.address, "csv", output=tmp_path / "rows.csv")
    assert not done.finished
    assert done.rows == 4
    assert "not finished" in done.describe()


def test_a_job_without_a_committed_shard_gives_an_empty_file(job, tmp_path):
    job.remove([SUCCESS, *map(shard_name, range(3))])
    for to in ("jsonl", "csv", "parquet"):
        assert export(job.address, to, output=tmp_path / f"rows.{to}").rows == 0
        assert (tmp_path / f"rows.{to}").is_file()


def test_a_folder_that_is_no_job_is_refused_and_not_created(tmp_path):
    (tmp_path / "holiday").mkdir()
    for name in ("holiday", "nowhere"):
        with pytest.raises(ConfigError, match="no job's folder"):
            export(tmp_path / name, "csv", output=tmp_path / "rows.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday"]


def test_wrong_wishes_are_refused_with_the_remedy(job, tmp_path):
    with pytest.raises(ConfigError, match="jsonl, csv, parquet, lance, delta; got 'xml'"):
        export(job.address, "xml", output=tmp_path / "rows.xml")
    with pytest.raises(ConfigError, match="among the job's own results"):
        export(job.address, "parquet", output=job.path / "data" / "rows.parquet")
    with pytest.raises(ConfigError, match="name a file"):
        export(job.address, "csv", output=tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        export(job.address, "csv", output=tmp_path / "missing" / "rows.csv")


def test_an_export_that_fails_leaves_the_old_file_and_no_other(job, tmp_path):
    (tmp_path / "rows.csv").write_text("old")
    (job.path / shard_name(1)).write_bytes(b"not parquet")
    with pytest.raises(pa.ArrowInvalid):
        export(job.address, "csv", output=tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "rows.csv"]


def test_rows_stay_in_order_past_the_width_of_a_shard_number(tmp_path):
    folder = planned_job(tmp_path, pa.schema([]))
    for shard in (100_000, 99_999):
        commit(folder, shard, {"row_key": [f"{shard}"]}, pa.schema([]))
    export(folder.address, "jsonl", output=tmp_path / "rows.jsonl")
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(row)["row_key"] for row in rows] == ["99999", "100000"]
