"""Nothing is lost and nothing doubled by the real code, under schedules of the model, on disk and in a real S3 API."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pyarrow.parquet as pq
import pytest
from obstore.exceptions import GenericError

from pipelines.folder import JobFolder
from pipelines.model import choose_model
from skipvision.config import JobConfig
from skipvision.errors import ConfigError, JobStoppedError
from tests.image_files import write_good
from tests.protocol.interleaving import Interleaving
from tests.protocol.real_code import CHANGED, Killed, RealAttempt, replace_ray_and_engine

ROWS, ROWS_PER_SHARD = 7, 3


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[JobConfig]:
    """A job of seven rows in three shards, on code that stops at every gate."""
    source = tmp_path_factory.mktemp("protocol") / "in"
    write_good(source, ROWS)
    config = JobConfig(
        input=str(source), output="", model=str(tiny_model), skip="6/4:plain", rows_per_shard=ROWS_PER_SHARD
    )
    with pytest.MonkeyPatch.context() as patch:
        replace_ray_and_engine(patch, choose_model(config))
        yield config


def play(config: JobConfig, output: str, seed: int) -> int:
    """One schedule; how many faults it had."""
    ended: list[BaseException | None] = []
    schedule = Interleaving(seed, lambda: RealAttempt(replace(config, output=output), ended))
    schedule.run()
    check(JobFolder(output), [error for error in ended if error is not None])
    return schedule.faults


def check(folder: JobFolder, errors: list[BaseException]) -> None:
    plan, success = (json.loads(folder.read(name) or b"null") for name in ("plan.json", "_SUCCESS"))
    assert CHANGED == []
    unexpected = [
        error for error in errors if not isinstance(error, Killed | GenericError | ConfigError | JobStoppedError)
    ]
    assert not unexpected, unexpected
    assert None not in (plan, success), errors
    frozen = rows_of(folder, f"input/{plan['input_id']}/shard-")
    answered = rows_of(folder, "data/")
    assert [row["row_key"] for row in answered] == [row["row_key"] for row in frozen], errors
    assert len(answered) == len({row["row_key"] for row in answered}) == success["rows"] == ROWS
    manifest = json.loads(folder.read("_MANIFEST.json") or b"null")
    assert [file["path"] for file in manifest["files"]] == folder.names("data")


def rows_of(folder: JobFolder, prefix: str) -> list[dict[str, Any]]:
    names = [name for name in folder.names(prefix.rpartition("/")[0]) if name.startswith(prefix)]
    return [row for name in names for row in pq.read_table(io.BytesIO(folder.read(name) or b"")).to_pylist()]


def test_on_a_disk(job: JobConfig, tmp_path: Path) -> None:
    faults = sum(play(job, str(tmp_path / f"out-{seed}"), seed) for seed in range(30))
    assert faults > 30


def test_in_an_object_store(job: JobConfig, s3: str) -> None:
    faults = sum(play(job, f"{s3}/out-{seed}", seed) for seed in range(12))
    assert faults > 12


def test_code_that_creates_without_a_condition_is_caught(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = obstore.rename
    monkeypatch.setattr(obstore, "rename", lambda store, old, new, **_: rename(store, old, new, overwrite=True))
    try:
        with pytest.raises(AssertionError, match=r"data/shard|plan\.json"):
            sum(play(job, str(tmp_path / f"out-{seed}"), seed) for seed in range(30))
    finally:
        CHANGED.clear()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("where", ["disk", "store"])
def test_for_long(job: JobConfig, s3: str, tmp_path: Path, where: str) -> None:
    place = str(tmp_path) if where == "disk" else s3
    faults = sum(play(job, f"{place}/long-{seed}", seed) for seed in range(1000, 3000))
    assert faults > 2000
