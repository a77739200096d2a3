"""Pods on this machine: a container's command with a network, processes and files of its own.

Each is a few Linux namespaces. Its files are this machine's, which it may change for itself; what it changed is gone
with it. Ending its first process ends them all at once, as when a container ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from k8s.rendering import ROOT

_NAMESPACES = ("--net", "--pid", "--mount", "--uts")

# Arguments: an empty folder, then `source:target` of each volume, then `--` and the command. It says when its
# namespaces are there, and waits to be told its address and its network's.
_SETUP = """
set -eu
here=$1; shift
mount -t tmpfs tmpfs "$here"
mkdir "$here/changes" "$here/work" "$here/all"
mount -t overlay overlay -o "lowerdir=/,upperdir=$here/changes,workdir=$here/work" "$here/all"
mount -t proc proc "$here/all/proc"
mount --rbind /sys "$here/all/sys"
mount --rbind /dev "$here/all/dev"
for each in tmp dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$here/all/$each"; done
rm -f "$here/all/etc/resolv.conf" # nobody is asked for a name, or waited for
until test "$1" = --; do
    target="$here/all${1#*:}"
    if test -d "${1%%:*}"; then mkdir -p "$target"; fi
    mount --rbind "${1%%:*}" "$target"
    shift
done
shift
echo made
read -r name address gateway
hostname "$name"
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
exec chroot "$here/all" "$@" >&2 </dev/null
"""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One that runs."""

    address: str
    cable: str
    log: Path
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """All of its processes at once; the kernel tells whoever is connected to them, as when a container ends."""
        for child in psutil.Process(self.process.pid).children() if self.process.poll() is None else ():
            child.kill()  # the first process of its namespace: it takes the others along, and `unshare` waits for it
        self.process.wait()
        time.sleep(1)  # until what the kernel tells has gone over the cable
        # The cable goes with the network at its other end, but some time later, and its name is wanted again.
        subprocess.run(["ip", "link", "del", self.cable], capture_output=True, check=False)


class Pods:
    """A network of Pods, which this process reaches too, and the names that they know each other by.

    Args:
        folder: for their logs, and for what they share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = f"svk{os.getpid()}"
        self._subnet = f"198.19.{os.getpid() % 256}"  # of the range for benchmarks, which nobody routes
        self._names = {"localhost": "127.0.0.1"}
        self._started: list[Pod] = []
        self._hosts = folder / "hosts"
        self._hosts.touch()

    @contextmanager
    def network(self) -> Iterator[None]:
        """After the `with` block none of them is left."""
        if why_not := _why_not():
            pytest.skip(f"no Pods can be made here: {why_not}")
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{self._subnet}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            yield
        finally:
            for pod in self._started:
                pod.kill()
            _ip("link", "del", self._bridge)

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], volumes: Mapping[str, Path],
        service: str | None = None, user: int | None = None,
    ) -> Pod:  # fmt: skip
        """Start a Pod, with an address that none had before it.

        Args:
            volumes: path in the Pod -> folder or file.
            service: the name by which others find it from now on.
            user: whose rights its processes have, and no others. None: this process's.
        """
        number = len(self._started) + 2
        address, log = f"{self._subnet}.{number}", self._folder / f"{name}-{number}.log"
        root = self._folder / f"{name}-{number}"
        root.mkdir()
        if user is not None:
            command = [
                "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
                "--inh-caps=-all", "--bounding-set=-all", *command,
            ]  # fmt: skip
        mounts = [f"{path}:{target}" for target, path in (self._everywhere() | dict(volumes)).items()]
        with log.open("w") as out:
            process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "--fork", "--kill-child", "sh", "-c", _SETUP, "sh",
                 str(root), *mounts, "--", *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, env=dict(environment), cwd="/",
            )  # fmt: skip
        cable = f"{self._bridge}-{number}"
        pod = Pod(address=address, cable=cable, log=log, process=process)
        self._started.append(pod)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n", log.read_text()
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        _ip("link", "set", cable, "master", self._bridge, "up")
        self._names |= {name: address for name in (root.name, service) if name is not None}
        # In place, for it is the file itself that all of them have.
        self._hosts.write_text("".join(f"{where}\t{who}\n" for who, where in self._names.items()))
        process.stdin.write(f"{root.name} {address} {self._subnet}.1\n")
        process.stdin.close()
        return pod

    def _everywhere(self) -> dict[str, Path]:
        """What every Pod has beside the files of this machine's first file system."""
        others = {str(place): place for place in (ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())}
        first = Path("/").stat().st_dev
        apart = {at: p for at, p in others.items() if p.stat().st_dev != first or p.is_relative_to("/tmp")}
        return {**apart, "/etc/hosts": self._hosts}


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True, text=True)


def _why_not() -> str | None:
    """Why there can be no Pods here. None: there can."""
    for program in ("unshare", "ip", "setpriv", "redis-server"):
        if shutil.which(program) is None:
            return f"there is no {program}: install Debian's packages util-linux, iproute2 and redis-server"
    tried = subprocess.run(["unshare", *_NAMESPACES, "--fork", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None
