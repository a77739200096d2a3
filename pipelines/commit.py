"""The commit: a shard's file built in memory and created once, its numbers in the footer; and a job's last two files.

Whoever creates `data/<shard>.parquet` first has committed the shard. An attempt that comes second has lost nothing:
its rows are there, so losing counts as success, and the winner's numbers are the shard's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.layout import DATA, MANIFEST, SUCCESS, shard_name, shard_of
from pipelines.plan import JobPlan
from pipelines.result_rows import ROW_KEY
from pipelines.statistics import JobReport, ShardStatistics
from skipvision.errors import ConfigError

FOOTER = b"skipvision"
"""The key of our numbers among a file's own metadata."""


def commit(folder: JobFolder, results: pa.Table, statistics: ShardStatistics) -> ShardStatistics:
    """Commit one shard.

    Returns:
        The numbers of what stands in `data/` now: these, or those of the attempt that was first.
    """
    started = time.perf_counter()
    name = shard_name(statistics.shard)
    if not folder.create(name, _file(results, statistics)):
        return _read_footer(folder, name)
    spent = {"write": statistics.stage_seconds.get("write", 0.0) + time.perf_counter() - started}
    return replace(statistics, stage_seconds={**statistics.stage_seconds, **spent})


def committed_shard(folder: JobFolder, shard: int) -> ShardStatistics | None:
    """The numbers of one shard; None if it is not committed."""
    try:
        return _read_footer(folder, shard_name(shard))
    except FileNotFoundError:
        return None


def committed_shards(folder: JobFolder, plan: JobPlan) -> dict[int, ShardStatistics]:
    """The numbers of every committed shard, by shard, checked against the plan.

    Raises:
        ConfigError: a file under `data/` cannot be read, or is not this job's.
    """
    names = [name for name in folder.names(DATA) if name.endswith(".parquet")]
    read = partial(_checked, folder)
    with ThreadPoolExecutor(max_workers=16) as readers:
        found = {shard_of(name): s for name, s in zip(names, readers.map(read, names), strict=True)}
    for shard, statistics in found.items():
        if shard >= plan.shards or statistics.rows != plan.rows_in(shard):
            raise ConfigError(f"{shard_name(shard)} of {folder.address} is not of this job; choose another output")
    return found


def write_manifest(folder: JobFolder, plan: JobPlan, shards: Iterable[ShardStatistics]) -> None:
    """Name every file of the finished job with its rows. `_SUCCESS` comes after it."""
    files: list[dict[str, Any]] = [
        {"path": shard_name(s.shard), "rows": s.rows, "ok": s.ok, "errors": s.errors}
        for s in sorted(shards, key=lambda s: s.shard)
    ]
    total = {key: sum(file[key] for file in files) for key in ("rows", "ok", "errors")}
    assert total["rows"] == plan.rows, f"{total['rows']} rows are committed and the plan has {plan.rows}"
    folder.create(MANIFEST, (json.dumps(total | {"files": files}, indent=1) + "\n").encode())


def write_success(folder: JobFolder, report: JobReport) -> None:
    """Say that all is there. Nothing of the job changes after it."""
    folder.create(SUCCESS, report.to_json().encode())


def read_success(folder: JobFolder) -> JobReport | None:
    """What a finished job did; None if it is not finished."""
    content = folder.read(SUCCESS)
    return JobReport.from_json(content) if content is not None else None


def _file(results: pa.Table, statistics: ShardStatistics) -> bytes:
    keys = "\n".join(results.column(ROW_KEY).to_pylist())
    footer = {
        "rows": statistics.rows,
        "ok": statistics.ok,
        "errors": statistics.errors,
        "keys_sha256": hashlib.sha256(keys.encode("utf-8")).hexdigest(),
        "attempt": uuid4().hex,
        "statistics": statistics.to_dict(),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(results.replace_schema_metadata({FOOTER: json.dumps(footer)}), sink, compression="zstd")
    return bytes(sink.getvalue())


def _checked(folder: JobFolder, name: str) -> ShardStatistics:
    try:
        return _read_footer(folder, name)
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise ConfigError(
            f"{name} of {folder.address} is no file of a job or is damaged; remove it to have its rows answered again"
        ) from error


def _read_footer(folder: JobFolder, name: str) -> ShardStatistics:
    with folder.open_reader(name) as file:
        footer = json.loads(pq.read_metadata(file).metadata[FOOTER])
    return ShardStatistics.from_dict(footer["statistics"])
