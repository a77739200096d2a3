"""A job's rows for other programs: as a JSONL, CSV or Parquet file, a Lance dataset or a Delta table, streamed."""

from __future__ import annotations

import base64
import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.committed import committed_rows
from pipelines.folder import JobFolder
from pipelines.layout import PLAN, SUCCESS, has_plan
from pipelines.plan import JobPlan, read_plan
from pipelines.result_places import check_outside, replacing
from pipelines.result_rows import result_schema
from pipelines.result_tables import TABLE_FORMATS, write_table
from skipvision.errors import ConfigError

FORMATS = ("jsonl", "csv", "parquet", *TABLE_FORMATS)

Take = Callable[[pa.RecordBatch], None]
"""Writes the next rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What was written."""

    rows: int
    output: str
    finished: bool
    """False: the job still runs or was stopped, and these are the rows it has committed so far."""

    def describe(self) -> str:
        note = "" if self.finished else "; the job is not finished: start it again to go on, then export again"
        return f"{self.rows:,} rows written to {self.output}{note}"


def export(folder: str | Path, to: str = "jsonl", *, output: str | Path) -> Export:
    """Write the rows that a job has committed, in the order of its input, to one file or table.

    In JSONL and CSV a moment is ISO 8601 text and bytes are base64. CSV holds lists and structs as JSON, and cannot
    tell an empty text from none. A Delta table keeps no order. What stood at `output` is replaced once the new file
    or the new version of the table is complete.

    Args:
        folder: a job's folder, local or in an object store.
        to: one of `FORMATS`.
        output: a local path or an object store's address, outside the job's `data/`.

    Raises:
        ConfigError: the folder is no job, the format is unknown or not installed, or `output` cannot be written.
        StorageError: the disk or the store failed.
    """
    if to not in FORMATS:
        raise ConfigError(f"results can be written as {', '.join(FORMATS)}; got {to!r}")
    job, plan = open_job(folder)
    target = str(output)
    check_outside(target, job)
    finished = job.read(SUCCESS) is not None  # asked first: shards may still come, none ever goes
    schema, rows = result_schema(plan.schema), _Counted(committed_rows(job, plan))
    if to in TABLE_FORMATS:
        write_table(to, target, schema, rows)
    else:
        with replacing(target) as file, _WRITERS[to](file, schema) as take:
            for batch in rows:
                take(batch)
    return Export(rows=rows.seen, output=target, finished=finished)


@dataclass(slots=True)
class _Counted:
    """Batches, and how many rows of them have been taken."""

    batches: Iterator[pa.RecordBatch]
    seen: int = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self.batches:
            self.seen += len(batch)
            yield batch


def open_job(folder: str | Path) -> tuple[JobFolder, JobPlan]:
    """A job's folder, to read, and its plan.

    Raises:
        ConfigError: it is no job's.
    """
    address = str(folder)
    # Asked first, since a local folder that is opened is created.
    job = JobFolder(address) if has_plan(address) else None
    plan = read_plan(job) if job else None
    if job is None or plan is None:
        raise ConfigError(f"{address} is no job's folder: it has no {PLAN}")
    return job, plan


@contextmanager
def _jsonl(file: BinaryIO, schema: pa.Schema) -> Iterator[Take]:
    yield lambda batch: file.writelines(_json(row).encode() + b"\n" for row in batch.to_pylist())


@contextmanager
def _csv(file: BinaryIO, schema: pa.Schema) -> Iterator[Take]:
    table = csv.writer(_Lines(file), lineterminator="\n")
    table.writerow(schema.names)
    yield lambda batch: table.writerows([_cell(value) for value in row.values()] for row in batch.to_pylist())


@contextmanager
def _parquet(file: BinaryIO, schema: pa.Schema) -> Iterator[Take]:
    with pq.ParquetWriter(file, schema) as writer:
        yield writer.write_batch


_WRITERS: dict[str, Callable[[BinaryIO, pa.Schema], AbstractContextManager[Take]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}


@dataclass(frozen=True, slots=True)
class _Lines:
    """Text for the csv module, bytes for the file."""

    file: BinaryIO

    def write(self, line: str) -> int:
        return self.file.write(line.encode())


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _cell(value: Any) -> Any:
    return _json(value) if isinstance(value, list | dict) else _plain(value)


def _plain(value: Any) -> Any:
    """A value of a Parquet column as JSON knows it; what is no number (NaN, infinity) is null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _ if hasattr(value, "isoformat"):
            return value.isoformat()
        case _:
            return str(value)  # decimals, durations
