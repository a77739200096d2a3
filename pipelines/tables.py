"""What is inside an input: the user's columns without image bytes, and where each row's image is.

Every kind of input comes out as the same thin tables: the user's own columns, then those of `asked`: where the row's
images are, a path or an address, or which row of which file holds the bytes, and what else the row asks. The bytes
themselves stay where they are, if they can be found there again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.arrow_files import arrow_schema, read_arrow
from pipelines.asked import OPENAI_COLUMNS, Asked, as_table, read_openai_line, read_row
from pipelines.columns import (
    CUSTOM_ID,
    IMAGE_COLUMNS,
    ImageKind,
    asking_columns,
    check_column,
    image_column,
    image_kind,
    is_text,
)
from pipelines.lance_tables import open_lance, read_lance
from pipelines.location import IMAGES, Location
from pipelines.opening import Opener, opened, without_secrets
from pipelines.references import NOWHERE, resolve
from pipelines.source_files import Source
from pipelines.stores import FAILURES, first_line, is_damage, store_failures
from pipelines.text_files import CHUNK_ROWS, csv_schema, jsonl_schema, read_csv, read_jsonl
from pipelines.webdataset import read_tar, tar_schema
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.foreign_types import refuse_foreign_types, refuse_foreign_types_in_stream

_CARRIED_ROWS = 64
"""Read at a time where the images themselves come with them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTable:
    """A source, opened: its columns are known to be there and to be of the right types."""

    source: Source
    schema: pa.Schema
    """The user's columns that are passed on: not embedded images, nor what `asking` holds."""
    image_column: str | None
    """None where images stand in no column."""
    image_kind: ImageKind
    open_file: Opener
    open_stores: tuple[str, ...]
    """Folders in stores that rows may point into."""
    asking: tuple[str, ...] = ()
    """Columns that are read for what they ask: of messages and settings, or of an OpenAI batch."""
    key_column: str | None = None

    @property
    def carries_images(self) -> bool:
        """Whether images go into the frozen input themselves, since a task could not find them again where they are:
        behind a web address, or in the middle of a stream that is not on a disk."""
        lost = self.source.is_fetched or (self.source.kind == "arrow" and self.source.root is not None)
        return self.image_kind in ("embedded", "member") and lost

    def thin_tables(self) -> Iterator[pa.Table]:
        """All rows in order, in tables of any size: the user's columns, then those of `ASKED`."""
        if self.source.kind == "images":
            yield from self._image_files()
            return
        for number, file in enumerate(self.source.files):
            first = 0
            with _reading(file.path):
                for piece in self._pieces(file.path, number):
                    located = self._located(_cast(piece, self.schema), piece, number, first)
                    yield self._kept(located, file.path, first)
                    first += len(piece)

    def _image_files(self) -> Iterator[pa.Table]:
        """Some thousands of images at a time."""
        for first in range(0, len(self.source.files), CHUNK_ROWS):
            names = self.source.names[first : first + CHUNK_ROWS]
            paths = [file.path for file in self.source.files[first : first + CHUNK_ROWS]]
            thin = pa.table([pa.array(names, pa.string())], schema=self.schema)
            yield _joined(thin, [Asked((Location(path),)) for path in paths])

    def _pieces(self, path: str, number: int) -> Iterator[pa.Table]:
        """One file of tables, as the user wrote it; embedded images only where they are carried along."""
        wanted = [*self._read_schema.names, *([self.image_column] if self.carries_images else [])]
        rows = _CARRIED_ROWS if self.carries_images else CHUNK_ROWS
        match self.source.kind:
            case "arrow":
                yield from map(_as_table, read_arrow(_mapped(self.source, path, self.open_file), wanted, rows))
            case "lance":
                yield from map(_as_table, read_lance(path, wanted, rows))
            case "parquet":
                file = pq.ParquetFile(self.open_file(path))
                columns = [name for name in file.schema_arrow.names if name in wanted]
                batches = map(_as_table, file.iter_batches(rows, columns=columns))
                yield from (self._with_constants(piece, path) for piece in batches)
            case "jsonl":
                yield from read_jsonl(self.open_file(path), self._read_schema, path)
            case "csv":
                types = dict(zip(self._read_schema.names, self._read_schema.types, strict=True))
                yield from read_csv(self.open_file(path), types)
            case "tar":
                yield from read_tar(self.open_file(path), self.schema, path, number, carry=self.carries_images)

    def _with_constants(self, piece: pa.Table, path: str) -> pa.Table:
        """A piece with the columns that have one value in all of its file, which may leave them out."""
        constants = self.source.version.constants.get(path, {}) if self.source.version else {}
        for name, value in constants.items():
            if name in self.schema.names and name not in piece.column_names:
                piece = piece.append_column(name, pa.repeat(value, len(piece)))
        return piece

    def _kept(self, located: pa.Table, path: str, first: int) -> pa.Table:
        """What of a piece is not deleted."""
        kept = self.source.version.kept.get(path) if self.source.version else None
        return located if kept is None else located.filter(kept.slice(first, len(located)))

    @property
    def _read_schema(self) -> pa.Schema:
        """The user's columns and those that ask; the types of the latter are those of text files."""
        asking = [name for name in self.asking if name not in self.schema.names]
        return pa.schema([*self.schema, *(pa.field(name, pa.string()) for name in asking)])

    def _located(self, thin: pa.Table, piece: pa.Table, number: int, first: int) -> pa.Table:
        """What each row of a piece asks, and about which image; it begins with row `first` of file `number`."""
        if IMAGES in piece.column_names:
            places = piece.column(IMAGES).to_pylist()
            return _joined(thin, [Asked(tuple(map(Location.of, images))) for images in places])
        path = self.source.files[number].path
        locate = partial(resolve, table=path, open_stores=self.open_stores)
        if self.carries_images:
            asked = [Asked((self._carried(value, path),)) for value in piece.column(self.image_column).to_pylist()]
        elif self.image_kind == "embedded":
            asked = [Asked((Location(file=number, row=first + row),)) for row in range(len(piece))]
        elif self.image_kind == "messages":
            asked = [read_row(messages, own, locate) for messages, own in self._asking_rows(piece)]
        elif self.image_kind == "openai":
            lines = (dict(zip(self.asking, row, strict=True)) for row in self._asking_rows(piece))
            asked = [read_openai_line(line, locate) for line in lines]
        else:
            references = thin.column(self.image_column).cast(pa.string()).to_pylist()
            asked = [Asked((locate(reference),)) for reference in references]
        return _joined(thin, asked)

    def _asking_rows(self, piece: pa.Table) -> Iterator[tuple[Any, ...]]:
        """The values of the columns that ask; None for what the piece lacks."""
        there = set(piece.column_names)
        columns = [piece.column(name).to_pylist() if name in there else [None] * len(piece) for name in self.asking]
        return zip(*columns, strict=True)

    def _carried(self, value: Any, path: str) -> Location:
        """An embedded image, or what the path beside its missing bytes stands for."""
        content = value["bytes"] if isinstance(value, dict) else value
        if content is not None:
            return Location(content=content)
        return resolve(value.get("path"), path, self.open_stores) if isinstance(value, dict) else NOWHERE


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """What goes wrong with one file inside the `with` block, by whose it is to mend."""
    what = f"input {without_secrets(path)} cannot be read"
    with store_failures(what):
        try:
            yield
        except UnicodeDecodeError as error:
            raise ConfigError(f"{what}: it is not UTF-8 text") from error
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise ConfigError(f"{what}: it is damaged: {first_line(error)}") from error


