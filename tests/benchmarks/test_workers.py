"""Workers answer on demand, say why they cannot, and cost nothing in between."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.workers.process import ROOT, WorkerFailedError, WorkerProcess


@pytest.fixture
def parrot() -> Iterator[WorkerProcess]:
    with WorkerProcess(sys.executable, "tests.benchmarks.parrot") as worker:
        yield worker


def state_of(pid: int) -> str:
    """R, S, T (stopped), Z (ended), as Linux names it; X when it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(") ")[2][0] if stat.exists() else "X"


def becomes(pid: int, states: str) -> bool:
    """Whether a process is soon in one of these states; signals take a moment."""
    for _ in range(500):
        if state_of(pid) in states:
            return True
        time.sleep(0.01)
    return False


def test_answers_come_in_order_whatever_else_is_printed(parrot):
    assert [parrot.ask("repeat", word=word) for word in ("gold", "zwölf\n", "")] == ["gold", "zwölf\n", ""]


def test_a_call_that_fails_says_why_and_the_next_one_is_answered(parrot):
    with pytest.raises(WorkerFailedError, match="ValueError: no such seed"):
        parrot.ask("fail")
    assert parrot.ask("repeat", word="again") == "again"


def test_a_worker_that_ends_leaves_its_code_and_last_words(parrot):
    with pytest.raises(WorkerFailedError, match="ended with 3: the cage is open"):
        parrot.ask("leave")
    with pytest.raises(WorkerFailedError, match="ended with 3"):
        parrot.ask("repeat", word="anyone?")


def test_a_worker_that_takes_too_long_is_not_waited_for(parrot):
    with pytest.raises(WorkerFailedError, match="no reply within 1 seconds"):
        parrot.ask("dawdle", within_seconds=1)


def test_between_questions_a_worker_and_its_children_are_stopped(parrot):
    child = parrot.ask("breed")
    assert becomes(child, "T")
    assert becomes(parrot.pid, "T")
    assert parrot.ask("repeat", word="awake") == "awake"


def test_closing_ends_the_children_too():
    with WorkerProcess(sys.executable, "tests.benchmarks.parrot") as parrot:
        child = parrot.ask("breed")
    assert becomes(child, "ZX")
    assert becomes(parrot.pid, "X")


def test_a_worker_does_not_outlive_who_started_it():
    code = (
        "import os, sys; from benchmarks.workers.process import WorkerProcess\n"
        "parrot = WorkerProcess(sys.executable, 'tests.benchmarks.parrot')\n"
        "print(parrot.ask('breed'), parrot.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    child, worker = map(int, ran.stdout.split())
    assert becomes(child, "ZX")
    assert becomes(worker, "ZX")


def test_an_interpreter_that_is_not_there_is_named():
    with pytest.raises(WorkerFailedError, match="/nowhere/python cannot be run"):
        WorkerProcess("/nowhere/python", "tests.benchmarks.parrot")
