"""Where an image is: what a job's frozen input says of it instead of holding it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

IMAGES = "__images"
"""Column of the frozen input: for each row the places of its images, in order."""

PLACE = pa.struct(
    [
        ("reference", pa.string()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("start", pa.int64()),
        ("size", pa.int64()),
        ("content", pa.large_binary()),
        ("refused", pa.string()),
    ]
)
PLACES = pa.list_(PLACE)


@dataclass(frozen=True, slots=True)
class Location:
    """The place of one image. None of its values: the row names no image."""

    reference: str | None = None
    """A path or an address; of an image within a file, its name there."""
    file: int | None = None
    """Which of the source files holds the image itself."""
    row: int | None = None
    """In which of its rows."""
    start: int | None = None
    """Or at which of its bytes."""
    size: int | None = None
    """How many bytes from there."""
    content: bytes | None = None
    """The image itself, where it could not be found again in its source."""
    refused: str | None = None
    """Why the row's image may not be read."""

    @classmethod
    def of(cls, place: Mapping[str, Any]) -> Location:
        """From a value of `PLACE`."""
        return cls(**place)


def places_of(rows: Sequence[Sequence[Location]]) -> pa.ListArray:
    """The column `IMAGES` of some rows; made column by column, since inputs have millions."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    images = [image for row in rows for image in row]
    values = [pa.array([getattr(image, field.name) for image in images], field.type) for field in PLACE]
    return pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(values, fields=[*PLACE]), type=PLACES)
