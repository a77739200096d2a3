"""Images as they stand in their source: from the place of an image to its encoded bytes, or to why there are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.arrow_files import read_arrow
from pipelines.lakes import is_lance, lance_rows
from pipelines.location import Location
from pipelines.references import common_folder, resolve
from pipelines.sandbox import Encoded as Sound
from pipelines.stores import Stores, in_store, is_damage, store_failures, too_large
from skipvision.errors import FetchError, ImageError, InputError
from skipvision.fetch import Fetcher, FetchPolicy, is_address
from skipvision.images import DEFAULT_LIMITS

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
        self._stores = Stores()

    def read(self, locations: Sequence[Location]) -> list[Encoded]:
        """Each image as bytes or a path to them, or why there is none.

        Raises:
            StorageError: what holds it cannot be read now.
        """
        embedded = iter(self._embedded([location for location in locations if location.row is not None]))
        parts = iter(self._parts([location for location in locations if location.start is not None]))
        found = [
            next(embedded) if location.row is not None
            else next(parts) if location.start is not None
            else _named(location)
            for location in locations
        ]  # fmt: skip
        return self._fetched(self._stored([_as_encoded(image) for image in found]))

    def _parts(self, locations: Sequence[Location]) -> list[Encoded]:
        """Images that are some of the bytes of a file; those in a store side by side."""
        places = [(self._paths[place.file or 0], place.start or 0, place.size or 0) for place in locations]
        stored = iter(self._stores.parts([place for place in places if in_store(place[0]) and _is_small(place)]))
        return [
            too_large() if not _is_small(place) else next(stored) if in_store(place[0]) else _part(*place)
            for place in places
        ]

    def _embedded(self, locations: Sequence[Location]) -> list[Any]:
        assert self._column is not None or not locations, "a row in a table of images has a column"
        files = [location.file for location in locations if location.file is not None]
        rows = [location.row for location in locations if location.row is not None]
        return read_embedded(self._paths, files, rows, self._column or "")

    def _stored(self, images: list[Encoded | str]) -> list[Encoded | str]:
        """Addresses in stores replaced by what is there; they were judged when the input was frozen."""
        addresses = [image for image in images if isinstance(image, str) and in_store(image)]
        found = iter(self._stores.images(addresses))
        return [next(found) if isinstance(image, str) and in_store(image) else image for image in images]

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
    """Images out of columns of Parquet or Arrow files: bytes, a path or address, an error, or None.

    Args:
        paths: all source files.
        files, rows: for each image, which of `paths`, and which row of it; in any order.

    Raises:
        StorageError: a file in a store cannot be read now.
    """
    wanted: dict[int, list[int]] = {}
    for file, row in zip(files, rows, strict=True):
        wanted.setdefault(file, []).append(row)
    images: dict[tuple[int, int], Any] = {}
    for file, numbers in wanted.items():
        images |= {(file, row): image for row, image in _file_rows(paths[file], column, set(numbers), paths).items()}
    return [images[place] for place in zip(files, rows, strict=True)]


def _file_rows(path: str, column: str, rows: set[int], tables: Sequence[str]) -> dict[int, Any]:
    """Images out of one file, by the rows they are in; of rows that a damaged file does not give, an error."""
    found: dict[int, Any] = dict.fromkeys(rows, _DAMAGED)
    with store_failures(f"{path} cannot be read"), _opened(path) as source:
        try:
            for row, value in _column_rows(source, column, rows):
                found[row] = _from_struct(value, path, tables) if isinstance(value, dict) else value
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
    return found


_DAMAGED = ImageError("the table is damaged where the image should be", code="image_unreadable")


def _opened(path: str) -> Any:
    """A source file for pyarrow to open."""
    return Stores().open(path) if in_store(path) and not is_lance(path) else nullcontext(path)


def _column_rows(source: Any, column: str, rows: set[int]) -> Iterator[tuple[int, Any]]:
    """Some rows of one column, by their numbers, ascending."""
    if isinstance(source, str) and source.endswith(".arrow"):
        yield from _picked(read_arrow(source, [column], _ROWS_AT_ONCE), 0, sorted(rows))
    elif isinstance(source, str) and is_lance(source):
        yield from lance_rows(source, column, sorted(rows))
    else:
        yield from _parquet_rows(pq.ParquetFile(source), column, rows)


def _parquet_rows(file: pq.ParquetFile, column: str, rows: set[int]) -> Iterator[tuple[int, Any]]:
    """Only row groups that hold any of the rows are read, a few rows at a time."""
    at = 0
    for group in range(file.num_row_groups):
        stop = at + file.metadata.row_group(group).num_rows
        here = sorted(row for row in rows if at <= row < stop)
        if here:
            yield from _picked(file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]), at, here)
        at = stop


def _picked(batches: Iterable[pa.RecordBatch], at: int, rows: list[int]) -> Iterator[tuple[int, Any]]:
    """Rows of batches of one column, ascending; `at` is the number of the first of them."""
    waiting = iter(rows)
    row: int | None = next(waiting)
    for batch in batches:
        values = batch.column(0)
        while row is not None and row < at + len(batch):
            yield row, values[row - at].as_py()
            row = next(waiting, None)
        if row is None:
            return
        at += len(batch)


def _part(path: str, start: int, size: int) -> bytes:
    with store_failures(f"{path} cannot be read"), open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def _is_small(place: tuple[str, int, int]) -> bool:
    return place[2] <= DEFAULT_LIMITS.max_bytes


def _from_struct(value: dict[str, Any], table: str, tables: Sequence[str]) -> bytes | str | InputError | None:
    """The bytes of a {bytes, path} pair, or else what its path stands for; a path is read only now, and may not lead
    to a store but where the tables are."""
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    return _named(resolve(value.get("path"), table, common_folder(tables)))


def _named(location: Location) -> bytes | str | InputError | None:
    """An image that is in no row of a file: its bytes, or the path or address of them."""
    if location.refused is not None:
        return FetchError(location.refused, code="url_refused")
    return location.reference if location.content is None else location.content


def _as_encoded(image: Encoded | str | None) -> Encoded | str:
    """Bytes, a path, or an error; an address stays text."""
    if image is None:
        return ImageError("the row names no image", code="image_missing")
    if isinstance(image, str) and not is_address(image):
        return Path(image)
    return image


@cache
def _fetcher(policy: FetchPolicy) -> Fetcher:
    return Fetcher(policy)
