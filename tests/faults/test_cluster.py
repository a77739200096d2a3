"""Whole jobs on a real cluster of a head and three workers, broken from inside and outside; `make faults` plays all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults import poison
from benchmarks.faults.__main__ import EXPECTED_ENDS, expected_ends, small_job
from benchmarks.faults.cluster import ClusterMatrix, kinds_at
from benchmarks.faults.matrix import POINTS
from benchmarks.faults.poison import PoisonMatrix

POINT = {point.name: point for point in POINTS}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ClusterMatrix]:
    scratch = tmp_path_factory.mktemp("cluster")
    job = replace(small_job(scratch), model=str(tiny_model), skip="6/4:plain", rows_per_shard=2, lease_seconds=3.0)
    matrix = ClusterMatrix(job, scratch)
    with matrix.nodes.running():
        yield matrix


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("before a commit", "node killed"),
        pytest.param("reading a shard", "node frozen", marks=pytest.mark.faults),
        pytest.param("answering", "node drained", marks=pytest.mark.faults),
        pytest.param("noting what is tried", "polite exit", marks=pytest.mark.faults),
        pytest.param("answered, the note still there", "driver killed", marks=pytest.mark.faults),
        pytest.param("committed, nobody was told", "cluster killed", marks=pytest.mark.faults),
        pytest.param("before the manifest", "driver frozen", marks=pytest.mark.faults),
        pytest.param("before a commit gets its name", "disk full", marks=pytest.mark.faults),
    ],
)
def test_a_job_that_is_broken_there_ends_as_an_undisturbed_one(matrix, tmp_path, point, kind):
    assert kind in kinds_at(POINT[point])
    played = matrix.play(POINT[point], kind, str(tmp_path / "out"), repeat=0)
    assert played.has_struck
    assert played.verdict.is_clean, played
    assert played.ends.keys() <= expected_ends(kind)


@pytest.mark.faults
@pytest.mark.parametrize("kind", poison.KINDS, ids=lambda kind: kind.name)
def test_rows_that_end_their_processes_are_the_only_ones_that_suffer(matrix, tmp_path, kind):
    played = PoisonMatrix(matrix, tmp_path).play(kind, repeat=1)
    assert played.verdict.is_clean, played
    assert played.ends.keys() <= EXPECTED_ENDS
