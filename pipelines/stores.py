"""Objects in stores (s3://, gs://, az://): their addresses, their listing, and their bytes, whole or in part.

Credentials and endpoints are those of the environment, as for a job's output. The client tries again by itself what a
busy or failing store refuses; what it gives up is the store's failure, never a row's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, RawIOBase
from typing import BinaryIO

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError
from obstore.store import ObjectStore, from_url

from skipvision.errors import ImageError, StorageError
from skipvision.images import DEFAULT_LIMITS

_STORES = ("s3://", "gs://", "az://")
_ADDRESS = re.compile(r"((?:s3|gs|az)://[A-Za-z0-9._-]+)(?:/(.*))?", re.DOTALL)
_AT_ONCE = 16
"""Requests side by side in one task."""

FAILURES = (BaseError, OSError)
"""What a store raises; `FileNotFoundError` among them."""


def in_store(text: str) -> bool:
    """Whether this is the address of something in an object store."""
    return text.startswith(_STORES)


def split(address: str) -> tuple[str, str]:
    """A store's address and the key in it, spelled as it is.

    Raises:
        ValueError: the address names no bucket.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise ValueError(f"{address} names no bucket; write it as s3://bucket/folder")
    return parts[1], parts[2] or ""


class Stores:
    """The stores that one task reads from, each with its connections."""

    def __init__(self) -> None:
        self._stores: dict[str, ObjectStore] = {}

    def objects(self, folder: str) -> Iterator[obstore.ObjectMeta]:
        """Everything below a folder, in no order; `path` is the key.

        Raises:
            ValueError, or one of `FAILURES`.
        """
        store, key = self._at(folder)
        for page in obstore.list(store, prefix=key.rstrip("/") or None):
            yield from page

    def head(self, address: str) -> obstore.ObjectMeta | None:
        """What the store says of one object; None if there is none.

        Raises:
            ValueError, or one of `FAILURES`.
        """
        store, key = self._at(address)
        try:
            return obstore.head(store, key) if key and not key.endswith("/") else None
        except FileNotFoundError:
            return None

    def open(self, address: str) -> BinaryIO:
        """An object to read parts of, such as a Parquet footer.

        Raises:
            ValueError, or one of `FAILURES`; so do the file's own methods.
        """
        return BufferedReader(StoredFile(obstore.open_reader(*self._at(address))))

    def images(self, addresses: Sequence[str]) -> list[bytes | ImageError]:
        """Whole objects, side by side; none larger than an image may be.

        Raises:
            StorageError: the store fails.
        """
        return self._side_by_side([partial(self._whole, each) for each in addresses])

    def parts(self, parts: Sequence[tuple[str, int, int]]) -> list[bytes | ImageError]:
        """Bytes within objects, side by side: of each an address, where they begin, and how many.

        Raises:
            StorageError: the store fails.
        """
        return self._side_by_side([partial(self._part, *each) for each in parts])

    def _whole(self, address: str) -> bytes | ImageError:
        found = obstore.get(*self._at(address))
        size = found.meta["size"]
        return bytes(found.bytes()) if size <= DEFAULT_LIMITS.max_bytes else too_large()

    def _part(self, address: str, start: int, size: int) -> bytes:
        return bytes(obstore.get_range(*self._at(address), start=start, length=size))

    def _side_by_side(self, reads: Sequence[Callable[[], bytes | ImageError]]) -> list[bytes | ImageError]:
        if not reads:
            return []
        with ThreadPoolExecutor(min(_AT_ONCE, len(reads))) as threads:
            return list(threads.map(_outcome, reads))

    def _at(self, address: str) -> tuple[ObjectStore, str]:
        root, key = split(address)
        if root not in self._stores:
            self._stores[root] = from_url(root)
        return self._stores[root], key


def too_large() -> ImageError:
    return ImageError(
        f"the file is larger than {DEFAULT_LIMITS.max_bytes} bytes; scale it down", code="image_too_large"
    )


@contextmanager
def store_failures(what: str) -> Iterator[None]:
    """What a store or a disk raises inside the `with` block, as a failure of storage.

    Raises:
        StorageError: saying `what` could not be done.
    """
    try:
        yield
    except FAILURES as error:
        raise StorageError(f"{what}: {first_line(error)}") from error


def is_damage(error: Exception) -> bool:
    """Whether what pyarrow raised is about what a file holds; an error of a disk or a store has a number or a class of
    its own."""
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None
    return isinstance(error, pa.ArrowException)


def first_line(error: Exception) -> str:
    """What an error says, without what a store adds about its configuration."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _outcome(read: Callable[[], bytes | ImageError]) -> bytes | ImageError:
    """An image, or why this one has none; what fails for the whole store is raised."""
    try:
        return read()
    except (FileNotFoundError, ValueError, InvalidPathError):
        return ImageError("there is no such object in the store", code="image_missing")
    except PermissionDeniedError:
        return ImageError("the store does not let this object be read; check its permissions", code="image_unreadable")
    except FAILURES as error:
        raise StorageError(f"an image cannot be read from its store: {first_line(error)}") from error


class StoredFile(RawIOBase):
    """An object as a file; the store's own reader lacks what pyarrow asks of a file."""

    def __init__(self, reader: obstore.ReadableFile) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._reader.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
