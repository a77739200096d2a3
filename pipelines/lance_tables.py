"""Lance tables, at one version, through Lance's own library, which finds a row by its number."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.source_files import Source, SourceFile, TableVersion
from pipelines.stores import first_line, in_store
from pipelines.table_files import library, store_root
from skipvision.errors import ConfigError
from skipvision.foreign_types import refuse_foreign_columns

_LANCE = re.compile(r"(.*\.lance)@(\d+)", re.DOTALL)


def is_lance(path: str) -> bool:
    """Whether a source file is a version of a Lance table."""
    return _LANCE.fullmatch(path) is not None


def open_lance(path: str) -> Any:
    """A Lance table at the version that stands behind its path.

    Raises:
        ValueError: there is no such version.
    """
    parts = _LANCE.fullmatch(path)
    assert parts is not None, f"{path} names no version"
    return library("lance", "lance", path).dataset(parts[1], version=int(parts[2]))


def read_lance(path: str, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of all rows in order, at most so many rows at a time."""
    yield from open_lance(path).scanner(columns=columns, batch_size=rows, scan_in_order=True).to_batches()


def lance_rows(path: str, column: str, rows: list[int]) -> Iterator[tuple[int, Any]]:
    """Some rows of one column, by their numbers."""
    values = open_lance(path).take(rows, columns=[column]).column(0)
    yield from zip(rows, values.to_pylist(), strict=True)


def lance_source(place: str) -> Source:
    lance = library("lance", "lance", place)
    place = place if in_store(place) else os.path.abspath(place)
    try:
        table = lance.dataset(place)
    except (ValueError, OSError) as error:
        raise ConfigError(f"input {place} cannot be read as a Lance table: {first_line(error)}") from error
    refuse_foreign_columns(table.schema, place)
    blobs = [field.name for field in table.schema if (field.metadata or {}).get(b"lance-encoding:blob")]
    if blobs:
        raise ConfigError(f"input {place} holds blobs in column {blobs[0]!r}, which are not read; write it as binary")
    version = TableVersion(name=f"version {table.version}", schema=table.schema)
    file = SourceFile(f"{place}@{table.version}", 0, 0, version.name)
    return Source(kind="lance", files=(file,), names=(place,), others=(), root=store_root(place), version=version)
