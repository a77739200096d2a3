"""Which files a job's input is: a folder, a glob or one file, sorted into images or tables, the rest listed.

They stand on a disk or in an object store; one file may be at a web address. Only names, sizes and times are looked at
here; `tables` reads what is inside.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import obstore

from pipelines.delta_tables import delta_source
from pipelines.huggingface import FILE_NAME, metadata_files, saved_files
from pipelines.lakes import DELTA_LOG, find_lake
from pipelines.references import folder_of
from pipelines.source_files import SUFFIXES, Kind, Source, SourceFile
from pipelines.store_listing import find_objects, is_glob, literal_folder
from pipelines.stores import Stores, in_store
from skipvision.errors import ConfigError
from skipvision.fetch import is_address


def find_source(pattern: str) -> Source:
    """List what `pattern` stands for.

    Args:
        pattern: a folder, which is searched through all its folders, a file, or a glob (`**` for any folders), on a
            disk or in a store; the web address of one file; or a Lance, Delta or Iceberg table.

    Raises:
        ConfigError: there is nothing, or several kinds of tables, or a kind that is not read, or a store that cannot
            be listed.
    """
    if lake := find_lake(pattern):
        return lake
    if in_store(pattern):
        return _from_store(pattern)
    if is_address(pattern):
        return _from_web(pattern)
    if os.path.isdir(pattern):
        return _from_folder(Path(pattern))
    if os.path.isfile(pattern):
        return _one_kind(pattern, [pattern])
    if glob.has_magic(pattern):
        return _one_kind(pattern, sorted(name for name in glob.iglob(pattern, recursive=True) if os.path.isfile(name)))
    raise ConfigError(f"input {pattern} does not exist")


def is_gone(pattern: str) -> bool:
    """Whether there is nothing at all where the input was."""
    if in_store(pattern):
        return not find_objects(pattern)
    if is_address(pattern):
        return True
    return not os.path.lexists(pattern) and not any(True for _ in glob.iglob(pattern, recursive=True))


def _from_folder(folder: Path) -> Source:
    sorted_out = _sorted_out(sorted(_names_under(folder)), str(folder), lambda name: (folder / name).read_bytes())
    files = _stats(folder / name for name in sorted_out.names)
    return Source(files=files, **asdict(sorted_out))


def _one_kind(pattern: str, names: list[str]) -> Source:
    """Files that were named, all of one kind."""
    kind = _named_kind(names, pattern)
    return Source(kind=kind, files=_stats(map(Path, names)), names=tuple(names), others=())


def _from_store(pattern: str) -> Source:
    found = {address: _listed(address, meta) for address, meta in find_objects(pattern).items()}
    if set(found) == {pattern} or is_glob(pattern):
        root = folder_of(pattern) if pattern in found else literal_folder(pattern)
        return Source(
            kind=_named_kind([*found], pattern), files=tuple(found.values()), names=tuple(found), others=(), root=root
        )
    folder = f"{pattern.rstrip('/')}/"
    names = [name.removeprefix(folder) for name in found]
    if any(name.startswith(DELTA_LOG) for name in names):
        return delta_source(pattern.rstrip("/"))
    sorted_out = _sorted_out(names, pattern.rstrip("/"), lambda name: Stores().open(folder + name).read())
    files = tuple(found[folder + name] for name in sorted_out.names)
    return Source(files=files, root=folder, **asdict(sorted_out))


def _listed(address: str, meta: obstore.ObjectMeta) -> SourceFile:
    tag = meta["e_tag"]
    changed_ns = 0 if tag else round(meta["last_modified"].timestamp() * 1e9)
    return SourceFile(address, meta["size"], changed_ns, tag)


def _from_web(address: str) -> Source:
    """One file, of a kind that its address says; whether it is there shows when it is fetched."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"input {address} is an address of no kind that is read; use s3, gs, az, https or http")
    kind = _named_kind([urlsplit(address).path], address)
    return Source(kind=kind, files=(SourceFile(address, 0, 0),), names=(address,), others=())


@dataclass(frozen=True, kw_only=True, slots=True)
class _SortedOut:
    """What of a folder is read; the same as in `Source`."""

    kind: Kind
    names: tuple[str, ...]
    others: tuple[str, ...]
    image_column: str | None = None


def _sorted_out(names: Sequence[str], folder: str, read: Callable[[str], bytes]) -> _SortedOut:
    """Images if there are any, or the table beside them that says more of them; else the one kind of tables."""
    if saved := saved_files(names, read, folder):
        return _SortedOut(kind="arrow", names=tuple(saved), others=_all_but(names, saved))
    kinds = {kind for name in names if (kind := _kind_of(name)) is not None}
    if not kinds:
        _refuse_packed(names, folder)
        found = f"{len(names)} other files" if names else "no file at all"
        raise ConfigError(f"input {folder} is empty: no image and no table in it, {found}")
    chosen = [name for name in names if _kind_of(name) == "images"]
    if chosen and (tables := metadata_files(names)):
        kind = _only({kind for name in tables if (kind := _kind_of(name))}, folder)
        others = _all_but(names, [*tables, *chosen])
        return _SortedOut(kind=kind, names=tuple(tables), others=others, image_column=FILE_NAME)
    kind = "images" if chosen else _only(kinds, folder)
    chosen = chosen or [name for name in names if _kind_of(name) == kind]
    return _SortedOut(kind=kind, names=tuple(chosen), others=_all_but(names, chosen))


def _all_but(names: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    without = set(chosen)
    return tuple(_readable(name) for name in names if name not in without)


def _named_kind(names: Sequence[str], pattern: str) -> Kind:
    """The one kind of files that were named."""
    if not names:
        raise ConfigError(f"input {pattern} is empty: it matches no file")
    unknown = [name for name in names if _kind_of(name) is None]
    _refuse_packed(unknown, pattern)
    if unknown:
        known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in sorted(suffixes))
        raise ConfigError(f"input {unknown[0]} is of no kind that is read here ({known})")
    return _only({kind for name in names if (kind := _kind_of(name))}, pattern)


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


def _refuse_packed(names: Sequence[str], where: str) -> None:
    packed = [name for name in names if re.search(r"\.(tgz|tar\.\w+)$", name, re.IGNORECASE)]
    if packed:
        raise ConfigError(
            f"input {where} holds a packed tar, {packed[0]}, in which no image can be found by its place; "
            "unpack it to a plain .tar first, for example with gunzip"
        )


def _only(kinds: set[Kind], where: str) -> Kind:
    if len(kinds) > 1:
        raise ConfigError(f"input {where} holds several kinds ({', '.join(sorted(kinds))}); name one of them")
    return next(iter(kinds))


def _stats(paths: Iterable[Path]) -> tuple[SourceFile, ...]:
    return tuple(_stat(path.absolute()) for path in paths)


def _stat(path: Path) -> SourceFile:
    # A link that leads nowhere is listed as it is: an image's row will say that there is no such file.
    status = path.stat() if path.exists() else path.lstat()
    return SourceFile(str(path), status.st_size, status.st_mtime_ns)


def _readable(name: str) -> str:
    """A file name as text; bytes of no encoding become question marks."""
    return name.encode("utf-8", "replace").decode()
