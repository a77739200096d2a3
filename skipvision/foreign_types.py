"""Parquet and Arrow files whose columns are of types that other programs define: refused, unopened.

Arrow writes the name of such a type into the file, and whoever reads it back is handed to the program that registered
the name. Ray registers one whose values are pickles, which run what they hold as soon as they are looked at, and others
whose parameters were pickles once. A job's processes have Ray in them, and its input is not trusted, so the names are
looked at before Arrow sees them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from os import SEEK_END
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from skipvision.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

ARROWS_OWN = frozenset({"arrow.bool8", "arrow.fixed_shape_tensor", "arrow.json", "arrow.opaque", "arrow.uuid"})

_MAGIC = b"PAR1"
_CONTINUES = b"\xff\xff\xff\xff"
_LARGEST_SCHEMA = 64 << 20
_SCHEMA, _SCHEMA_UNREAD = b"ARROW:schema", b"ARROW-schema"
_TYPE, _TYPE_UNREAD = b"ARROW:extension:name", b"ARROW-extension-name"
"""What Arrow looks for, and names as long, which it takes for anybody's metadata: its own parsers read the rest."""


def refuse_foreign_types(file: BinaryIO, path: str | Path) -> None:
    """Refuse a Parquet file with a column, or a part of one, of a type that is not Arrow's own.

    Call it before a file that is not trusted is opened by pyarrow. What is no Parquet file passes: opening it says so.

    Args:
        file: open to be sought in.
        path: what messages call it.

    Raises:
        ConfigError: there is such a column, or the file describes its columns twice or illegibly.
        OSError: the file cannot be read.
    """
    footer = _footer(file)
    if footer is None or _SCHEMA not in footer:
        return
    if footer.count(_SCHEMA) > 1:
        raise ConfigError(f"input {path} describes its columns more than once; write it again")
    _refuse(_types_unread(_described(footer, path), path), path)


def refuse_foreign_types_in_stream(file: BinaryIO, path: str | Path) -> None:
    """As `refuse_foreign_types`, for a file in Arrow's stream format, which begins with its schema."""
    head = file.read(8)
    size = int.from_bytes(head[4:], "little", signed=True) if head[:4] == _CONTINUES else -1
    if 0 < size <= _LARGEST_SCHEMA:
        _refuse(_types_unread(head + file.read(size), path), path)


def refuse_foreign_columns(schema: pa.Schema, path: str | Path) -> None:
    """As `refuse_foreign_types`, for a table whose own library has read the schema: before a value is looked at."""
    import pyarrow as pa

    for field in (part for column in schema for part in _with_parts(column)):
        if isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name not in ARROWS_OWN:
            raise _refusal(field.name, field.type.extension_name, path)


def _refuse(fields: Iterator[pa.Field], path: str | Path) -> None:
    for field in fields:
        name = (field.metadata or {}).get(_TYPE_UNREAD)
        if name is not None and name.decode(errors="replace") not in ARROWS_OWN:
            raise _refusal(field.name, name.decode(errors="replace"), path)


def _refusal(column: str, kind: str, path: str | Path) -> ConfigError:
    return ConfigError(
        f"column {column!r} of {path} is of the type {kind!r}, which is another program's and is not read here; "
        "write it as plain numbers, text, bytes, lists or structs"
    )


def _footer(file: BinaryIO) -> bytes | None:
    """The metadata at the end of a Parquet file; None if it is none."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read()
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length + 8 > size:
        return None
    file.seek(size - 8 - length)
    return file.read(length)


def _described(footer: bytes, path: str | Path) -> bytes:
    """Arrow's own schema as a Parquet file's footer holds it, which nobody has read yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    unread = footer.replace(_SCHEMA, _SCHEMA_UNREAD)
    alone = _MAGIC + unread + len(unread).to_bytes(4, "little") + _MAGIC
    try:
        described = (pq.read_metadata(pa.BufferReader(alone)).metadata or {})[_SCHEMA_UNREAD]
        return base64.b64decode(described, validate=True)
    except (pa.ArrowException, OSError, KeyError, binascii.Error) as error:
        raise _illegible(path) from error


def _illegible(path: str | Path) -> ConfigError:
    return ConfigError(f"input {path} cannot be read: it does not describe its columns as Arrow does; write it again")


def _types_unread(message: bytes, path: str | Path) -> Iterator[pa.Field]:
    """All columns and their parts of a schema, of the types that they are stored as."""
    import pyarrow as pa

    try:
        schema = pa.ipc.read_schema(pa.py_buffer(message.replace(_TYPE, _TYPE_UNREAD)))
    except (pa.ArrowException, OSError) as error:
        raise _illegible(path) from error
    for field in schema:
        yield from _with_parts(field)


def _with_parts(field: pa.Field) -> Iterator[pa.Field]:
    yield field
    kind = getattr(field.type, "value_type", None) if field.type.num_fields == 0 else None  # of a dictionary
    kind = kind or field.type
    for part in range(kind.num_fields):
        yield from _with_parts(kind.field(part))
