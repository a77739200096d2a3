"""The files inside a tar, by where they stand in it. Nothing is unpacked to a disk, nothing is loaded.

Whoever made the tar is not trusted: what is no plain file or folder, leads out of the tar, or claims what is not there
is refused, and no header makes more be read than a member of text may have.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skipvision.errors import ConfigError

MAX_TEXT_BYTES = 16 << 20
"""Of one text, one JSON object, or one header."""

_MAX_PADDING_BYTES = 4 << 20
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Member:
    """One plain file in a tar."""

    name: str
    start: int
    """Offset of its first byte in the tar."""
    size: int


def members(file: Any, path: str) -> Iterator[Member]:
    """The plain files of a tar, in order.

    Args:
        file: open to be read and sought in.
        path: what messages call it.

    Raises:
        ConfigError: it is no tar, is cut short, or holds what no data set does.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    bounded: Any = _Bounded(file)
    try:
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            while (found := tar.next()) is not None:
                vars(tar)["members"].clear()  # it would remember all of them
                _check(found, size)
                if not found.isdir():
                    yield Member(found.name, found.offset_data, found.size)
            _check_end(file, tar.offset, size)
    except (tarfile.TarError, _RefusedError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ConfigError(f"tar {path} cannot be read: {error}") from error


def read_member(file: Any, member: Member, max_bytes: int) -> bytes:
    """The first bytes of a member; the file stands elsewhere afterwards."""
    file.seek(member.start)
    return bytes(file.read(min(member.size, max_bytes)))


class _RefusedError(Exception):
    """What is wrong with a tar."""


class _Bounded:
    """A file of which no call reads much; headers say how much they want."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_TEXT_BYTES:
            raise _RefusedError("a header claims to be larger than any should be")
        return bytes(self._file.read(size))


def _check(member: tarfile.TarInfo, tar_bytes: int) -> None:
    name = member.name.encode("utf-8", "replace").decode()
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise _RefusedError(f"{name!r} in it is no plain file; pack links, devices and sparse files as what they hold")
    if name.startswith("/") or ".." in name.split("/"):
        raise _RefusedError(f"the name {name!r} in it leads out of it")
    if name != member.name or "\0" in name:
        raise _RefusedError(f"the name {name!r} in it is no valid text")
    if member.size < 0 or member.offset_data + member.size > tar_bytes:
        raise _RefusedError(f"it is cut short in {name!r}, or claims what is not there")


def _check_end(file: Any, offset: int, size: int) -> None:
    """A damaged header looks like the end to the library, and what stands behind it would be lost in silence."""
    file.seek(offset)
    rest = bytes(file.read(_MAX_PADDING_BYTES))
    if len(rest) < _BLOCK_BYTES:
        raise _RefusedError("its end is missing; it was cut short")
    if offset + len(rest) < size or rest.strip(b"\0"):
        raise _RefusedError(f"it is damaged at byte {offset}, or more tars follow in the same file")
