"""What nodes are fitted with fails for them alone, and is gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import refuse_where_nodes_cannot_be_fitted
from benchmarks.faults.fittings import Fitting, MemoryOfItsOwn, Network, SharedMemoryOfItsOwn

LISTEN = "import socket; s = socket.create_server(('', 7000)); print(flush=True)\nwhile True: s.accept()"
TAKE = "taken = bytearray(200 << 20); print(flush=True); input()"
NOTHING = "print(flush=True); input()"


@contextmanager
def process(code: str, *arguments: str) -> Iterator[int]:
    """A process that has said that it is ready, and is killed after the `with` block."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid
    finally:
        started.kill()
        started.communicate()


@contextmanager
def fitted(fitting: Fitting) -> Iterator[None]:
    if why_not := fitting.why_not():
        pytest.skip(f"it cannot be made here: {why_not}")
    fitting.head()
    try:
        yield
    finally:
        fitting.remove()


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def answers(address: str) -> bool:
    try:
        socket.create_connection((address, 7000), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_node_whose_cable_is_pulled_is_cut_off_until_it_is_back():
    nodes: list[tuple[str, int]] = []
    with fitted(network := Network()), ExitStack() as running:
        for _ in range(2):
            with network.worker() as node:
                nodes.append((node["node_ip_address"], running.enter_context(process(LISTEN))))
        (one, listener), (another, _) = nodes
        assert answers(one)
        put_back = network.pull(listener)
        assert not answers(one)
        assert answers(another)
        put_back()
        wait_until(lambda: answers(one))


def test_of_a_network_nothing_is_left():
    before = os.listdir("/sys/class/net")
    with fitted(network := Network()), network.worker():
        pass
    assert os.listdir("/sys/class/net") == before


def test_a_nodes_memory_is_what_its_own_processes_hold():
    with fitted(memory := MemoryOfItsOwn()), ExitStack() as running:
        with memory.worker():
            taker = running.enter_context(process(TAKE))
        files = Path(f"/proc/{taker}/root/sys/fs/cgroup/memory")
        wait_until(lambda: 200 << 20 < int((files / "memory.usage_in_bytes").read_text()) < 300 << 20)
        assert int((files / "memory.limit_in_bytes").read_text()) == 3 << 30


def test_this_process_is_back_where_it_was_when_a_node_has_started():
    def here() -> list[str]:
        return [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net")]

    before = here()
    for fitting in (MemoryOfItsOwn(), Network()):
        with fitted(fitting), fitting.worker():
            assert here() != before
        assert here() == before


def test_shared_memory_is_full_to_the_last_byte_for_one_node_alone():
    memory = SharedMemoryOfItsOwn()
    with fitted(memory), memory.worker() as one, memory.worker() as another:
        with process(NOTHING, f"--plasma_directory={one['plasma_directory']}") as node:
            memory.fill(node)
        assert os.statvfs(one["plasma_directory"]).f_bavail == 0
        assert os.statvfs(another["plasma_directory"]).f_bavail > 0


def test_where_nodes_cannot_be_fitted_the_matrix_says_why_before_it_begins(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match=r"cannot be played here.*No such file or directory: '(mount|ip)'"):
        refuse_where_nodes_cannot_be_fitted()
