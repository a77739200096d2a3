"""One run at a time works on a job; the next one waits, and knows when nobody is there any more."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.folder import JobFolder
from pipelines.lease import LEASE, leased
from skipvision import failpoints
from skipvision.errors import JobStoppedError

LONG, SHORT = 60.0, 0.4
_SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(params=["disk", "store"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "job") if request.param == "disk" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def hold(address: str, seconds: float, told: Path) -> None:
    """A process that holds a lease for ever; what it tells last is how it lost it."""
    with leased(JobFolder(address), seconds=seconds) as lease:
        told.write_text(f"epoch {lease.epoch}")
        try:
            while True:
                lease.check()
                time.sleep(0.02)
        except JobStoppedError as error:
            told.write_text(str(error))


Start = Callable[[float], tuple[multiprocessing.process.BaseProcess, Path]]


@pytest.fixture
def holder(address: str, tmp_path: Path) -> Iterator[Start]:
    """Starts processes that hold the lease, and waits until each does."""
    started = []

    def start(seconds: float) -> tuple[multiprocessing.process.BaseProcess, Path]:
        told = tmp_path / f"told-{len(started)}"
        process = _SPAWN.Process(target=hold, args=(address, seconds, told), daemon=True)
        process.start()
        started.append(process)
        wait_until(told.exists)
        return process, told

    yield start
    for process in started:
        process.kill()
        process.join()


def wait_until(happened: Callable[[], bool], *, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_a_lease_that_is_let_go_is_had_at_once_in_the_next_epoch(address):
    folder = JobFolder(address)
    for epoch in (1, 2, 3):
        with leased(folder, seconds=LONG) as lease:
            assert lease.epoch == epoch


def test_of_many_that_want_it_one_has_it_at_a_time(address):
    inside, most, epochs = [], [], []

    def work() -> None:
        with leased(JobFolder(address), seconds=2.0) as lease:
            inside.append(1)
            most.append(len(inside))
            epochs.append(lease.epoch)
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 8
    assert sorted(epochs) == list(range(1, 9))


@pytest.fixture
def wanting(address: str) -> Iterator[threading.Thread]:
    """A thread that takes the lease and lets it go; it has ended when the test has."""

    def want() -> None:
        with leased(JobFolder(address), seconds=SHORT):
            pass

    thread = threading.Thread(target=want)
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def test_who_waits_says_for_whom(holder, wanting, capsys):
    process, _ = holder(LONG)
    os.kill(process.pid, signal.SIGSTOP)
    wanting.start()
    wanting.join(60)
    assert f"process {process.pid} on " in capsys.readouterr().err


def test_the_lease_of_a_dead_process_of_this_machine_is_had_at_once(address, holder):
    process, _ = holder(LONG)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with leased(JobFolder(address), seconds=LONG) as lease:
        assert lease.epoch == 2


def test_a_frozen_process_loses_its_lease_and_stops_when_it_wakes(address, holder):
    process, told = holder(SHORT)
    os.kill(process.pid, signal.SIGSTOP)
    with leased(JobFolder(address), seconds=SHORT) as lease:
        assert lease.epoch == 2
        os.kill(process.pid, signal.SIGCONT)
        process.join(60)
        assert process.exitcode == 0
        lease.check()
    assert f"process {os.getpid()} on " in told.read_text()


def test_a_live_holder_keeps_its_lease_however_long_others_wait(holder, wanting):
    process, told = holder(SHORT)
    wanting.start()
    wanting.join(6 * SHORT)
    assert wanting.is_alive()
    assert told.read_text() == "epoch 1"
    process.kill()


NO_LEASES = {
    "no JSON": b"{",
    "nothing": b"",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "no holder": b'{"epoch": 3, "beat": 1}',
    "a holder without a process": b'{"epoch": 3, "beat": 1, "holder": {"host": "here"}}',
    "an epoch that is no number": b'{"epoch": "x", "beat": 1, "holder": null}',
}


@pytest.mark.parametrize("content", NO_LEASES.values(), ids=NO_LEASES)
def test_what_holds_no_lease_is_taken_when_nobody_has_mended_it(address, content, capsys):
    folder = JobFolder(address)
    folder.replace(LEASE, content)
    started = time.monotonic()
    with leased(folder, seconds=SHORT) as lease:
        assert time.monotonic() - started > SHORT
        assert lease.epoch == 1
        assert json.loads(folder.read(LEASE) or b"")["epoch"] == 1
    assert "lease.json of " in capsys.readouterr().err


def test_a_holder_writes_its_lease_again_over_what_is_none(address, wanting):
    folder = JobFolder(address)
    with leased(folder, seconds=SHORT) as lease:
        folder.replace(LEASE, b"{")
        wanting.start()
        wait_until(lambda: folder.read(LEASE) != b"{")
        wanting.join(3 * SHORT)
        assert wanting.is_alive(), "the lease was taken from a run that works"
        lease.check()


def test_a_lease_that_was_spoilt_when_it_is_let_go_is_free_all_the_same(address):
    folder = JobFolder(address)
    with leased(folder, seconds=LONG):
        folder.replace(LEASE, b"{")
    with leased(folder, seconds=LONG) as lease:
        assert lease.epoch == 2


def test_a_holder_whose_store_is_away_for_a_moment_goes_on(tmp_path, monkeypatch):
    away = {"what": "store error", "after": 1, "times": 2, "count_in": str(tmp_path / "passed")}
    monkeypatch.setenv(failpoints.VARIABLE, json.dumps({"swap": away}))
    failpoints._wishes.cache_clear()
    try:
        folder = JobFolder(str(tmp_path / "job"))
        with leased(folder, seconds=SHORT) as lease:
            before = folder.read(LEASE)
            wait_until(lambda: folder.read(LEASE) != before)
            lease.check()
        assert len(list((tmp_path / "passed").iterdir())) > 3
    finally:
        monkeypatch.undo()
        failpoints._wishes.cache_clear()
