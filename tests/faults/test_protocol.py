"""Real processes that are broken at named places, on a disk and in an S3 API; `make faults` plays all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import EXPECTED_ENDS, small_job
from benchmarks.faults.matrix import POINTS
from benchmarks.faults.protocol import ProtocolMatrix

POINT = {point.name: point for point in POINTS}
CELLS = [
    ("the input is being frozen", "kill", 0),
    ("the plan is there, nobody was told", "freeze", 1),
    ("reading a shard", "store error", 1),
    ("answering", "polite exit", 0),
    ("before a commit gets its name", "disk full", 0),
    ("before a commit", "freeze", 3),
    ("committed, nobody was told", "kill", 1),
    ("the manifest is there, nobody was told", "memory error", 2),
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, s3: str) -> ProtocolMatrix:
    scratch = tmp_path_factory.mktemp("faults")
    return ProtocolMatrix(replace(small_job(scratch), model=str(tiny_model), skip="6/4:plain"), scratch)


@pytest.mark.parametrize(("point", "kind", "repeat"), CELLS)
def test_a_job_that_is_broken_there_ends_as_an_undisturbed_one(matrix, tmp_path, s3, point, kind, repeat):
    output = f"{s3}/{point.replace(' ', '-')}" if repeat % 2 else str(tmp_path / "out")
    played = matrix.play(POINT[point], kind, output, repeat=repeat)
    assert played.has_struck
    assert played.verdict.is_clean, played
    assert played.ends.keys() <= EXPECTED_ENDS
