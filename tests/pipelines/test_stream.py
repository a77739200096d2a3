"""What Ray gives up, or never gives, ends a job with one sentence that says what it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ray.data.exceptions import omit_traceback_stdout
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from pipelines.stream import _cause, not_standing_still
from skipvision.errors import JobStoppedError

GIVEN_UP = [
    (OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory on the node ..."),
     "a node had no memory left again and again"),
    (OutOfDiskError("Local disk is full"), "neither in its shared memory nor on its disk"),
    (ObjectStoreFullError("The object store is full"), "no room left in its shared memory"),
    (WorkerCrashedError(), "the process that prepares images ended again and again"),
    (ActorDiedError(), "the engine's process ended again and again"),
    (NodeDiedError("the node is gone\nand so on"), "NodeDiedError: the node is gone"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "says"), GIVEN_UP, ids=[type(error).__name__ for error, _ in GIVEN_UP])
def test_what_ray_gives_up_is_said_in_one_sentence(error, says):
    @omit_traceback_stdout  # Ray Data's last word on each error
    def give_up() -> None:
        raise error

    with pytest.raises(RayError) as raised:
        give_up()
    assert says in _cause(raised.value)
    assert "\n" not in _cause(raised.value)


def test_shards_that_come_in_time_pass_as_they_are():
    assert [*not_standing_still(iter("abc"), seconds=20)] == ["a", "b", "c"]
    assert [*not_standing_still([], seconds=20)] == []


def test_what_fails_among_the_shards_is_raised_where_they_are_read():
    def failing() -> Iterator[str]:
        yield "a"
        raise WorkerCrashedError

    shards = not_standing_still(failing(), seconds=20)
    assert next(shards) == "a"
    with pytest.raises(WorkerCrashedError):
        next(shards)


def test_shards_that_never_come_are_not_waited_for():
    ended = threading.Event()

    def standing_still() -> Iterator[str]:
        yield "a"
        ended.wait(60)

    shards = not_standing_still(standing_still(), seconds=0.2)
    assert next(shards) == "a"
    with pytest.raises(JobStoppedError, match=r"no shard has come to its end for 0.2 seconds.*standstill_seconds"):
        next(shards)
    ended.set()
