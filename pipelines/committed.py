"""The rows that a job has committed, in the order of its input, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.frozen import ROW, frozen_name, read_table
from pipelines.layout import DATA, shard_of
from pipelines.plan import JobPlan

ROWS_AT_ONCE = 1024
ROWS_PER_HEAP = 1 << 18
"""Rows that are put in order in memory at a time, where a job's files hold them in another one."""


def committed_rows(job: JobFolder, plan: JobPlan) -> Iterator[pa.RecordBatch]:
    """All of them. Where rows about the same images were put together, they are sorted again on this machine's disk."""
    if not plan.is_regrouped:
        for _, rows in _shards(job):
            yield from rows.to_batches(max_chunksize=ROWS_AT_ONCE)
        return
    with TemporaryDirectory(prefix="skipvision-results-") as scratch:
        for heap in _heaps(job, plan, Path(scratch)):
            rows = pq.read_table(heap)
            heap.unlink()
            in_order = rows.take(np.argsort(rows.column(ROW).to_numpy())).drop_columns([ROW])
            yield from in_order.to_batches(max_chunksize=ROWS_AT_ONCE)


def _shards(job: JobFolder) -> Iterator[tuple[int, pa.Table]]:
    """Each committed shard; some thousands of rows without images at most."""
    for name in sorted(job.names(DATA), key=shard_of):
        content = job.read(name)
        assert content is not None, f"{name} was committed and is gone"
        yield shard_of(name), pq.read_table(pa.BufferReader(content))


def _heaps(job: JobFolder, plan: JobPlan, scratch: Path) -> list[Path]:
    """Files that each hold the rows of one stretch of the input, in any order; the stretches follow one another."""
    writers: dict[int, pq.ParquetWriter] = {}
    for shard, rows in _shards(job):
        rows = rows.append_column(ROW, read_table(job, frozen_name(plan.input_id, shard)).column(ROW))
        heap_of = rows.column(ROW).to_numpy() // ROWS_PER_HEAP
        for heap in np.unique(heap_of):
            if heap not in writers:
                writers[heap] = pq.ParquetWriter(scratch / f"{heap}.parquet", rows.schema)
            writers[heap].write_table(rows.filter(pa.array(heap_of == heap)))
    for writer in writers.values():
        writer.close()
    return [scratch / f"{heap}.parquet" for heap in sorted(writers)]
