"""Linux namespaces for what this process starts: mounts, or a network, that nobody else on the machine sees."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

_LIBC = ctypes.CDLL(None, use_errno=True)
_FLAGS = {"mnt": 0x00020000, "net": 0x40000000}  # of <sched.h>; Python has the calls from 3.12 on
_CLONE_FS = 0x00000200

Kind = Literal["mnt", "net"]


@contextmanager
def new_namespace(kind: Kind) -> Iterator[None]:
    """This thread, and processes that it starts, are in a namespace of their own inside the `with` block.

    Raises:
        PermissionError: this process may not make one.
    """
    with _returning(kind):
        _call("unshare", _FLAGS[kind])
        yield


@contextmanager
def namespace(kind: Kind, path: Path) -> Iterator[None]:
    """This thread, and processes that it starts, are in the namespace at `path` inside the `with` block."""
    with _returning(kind), path.open() as theirs:
        _call("setns", theirs.fileno(), _FLAGS[kind])
        yield


def namespace_of(process: int | Literal["thread-self"], kind: Kind) -> str | None:
    """What tells the namespace of a process from others; None if there is no such process, or it is not ours."""
    try:
        return os.readlink(f"/proc/{process}/ns/{kind}")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


@contextmanager
def _returning(kind: Kind) -> Iterator[None]:
    with Path(f"/proc/thread-self/ns/{kind}").open() as ours:
        try:
            yield
        finally:
            _call("unshare", _CLONE_FS)  # threads that were started meanwhile share the root that has to be changed
            _call("setns", ours.fileno(), _FLAGS[kind])


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
