"""Whole jobs on a real cluster of a head and three workers, broken from inside and outside; `make faults` plays all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults import poison
from benchmarks.faults.__main__ import EXPECTED_ENDS, expected_ends, small_job
from benchmarks.faults.cluster import FITTED, MOST_TAKEN_BYTES, ClusterMatrix, kinds_at
from benchmarks.faults.matrix import POINTS
from benchmarks.faults.poison import PoisonMatrix
from benchmarks.faults.verdict import judge
from pipelines.folder import JobFolder

POINT = {point.name: point for point in POINTS}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[ClusterMatrix]:
    scratch = tmp_path_factory.mktemp("cluster")
    job = replace(small_job(scratch), model=str(tiny_model), skip="6/4:plain", rows_per_shard=2, lease_seconds=3.0,
                  standstill_seconds=90.0)  # fmt: skip
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
        pytest.param("before a commit", "partition", marks=pytest.mark.faults),
        pytest.param("reading a shard", "shared memory full", marks=pytest.mark.faults),
        pytest.param("answering", "out of memory", marks=pytest.mark.faults),
    ],
)
def test_a_job_that_is_broken_there_ends_as_an_undisturbed_one(matrix, tmp_path, point, kind):
    skip_if_it_cannot_be_played(kind)
    assert kind in kinds_at(POINT[point])
    played = matrix.play(POINT[point], kind, str(tmp_path / "out"), repeat=0)
    assert played.has_struck
    assert played.verdict.is_clean, played
    assert played.ends.keys() <= expected_ends(kind)


def skip_if_it_cannot_be_played(kind: str) -> None:
    if kind in FITTED and (why_not := FITTED[kind].why_not()):
        pytest.skip(f"{kind} cannot be played here: {why_not}")


@pytest.mark.faults
def test_a_shard_for_which_there_is_never_memory_ends_the_job_by_name_after_four_tries(matrix, tmp_path):
    skip_if_it_cannot_be_played("out of memory")
    always = {
        "what": "out of memory",
        "match": "/shard-00001",
        "bytes": MOST_TAKEN_BYTES,
        "count_in": str(tmp_path / "n"),
    }
    output = tmp_path / "out"
    with matrix.nodes.fitted(FITTED["out of memory"]):
        attempt = matrix.start(replace(matrix.config, output=str(output)), {"read": always})
        assert attempt.wait_ended_or_frozen()
        assert attempt.how_it_ended() == "JobStoppedError", attempt.said()
        assert "the job stopped: a node had no memory left again and again" in attempt.said()
        assert len(list((tmp_path / "n").iterdir())) == 1 + 3
        again = matrix.start(replace(matrix.config, output=str(output)), {})
        assert again.wait_ended_or_frozen()
        assert again.how_it_ended() == "done", again.said()
    undisturbed = matrix.undisturbed_rows(matrix.config, "undisturbed-on-a-cluster")
    assert judge(JobFolder(str(output)), undisturbed).is_clean


@pytest.mark.faults
@pytest.mark.parametrize("kind", poison.KINDS, ids=lambda kind: kind.name)
def test_rows_that_end_their_processes_are_the_only_ones_that_suffer(matrix, tmp_path, kind):
    played = PoisonMatrix(matrix, tmp_path).play(kind, repeat=1)
    assert played.verdict.is_clean, played
    assert played.ends.keys() <= EXPECTED_ENDS
