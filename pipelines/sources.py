"""Which files a job's input is: a folder, a glob or one file, sorted into images or tables, the rest listed.

Only names, sizes and times are looked at here; `tables` reads what is inside.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skipvision.errors import ConfigError

Kind = Literal["images", "parquet", "jsonl", "csv"]

SUFFIXES: dict[Kind, frozenset[str]] = {
    # Formats that are not decoded are images too: their rows end as an error that says so, instead of not at all.
    "images": frozenset(
        {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
        | {".avif", ".heic", ".heif", ".jxl", ".jp2"}
    ),
    "parquet": frozenset({".parquet", ".pq"}),
    "jsonl": frozenset({".jsonl", ".ndjson"}),
    "csv": frozenset({".csv"}),
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as it stood when it was listed."""

    path: str
    """Absolute."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The files of one input, all of one kind, in a fixed order."""

    kind: Kind
    files: tuple[SourceFile, ...]
    names: tuple[str, ...]
    """Each file as the user would say it: relative to the folder or the pattern."""
    others: tuple[str, ...]
    """Files in the folder that are of another kind; they are not read."""


def find_source(pattern: str) -> Source:
    """List what `pattern` stands for.

    Args:
        pattern: a folder, which is searched through all its folders, a file, or a glob (`**` for any folders).

    Raises:
        ConfigError: there is nothing, or several kinds of tables, or a kind that is not read.
    """
    if "://" in pattern:
        raise ConfigError(f"input {pattern} is an address; give a path on a disk that all machines of the job can read")
    if os.path.isdir(pattern):
        return _from_folder(Path(pattern))
    if os.path.isfile(pattern):
        return _one_kind(pattern, [pattern])
    if glob.has_magic(pattern):
        return _one_kind(pattern, sorted(name for name in glob.iglob(pattern, recursive=True) if os.path.isfile(name)))
    raise ConfigError(f"input {pattern} does not exist")


def is_gone(pattern: str) -> bool:
    """Whether there is nothing at all where the input was."""
    return not os.path.lexists(pattern) and not any(True for _ in glob.iglob(pattern, recursive=True))


def _from_folder(folder: Path) -> Source:
    """Images if there are any, else tables of the one kind that is there."""
    names = sorted(_names_under(folder))
    kinds = {kind for name in names if (kind := _kind_of(name)) is not None}
    if not kinds:
        found = f"{len(names)} other files" if names else "no file at all"
        raise ConfigError(f"input {folder} is empty: no image and no table in it, {found}")
    kind = "images" if "images" in kinds else _only(kinds, str(folder))
    chosen = [name for name in names if _kind_of(name) == kind]
    others = tuple(_readable(name) for name in names if _kind_of(name) != kind)
    return _source(kind, chosen, [folder / name for name in chosen], others)


def _one_kind(pattern: str, names: list[str]) -> Source:
    """Files that were named, all of one kind."""
    if not names:
        raise ConfigError(f"input {pattern} is empty: it matches no file")
    unknown = [name for name in names if _kind_of(name) is None]
    if unknown:
        known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in sorted(suffixes))
        raise ConfigError(f"input {unknown[0]} is of no kind that is read here ({known})")
    return _source(_only({kind for name in names if (kind := _kind_of(name))}, pattern), names, map(Path, names), ())


def _source(kind: Kind, names: list[str], paths: Iterable[Path], others: tuple[str, ...]) -> Source:
    files = tuple(_stat(path.absolute()) for path in paths)
    return Source(kind=kind, files=files, names=tuple(names), others=others)


def _names_under(folder: Path) -> Iterator[str]:
    """Every file below `folder`, relative to it, with forward slashes."""
    for place, _, files in os.walk(folder):
        for file in files:
            yield Path(place, file).relative_to(folder).as_posix()


def _kind_of(name: str) -> Kind | None:
    """The kind a file's name says; None for hidden files, other kinds, and names that are no valid text."""
    if Path(name).name.startswith(".") or _readable(name) != name:
        return None
    suffix = Path(name).suffix.lower()
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def _only(kinds: set[Kind], where: str) -> Kind:
    if len(kinds) > 1:
        raise ConfigError(f"input {where} holds several kinds ({', '.join(sorted(kinds))}); name one of them")
    return next(iter(kinds))


def _stat(path: Path) -> SourceFile:
    # A link that leads nowhere is listed as it is: an image's row will say that there is no such file.
    status = path.stat() if path.exists() else path.lstat()
    return SourceFile(str(path), status.st_size, status.st_mtime_ns)


def _readable(name: str) -> str:
    """A file name as text; bytes of no encoding become question marks."""
    return name.encode("utf-8", "replace").decode()
