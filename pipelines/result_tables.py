"""A job's rows as a Lance dataset or a Delta table, by those projects' own writers, streamed.

Both keep a table as many files and say by one small file, written last, which of them count: what stood at the output
counts until the new version is complete, and what a failed attempt left is never read. So a table that is there gets
a new version rather than a new folder, which no rename could put in its place in one step, and which an object store
could not rename at all. Its older versions stay until it is cleaned. A table that is not there yet is made beside its
place and then renamed; in an object store its first version makes it a table. A folder that holds anything else is
refused, and never deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import obstore
import pyarrow as pa

from pipelines.result_places import is_stored, open_store, told, unfinished
from pipelines.stores import first_line
from pipelines.table_types import as_stored, delta_schema, lance_schema
from skipvision.errors import ConfigError, StorageError

ROWS_HELD = 4096
"""Rows of a Delta file that are held in memory until they are written; its writer's own choice is a million."""


def write_table(to: str, output: str, schema: pa.Schema, rows: Iterable[pa.RecordBatch]) -> None:
    """Write all rows as one version of a table.

    Args:
        to: one of `TABLE_FORMATS`.
        output: a local path, or an object store's address, whose credentials come from the environment.

    Raises:
        ConfigError: the format's package is not installed, it cannot hold these columns, or something else than such
            a table stands at `output`.
        StorageError: the disk or the store failed.
    """
    kind = TABLE_FORMATS[to]
    write = _installed(kind)
    stored = _Rows(rows, kind.stored_as(schema))
    exists = _stands_there(output, kind)
    with _place(output, exists) as place:
        try:
            write(place, pa.RecordBatchReader.from_batches(stored.schema, stored.batches()), exists)
        except Exception as error:  # the one boundary to the writers, which raise any kind of exception
            says = first_line(error).partition(", /")[0]  # Lance ends with the place in its own sources
            raise stored.failure or StorageError(f"output {output} cannot be written: {says}") from error


@dataclass(slots=True)
class _Rows:
    """Rows for a writer that pulls them."""

    rows: Iterable[pa.RecordBatch]
    schema: pa.Schema
    failure: Exception | None = None
    """What failed on this side, as it was: on its way through a foreign writer it turns into a line of text."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self.rows:
                yield as_stored(batch, self.schema)
        except Exception as error:
            self.failure = error
            raise


Write = Callable[[str, pa.RecordBatchReader, bool], None]
"""Writes rows to an address where such a table stands already, or none."""


def _lance() -> Write:
    import lance

    def write(place: str, rows: pa.RecordBatchReader, exists: bool) -> None:
        lance.write_dataset(rows, place, mode="overwrite" if exists else "create")

    return write


def _delta() -> Write:
    import deltalake

    def write(place: str, rows: pa.RecordBatchReader, exists: bool) -> None:
        parts = deltalake.WriterProperties(max_row_group_size=ROWS_HELD)
        if exists:
            deltalake.write_deltalake(place, rows, mode="overwrite", schema_mode="overwrite", writer_properties=parts)
        else:
            deltalake.write_deltalake(place, rows, mode="error", writer_properties=parts)

    return write


class TableFormat(NamedTuple):
    """One kind of table."""

    name: str
    writer: Callable[[], Write]
    """ImportError: its package is not installed."""
    stored_as: Callable[[pa.Schema], pa.Schema]
    marker: str
    """The folder that makes a folder such a table."""


TABLE_FORMATS = {
    "lance": TableFormat("Lance dataset", _lance, lance_schema, "_versions"),
    "delta": TableFormat("Delta table", _delta, delta_schema, "_delta_log"),
}


def _installed(kind: TableFormat) -> Write:
    extra = next(name for name, each in TABLE_FORMATS.items() if each is kind)
    try:
        return kind.writer()
    except ImportError as error:
        raise ConfigError(f"what writes a {kind.name} is not installed: pip install 'skipvision[{extra}]'") from error


def _stands_there(output: str, kind: TableFormat) -> bool:
    """Whether such a table is there; ConfigError if anything else is."""
    names = _stored_names(output, kind.marker) if is_stored(output) else _local_names(Path(output))
    if names and kind.marker not in names:
        raise ConfigError(f"what stands at output {output} is no {kind.name} and is left alone; choose another place")
    return bool(names)


def _local_names(path: Path) -> set[str]:
    if path.is_dir():
        return {inner.name for inner in path.iterdir()}
    return {"a file"} if path.exists() else set()


def _stored_names(address: str, marker: str) -> set[str]:
    """The first name below an address, and the marker if it is there."""
    store = open_store(address)
    with told(address):
        pages = [next(iter(obstore.list(store, prefix=prefix, chunk_size=1)), []) for prefix in (marker, None)]
    return {meta["path"].partition("/")[0] for page in pages for meta in page}


@contextmanager
def _place(output: str, exists: bool) -> Iterator[str]:
    """Where to write: at the output if a commit decides there, else in a folder that is renamed once complete."""
    if exists or is_stored(output):
        yield output
        return
    made = unfinished(Path(output))
    try:
        yield str(made)
        with told(output):
            made.rename(output)  # refused if something has come to stand there
    finally:
        shutil.rmtree(made, ignore_errors=True)
