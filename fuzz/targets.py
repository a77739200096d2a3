"""What is tried: each takes any bytes, and raises if something comes out that should not."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.asked import as_table, read_openai_line
from pipelines.location import Location
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig, load
from skipvision.conversation import read_messages
from skipvision.errors import ConfigError, FetchError, ImageError
from skipvision.fetch.addresses import AddressRules, is_address
from skipvision.fetch.data_urls import decode_data_url
from skipvision.fetch.failures import retry_after_seconds
from skipvision.images import ImageLimits, decode_image

Target = Callable[[bytes], None]

RULES = AddressRules()
BASE = RULES.parse("https://example.com/folder/file?query#fragment")
LIMITS = ImageLimits(max_pixels=250_000, max_side=2_000)
"""Small, so that what is slow is the structure of a file and not the picture."""
MAX_DATA_BYTES = 64


def image(data: bytes) -> None:
    """`decode_image`: a picture within its limits, or an ImageError."""
    try:
        pixels = decode_image(data, limits=LIMITS)
    except ImageError:
        return
    height, width, channels = pixels.shape
    assert (channels, pixels.dtype) == (3, np.uint8)
    assert height * width <= LIMITS.max_pixels


def url(data: bytes) -> None:
    """`AddressRules`: a URL of an open kind without credentials, or a FetchError; also as a redirect."""
    text = data.decode("utf-8", "surrogateescape")
    is_address(text)
    for lead in (RULES.parse, lambda text: RULES.follow(BASE, text)):
        try:
            reached = lead(text)
        except FetchError:
            continue
        assert reached.scheme in RULES.schemes
        assert reached.raw_host
        assert "@" not in reached.raw_authority


def data_url(data: bytes) -> None:
    """`decode_data_url`: bytes that say the same when they are written again, or a FetchError."""
    text = data.decode("utf-8", "surrogateescape")
    for candidate in (text, f"data:image/png;base64,{text}"):
        try:
            content = decode_data_url(candidate, max_bytes=MAX_DATA_BYTES)
        except FetchError:
            continue
        assert len(content) <= MAX_DATA_BYTES
        written = base64.b64encode(content).decode()  # but for the bits that the last letter leaves over
        assert (len(written), written[:-4]) == (len(candidate.partition(",")[2]), candidate.partition(",")[2][:-4])


def retry_after(data: bytes) -> None:
    """A pause of no less than nothing, or None."""
    pause = retry_after_seconds(data.decode("latin-1"))
    assert pause is None or pause >= 0


def settings(data: bytes) -> None:
    """`skipvision.config.load`: settings, or a ConfigError."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        Path(file.name).write_bytes(data)
        try:
            load(Path(file.name), JobConfig)
        except ConfigError:
            return


def jsonl(data: bytes) -> None:
    """A JSONL input."""
    _table(data, ".jsonl")


def openai_line(data: bytes) -> None:
    """A line of an OpenAI batch: what it asks, or why it is refused, as a row of a table."""
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return  # a file with such a line is refused
    asked = read_openai_line(line if isinstance(line, dict) else {"body": line}, Location)
    assert len(as_table([asked])) == 1
    assert asked.refused is not None or read_messages(asked.messages)


def csv(data: bytes) -> None:
    """A CSV input."""
    _table(data, ".csv")


def parquet(data: bytes) -> None:
    """A Parquet input."""
    _table(data, ".parquet")


def _table(data: bytes, suffix: str) -> None:
    """The same number of rows as the columns say, all of the schema that was told, or a ConfigError."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        Path(file.name).write_bytes(data)
        try:
            table = open_table(find_source(file.name), JobConfig(input=file.name, output="unused"))
            for thin in table.thin_tables():
                assert thin.schema.names[: len(table.schema)] == table.schema.names
                thin.validate(full=True)
        except ConfigError:
            return


TARGETS: dict[str, Target] = {
    each.__name__: each for each in (image, url, data_url, retry_after, settings, jsonl, openai_line, csv, parquet)
}
