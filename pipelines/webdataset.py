"""WebDataset tars: a row per sample, its texts as columns, its images left where they stand in the tar.

A sample is what follows one another under the same name up to the first dot. Members of other kinds, pickles among
them, are never looked into.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipelines.location import IMAGES, PLACES, Location, places_of
from pipelines.references import NOWHERE
from pipelines.result_rows import RESULT_COLUMNS
from pipelines.source_files import SUFFIXES
from pipelines.tar_members import MAX_TEXT_BYTES, Member, members, read_member
from pipelines.text_files import CHUNK_ROWS, column_of, rows_schema
from skipvision.errors import ConfigError
from skipvision.images import DEFAULT_LIMITS

KEY = "key"
_TEXTS = {"txt": "txt", "caption": "txt", "cls": "cls"}
"""Columns by the kind of member that fills them."""
_TAKEN = frozenset({KEY, IMAGES, *_TEXTS.values(), *RESULT_COLUMNS.names})
_CARRIED_ROWS = 64


def tar_schema(file: Any, path: str) -> tuple[pa.Schema, Counter[str]]:
    """One pass over a tar: the columns of all samples, and how many members of which kinds are not read.

    Args:
        file: open to be read and sought in.
        path: what messages call it.

    Raises:
        ConfigError: the tar or a text in it is damaged, or two samples or two members have one name.
    """
    schema, others = pa.schema([(KEY, pa.string())]), Counter[str]()
    for samples in _chunks(_samples(file, path), CHUNK_ROWS):
        rows = [_fields(file, path, key, found) for key, found in samples]
        schema = pa.unify_schemas([schema, rows_schema(rows, path)], promote_options="permissive")
        others.update(_kind(member) for _, found in samples for member in found if not _is_read(member))
    return schema, others


def read_tar(file: Any, schema: pa.Schema, path: str, number: int, *, carry: bool) -> Iterator[pa.Table]:
    """The rows of a tar with their places, some thousands at a time.

    Args:
        number: which of the source files it is.
        carry: put the images themselves into the places, of a tar that nobody will find again.
    """
    for samples in _chunks(_samples(file, path), _CARRIED_ROWS if carry else CHUNK_ROWS):
        rows = [_fields(file, path, key, found) for key, found in samples]
        columns = [column_of(rows, field.name, field.type, path) for field in schema]
        places = places_of([[*_places(file, found, number, carry)] for _, found in samples])
        yield pa.Table.from_arrays([*columns, places], schema=schema.append(pa.field(IMAGES, PLACES)))


def _samples(file: Any, path: str) -> Iterator[tuple[str, list[Member]]]:
    seen = set()
    for key, found in groupby(filter(_is_visible, members(file, path)), key=_key):
        if key in seen:
            raise ConfigError(f"tar {path} holds sample {key!r} twice, with others in between; pack it again")
        seen.add(key)
        yield key, list(found)


def _fields(file: Any, path: str, key: str, found: Sequence[Member]) -> dict[str, Any]:
    """The columns of one sample."""
    if len({_kind(member) for member in found}) < len(found):
        raise ConfigError(f"tar {path} holds a file of sample {key!r} twice; pack it again")
    fields: dict[str, Any] = {}
    for member in found:
        column = _TEXTS.get(_kind(member))
        if _kind(member) == "json":
            fields |= _json_fields(_text(file, path, member), f"{member.name} in {path}")
        elif column in fields:
            raise ConfigError(f"sample {key!r} in {path} has two texts for column {column!r}; keep one of them")
        elif column is not None:
            text = _text(file, path, member)
            fields[column] = _label(text) if column == "cls" else text
    return {KEY: key} | fields


def _json_fields(text: str, name: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{name} is not a JSON object")
    return {f"json_{field}" if field in _TAKEN else field: value for field, value in fields.items()}


def _text(file: Any, path: str, member: Member) -> str:
    if member.size > MAX_TEXT_BYTES:
        raise ConfigError(f"{member.name} in {path} is larger than {MAX_TEXT_BYTES} bytes, which no text here may be")
    try:
        return read_member(file, member, MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{member.name} in {path} is not UTF-8 text") from error


def _label(text: str) -> int | str:
    """A class, most often a number."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def _places(file: Any, found: Sequence[Member], number: int, carry: bool) -> list[Location]:
    """Where the images of a sample are, by name; of one without any, that it names none."""
    images = sorted((member for member in found if _is_image(member)), key=lambda member: member.name)
    if carry:
        # One byte more than may be, so that what is too large shows as such.
        content = (read_member(file, image, DEFAULT_LIMITS.max_bytes + 1) for image in images)
        return [Location(image.name, content=each) for image, each in zip(images, content, strict=True)] or [NOWHERE]
    return [Location(image.name, file=number, start=image.start, size=image.size) for image in images] or [NOWHERE]


def _key(member: Member) -> str:
    name = PurePosixPath(member.name)
    return (name.parent / name.name.partition(".")[0]).as_posix()


def _kind(member: Member) -> str:
    """All that follows the first dot of the name."""
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _is_visible(member: Member) -> bool:
    return not PurePosixPath(member.name).name.startswith(".")


def _is_image(member: Member) -> bool:
    return PurePosixPath(member.name).suffix.lower() in SUFFIXES["images"]


def _is_read(member: Member) -> bool:
    return _is_image(member) or _kind(member) in {"json", *_TEXTS}


def _chunks(samples: Iterator[tuple[str, list[Member]]], rows: int) -> Iterator[list[tuple[str, list[Member]]]]:
    while chunk := list(islice(samples, rows)):
        yield chunk