def open_table(source: Source, config: JobConfig) -> InputTable:
    """Find the columns that the job needs.

    Raises:
        ConfigError: a column is missing or of a type that cannot be used, or a file cannot be read.
    """
    named = (config.image_column, config.prompt_column, config.key_column, config.messages_column)
    source, open_file = opened(source, config)
    source, schema = _surveyed(source, open_file, [name for name in named if name])
    for column in (config.prompt_column, config.key_column):
        if column is not None:
            check_column(schema, column)
    if config.prompt_column is not None and not is_text(schema.field(config.prompt_column).type):
        found = schema.field(config.prompt_column).type
        raise ConfigError(f"prompt column {config.prompt_column!r} holds {found}, not text")
    asking = asking_columns(schema, config)
    image, kind = _image_of(source, schema, config.image_column, asking)
    left_out = {image} if kind == "embedded" else {*asking} - {CUSTOM_ID}
    return InputTable(
        source=source,
        schema=pa.schema([field for field in schema if field.name not in left_out]),
        image_column=image,
        image_kind=kind,
        open_file=open_file,
        open_stores=(*([source.root] if source.root else []), *config.allow_stores),
        asking=asking,
        key_column=config.key_column or (CUSTOM_ID if kind == "openai" else None),
    )


def _image_of(
    source: Source, schema: pa.Schema, wish: str | None, asking: tuple[str, ...]
) -> tuple[str | None, ImageKind]:
    """The image column, and how it holds images."""
    if asking:
        return None, "openai" if asking == OPENAI_COLUMNS else "messages"
    if source.kind == "tar":
        if wish is not None:
            raise ConfigError(f"image_column is {wish!r}, and the images of a tar are files in it; leave it out")
        return None, "member"
    image = image_column(schema, wish or source.image_column)
    return image, image_kind(schema.field(image))


