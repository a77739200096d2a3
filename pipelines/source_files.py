"""What a job's input is made of: files of one kind, on a disk, in a store or behind a web address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipelines.stores import in_store
from skipvision.fetch import is_address

Kind = Literal["images", "parquet", "jsonl", "csv", "tar", "arrow", "lance"]

SUFFIXES: dict[Kind, frozenset[str]] = {
    # Formats that are not decoded are images too: their rows end as an error that says so, instead of not at all.
    "images": frozenset(
        {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
        | {".avif", ".heic", ".heif", ".jxl", ".jp2"}
    ),
    "parquet": frozenset({".parquet", ".pq"}),
    "jsonl": frozenset({".jsonl", ".ndjson"}),
    "csv": frozenset({".csv"}),
    "tar": frozenset({".tar"}),
    "arrow": frozenset({".arrow"}),
    "lance": frozenset(),  # folders, told by `lakes`
}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as it stood when it was listed."""

    path: str
    """Absolute, or an address; of a Lance table, with the version behind an `@`."""
    size_bytes: int
    mtime_ns: int
    """0 where a tag tells more."""
    tag: str | None = None
    """What a store or a table of versions calls this content of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableVersion:
    """One version of a table that lists its data files itself. What is listed does not change under a job."""

    name: str
    schema: pa.Schema
    constants: Mapping[str, Mapping[str, pa.Scalar]] = field(default_factory=dict)
    """By file, the columns that have one value in all of its rows and need not stand in it."""
    kept: Mapping[str, pa.Array] = field(default_factory=dict)
    """By file, which of its rows are not deleted; of a file that is not here, all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The files of one input, all of one kind, in a fixed order."""

    kind: Kind
    files: tuple[SourceFile, ...]
    names: tuple[str, ...]
    """Each file as the user would say it: relative to the folder or the pattern."""
    others: tuple[str, ...]
    """Files in the folder that are of another kind; they are not read."""
    root: str | None = None
    """The folder in a store that all of this is from; None if it is not from one."""

    image_column: str | None = None
    """What the layout of the folder says of where images are named."""

    version: TableVersion | None = None
    """None if the files are all that there is."""

    @property
    def is_fetched(self) -> bool:
        """Whether it is one file behind a web address, which is read once and not looked at again."""
        return any(is_address(file.path) and not in_store(file.path) for file in self.files)
