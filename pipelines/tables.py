"""What is inside an input: the user's columns without image bytes, and where each row's image is.

Every kind of input comes out as the same thin tables: the user's own columns, then those of `asked`: where the row's
images are, a path or an address, or which row of which Parquet file holds the bytes, and what else the row asks. The
bytes themselves stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.asked import OPENAI_COLUMNS, Asked, as_table, read_openai_line, read_row
from pipelines.location import Location
from pipelines.sources import Source
from pipelines.text_files import CHUNK_ROWS, csv_schema, jsonl_schema, read_csv, read_jsonl
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.fetch import is_address
from skipvision.foreign_types import refuse_foreign_types

IMAGE_COLUMNS = ("image", "bytes", "path", "url", "image_path", "image_url", "file_name")
"""Looked for in this order when the image column is not named."""

MESSAGES_COLUMN, SAMPLING_COLUMN, CUSTOM_ID = "messages", "sampling_params", "custom_id"

ImageKind = Literal["reference", "embedded", "messages", "openai"]
"""`reference`: a path or an address; `embedded`: bytes, or a struct of bytes and path; `messages`: in the messages of
the row; `openai`: in those of its body, as in a line of an OpenAI batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTable:
    """A source, opened: its columns are known to be there and to be of the right types."""

    source: Source
    schema: pa.Schema
    """The user's columns that are passed on: not embedded images, nor what `asking` holds."""
    image_kind: ImageKind
    image_column: str | None = None
    """None where images stand in messages."""
    asking: tuple[str, ...] = ()
    """Columns that are read for what they ask: of messages and settings, or of an OpenAI batch."""
    key_column: str | None = None

    def thin_tables(self) -> Iterator[pa.Table]:
        """All rows in order, in tables of any size: the user's columns, then `IMAGES`."""
        if self.source.kind == "images":
            yield from self._image_files()
            return
        for number, file in enumerate(self.source.files):
            first = 0
            with _told(file.path):
                for piece in self._pieces(file.path):
                    yield self._located(_cast(piece, self.schema), piece, number, first)
                    first += len(piece)

    def _image_files(self) -> Iterator[pa.Table]:
        """Some thousands of images at a time."""
        for first in range(0, len(self.source.files), CHUNK_ROWS):
            names = self.source.names[first : first + CHUNK_ROWS]
            paths = [file.path for file in self.source.files[first : first + CHUNK_ROWS]]
            thin = pa.table([pa.array(names, pa.string())], schema=self.schema)
            yield _joined(thin, [Asked((Location(path),)) for path in paths])

    def _pieces(self, path: str) -> Iterator[pa.Table]:
        """One file of tables, as the user wrote it but for embedded images."""
        match self.source.kind:
            case "parquet":
                wanted = (*self.schema.names, *self.asking)
                columns = [name for name in pq.read_schema(path).names if name in wanted]
                yield from map(_as_table, pq.ParquetFile(path).iter_batches(CHUNK_ROWS, columns=columns))
            case "jsonl":
                yield from read_jsonl(path, self._read_schema)
            case "csv":
                yield from read_csv(path, dict(zip(self._read_schema.names, self._read_schema.types, strict=True)))

    @property
    def _read_schema(self) -> pa.Schema:
        """Of text files: what is asked is text in them."""
        asking = [name for name in self.asking if name not in self.schema.names]
        return pa.schema([*self.schema, *(pa.field(name, pa.string()) for name in asking)])

    def _located(self, thin: pa.Table, piece: pa.Table, number: int, first: int) -> pa.Table:
        """What each row of a piece asks, and about which image; it begins with row `first` of file `number`."""
        locate = partial(_locate, Path(self.source.files[number].path).parent)
        match self.image_kind:
            case "embedded":
                asked = [Asked((Location(file=number, row=first + row),)) for row in range(len(piece))]
            case "reference":
                references = thin.column(self.image_column).cast(pa.string()).to_pylist()
                asked = [Asked((locate(reference),)) for reference in references]
            case "messages":
                asked = [read_row(messages, own, locate) for messages, own in self._asking_rows(piece)]
            case "openai":
                lines = (dict(zip(self.asking, row, strict=True)) for row in self._asking_rows(piece))
                asked = [read_openai_line(line, locate) for line in lines]
        return _joined(thin, asked)

    def _asking_rows(self, piece: pa.Table) -> Iterator[tuple[Any, ...]]:
        """The values of the columns that ask; None for what the piece lacks."""
        there = set(piece.column_names)
        columns = [piece.column(name).to_pylist() if name in there else [None] * len(piece) for name in self.asking]
        return zip(*columns, strict=True)


def _locate(folder: Path, reference: str | None) -> Location:
    return Location(resolve(reference, folder))


def resolve(reference: str | None, folder: Path) -> str | None:
    """A path or address as a row names it -> an absolute path or an address; None if it names none."""
    if reference is None or not reference.strip():
        return None
    return reference if is_address(reference) else str(folder / reference)


