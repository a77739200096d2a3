"""What the worker nodes of a cluster are fitted with beside this machine, so that something of theirs can fail."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.faults.namespaces import namespace, namespace_of, new_namespace
from benchmarks.faults.stores import environment


class Fitting:
    """Nothing beside the machine."""

    def __init__(self) -> None:
        self._left = ExitStack()

    def head(self) -> dict[str, Any]:
        """Arguments for the head node."""
        return {}

    @contextmanager
    def worker(self) -> Iterator[dict[str, Any]]:
        """Arguments for a worker node that starts inside the `with` block."""
        yield {}

    def remove(self) -> None:
        """Take away what is left when no node is there any more."""
        self._left.close()

    def why_not(self) -> str | None:
        """Why no node can be fitted so here; None if one can."""
        try:
            self.head()
            with self.worker():
                return None
        except OSError as error:
            return str(error)
        finally:
            self.remove()


PLAIN = Fitting()


class MemoryOfItsOwn(Fitting):
    """Each node is told of a memory as a container is: of its limit, and of what the node's own processes hold.

    Its raylet ends processes when that memory is full. The count stands where a container's stands, in mounts that the
    node alone sees; what others on the machine take makes no difference.
    """

    @contextmanager
    def worker(self) -> Iterator[dict[str, Any]]:
        with new_namespace("mnt"), environment({"RAY_memory_monitor_refresh_ms": "100"}):
            self._left.callback(_Count().stop)
            yield {}


class _Count:
    """The files in which this thread's mount namespace finds what its processes hold, kept up to date."""

    _LIMIT_BYTES = 3 << 30
    _EVERY_SECONDS = 0.2

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        self._files = Path(self._folder.name) / "memory"
        self._files.mkdir()
        self._namespace = namespace_of("thread-self", "mnt")
        self._tell("limit_in_bytes", str(self._LIMIT_BYTES))
        self._tell("stat", "total_inactive_file 0\ntotal_active_file 0\n")
        self._tell("usage_in_bytes", "0")
        _run("mount", "--make-rprivate", "/")
        _run("mount", "--bind", self._folder.name, "/sys/fs/cgroup")
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._count, name="memory of a node", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()
        self._folder.cleanup()

    def _count(self) -> None:
        while not self._ends.wait(self._EVERY_SECONDS):
            self._tell("usage_in_bytes", str(sum(map(_resident_bytes, self._processes()))))

    def _processes(self) -> Iterator[int]:
        processes = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return (process for process in processes if namespace_of(process, "mnt") == self._namespace)

    def _tell(self, name: str, content: str) -> None:
        file = self._files / f"memory.{name}"
        file.with_suffix(".new").write_text(content)
        file.with_suffix(".new").rename(file)  # nobody reads half a number


def _resident_bytes(process: int) -> int:
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


class Network(Fitting):
    """Each worker node is on a network as a machine is: with an address, and a cable that can be pulled.

    The head and the drivers are where the cables meet. A raylet waits for a head out of reach for longer than a job
    takes, so that what is cut off lives to do its harm.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bridge = f"sv{os.getpid()}"
        self._subnet = f"198.18.{os.getpid() % 256}"  # of the range for benchmarks, which nobody routes
        self._cables: dict[str | None, str] = {}

    def head(self) -> dict[str, Any]:
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        self._left.callback(_run, "ip", "link", "del", self._bridge)
        _run("ip", "addr", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        self._cables.clear()
        return {"node_ip_address": f"{self._subnet}.1"}

    @contextmanager
    def worker(self) -> Iterator[dict[str, Any]]:
        number = len(self._cables) + 2
        cable, address = f"{self._bridge}-{number}", f"{self._subnet}.{number}"
        _run("ip", "netns", "add", cable)
        self._left.callback(_run, "ip", "netns", "del", cable)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", cable)
        # The namespace itself lives as long as this process has a socket there.
        self._left.callback(_run, "ip", "link", "del", cable)
        _run("ip", "link", "set", cable, "master", self._bridge, "up")
        _run("ip", "-n", cable, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run("ip", "-n", cable, "link", "set", device, "up")
        reconnecting = environment({"RAY_gcs_rpc_server_reconnect_timeout_s": "600"})
        with namespace("net", Path("/run/netns", cable)), reconnecting:
            self._cables[namespace_of("thread-self", "net")] = cable
            yield {"node_ip_address": address}

    def pull(self, raylet: int) -> Callable[[], None]:
        """Cut a node off from all others; what puts its cable back."""
        cable = self._cables[namespace_of(raylet, "net")]
        _run("ip", "link", "set", cable, "down")
        return lambda: _run("ip", "link", "set", cable, "up")


class SharedMemoryOfItsOwn(Fitting):
    """Each node's object store is in a small memory of its own, which others can fill up."""

    _BYTES = 100 << 20
    _STORE_BYTES = 80 << 20

    def __init__(self) -> None:
        super().__init__()
        self._folders: list[str] = []

    @contextmanager
    def worker(self) -> Iterator[dict[str, Any]]:
        folder = self._left.enter_context(TemporaryDirectory())
        _run("mount", "-t", "tmpfs", "-o", f"size={self._BYTES}", "tmpfs", folder)
        self._left.callback(_run, "umount", "--lazy", folder)
        self._folders.append(folder)
        # The blocks of a small job would else go from process to process in messages.
        with environment({"RAY_max_direct_call_object_size": "0"}):
            yield {"plasma_directory": folder, "object_store_memory": self._STORE_BYTES}

    def fill(self, raylet: int) -> None:
        """Take all that is left of a node's shared memory."""
        arguments = psutil.Process(raylet).cmdline()
        (folder,) = (folder for folder in self._folders if f"--plasma_directory={folder}" in arguments)
        with Path(folder, "full").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _run(*command: str) -> None:
    """Run a command of the system.

    Raises:
        OSError: it failed, or there is none of this name.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
