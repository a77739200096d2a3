"""Where an export goes: a file that is replaced once the new one is complete, on disk or in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from pipelines.folder import JobFolder
from pipelines.layout import DATA
from pipelines.stores import first_line
from skipvision.errors import ConfigError, StorageError


def is_stored(output: str) -> bool:
    """Whether an output is in an object store rather than on this machine."""
    return "://" in output


def check_outside(output: str, job: JobFolder) -> None:
    """Refuse to write among the files that a job has committed.

    Raises:
        ConfigError: `output` is among them.
    """
    here, data = (output, f"{job.address.rstrip('/')}/{DATA}")
    if job.path is not None:
        here, data = str(Path(output).absolute()), str(job.path / DATA)
    if here.rstrip("/") == data or here.startswith(f"{data}/"):
        raise ConfigError(f"output {output} lies among the job's own results; choose a place outside {data}")


@contextmanager
def replacing(output: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `output` when the block ends well, and vanishes when it does not.

    Raises:
        ConfigError: `output` is a folder or cannot be written.
        StorageError: an object store failed.
    """
    with _uploading(output) if is_stored(output) else _replacing_file(Path(output)) as file:
        yield file


def open_store(address: str) -> ObjectStore:
    """The object store at an address, with the credentials of the environment.

    Raises:
        ConfigError: there is no store of this kind, or its settings are wrong.
    """
    try:
        return from_url(address)
    except (BaseError, ValueError) as error:
        raise ConfigError(f"output {address} cannot be written: {first_line(error)}") from error


@contextmanager
def told(output: str) -> Iterator[None]:
    """What a store or the disk raises inside the `with` block, in the words of this program."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageError(f"output {output} cannot be written: {first_line(error)}") from error


def unfinished(target: Path) -> Path:
    """A path for what will be renamed to `target` once it is complete.

    It lies beside it, so that renaming is one step, and is hidden, so that nobody takes it for a result.

    Raises:
        ConfigError: there is no folder for it.
    """
    if not target.parent.is_dir():
        raise ConfigError(f"output {target} cannot be written: there is no folder {target.parent}")
    return target.with_name(f".{target.name}.{uuid4().hex}")


@contextmanager
def _replacing_file(target: Path) -> Iterator[BinaryIO]:
    if target.is_dir():
        raise ConfigError(f"output {target} is a folder; name a file")
    made = unfinished(target)
    try:
        file = made.open("wb")
    except OSError as error:
        raise ConfigError(f"output {target} cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def _uploading(address: str) -> Iterator[BinaryIO]:
    """An object in the making: sent in parts, seen by nobody before the last one, given up when the block fails."""
    folder, _, name = address.rpartition("/")
    if not name or folder.endswith("/"):
        raise ConfigError(f"output {address} names no file; add one, such as {folder.rstrip('/')}/rows.jsonl")
    store = open_store(folder)
    with told(address), obstore.open_writer(store, name) as upload:
        yield cast(BinaryIO, _Upload(upload))


class _Upload(RawIOBase):
    """An upload as a file; the store's own writer lacks what pyarrow asks of a file."""

    def __init__(self, upload: obstore.WritableFile) -> None:
        self._upload = upload

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._upload.write(content)
