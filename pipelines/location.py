"""Where an image is: what a job's frozen input says of it instead of holding it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

IMAGES = "__images"
"""Column of the frozen input: for each row the places of its images, in order."""

PLACE = pa.struct(
    [
        ("reference", pa.string()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("content", pa.large_binary()),
    ]
)
PLACES = pa.list_(PLACE)


@dataclass(frozen=True, slots=True)
class Location:
    """The place of one image. None of its values: the row names no image."""

    reference: str | None = None
    """A path or an address."""
    file: int | None = None
    """Which of the source files holds the image itself."""
    row: int | None = None
    """In which of its rows."""
    content: bytes | None = None
    """The encoded image itself, where it came with a row's question and stands nowhere else."""

    @classmethod
    def of(cls, place: Mapping[str, Any]) -> Location:
        """From a value of `PLACE`."""
        return cls(**place)

    def place(self) -> dict[str, Any]:
        """As a value of `PLACE`."""
        return asdict(self)
