"""What is wrong with a job is counted, each thing for itself."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.faults.verdict import Verdict, judge, rows_of
from pipelines.folder import JobFolder
from pipelines.freeze import parquet_bytes

ROWS = [{"row_key": key, "answer": f"a {key}", "error_code": None, "seconds": 1.0} for key in "abcd"]


@pytest.fixture
def undisturbed(tmp_path) -> list[dict[str, Any]]:
    return rows_of(job_of(tmp_path / "undisturbed", ROWS))


def job_of(path, rows, *, named=("data/shard-00000.parquet", "data/shard-00001.parquet")) -> JobFolder:
    folder = JobFolder(str(path))
    folder.create("data/shard-00000.parquet", parquet_bytes(pa.Table.from_pylist(rows[:2])))
    folder.create("data/shard-00001.parquet", parquet_bytes(pa.Table.from_pylist(rows[2:])))
    folder.create("_MANIFEST.json", json.dumps({"files": [{"path": name} for name in named]}).encode())
    folder.create("_SUCCESS", b"{}")
    return folder


def test_a_job_that_took_other_seconds_is_the_same(tmp_path, undisturbed):
    slower = [row | {"seconds": 9.0} for row in ROWS]
    assert judge(job_of(tmp_path / "job", slower), undisturbed) == Verdict()


def test_rows_that_are_missing_are_lost(tmp_path, undisturbed):
    assert judge(job_of(tmp_path / "job", ROWS[:3]), undisturbed) == Verdict(lost=1)


def test_rows_that_come_twice_are_doubled(tmp_path, undisturbed):
    assert judge(job_of(tmp_path / "job", [*ROWS, ROWS[0]]), undisturbed) == Verdict(doubled=1)


def test_another_answer_is_different(tmp_path, undisturbed):
    changed = [*ROWS[:3], ROWS[3] | {"answer": "another"}]
    assert judge(job_of(tmp_path / "job", changed), undisturbed) == Verdict(different=1)


def test_a_manifest_that_does_not_name_what_is_there_is_unfinished(tmp_path, undisturbed):
    job = job_of(tmp_path / "job", ROWS, named=("data/shard-00000.parquet",))
    assert judge(job, undisturbed) == Verdict(unfinished=1)


def test_a_row_that_had_to_be_given_up_and_was_not_is_different(tmp_path, undisturbed):
    poisoned = [*ROWS[:3], ROWS[3] | {"error_code": "poison"}]
    assert judge(job_of(tmp_path / "job", poisoned), undisturbed, codes={"d": "poison"}) == Verdict()
    assert judge(job_of(tmp_path / "another", ROWS), undisturbed, codes={"d": "poison"}) == Verdict(different=1)
