"""Which columns of an input hold what a job needs: images, questions, keys."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from pipelines.asked import OPENAI_COLUMNS
from skipvision.config import JobConfig
from skipvision.errors import ConfigError

IMAGE_COLUMNS = ("image", "bytes", "path", "url", "image_path", "image_url", "file_name")
"""Looked for in this order when the image column is not named."""
MESSAGES_COLUMN, SAMPLING_COLUMN, CUSTOM_ID = "messages", "sampling_params", "custom_id"

ImageKind = Literal["reference", "embedded", "member", "messages", "openai"]
"""`reference`: a path or an address; `embedded`: bytes, or a struct of bytes and path; `member`: files in a tar;
`messages`: in the messages of the row; `openai`: in those of its body, as in a line of an OpenAI batch."""


def asking_columns(schema: pa.Schema, config: JobConfig) -> tuple[str, ...]:
    """The columns that ask, where rows do it in messages: as the settings say, or as their names and the lack of any
    other image do. None at all: rows ask by a prompt.

    Raises:
        ConfigError: the column that was named is not there.
    """
    if config.messages_column is not None:
        check_column(schema, config.messages_column)
        return (config.messages_column, SAMPLING_COLUMN)
    if config.prompt or config.prompt_column or config.image_column:
        return ()
    if {CUSTOM_ID, "body"} <= {*schema.names}:  # its `url` is no image's
        return OPENAI_COLUMNS
    has_image = any(name in schema.names for name in IMAGE_COLUMNS)
    return (MESSAGES_COLUMN, SAMPLING_COLUMN) if MESSAGES_COLUMN in schema.names and not has_image else ()


def image_column(schema: pa.Schema, wish: str | None) -> str:
    if wish is not None:
        check_column(schema, wish)
        return wish
    found = [name for name in IMAGE_COLUMNS if name in schema.names]
    if not found:
        raise ConfigError(
            f"the input has no image column: none of {', '.join(IMAGE_COLUMNS)} is among its columns "
            f"({', '.join(schema.names)}), nor messages; name it with image_column or messages_column"
        )
    return found[0]


def check_column(schema: pa.Schema, column: str) -> None:
    if schema.names.count(column) != 1:
        problem = "more than one column" if column in schema.names else "no column"
        raise ConfigError(f"the input has {problem} {column!r}; its columns are {', '.join(schema.names)}")


def image_kind(field: pa.Field) -> ImageKind:
    if is_text(field.type):
        return "reference"
    if _is_bytes(field.type):
        return "embedded"
    if pa.types.is_struct(field.type) and "bytes" in {inner.name for inner in field.type}:
        return "embedded"
    raise ConfigError(f"image column {field.name!r} holds {field.type}; it must hold bytes, paths or addresses")


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
