"""Inputs as a job opens them: their rows, and what is behind the places that these name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.encoded import Source
from pipelines.location import IMAGES, Location
from pipelines.sources import find_source
from pipelines.tables import InputTable, open_table
from skipvision.config import JobConfig
from skipvision.errors import InputError


def opened(path: str | Path, **settings: Any) -> InputTable:
    """An input, as a job opens it."""
    return open_table(find_source(str(path)), JobConfig(input=str(path), output="unused", **settings))


def rows(table: InputTable) -> list[dict[str, Any]]:
    """All of its rows, as they are frozen."""
    return pa.concat_tables(table.thin_tables()).to_pylist()


def images(table: InputTable) -> list[bytes | Path | str]:
    """What stands at the places that its rows name: bytes, a path, or the code of an error."""
    column = table.image_column if table.image_kind == "embedded" else None
    source = Source([file.path for file in table.source.files], column, policy=None)
    found = source.read([Location.of(place) for row in rows(table) for place in row[IMAGES]])
    return [image.code if isinstance(image, InputError) else image for image in found]
