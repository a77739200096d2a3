"""Images of a shard on the CPU: bytes in, checked and decoded, resized by the model's own processor, uint8 pixels out.

An image is read and prepared once, however many rows of the shard show it. A row that cannot be prepared becomes a
coded error here and goes on as a row. What a Ray task returns is one table with all rows of its shard, in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.asked import ASKED, MESSAGES, REFUSED_CODE, REFUSED_MESSAGE
from pipelines.encoded import Encoded, Source
from pipelines.folder import JobFolder
from pipelines.frozen import frozen_name, read_table, sources_name
from pipelines.location import IMAGES, Location
from skipvision.errors import InputError, PromptError
from skipvision.fetch import FetchPolicy
from skipvision.sandbox import DEFAULT_LIMITS, Limits, Prepared, sandbox

SHARD = "shard"
PROMPT, PICTURES, PIXELS = "__prompt", "__pictures", "__pixels"
ERROR_CODE, ERROR_MESSAGE = "__error_code", "__error_message"
READ_SECONDS, PREPARE_SECONDS = "__read_seconds", "__prepare_seconds"

PICTURE = pa.struct(
    [
        ("number", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixels", pa.large_binary()),  # (3, height, width) uint8; 64-bit offsets, since a shard can pass 2 GiB
    ]
)
PREPARED = pa.schema(
    [
        (PROMPT, pa.string()),  # or messages, where the row has such
        (PICTURES, pa.list_(pa.int32())),  # the numbers of the row's pictures, in order
        (PIXELS, pa.list_(PICTURE)),  # those that this row is the first of its shard to show
        (ERROR_CODE, pa.string()),
        (ERROR_MESSAGE, pa.string()),
        (READ_SECONDS, pa.float64()),
        (PREPARE_SECONDS, pa.float64()),
    ]
)

_IMAGES_AT_ONCE = 32
"""Encoded images held at a time: with 64 MiB as the largest, what a task can take is bounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """What a task needs to prepare any shard of one job."""

    output: str
    input_id: str
    model: str
    prompt: str
    prompt_column: str | None
    embedded_column: str | None
    """Parquet column that holds the images; None if the rows name paths or addresses."""
    allow_networks: tuple[str, ...]
    deny_networks: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    """Of what one image may take to decode."""

    def prepare(self, shard: int) -> pa.Table:
        """All rows of a shard: the columns of the frozen input, those of `PREPARED`, and the shard's number."""
        folder = JobFolder(self.output)
        thin = read_table(folder, frozen_name(self.input_id, shard))
        preparing = Preparing(source=self._source(folder), model=self.model, limits=self.limits)
        prepared = with_prepared(thin, self._prompts(thin), preparing)
        return prepared.append_column(SHARD, pa.array([shard] * len(thin), pa.int64()))

    def _prompts(self, thin: pa.Table) -> list[str | None]:
        if self.prompt_column is None:
            return [self.prompt] * len(thin)
        return thin.column(self.prompt_column).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def _source(self, folder: JobFolder) -> Source:
        paths = read_table(folder, sources_name(self.input_id)).column("path").to_pylist()
        policy = FetchPolicy(allow_networks=self.allow_networks, deny_networks=self.deny_networks)
        return Source(paths, self.embedded_column, policy)


def prepare_shard(shards: pa.Table, preparation: Preparation) -> pa.Table:
    """The Ray task: a table of one row with a shard's number -> the shard."""
    (shard,) = shards.column(SHARD).to_pylist()
    return preparation.prepare(shard)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparing:
    """By what images are found and prepared."""

    source: Source
    model: str
    limits: Limits


def with_prepared(
    asked: pa.Table, prompts: Sequence[str | None], preparing: Preparing, *, each_alone: bool = False
) -> pa.Table:
    """Rows with the columns of `PREPARED`.

    Args:
        asked: with the columns of `asked.ASKED`.
        prompts: of the rows that bring no messages.
        each_alone: every row brings its own copy of the pictures that it shows, so that rows may be parted.
    """
    rows = [*_rows(asked, prompts)]
    album = _Album(preparing)
    album.add(image for row in rows if row.refused is None for image in row.images)
    together = [[row] for row in rows] if each_alone else [rows]
    prepared = [row for some in together for row in _prepared(some, album)]
    for field in PREPARED:
        asked = asked.append_column(field, pa.array([row[field.name] for row in prepared], field.type))
    return asked


