"""Jobs whose shards are committed by hand: what an export reads, without a model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.layout import PLAN, shard_name
from pipelines.plan import JobPlan
from pipelines.result_rows import result_schema


def planned_job(tmp_path: Path, user_columns: pa.Schema, *, is_regrouped: bool = False) -> JobFolder:
    """A job that is planned, under `job`, with nothing committed yet."""
    folder = JobFolder(str(tmp_path / "job"))
    plan = JobPlan(
        input_id="i",
        rows=5,
        rows_per_shard=2,
        settings={"model": None},
        skip="off",
        model={},
        prompt_sha256="",
        embedded_column=None,
        schema=user_columns,
        is_regrouped=is_regrouped,
        source_files=1,
        source_bytes=1,
        other_files=0,
        other_names=(),
    )
    folder.create(PLAN, plan.to_json())
    return folder


def commit(folder: JobFolder, shard: int, columns: dict[str, list[Any]], user_columns: pa.Schema) -> None:
    """Commit one shard; columns that are left out are null."""
    schema = result_schema(user_columns)
    rows = len(columns["row_key"])
    table = pa.table({name: columns.get(name, [None] * rows) for name in schema.names}, schema)
    memory = io.BytesIO()
    pq.write_table(table, memory)
    assert folder.create(shard_name(shard), memory.getvalue())
