"""Images as they stand in their source: from the place of an image to its encoded bytes, or to why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.embedded import Columns
from pipelines.location import Location
from pipelines.references import common_folder, resolve
from pipelines.stores import Stores, in_store, store_failures, too_large
from skipvision.errors import FetchError, ImageError, InputError
from skipvision.fetch import Fetcher, FetchPolicy, is_address
from skipvision.images import DEFAULT_LIMITS
from skipvision.sandbox import Encoded as Sound

Encoded = Sound | InputError


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
        self._columns: Columns | None = None

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
        files = [location.file for location in locations if location.file is not None]
        rows = [location.row for location in locations if location.row is not None]
        if not locations:
            return []
        assert self._column is not None, "a row in a table of images has a column"
        self._columns = self._columns or Columns(self._paths, self._column)
        return read_embedded(self._paths, files, rows, self._column, self._columns)

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


def read_embedded(
    paths: Sequence[str], files: list[int], rows: list[int], column: str, columns: Columns | None = None
) -> list[Any]:
    """Images out of columns of tables: bytes, a path or address, an error, or None.

    Args:
        paths: all source files.
        files, rows: for each image, which of `paths`, and which row of it; in any order.
        columns: what is open already.

    Raises:
        StorageError: a file cannot be read now.
    """
    columns = columns or Columns(paths, column)
    wanted: dict[int, set[int]] = {}
    for file, row in zip(files, rows, strict=True):
        wanted.setdefault(file, set()).add(row)
    values = {file: columns.values(file, numbers) for file, numbers in wanted.items()}
    found = [(paths[file], values[file][row]) for file, row in zip(files, rows, strict=True)]
    return [_from_struct(value, path, paths) if isinstance(value, dict) else value for path, value in found]


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
