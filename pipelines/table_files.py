"""What Delta and Iceberg tables have in common: Parquet files that the table lists itself, in its own folder."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from pipelines.source_files import Source, SourceFile, TableVersion
from pipelines.stores import in_store
from skipvision.errors import ConfigError


def library(module: str, extra: str, place: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"input {place} needs a library that is not installed here: pip install 'skipvision[{extra}]'"
        ) from error


def parquet_source(place: str, files: list[str], names: list[str], sizes: list[int], version: TableVersion) -> Source:
    if not files:
        raise ConfigError(f"input {place} is empty: its {version.name} has no files")
    listed = tuple(SourceFile(file, size, 0, version.name) for file, size in zip(files, sizes, strict=True))
    return Source(kind="parquet", files=listed, names=tuple(names), others=(), root=store_root(place), version=version)


def inside(path: str, folder: str) -> str:
    """A file of a table, which must stand in the table's own folder: whoever wrote the table may read no other."""
    if ".." in path.split("/") or not path.startswith(f"{folder.rstrip('/')}/"):
        raise ConfigError(f"the table in {folder} lists a file outside of it, {path}; copy it into one folder")
    return path


def plain_path(address: str) -> str:
    """A local file's URL as its path."""
    return urlsplit(address).path if address.startswith("file:") else address


def store_root(place: str) -> str | None:
    return place if in_store(place) else None
