"""A job against an object store that refuses requests, loses its answers and is slow."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.__main__ import small_job
from benchmarks.faults.protocol import leave_out_ray
from benchmarks.faults.running import Attempts
from benchmarks.faults.stores import BUCKET, Troubles, environment, s3_server
from benchmarks.faults.verdict import judge, rows_of
from pipelines.folder import JobFolder


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_in_a_store_in_trouble_ends_as_in_one_without(tmp_path: Path, tiny_model: Path, seed: int) -> None:
    job = replace(small_job(tmp_path), model=str(tiny_model), skip="6/4:plain", lease_seconds=20.0)
    attempts = Attempts(tmp_path, patience=200.0, prepare=leave_out_ray)
    undisturbed = attempts.start(replace(job, output=str(tmp_path / "out")), {})
    assert undisturbed.wait_ended_or_frozen()
    troubles: list[Troubles] = []

    def in_front(store: Any) -> Troubles:
        troubles.append(Troubles(store, random.Random(seed)))
        return troubles[0]

    with s3_server(in_front) as settings, environment(settings):
        troubles[0].share = 0.25
        output = f"{BUCKET}/{tmp_path.name}"
        attempt = attempts.start(replace(job, output=output), {})
        assert attempt.wait_ended_or_frozen()
        troubles[0].share = 0.0
        assert attempt.how_it_ended() == "done", attempt.said()
        assert judge(JobFolder(output), rows_of(JobFolder(str(tmp_path / "out")))).is_clean
    assert min(troubles[0].seen[kind] for kind in ("refused", "done, and the answer lost", "late")) > 0
