"""A worker whose node is about to go finishes what it can and hands back the rest, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipelines import drain
from pipelines.attempts import Attempts, withdraw_notes
from pipelines.drain import DRAINED, Drain
from pipelines.folder import JobFolder


@dataclass
class Node:
    """A node that can be told to go, and what its worker did."""

    deadline: float | None = None
    handed_back: list[float] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    code: int | None = None

    def leave(self, code: int) -> None:
        self.code = code
        self.left.set()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(drain, "MARGIN_SECONDS", 0.2)
    return Node()


def drain_of(node: Node) -> Drain:
    return Drain(lambda: node.deadline, lambda: node.handed_back.append(time.time()), leave=node.leave)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_without_a_notice_shards_come_and_go(node):
    gate = drain_of(node)
    for _ in range(3):
        with gate.working():
            time.sleep(0.05)
    assert not node.left.is_set()


def test_a_shard_that_is_begun_is_finished_first(node):
    gate = drain_of(node)
    with gate.working():
        node.deadline = time.time() + 60
        assert not node.left.wait(0.3)
    assert node.left.wait(5)
    assert node.code == DRAINED


def test_no_shard_is_begun_after_the_notice(node):
    gate, begun = drain_of(node), threading.Event()

    def work() -> None:
        with gate.working():
            begun.set()

    with gate.working():
        node.deadline = 0.0
        time.sleep(0.2)
        in_thread(work)
        assert not begun.wait(0.3)
    assert node.left.wait(5)
    assert not begun.is_set()


def test_what_cannot_be_finished_in_time_is_handed_back_before_it(node):
    gate = drain_of(node)
    with gate.working():
        node.deadline = time.time() + 0.6
        assert node.left.wait(5)
        assert node.handed_back[0] < node.deadline


def test_a_look_that_fails_is_taken_again_and_a_hand_back_that_fails_still_ends_the_process(node):
    looks = iter([OSError("no answer"), None, 0.0])

    def look() -> float | None:
        seen = next(looks)
        if isinstance(seen, OSError):
            raise seen
        return seen

    def fail() -> None:
        raise OSError("the store does not answer")

    Drain(look, fail, leave=node.leave)
    assert node.left.wait(5)
    assert node.code == DRAINED


def test_handing_back_blames_no_row(tmp_path):
    folder = JobFolder(str(tmp_path))
    for shard in (0, 1):
        Attempts(folder, shard, 4).noted((0, 4), alone=False).__enter__()
    assert len(folder.names("attempts")) == 2
    withdraw_notes()
    assert folder.names("attempts") == []
