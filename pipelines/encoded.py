"""Images as they stand in their source: from the place of an image to its encoded bytes, or to why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.location import Location
from pipelines.sandbox import Encoded as Sound
from pipelines.tables import resolve
from skipvision.errors import FetchError, ImageError, InputError
from skipvision.fetch import Fetcher, FetchPolicy, is_address

Encoded = Sound | InputError

_ROWS_AT_ONCE = 32


class Source:
    """The images of one job's input.

    Args:
        paths: all source files.
        column: of Parquet files, which holds their images; None if rows name paths or addresses.
        policy: for what is fetched. None: nothing is, and an image at an address counts as an error.
    """

    def __init__(self, paths: Sequence[str], column: str | None, policy: FetchPolicy | None) -> None:
        self._paths, self._column, self._policy = paths, column, policy

    def read(self, locations: Sequence[Location]) -> list[Encoded]:
        """Each image as bytes or a path to them, or why there is none."""
        found = iter(self._embedded([location for location in locations if location.file is not None]))
        return self._fetched(
            [_as_encoded(_named(location) if location.file is None else next(found)) for location in locations]
        )

    def _embedded(self, locations: Sequence[Location]) -> list[Any]:
        assert self._column is not None or not locations, "a row in a Parquet file has a column"
        files = [location.file for location in locations if location.file is not None]
        rows = [location.row for location in locations if location.row is not None]
        return read_embedded(self._paths, files, rows, self._column or "")

    def _fetched(self, images: list[Encoded | str]) -> list[Encoded]:
        """Addresses replaced by what is behind them."""
        addresses = [image for image in images if isinstance(image, str)]
        answers: Iterator[bytes | FetchError] = iter(self._fetch(addresses))
        return [next(answers) if isinstance(image, str) else image for image in images]

    def _fetch(self, addresses: list[str]) -> Sequence[bytes | FetchError]:
        if self._policy is None:
            return [FetchError("the image is at an address, and nothing is fetched here")] * len(addresses)
        return _fetcher(self._policy).fetch_many(addresses) if addresses else []


def read_embedded(paths: Sequence[str], files: list[int], rows: list[int], column: str) -> list[Any]:
    """Images out of Parquet files: bytes, a path or address, or None.

    Args:
        paths: all source files.
        files, rows: for each image, which of `paths`, and which row of it; in any order.
    """
    wanted: dict[int, list[int]] = {}
    for file, row in zip(files, rows, strict=True):
        wanted.setdefault(file, []).append(row)
    images = {}
    for file, numbers in wanted.items():
        folder = Path(paths[file]).parent
        for row, value in _column_rows(paths[file], column, set(numbers)):
            images[file, row] = _from_struct(value, folder) if isinstance(value, dict) else value
    return [images[place] for place in zip(files, rows, strict=True)]


def _column_rows(path: str, column: str, rows: set[int]) -> Iterator[tuple[int, Any]]:
    """Some rows of one column, by their numbers; only row groups that hold any are read, a few rows at a time."""
    file, at = pq.ParquetFile(path), 0
    for group in range(file.num_row_groups):
        stop = at + file.metadata.row_group(group).num_rows
        here = sorted(row for row in rows if at <= row < stop)
        if here:
            yield from _group_rows(file, group, column, at, here)
        at = stop


def _group_rows(file: pq.ParquetFile, group: int, column: str, at: int, rows: list[int]) -> Iterator[tuple[int, Any]]:
    """Rows of one row group, ascending; `at` is the number of its first."""
    waiting = iter(rows)
    row: int | None = next(waiting)
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
        values = batch.column(0)
        while row is not None and row < at + len(batch):
            yield row, values[row - at].as_py()
            row = next(waiting, None)
        if row is None:
            return
        at += len(batch)


def _from_struct(value: dict[str, Any], folder: Path) -> bytes | str | None:
    """The bytes of a {bytes, path} pair, or else what its path stands for."""
    return value["bytes"] if value["bytes"] is not None else resolve(value.get("path"), folder)


def _named(location: Location) -> bytes | str | None:
    """What stands in the frozen input itself."""
    return location.reference if location.content is None else location.content


def _as_encoded(image: bytes | str | None) -> Encoded | str:
    """Bytes, a path, or an error; an address stays text."""
    if image is None:
        return ImageError("the row names no image", code="image_missing")
    if isinstance(image, str) and not is_address(image):
        return Path(image)
    return image


@cache
def _fetcher(policy: FetchPolicy) -> Fetcher:
    return Fetcher(policy)
