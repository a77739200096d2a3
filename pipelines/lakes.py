"""Lance, Delta and Iceberg tables, through their projects' own libraries, at the version that is the newest now.

A job goes on with the version that it began with. Delta and Iceberg say which Parquet files make it up and which rows
of them are deleted; those are read as other Parquet is. Lance reads its rows itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.source_files import Source, SourceFile, TableVersion
from pipelines.stores import Stores, first_line, in_store
from skipvision.errors import ConfigError

DELTA_LOG = "_delta_log/"
CATALOG = "iceberg://"
_METADATA = ".metadata.json"
_LANCE = re.compile(r"(.*\.lance)@(\d+)", re.DOTALL)


def find_lake(pattern: str) -> Source | None:
    """The table that stands at a path or an address; None if none is seen there.

    Raises:
        ConfigError: it cannot be read, or what reads it is not installed.
    """
    place = pattern.rstrip("/")
    if place.endswith(".lance") and (in_store(place) or os.path.isdir(place)):
        return _lance_source(place)
    if os.path.isdir(os.path.join(place, DELTA_LOG)):
        return delta_source(os.path.abspath(place))
    if place.startswith(CATALOG) or (place.endswith(_METADATA) and os.path.isfile(place)):
        return _iceberg_source(place)
    if os.path.isdir(place) and any(Path(place, "metadata").glob(f"*{_METADATA}")):
        return _iceberg_source(_newest_metadata(Path(place, "metadata")))
    return None


def is_lance(path: str) -> bool:
    """Whether a source file is a version of a Lance table."""
    return _LANCE.fullmatch(path) is not None


def is_still_there(path: str) -> bool:
    """Whether a file that a table listed, or a version of a Lance table, can still be read."""
    if is_lance(path):
        try:
            open_lance(path)
        except ValueError:
            return False
        return True
    return Stores().head(path) is not None if in_store(path) else os.path.exists(path)


def open_lance(path: str) -> Any:
    """A Lance table at the version that stands behind its path.

    Raises:
        ValueError: there is no such version.
    """
    parts = _LANCE.fullmatch(path)
    assert parts is not None, f"{path} names no version"
    return _library("lance", "lance", path).dataset(parts[1], version=int(parts[2]))


def read_lance(path: str, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of all rows in order, at most so many rows at a time."""
    yield from open_lance(path).scanner(columns=columns, batch_size=rows, scan_in_order=True).to_batches()


def lance_rows(path: str, column: str, rows: list[int]) -> Iterator[tuple[int, Any]]:
    """Some rows of one column, by their numbers."""
    values = open_lance(path).take(rows, columns=[column]).column(0)
    yield from zip(rows, values.to_pylist(), strict=True)


def _lance_source(place: str) -> Source:
    lance = _library("lance", "lance", place)
    place = place if in_store(place) else os.path.abspath(place)
    try:
        table = lance.dataset(place)
    except (ValueError, OSError) as error:
        raise ConfigError(f"input {place} cannot be read as a Lance table: {first_line(error)}") from error
    blobs = [field.name for field in table.schema if (field.metadata or {}).get(b"lance-encoding:blob")]
    if blobs:
        raise ConfigError(f"input {place} holds blobs in column {blobs[0]!r}, which are not read; write it as binary")
    version = TableVersion(name=f"version {table.version}", schema=table.schema)
    file = SourceFile(f"{place}@{table.version}", 0, 0, version.name)
    return Source(kind="lance", files=(file,), names=(place,), others=(), root=_root(place), version=version)


def delta_source(place: str) -> Source:
    """The Parquet files of a Delta table.

    Raises:
        ConfigError: it cannot be read, or what reads it is not installed.
    """
    deltalake = _library("deltalake", "delta", place)
    try:
        table = deltalake.DeltaTable(place)
        added = pa.table(table.get_add_actions(flatten=True)).sort_by("path")
        kept = pa.table(table.deletion_vectors()).to_pydict()
        schema = pa.schema(table.schema().to_arrow())
    except (deltalake.exceptions.DeltaError, OSError, ValueError) as error:
        raise ConfigError(f"input {place} cannot be read as a Delta table: {first_line(error)}") from error
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise ConfigError(f"input {place} is a Delta table whose columns are mapped to other names; write it without")
    names = [unquote(path) for path in added.column("path").to_pylist()]
    files = [_inside(f"{place}/{name}", place) for name in names]
    constants = _partitions(added)
    version = TableVersion(
        name=f"version {table.version()}",
        schema=schema,
        constants=dict(zip(files, constants, strict=True)),
        kept={
            _inside(_plain(unquote(file)), place): pa.array(mask, pa.bool_())
            for file, mask in zip(kept["filepath"], kept["selection_vector"], strict=True)
        },
    )
    return _parquet_source(place, files, names, added.column("size_bytes").to_pylist(), version)


