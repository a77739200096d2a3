"""From what a row calls its image to where that is: a path, an address, or why it is not followed.

Whoever wrote the rows is not trusted with what the job may read in stores: rows may point into the input's own folder
there, and into what the operator opened with `allow_stores`. Other addresses are judged when they are fetched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin

from pipelines.location import Location
from pipelines.stores import in_store, split
from skipvision.fetch import is_address

NOWHERE = Location()
"""Of a row that names no image."""

_CLOSED = Location(
    refused="the row names an image in a store, outside of the input's own folder; allow_stores opens more"
)
_DISK = Location(refused="the row names a file on a disk, and its table is not on one; give an address")


def resolve(reference: str | None, table: str, open_stores: Sequence[str]) -> Location:
    """Where a row's image is.

    Args:
        table: the file that names it: an absolute path or an address.
        open_stores: addresses of folders in stores that rows may point into.
    """
    if reference is None or not reference.strip():
        return NOWHERE
    if in_store(reference):
        return _judged(reference, open_stores)
    if is_address(reference):
        return Location(reference)
    if in_store(table):
        return _DISK if reference.startswith("/") else _judged(f"{folder_of(table)}/{reference}", open_stores)
    if is_address(table):
        return Location(urljoin(table, reference))
    return Location(str(Path(table).parent / reference))


def folder_of(address: str) -> str:
    """The folder of an object, without a slash at its end; of one at the top, its bucket."""
    root, key = split(address)
    return f"{root}/{key.rpartition('/')[0]}".rstrip("/")


def common_folder(paths: Sequence[str]) -> tuple[str, ...]:
    """The folder that holds all of these objects; nothing if they are not all in one store."""
    if not paths or not all(map(in_store, paths)) or len({split(path)[0] for path in paths}) > 1:
        return ()
    root, _ = split(paths[0])
    keys = [f"/{split(folder_of(path))[1]}" for path in paths]
    return (f"{root}{os.path.commonpath(keys)}".rstrip("/"),)


def _judged(address: str, open_stores: Sequence[str]) -> Location:
    """An address without `.` and `..`, if it leads into one of the open folders."""
    try:
        root, key = split(address)
    except ValueError:
        return _CLOSED
    segments: list[str] = []
    for segment in key.split("/"):
        if segment == ".." and not segments:
            return _CLOSED
        if segment == "..":
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    plain = "/".join([root, *segments])
    return Location(plain) if any(plain.startswith(f"{folder.rstrip('/')}/") for folder in open_stores) else _CLOSED