def pictures_of(prepared: pa.Table) -> dict[int, np.ndarray]:
    """The pictures of a prepared shard by their numbers: (3, height, width) uint8 each, views of the table."""
    pictures = {}
    for chunk in prepared.column(PIXELS).chunks:
        held = chunk.flatten()
        sizes = zip(*(held.field(name).to_pylist() for name in ("number", "height", "width")), strict=True)
        for (number, height, width), pixels in zip(sizes, held.field("pixels"), strict=True):
            pictures[number] = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(3, height, width)
    return pictures


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row asks, and about what."""

    prompt: str | None
    images: list[Location]
    refused: InputError | None
    """Why it cannot be asked, as far as that is known before its images are looked at."""


@dataclass(frozen=True, slots=True)
class _Picture:
    made: np.ndarray | InputError
    read_seconds: float
    prepare_seconds: float


def _rows(asked: pa.Table, prompts: Sequence[str | None]) -> Iterator[_Row]:
    for prompt, row in zip(prompts, asked.select(ASKED.names).to_pylist(), strict=True):
        said = prompt if row[MESSAGES] is None else row[MESSAGES]
        yield _Row(said, [Location.of(place) for place in row[IMAGES]], _refused(said, row))


class _Album:
    """Pictures of some rows, numbered in the order in which they come."""

    def __init__(self, preparing: Preparing) -> None:
        self._preparing = preparing
        self._numbers: dict[Location, int] = {}
        self._by_content: dict[bytes, int] = {}
        self.pictures: list[_Picture] = []

    def add(self, images: Iterable[Location]) -> None:
        """Read and prepare all of them, some at a time."""
        waiting = iter(dict.fromkeys(images))
        while some := list(islice(waiting, _IMAGES_AT_ONCE)):
            started = time.perf_counter()
            encoded = self._preparing.source.read(some)
            read_seconds = (time.perf_counter() - started) / len(some)
            new = self._number(some, encoded)
            made = self._prepared(new)
            self.pictures += [_Picture(image, read_seconds, seconds) for image, seconds in made]

    def numbers(self, images: Sequence[Location]) -> list[int]:
        """Of the pictures of a row."""
        return [self._numbers[image] for image in images]

    def _number(self, locations: Sequence[Location], encoded: Sequence[Encoded]) -> list[Encoded]:
        """Give each image its number: the one of an image with the same bytes, or the next; those that are new."""
        new: list[Encoded] = []
        for location, image in zip(locations, encoded, strict=True):
            number = len(self.pictures) + len(new)
            if isinstance(image, bytes):
                number = self._by_content.setdefault(blake2b(image, digest_size=16).digest(), number)
            self._numbers[location] = number
            if number == len(self.pictures) + len(new):
                new.append(image)
        return new

    def _prepared(self, images: Sequence[Encoded]) -> list[Prepared]:
        """Each image prepared; one that is an error already stays it."""
        sound = [image for image in images if not isinstance(image, InputError)]
        made = iter(sandbox(self._preparing.model, self._preparing.limits).prepare(sound))
        return [(image, 0.0) if isinstance(image, InputError) else next(made) for image in images]


def _prepared(rows: Sequence[_Row], album: _Album) -> Iterator[dict[str, Any]]:
    """The columns of `PREPARED` for each row."""
    shown: set[int] = set()
    for row in rows:
        numbers = [] if row.refused else album.numbers(row.images)
        first_shown = [number for number in dict.fromkeys(numbers) if number not in shown]
        shown.update(first_shown)
        pictures = [album.pictures[number] for number in first_shown]
        error = row.refused or _first_error([album.pictures[number].made for number in numbers])
        yield {
            PROMPT: row.prompt,
            PICTURES: numbers,
            PIXELS: [
                _columns(number, picture.made)
                for number, picture in zip(first_shown, pictures, strict=True)
                if not isinstance(picture.made, InputError)
            ],
            ERROR_CODE: error.code if error else None,
            ERROR_MESSAGE: str(error) if error else None,
            READ_SECONDS: sum(picture.read_seconds for picture in pictures),
            PREPARE_SECONDS: sum(picture.prepare_seconds for picture in pictures),
        }


def _columns(number: int, pixels: np.ndarray) -> dict[str, Any]:
    """A value of `PICTURE`."""
    _, height, width = pixels.shape
    return {"number": number, "height": height, "width": width, "pixels": pixels.tobytes()}


def _first_error(images: Sequence[np.ndarray | InputError]) -> InputError | None:
    """What is wrong with the first image that cannot be shown; which of several it is."""
    for number, image in enumerate(images, start=1):
        if isinstance(image, InputError):
            which = f"image {number} of {len(images)}: " if len(images) > 1 else ""
            return InputError(f"{which}{image}", code=image.code)
    return None


def _refused(prompt: str | None, row: Mapping[str, Any]) -> InputError | None:
    if row[REFUSED_CODE] is not None:
        return InputError(row[REFUSED_MESSAGE], code=row[REFUSED_CODE])
    if prompt is None or not prompt.strip():
        return PromptError("the row has no prompt")
    return None