def _partitions(added: pa.Table) -> list[dict[str, pa.Scalar]]:
    """Of each added file, the columns that it was put apart by."""
    names = [name for name in added.column_names if name.startswith("partition.")]
    return [{name.removeprefix("partition."): added.column(name)[row] for name in names} for row in range(len(added))]


def _iceberg_source(place: str) -> Source:
    """The Parquet files of an Iceberg table: of a catalog's, or of the one that a metadata file describes."""
    _library("pyiceberg", "iceberg", place)
    from pyiceberg.catalog import load_catalog
    from pyiceberg.io.pyarrow import schema_to_pyarrow
    from pyiceberg.table import StaticTable

    try:
        if place.startswith(CATALOG):
            catalog, _, name = place.removeprefix(CATALOG).partition("/")
            table: Any = load_catalog(catalog).load_table(name)
        else:
            table = StaticTable.from_metadata(os.path.abspath(place))
        tasks = sorted(table.scan().plan_files(), key=lambda task: str(task.file.file_path))
        schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    except Exception as error:  # of a damaged table the library raises nearly anything
        raise ConfigError(f"input {place} cannot be read as an Iceberg table: {first_line(error)}") from error
    _refuse_renamed(place, table.schemas().values())
    root = _plain(table.location())
    files = [_inside(_plain(task.file.file_path), root) for task in tasks]
    snapshot = table.current_snapshot()
    version = TableVersion(
        name=f"snapshot {snapshot.snapshot_id if snapshot else 'none'}",
        schema=schema,
        kept={file: mask for file, task in zip(files, tasks, strict=True) if (mask := _kept(task, root)) is not None},
    )
    return _parquet_source(place, files, files, [task.file.file_size_in_bytes for task in tasks], version)


def _kept(task: Any, root: str) -> pa.Array | None:
    """Which rows of a data file its delete files leave."""
    if not task.delete_files:
        return None
    deleted: set[int] = set()
    for file in task.delete_files:
        path = _inside(_plain(file.file_path), root)
        if file.content.name != "POSITION_DELETES" or file.file_format.name != "PARQUET":
            raise ConfigError(f"{path} deletes rows in a way that is not read here; rewrite the table's data files")
        with Stores().open(path) if in_store(path) else open(path, "rb") as opened:
            places = pq.read_table(opened, columns=["file_path", "pos"])
        deleted.update(
            place["pos"] for place in places.to_pylist() if _plain(place["file_path"]) == _plain(task.file.file_path)
        )
    return pa.array([row not in deleted for row in range(task.file.record_count)], pa.bool_())


def _refuse_renamed(place: str, schemas: Any) -> None:
    """Files are read by the names of their columns, so a name must have meant one column since the table began."""
    meant: dict[str, int] = {}
    named: dict[int, str] = {}
    for schema in schemas:
        for field in schema.fields:
            if meant.setdefault(field.name, field.field_id) != field.field_id or (
                named.setdefault(field.field_id, field.name) != field.name
            ):
                raise ConfigError(
                    f"input {place} is an Iceberg table in which column {field.name!r} was renamed or made anew; "
                    "copy it into a new table"
                )


def _newest_metadata(folder: Path) -> str:
    """The metadata file of the highest number: as the catalog would say, which is not asked."""
    numbered: dict[int, list[str]] = {}
    for path in folder.glob(f"*{_METADATA}"):
        if number := re.match(r"v?(\d+)", path.name):
            numbered.setdefault(int(number[1]), []).append(str(path))
    newest = numbered[max(numbered)] if numbered else []
    if len(newest) != 1:
        raise ConfigError(f"input {folder} holds {len(newest)} newest metadata files; name the one that is meant")
    return newest[0]


def _parquet_source(place: str, files: list[str], names: list[str], sizes: list[int], version: TableVersion) -> Source:
    if not files:
        raise ConfigError(f"input {place} is empty: its {version.name} has no files")
    listed = tuple(SourceFile(file, size, 0, version.name) for file, size in zip(files, sizes, strict=True))
    return Source(kind="parquet", files=listed, names=tuple(names), others=(), root=_root(place), version=version)


def _inside(path: str, folder: str) -> str:
    """A file of a table, which must stand in the table's own folder: whoever wrote the table may read no other."""
    if ".." in path.split("/") or not path.startswith(f"{folder.rstrip('/')}/"):
        raise ConfigError(f"the table in {folder} lists a file outside of it, {path}; copy it into one folder")
    return path


def _plain(address: str) -> str:
    """A local file's URL as its path."""
    return urlsplit(address).path if address.startswith("file:") else address


def _root(place: str) -> str | None:
    return place if in_store(place) else None


def _library(module: str, extra: str, place: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"input {place} needs a library that is not installed here: pip install 'skipvision[{extra}]'"
        ) from error
