"""A job's folder, on disk or in an object store, and the one promise it rests on: a file is created once, whole.

Which files stand there is told in `layout`. Of several writers of one name exactly one wins, however they are timed or
killed. Object stores give this with a conditional put. On a local disk the store's own conditional put leaves its
unfinished file beside the target, where readers would find it after a kill; so a file is written under `_staging/` and
then given its name by a hard link, which is atomic and refuses a name that is taken.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, ObjectStore, from_url

from pipelines.stores import StoredFile, first_line
from skipvision.errors import ConfigError, StorageError
from skipvision.failpoints import failpoint

STAGING = "_staging"

_ATTEMPTS = 3
_LOCK = "lock"
_FAILURES = (BaseError, OSError)
"""What a store, or the disk below it, raises."""


Version = bytes | tuple[str | None, str | None] | None
"""What tells one content of a file from another: the content itself on a disk, a store's tag and version of it; None
where there is no file."""


class JobFolder:
    """The folder at `address`: a local path or an object store's address. Small; made anew in every process."""

    def __init__(self, address: str, *, store: ObjectStore | None = None) -> None:
        self.address = address
        self.path: Path | None = None
        """Where the folder is on this machine; None if it is in an object store."""
        if store is None and "://" not in address:
            self.path = Path(address).absolute()
            store = LocalStore(self.path, mkdir=True)
        self._store = store or from_url(address)

    @property
    def location(self) -> str:
        """The address for other processes, whose working folder may be another."""
        return str(self.path or self.address)

    @classmethod
    def open(cls, address: str) -> JobFolder:
        """Open a folder to work in, and make sure that one can.

        Raises:
            ConfigError: the output cannot be written, or its store cannot create conditionally.
        """
        try:
            folder = cls(address)
            folder._probe()
        except (*_FAILURES, ValueError, StorageError) as error:
            raise ConfigError(f"output {address} cannot be written: {first_line(error)}") from error
        return folder

    def create(self, name: str, content: bytes) -> bool:
        """Create a file, whole and for good, unless there is one of this name.

        Returns:
            Whether this call created it. False: somebody else did, and their content stands.

        Raises:
            StorageError: the file cannot be written, and there is none of this name as far as can be known.
        """
        with self._told(f"{name} cannot be written"):
            failpoint("create", name)
            try:
                created = self._link(name, content) if self.path else self._put_new(name, content)
                failpoint("created", name)
                return created
            except _FAILURES:
                # An error does not say that nothing was done: the answer may have been lost on its way.
                found = self.read(name)
                if found is None:
                    raise
                return found == content

    def replace(self, name: str, content: bytes) -> None:
        """Write a file that may change, such as a report. Readers see the old or the new content, never a part.

        Raises:
            StorageError: it cannot be written.
        """
        with self._told(f"{name} cannot be written"):
            failpoint("replace", name)
            if self.path is None:
                obstore.put(self._store, name, content, use_multipart=False)
            else:
                obstore.rename(self._store, self._stage(name, content), name, overwrite=True)

    def read(self, name: str) -> bytes | None:
        """A file's content, or None if there is no such file.

        Raises:
            StorageError: it cannot be read.
        """
        with self._told(f"{name} cannot be read"):
            failpoint("read", name)
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:
                return None

    def read_version(self, name: str) -> tuple[bytes | None, Version]:
        """A file's content, None if there is no such file; and what `swap` knows it by.

        Raises:
            StorageError: it cannot be read.
        """
        if self.path is not None:
            content = self.read(name)
            return content, content
        with self._told(f"{name} cannot be read"):
            failpoint("read", name)
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError:
                return None, None
            return bytes(found.bytes()), (found.meta["e_tag"], found.meta["version"])

    def swap(self, name: str, content: bytes, version: Version) -> Version:
        """Write a file if it is still what `read_version` saw.

        Returns:
            What `swap` knows it by now; None if it has changed since, and is as it was.

        Raises:
            StorageError: it cannot be written.
        """
        with self._told(f"{name} cannot be written"):
            failpoint("swap", name)
            return self._swap_file(name, content, version) if self.path else self._swap_object(name, content, version)

    def _swap_object(self, name: str, content: bytes, version: Version) -> Version:
        assert not isinstance(version, bytes)
        expected: Any = "create"
        if version is not None:
            expected = {name: tag for name, tag in zip(("e_tag", "version"), version, strict=True) if tag is not None}
        try:
            put = obstore.put(self._store, name, content, mode=expected, use_multipart=False)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return None
        return put["e_tag"], put["version"]

    def _swap_file(self, name: str, content: bytes, version: Version) -> Version:
        assert self.path is not None
        # A disk has no put that compares; whoever swaps holds this lock for as long as it takes.
        (self.path / STAGING).mkdir(exist_ok=True)
        with (self.path / STAGING / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read(name) != version:
                return None
            obstore.rename(self._store, self._stage(name, content), name, overwrite=True)
        return content

    def open_reader(self, name: str) -> BinaryIO:
        """A file to read parts of, such as a Parquet footer.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read.
        """
        with self._told(f"{name} cannot be read"):
            failpoint("read", name)
            if self.path is not None:
                return (self.path / name).open("rb")
            return BufferedReader(StoredFile(obstore.open_reader(self._store, name)))

    def names(self, prefix: str) -> list[str]:
        """All files under a folder of the job, sorted.

        Raises:
            StorageError: they cannot be listed.
        """
        with self._told(f"{prefix} cannot be listed"):
            failpoint("list", prefix)
            return sorted(meta["path"] for page in obstore.list(self._store, prefix=prefix) for meta in page)

    def remove(self, names: list[str]) -> None:
        """Remove files. Never what is committed: only what nobody refers to.

        Raises:
            StorageError: one cannot be removed.
        """
        for name in names:
            with self._told(f"{name} cannot be removed"), suppress(FileNotFoundError):
                failpoint("remove", name)
                obstore.delete(self._store, name)

    def remove_unfinished(self) -> None:
        """Remove files that killed attempts left unfinished.

        Safe beside another running attempt: it stages again what it misses.
        """
        self.remove([name for name in self.names(STAGING) if name != f"{STAGING}/{_LOCK}"])

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What goes wrong inside the `with` block, with the folder's name and in the words of this program."""
        try:
            yield
        except FileNotFoundError:
            raise
        except _FAILURES as error:
            raise StorageError(f"{what} in {self.address}: {first_line(error)}") from error

    def _put_new(self, name: str, content: bytes) -> bool:
        try:
            # One request: a multipart upload is not conditional everywhere.
            obstore.put(self._store, name, content, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def _link(self, name: str, content: bytes) -> bool:
        for _ in range(_ATTEMPTS):
            staged = self._stage(name, content)
            failpoint("staged", name)
            try:
                obstore.rename(self._store, staged, name, overwrite=False)
                return True
            except AlreadyExistsError:
                self.remove([staged])
                return False
            except FileNotFoundError:
                continue  # another attempt swept the staged file away as it started
        raise OSError(f"{name} could not be committed in {_ATTEMPTS} attempts: its staged file vanished each time")

    def _stage(self, name: str, content: bytes) -> str:
        assert self.path is not None
        staged = f"{STAGING}/{name.replace('/', '.')}.{uuid4().hex}"
        obstore.put(self._store, staged, content, use_multipart=False)
        with suppress(FileNotFoundError):  # swept away: the rename will notice
            _flush_to_disk(self.path / staged)
        return staged

    def _probe(self) -> None:
        """Create a file twice; the second must be refused."""
        name = f"{STAGING}/probe-{uuid4().hex}"
        # The first may be told that it is there already: its own answer was lost on its way, and it was tried again.
        self._put_new(name, b"1")
        created_again = self._put_new(name, b"2")
        self.remove([name])
        if created_again:
            raise ConfigError(
                f"output {self.address} is in a store without conditional create, so that two attempts could both "
                "commit a shard; use another store"
            )


def name_of(address: str) -> str:
    """The last part of a folder's address."""
    return address.rstrip("/").rpartition("/")[2] or address


def _flush_to_disk(path: Path) -> None:
    # Without this a power cut can leave a linked name with no bytes behind it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
