"""Delta tables: which Parquet files make up a version, and which of their rows are deleted."""

from __future__ import annotations

from urllib.parse import unquote

import pyarrow as pa

from pipelines.source_files import Source, TableVersion
from pipelines.stores import first_line
from pipelines.table_files import inside, library, parquet_source, plain_path
from skipvision.errors import ConfigError


def delta_source(place: str) -> Source:
    """The Parquet files of a Delta table.

    Raises:
        ConfigError: it cannot be read, or what reads it is not installed.
    """
    deltalake = library("deltalake", "delta", place)
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
    files = [inside(f"{place}/{name}", place) for name in names]
    constants = _partitions(added)
    masks = {
        plain_path(unquote(file)): pa.array(mask, pa.bool_())
        for file, mask in zip(kept["filepath"], kept["selection_vector"], strict=True)
    }
    if strange := masks.keys() - set(files):
        raise ConfigError(f"input {place} deletes rows of {min(strange)}, which is no file of it")
    version = TableVersion(
        name=f"version {table.version()}",
        schema=schema,
        constants=dict(zip(files, constants, strict=True)),
        kept=masks,
    )
    return parquet_source(place, files, names, added.column("size_bytes").to_pylist(), version)


def _partitions(added: pa.Table) -> list[dict[str, pa.Scalar]]:
    """Of each added file, the columns that it was put apart by."""
    names = [name for name in added.column_names if name.startswith("partition.")]
    return [{name.removeprefix("partition."): added.column(name)[row] for name in names} for row in range(len(added))]
