"""How the files of a source are opened: on a disk, in a store, or behind a web address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.source_files import Source, SourceFile
from pipelines.stores import Stores, in_store
from skipvision.config import JobConfig
from skipvision.errors import ConfigError, FetchError
from skipvision.fetch import Fetcher, FetchPolicy

Opener = Callable[[str], Any]
"""From a file's path or address to the file, open to be read and sought in: binary, as Python or pyarrow has it."""

MAX_FETCHED_BYTES = 1 << 30
"""Of a table behind a web address, which is held in memory while it is frozen. Larger ones belong into a store."""
_FETCH_SECONDS = 900.0


def opened(source: Source, config: JobConfig) -> tuple[Source, Opener]:
    """A source with what opens its files. A table behind a web address is fetched here, once.

    Raises:
        ConfigError: it cannot be fetched.
    """
    if source.is_fetched and source.kind != "images":
        [file] = source.files
        content = _fetched(file.path, config)
        stamped = SourceFile(file.path, len(content), 0, hashlib.sha256(content).hexdigest())
        return replace(source, files=(stamped,)), lambda _: BytesIO(content)
    stores = Stores()
    return source, lambda path: stores.open(path) if in_store(path) else pa.OSFile(path, "rb")


def _fetched(address: str, config: JobConfig) -> bytes:
    policy = FetchPolicy(
        schemes=("https", "http"),
        allow_networks=config.allow_networks,
        deny_networks=config.deny_networks,
        max_bytes=MAX_FETCHED_BYTES,
        total_seconds=_FETCH_SECONDS,
    )
    try:
        with Fetcher(policy) as fetcher:
            return fetcher.fetch(address)
    except FetchError as error:
        raise ConfigError(f"input {without_secrets(address)} cannot be fetched: {error}") from error


def without_secrets(address: str) -> str:
    """An address for messages: many carry a signature in their query."""
    return urlsplit(address)._replace(query="", fragment="").geturl()
