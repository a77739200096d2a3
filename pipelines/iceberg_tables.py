"""Iceberg tables: which Parquet files make up a snapshot, and which of their rows are deleted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.source_files import Source, TableVersion
from pipelines.stores import Stores, first_line, in_store
from pipelines.table_files import inside, library, parquet_source, plain_path
from skipvision.errors import ConfigError

CATALOG = "iceberg://"
METADATA = ".metadata.json"


def iceberg_source(place: str) -> Source:
    """The Parquet files of an Iceberg table: of a catalog's, or of the one that a metadata file describes."""
    library("pyiceberg", "iceberg", place)
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
    root = plain_path(table.location())
    files = [inside(plain_path(task.file.file_path), root) for task in tasks]
    snapshot = table.current_snapshot()
    version = TableVersion(
        name=f"snapshot {snapshot.snapshot_id if snapshot else 'none'}",
        schema=schema,
        constants={file: _identities(task, table, schema) for file, task in zip(files, tasks, strict=True)},
        kept={file: mask for file, task in zip(files, tasks, strict=True) if (mask := _kept(task, root)) is not None},
    )
    return parquet_source(place, files, files, [task.file.file_size_in_bytes for task in tasks], version)


def _identities(task: Any, table: Any, schema: pa.Schema) -> dict[str, pa.Scalar]:
    """The columns that a data file is put apart by as they are; a file that another program made may lack them."""
    fields = table.specs()[task.file.spec_id].fields
    values = {
        str(table.schema().find_column_name(field.source_id)): value
        for field, value in zip(fields, task.file.partition, strict=True)
        if str(field.transform) == "identity"
    }
    return {name: pa.scalar(value, schema.field(name).type) for name, value in values.items() if name in schema.names}


def _kept(task: Any, root: str) -> pa.Array | None:
    """Which rows of a data file its delete files leave."""
    if not task.delete_files:
        return None
    deleted: set[int] = set()
    for file in task.delete_files:
        path = inside(plain_path(file.file_path), root)
        if file.content.name != "POSITION_DELETES" or file.file_format.name != "PARQUET":
            raise ConfigError(f"{path} deletes rows in a way that is not read here; rewrite the table's data files")
        with Stores().open(path) if in_store(path) else open(path, "rb") as opened:
            places = pq.read_table(opened, columns=["file_path", "pos"])
        deleted.update(
            place["pos"]
            for place in places.to_pylist()
            if plain_path(place["file_path"]) == plain_path(task.file.file_path)
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


def newest_metadata(folder: Path) -> str:
    """The metadata file of the highest number: as the catalog would say, which is not asked."""
    numbered: dict[int, list[str]] = {}
    for path in folder.glob(f"*{METADATA}"):
        if number := re.match(r"v?(\d+)", path.name):
            numbered.setdefault(int(number[1]), []).append(str(path))
    newest = numbered[max(numbered)] if numbered else []
    if len(newest) != 1:
        raise ConfigError(f"input {folder} holds {len(newest)} newest metadata files; name the one that is meant")
    return newest[0]
