"""How Arrow's types are held in Lance datasets and Delta tables, whose own are fewer.

What they lack gets a type that holds every value of it, or is refused before anything is written; never one that
holds most of them. Left to itself, Delta's writer cuts nanoseconds off and stores large unsigned numbers as negative
ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as is_type

from skipvision.errors import ConfigError

Leaf = Callable[[pa.DataType], pa.DataType]
"""Type that holds no others -> the one it is stored as. TypeError: there is none."""

_LANCE_OWN = frozenset(
    {"", "_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version", "_row_last_updated_at_version"}
)
_DELTA_WIDER = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}


def lance_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a Lance dataset with these columns.

    Raises:
        ConfigError: a column has a name or a type that Lance lacks.
    """
    for name in schema.names:
        if name in _LANCE_OWN or set(name) & set(".`"):
            raise ConfigError(f"a Lance dataset cannot have a column named {name!r}; export to parquet, or rename it")
    return _stored(schema, _lance_leaf, "a Lance dataset")


def delta_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a Delta table with these columns.

    Raises:
        ConfigError: a column has a type that Delta lacks, or two names differ in case only.
    """
    _check_case(schema, "columns")
    return _stored(schema, _delta_leaf, "a Delta table")


def as_stored(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The same rows in the types of `schema`.

    Raises:
        ConfigError: a value is lost in its column's type, such as a moment of single nanoseconds in Delta.
    """
    columns = []
    for column, wanted in zip(batch.columns, schema, strict=True):
        try:
            columns.append(column if column.type == wanted.type else column.cast(wanted.type))
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"column {wanted.name!r} holds values that {wanted.type} does not ({error}); export to parquet"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _stored(schema: pa.Schema, leaf: Leaf, what: str) -> pa.Schema:
    fields = []
    for field in schema:
        try:
            fields.append(field.with_type(_of(field.type, leaf)))
        except TypeError as error:
            raise ConfigError(f"column {field.name!r} holds {error}, which {what} cannot; export to parquet") from error
    return pa.schema(fields)


def _of(kind: pa.DataType, leaf: Leaf) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _of(kind.storage_type, leaf)
    if is_type.is_struct(kind):
        if not kind.num_fields:
            raise TypeError(f"{kind} without fields")
        return pa.struct([inner.with_type(_of(inner.type, leaf)) for inner in kind])
    if is_type.is_map(kind):
        return pa.map_(_of(kind.key_type, leaf), _of(kind.item_type, leaf))
    if is_type.is_fixed_size_list(kind) and leaf is _lance_leaf:
        return pa.list_(_of(kind.value_type, leaf), kind.list_size)  # vectors: what Lance is searched by
    if is_type.is_list(kind) or is_type.is_fixed_size_list(kind):
        return pa.list_(_of(kind.value_type, leaf))
    if is_type.is_large_list(kind):
        return pa.large_list(_of(kind.value_type, leaf))
    return leaf(kind)


def _lance_leaf(kind: pa.DataType) -> pa.DataType:
    if is_type.is_decimal32(kind) or is_type.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return _kept(kind)


def _delta_leaf(kind: pa.DataType) -> pa.DataType:
    if is_type.is_dictionary(kind):
        return _delta_leaf(kind.value_type)
    if is_type.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if is_type.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if is_type.is_decimal(kind) or is_type.is_time(kind) or is_type.is_duration(kind):
        raise TypeError(str(kind))
    return _DELTA_WIDER.get(kind, _kept(kind))


def _kept(kind: pa.DataType) -> pa.DataType:
    if (
        is_type.is_interval(kind)
        or is_type.is_union(kind)
        or is_type.is_nested(kind)
        or is_type.is_run_end_encoded(kind)
    ):
        raise TypeError(str(kind))
    return kind


def _check_case(fields: pa.Schema | pa.DataType, what: str) -> None:
    """Delta tells names apart by more than their case, at every depth."""
    twins = [name for name, count in Counter(field.name.lower() for field in fields).items() if count > 1]
    if twins:
        raise ConfigError(f"a Delta table cannot have two {what} named {twins[0]!r} but for case; export to parquet")
    for field in fields:
        kind = field.type
        while not is_type.is_struct(kind) and hasattr(kind, "value_type"):
            kind = kind.value_type
        if is_type.is_struct(kind):
            _check_case(kind, f"fields of {field.name!r}")
