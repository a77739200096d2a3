"""What an address stands for in an object store: one object, all below a folder, or those that a pattern matches."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from fnmatch import fnmatchcase

import obstore

from pipelines.stores import FAILURES, Stores, first_line, split
from skipvision.errors import ConfigError


def find_objects(address: str) -> dict[str, obstore.ObjectMeta]:
    """The objects that `address` stands for, by their own addresses, sorted.

    Raises:
        ConfigError: the store cannot be listed.
    """
    stores = Stores()
    try:
        root, key = split(address)
        if one := stores.head(address):
            return {address: one}
        found = {f"{root}/{meta['path']}": meta for meta in stores.objects(literal_folder(address))}
    except (*FAILURES, ValueError) as error:
        raise ConfigError(f"input {address} cannot be listed: {first_line(error)}") from error
    if is_glob(address):
        pattern = key.split("/")
        found = {name: meta for name, meta in found.items() if _matches(pattern, split(name)[1].split("/"))}
    return dict(sorted(found.items()))


def is_glob(address: str) -> bool:
    return glob.has_magic(split(address)[1])


def literal_folder(address: str) -> str:
    """The folders before the first that is a pattern; of an address without one, all of it."""
    root, key = split(address)
    folders = key.rstrip("/").split("/")
    literal = next((at for at, folder in enumerate(folders) if glob.has_magic(folder)), len(folders))
    return "/".join([root, *folders[:literal]]).rstrip("/")


def _matches(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """As `glob` has it on a disk: `**` stands for any folders, and what begins with a dot is not meant."""
    if not pattern or not names:
        return not pattern and not names
    asked, name = pattern[0], names[0]
    if name.startswith(".") and not asked.startswith("."):
        return False
    if asked == "**":
        return len(pattern) == 1 or _matches(pattern[1:], names) or _matches(pattern, names[1:])
    return fnmatchcase(name, asked) and _matches(pattern[1:], names[1:])
