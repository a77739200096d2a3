"""Where a job's frozen input stands in its folder, and how it is read. What writes it is `freeze`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.layout import INPUT
from skipvision.errors import ConfigError

ROW = "__row"
"""Column of the frozen input: the row's number in the input, from 0."""


def frozen_name(input_id: str, shard: int) -> str:
    return f"{INPUT}/{input_id}/shard-{shard:05d}.parquet"


def sources_name(input_id: str) -> str:
    return f"{INPUT}/{input_id}/sources.parquet"


def read_table(folder: JobFolder, name: str) -> pa.Table:
    """A table of the frozen input.

    Raises:
        ConfigError: it is gone.
    """
    content = folder.read(name)
    if content is None:
        raise ConfigError(f"the job in {folder.address} is damaged: {name} is gone; choose another output")
    return pq.read_table(pa.BufferReader(content))