def _surveyed(source: Source, open_file: Opener, named_columns: list[str]) -> tuple[Source, pa.Schema]:
    """The columns of all files together; a column without any value is text. With the source, which knows more of what
    is not read now."""
    if source.kind == "images":
        return source, pa.schema([("path", pa.string())])
    schemas, others = [], list(source.others)
    for file, name in zip(source.files, source.names, strict=True):
        try:
            schema, passed_over = _file_schema(source, file.path, open_file, named_columns)
            _decode_names(schema)
        except (*FAILURES, pa.ArrowException, UnicodeDecodeError) as error:
            raise ConfigError(f"input {without_secrets(file.path)} cannot be read: {first_line(error)}") from error
        schemas.append(schema.remove_metadata())
        others += [f"{name}: {number} .{kind}" for kind, number in sorted(passed_over.items())]
    merged = source.version.schema if source.version is not None else _merged(schemas)
    schema = pa.schema([_text_if_untyped(field).with_nullable(True).remove_metadata() for field in merged])
    return replace(source, others=tuple(others)), schema


def _decode_names(fields: pa.Schema | pa.DataType) -> None:
    """UnicodeDecodeError where a column or a part of one is named in something else than UTF-8."""
    inner = fields if isinstance(fields, pa.Schema) else [fields.field(part) for part in range(fields.num_fields)]
    for field in inner:
        assert isinstance(field.name, str)
        _decode_names(field.type)


def _merged(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(f"the files of the input do not fit together: {error}") from error


def _file_schema(
    source: Source, path: str, open_file: Opener, named_columns: list[str]
) -> tuple[pa.Schema, Mapping[str, int]]:
    """The columns of one file, and how much of which kinds in it is not read."""
    match source.kind:
        case "parquet":
            refuse_foreign_types(open_file(path), path)
            return pq.read_schema(open_file(path)), {}
        case "arrow":
            refuse_foreign_types_in_stream(open_file(path), path)
            return arrow_schema(_mapped(source, path, open_file)), {}
        case "lance":
            return open_lance(path).schema, {}
        case "jsonl":
            return jsonl_schema(open_file(path), path), {}
        case "csv":
            # Keys and names such as 007 are text, whatever they look like.
            return csv_schema(open_file(path), text_columns=(*IMAGE_COLUMNS, *named_columns)), {}
        case "tar":
            return tar_schema(open_file(path), path)
    raise AssertionError(f"{source.kind} is no kind of table")


def _mapped(source: Source, path: str, open_file: Opener) -> Any:
    """A file for Arrow to read: on a disk its path, so that what is not looked at is not read."""
    return open_file(path) if source.root is not None or source.is_fetched else path


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