def open_table(source: Source, config: JobConfig) -> InputTable:
    """Find the columns that the job needs.

    Raises:
        ConfigError: a column is missing or of a type that cannot be used, or a file cannot be read.
    """
    named = (config.image_column, config.prompt_column, config.key_column, config.messages_column)
    schema = _schema(source, [name for name in named if name])
    for column in (config.prompt_column, config.key_column):
        if column is not None:
            _check_column(schema, column)
    if config.prompt_column is not None and not _is_text(schema.field(config.prompt_column).type):
        found = schema.field(config.prompt_column).type
        raise ConfigError(f"prompt column {config.prompt_column!r} holds {found}, not text")
    if asking := _asking_columns(schema, config):
        return _table_that_asks(source, schema, config, asking)
    image = _image_column(schema, config.image_column)
    kind = _image_kind(schema.field(image))
    if kind == "embedded":
        schema = schema.remove(schema.get_field_index(image))
    return InputTable(source=source, schema=schema, image_kind=kind, image_column=image, key_column=config.key_column)


def _asking_columns(schema: pa.Schema, config: JobConfig) -> tuple[str, ...]:
    """The columns that ask, where rows do it in messages: as the settings say, or as their names and the lack of any
    other image do. None at all: rows ask by a prompt."""
    if config.messages_column is not None:
        _check_column(schema, config.messages_column)
        return (config.messages_column, SAMPLING_COLUMN)
    if config.prompt or config.prompt_column or config.image_column:
        return ()
    if {CUSTOM_ID, "body"} <= {*schema.names}:  # its `url` is no image's
        return OPENAI_COLUMNS
    has_image = any(name in schema.names for name in IMAGE_COLUMNS)
    return (MESSAGES_COLUMN, SAMPLING_COLUMN) if MESSAGES_COLUMN in schema.names and not has_image else ()


def _table_that_asks(source: Source, schema: pa.Schema, config: JobConfig, asking: tuple[str, ...]) -> InputTable:
    is_batch = asking == OPENAI_COLUMNS
    passed_on = pa.schema([field for field in schema if field.name not in asking or field.name == CUSTOM_ID])
    return InputTable(
        source=source,
        schema=passed_on,
        image_kind="openai" if is_batch else "messages",
        asking=asking,
        key_column=config.key_column or (CUSTOM_ID if is_batch else None),
    )


def _image_column(schema: pa.Schema, wish: str | None) -> str:
    if wish is not None:
        _check_column(schema, wish)
        return wish
    found = [name for name in IMAGE_COLUMNS if name in schema.names]
    if not found:
        raise ConfigError(
            f"the input has no image column: none of {', '.join(IMAGE_COLUMNS)} is among its columns "
            f"({', '.join(schema.names)}), nor messages; name it with image_column or messages_column"
        )
    return found[0]


def _check_column(schema: pa.Schema, column: str) -> None:
    if schema.names.count(column) != 1:
        problem = "more than one column" if column in schema.names else "no column"
        raise ConfigError(f"the input has {problem} {column!r}; its columns are {', '.join(schema.names)}")


def _image_kind(field: pa.Field) -> ImageKind:
    if _is_text(field.type):
        return "reference"
    if _is_bytes(field.type):
        return "embedded"
    if pa.types.is_struct(field.type) and "bytes" in {inner.name for inner in field.type}:
        return "embedded"
    raise ConfigError(f"image column {field.name!r} holds {field.type}; it must hold bytes, paths or addresses")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _schema(source: Source, named_columns: list[str]) -> pa.Schema:
    """The columns of all files together; a column without any value is text."""
    match source.kind:
        case "images":
            return pa.schema([("path", pa.string())])
        case "parquet":
            read = _parquet_schema
        case "jsonl":
            read = jsonl_schema
        case "csv":
            # Keys and names such as 007 are text, whatever they look like.
            read = partial(csv_schema, text_columns=(*IMAGE_COLUMNS, *named_columns))
    schemas = []
    for file in source.files:
        with _told(file.path):
            schemas.append(read(file.path).remove_metadata())
            _decode_names(schemas[-1])
    try:
        merged = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(f"the files of the input do not fit together: {error}") from error
    return pa.schema([_text_if_untyped(field).with_nullable(True).remove_metadata() for field in merged])


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What is wrong with a file, in the words of this program. Some of it is met only when rows are read."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"input {path} cannot be read: {error}") from error


def _decode_names(fields: pa.Schema | pa.DataType) -> None:
    """UnicodeDecodeError where a column or a part of one is named in something else than UTF-8."""
    inner = fields if isinstance(fields, pa.Schema) else [fields.field(part) for part in range(fields.num_fields)]
    for field in inner:
        assert isinstance(field.name, str)
        _decode_names(field.type)


def _parquet_schema(path: str) -> pa.Schema:
    refuse_foreign_types(path)
    return pq.read_schema(path)


def _text_if_untyped(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_null(field.type) else field


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _joined(thin: pa.Table, asked: list[Asked]) -> pa.Table:
    """The user's columns, then those of `ASKED`."""
    columns = as_table(asked)
    for field in columns.schema:
        thin = thin.append_column(field, columns.column(field.name))
    return thin


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a piece to the schema of the whole: missing columns are null."""
    columns = [
        pc.cast(table.column(field.name), field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])
