"""Images of a shard on the CPU: bytes in, checked and decoded, resized by the model's own processor, uint8 pixels out.

A row that cannot be prepared becomes a coded error here and goes on as a row. What a Ray task returns is one table
with all rows of its shard, in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.frozen import frozen_name, read_table, sources_name
from pipelines.sandbox import DEFAULT_LIMITS, Limits, Prepared, sandbox
from pipelines.tables import FILE, IMAGE, ROW, resolve
from skipvision.errors import FetchError, ImageError, InputError, PromptError
from skipvision.fetch import Fetcher, FetchPolicy, is_address

SHARD = "shard"
PROMPT, PIXELS, HEIGHT, WIDTH = "__prompt", "__pixels", "__height", "__width"
ERROR_CODE, ERROR_MESSAGE = "__error_code", "__error_message"
READ_SECONDS, PREPARE_SECONDS = "__read_seconds", "__prepare_seconds"

PREPARED = pa.schema(
    [
        (PROMPT, pa.string()),
        (PIXELS, pa.large_binary()),  # (3, height, width) uint8; 64-bit offsets, since a shard can pass 2 GiB
        (HEIGHT, pa.int32()),
        (WIDTH, pa.int32()),
        (ERROR_CODE, pa.string()),
        (ERROR_MESSAGE, pa.string()),
        (READ_SECONDS, pa.float64()),
        (PREPARE_SECONDS, pa.float64()),
    ]
)

_ROWS_AT_ONCE = 32
"""Encoded images held at a time: with 64 MiB as the largest, what a task can take is bounded."""

Encoded = bytes | Path | InputError


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
    limits: Limits = DEFAULT_LIMITS
    """Of what one image may take to decode."""

    def prepare(self, shard: int) -> pa.Table:
        """All rows of a shard: the columns of the frozen input, those of `PREPARED`, and the shard's number."""
        folder = JobFolder(self.output)
        thin = read_table(folder, frozen_name(self.input_id, shard))
        prepared = [row for rows in self._in_groups(thin, folder) for row in rows]
        for field in PREPARED:
            thin = thin.append_column(field, pa.array([row[field.name] for row in prepared], field.type))
        return thin.append_column(SHARD, pa.array([shard] * len(thin), pa.int64()))

    def _in_groups(self, thin: pa.Table, folder: JobFolder) -> Iterator[list[dict[str, Any]]]:
        for first in range(0, len(thin), _ROWS_AT_ONCE):
            rows = thin.slice(first, _ROWS_AT_ONCE)
            prompts = self._prompts(rows)
            started = time.perf_counter()
            images = self._encoded(rows, folder)
            read_seconds = (time.perf_counter() - started) / len(rows)
            made = iter(
                self._prepared(
                    [_refused(prompt, image) or image for prompt, image in zip(prompts, images, strict=True)]
                )
            )
            yield [_row(prompt, *next(made)) | {READ_SECONDS: read_seconds} for prompt in prompts]

    def _prepared(self, images: list[Encoded]) -> list[Prepared]:
        """Each image prepared; one that is an error already stays it."""
        sound = [image for image in images if not isinstance(image, InputError)]
        made = iter(sandbox(self.model, self.limits).prepare(sound))
        return [(image, 0.0) if isinstance(image, InputError) else next(made) for image in images]

    def _prompts(self, rows: pa.Table) -> list[str | None]:
        if self.prompt_column is None:
            return [self.prompt] * len(rows)
        return rows.column(self.prompt_column).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]

    def _encoded(self, rows: pa.Table, folder: JobFolder) -> list[Encoded]:
        """Each row's image as bytes or a path to them, or why there is none."""
        if self.embedded_column is None:
            named: list[Any] = rows.column(IMAGE).to_pylist()
        else:
            paths = read_table(folder, sources_name(self.input_id)).column("path").to_pylist()
            named = read_embedded(
                paths, rows.column(FILE).to_pylist(), rows.column(ROW).to_pylist(), self.embedded_column
            )
        return self._fetched([_as_encoded(image) for image in named])

    def _fetched(self, images: list[Encoded | str]) -> list[Encoded]:
        """Addresses replaced by what is behind them."""
        addresses = [image for image in images if isinstance(image, str)]
        answers: Iterator[bytes | FetchError] = iter(())
        if addresses:
            answers = iter(_fetcher(self.allow_networks).fetch_many(addresses))
        return [next(answers) if isinstance(image, str) else image for image in images]


def prepare_shard(shards: pa.Table, preparation: Preparation) -> pa.Table:
    """The Ray task: a table of one row with a shard's number -> the shard."""
    (shard,) = shards.column(SHARD).to_pylist()
    return preparation.prepare(shard)


def read_embedded(paths: list[str], files: list[int], rows: list[int], column: str) -> list[Any]:
    """Images out of Parquet files: bytes, a path or address, or None.

    Args:
        paths: all source files.
        files, rows: for each image, which of `paths`, and which row of it; both ascending.
    """
    images = []
    for file in dict.fromkeys(files):
        wanted = [row for of, row in zip(files, rows, strict=True) if of == file]
        folder = Path(paths[file]).parent
        values = _column_rows(paths[file], column, wanted[0], wanted[-1] + 1)
        images += [_from_struct(value, folder) if isinstance(value, dict) else value for value in values]
    return images


def _column_rows(path: str, column: str, start: int, stop: int) -> list[Any]:
    """Rows `start` to `stop` of one column; only the row groups that hold them are read, a few rows at a time."""
    file, values, first = pq.ParquetFile(path), [], 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first < stop and start < first + rows:
            at = first
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                if at >= stop:
                    break
                if at + len(batch) > start:
                    piece = batch.slice(max(0, start - at), min(stop, at + len(batch)) - max(start, at))
                    values += piece.column(0).to_pylist()
                at += len(batch)
        first += rows
    return values


def _from_struct(value: dict[str, Any], folder: Path) -> bytes | str | None:
    """The bytes of a {bytes, path} pair, or else what its path stands for."""
    return value["bytes"] if value["bytes"] is not None else resolve(value.get("path"), folder)


def _as_encoded(image: bytes | str | None) -> Encoded | str:
    """Bytes, a path, or an error; an address stays text."""
    if image is None:
        return ImageError("the row names no image", code="image_missing")
    if isinstance(image, str) and not is_address(image):
        return Path(image)
    return image


def _refused(prompt: str | None, image: Encoded) -> InputError | None:
    """Why a row cannot be asked about, as far as that is known before its image is looked at."""
    if prompt is None or not prompt.strip():
        return PromptError("the row has no prompt")
    return image if isinstance(image, InputError) else None


def _row(prompt: str | None, made: np.ndarray | InputError, seconds: float) -> dict[str, Any]:
    """The columns of `PREPARED` for one row, but the seconds it took to read."""
    row: dict[str, Any] = dict.fromkeys(PREPARED.names) | {PROMPT: prompt, PREPARE_SECONDS: seconds}
    if isinstance(made, InputError):
        return row | {ERROR_CODE: made.code, ERROR_MESSAGE: str(made)}
    return row | {PIXELS: made.tobytes(), HEIGHT: made.shape[1], WIDTH: made.shape[2]}


@cache
def _fetcher(allow_networks: tuple[str, ...]) -> Fetcher:
    return Fetcher(FetchPolicy(allow_networks=allow_networks))
