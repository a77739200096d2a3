"""JSONL and CSV files as Arrow tables whose column types are decided by all rows, not by the first block of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from io import TextIOWrapper
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from skipvision.errors import ConfigError

CHUNK_ROWS = 8192
JSON_COLUMNS = frozenset({"messages", "body", "sampling_params"})
"""Of JSONL files, kept as JSON text: what callers ask has another shape in every row, which no column type holds."""


def csv_schema(file: BinaryIO, text_columns: Iterable[str]) -> pa.Schema:
    """The columns of a CSV file, each of the type that holds all of its values; `text_columns` are text even where they
    look like numbers."""
    types = dict.fromkeys(text_columns, pa.string())
    return pyarrow.csv.read_csv(file, parse_options=_CSV, convert_options=_converted(types)).schema


def read_csv(file: BinaryIO, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """The rows of a CSV file, some thousands at a time."""
    with pyarrow.csv.open_csv(file, parse_options=_CSV, convert_options=_converted(types)) as batches:
        for batch in batches:
            yield pa.Table.from_batches([batch])


_CSV = pyarrow.csv.ParseOptions(newlines_in_values=True)


def _converted(types: Mapping[str, pa.DataType]) -> pyarrow.csv.ConvertOptions:
    return pyarrow.csv.ConvertOptions(column_types=dict(types))


def jsonl_schema(file: BinaryIO, path: str) -> pa.Schema:
    """One pass over a JSONL file: the columns of all rows, each of a type that holds all of its values.

    Args:
        path: what messages call the file.

    Raises:
        ConfigError: a line is no JSON object, or a column mixes types.
    """
    schema = pa.schema([])
    for rows in _json_chunks(file, path):
        schema = pa.unify_schemas([schema, rows_schema(rows, path)], promote_options="permissive")
    return schema


def rows_schema(rows: list[dict[str, Any]], path: str) -> pa.Schema:
    """The columns of some rows, each of a type that holds all of its values.

    Raises:
        ConfigError: a column mixes types.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([_field(rows, name, path) for name in names])


def read_jsonl(file: BinaryIO, schema: pa.Schema, path: str) -> Iterator[pa.Table]:
    """The rows of a JSONL file, some thousands at a time; what a row lacks is null."""
    for rows in _json_chunks(file, path):
        columns = [column_of(rows, field.name, field.type, path) for field in schema]
        yield pa.Table.from_arrays(columns, schema=schema)


def _field(rows: list[dict[str, Any]], name: str, path: str) -> pa.Field:
    try:
        return pa.field(name, column_of(rows, name, None, path).type)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path} has a column named {name!r}, which is no text") from error


def column_of(rows: list[dict[str, Any]], name: str, kind: pa.DataType | None, path: str) -> pa.Array:
    """One field of all rows; what a row lacks is null."""
    values = [row.get(name) for row in rows]
    if name in JSON_COLUMNS:
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise ConfigError(f"column {name!r} of {path} does not hold values of one type: {error}") from error


def _json_chunks(file: BinaryIO, path: str) -> Iterator[list[dict[str, Any]]]:
    """Blank lines are no rows."""
    rows: list[dict[str, Any]] = []
    try:
        with TextIOWrapper(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_json_row(line, number, path))
                if len(rows) == CHUNK_ROWS:
                    yield rows
                    rows = []
    except UnicodeDecodeError as error:
        raise ConfigError(f"input {path} is not UTF-8 text") from error
    if rows:
        yield rows


def _json_row(line: str, number: int, path: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"line {number} of {path} is not JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"line {number} of {path} is nested too deeply") from error
    if not isinstance(row, dict):
        raise ConfigError(f"line {number} of {path} is not a JSON object")
    return row
