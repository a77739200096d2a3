"""Freezes a job's input: reads it once, gives every row its key, and writes it down in numbered shards.

What is written is thin: the user's columns, keys, and where each image is. The list of source files with their
sizes and times goes beside it, so that a job that goes on notices a changed input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.asked import ASKED, MESSAGES
from pipelines.folder import JobFolder
from pipelines.frozen import ROW, frozen_name, read_table, sources_name
from pipelines.grouping import ImageOrder
from pipelines.lakes import is_still_there
from pipelines.layout import PLAN
from pipelines.location import IMAGES
from pipelines.model import ChosenModel
from pipelines.plan import JobPlan, answer_settings, prompt_sha256, read_plan
from pipelines.result_rows import RESULT_COLUMNS, ROW_KEY
from pipelines.source_files import Source
from pipelines.tables import InputTable
from pipelines.webdataset import KEY
from skipvision.config import JobConfig
from skipvision.errors import ConfigError


def freeze(table: InputTable, config: JobConfig, model: ChosenModel, folder: JobFolder) -> JobPlan:
    """Write down the input and the plan; where another attempt was first, its plan is the plan.

    Raises:
        ConfigError: the input has no rows, a key column has nulls or duplicates, or a column has a reserved name.
    """
    schema = _user_schema(table)
    images, keys = ImageOrder(), list[pa.Array]()
    input_id, rows = uuid4().hex, 0
    for shard, thin in enumerate(_cut(_keyed(table), config.rows_per_shard)):
        folder.create(frozen_name(input_id, shard), parquet_bytes(thin))
        if config.group_images:
            images.see(thin)
        if table.key_column is not None:  # keys that were made are unique, and all of them take room
            keys.append(thin.column(ROW_KEY).combine_chunks())
        rows += len(thin)
    if rows == 0:
        raise ConfigError(f"input {config.input} is empty: its files hold no rows")
    if table.key_column is not None:
        _refuse_duplicates(pa.chunked_array(keys), table.key_column)
    order = images.regrouped() if config.group_images else None
    if order is not None:
        input_id = _regroup(folder, input_id, order, config.rows_per_shard)
    folder.create(sources_name(input_id), parquet_bytes(_listing(table.source)))
    plan = JobPlan(
        input_id=input_id,
        rows=rows,
        rows_per_shard=config.rows_per_shard,
        settings=answer_settings(config),
        skip=model.skip.describe(),
        model=model.identity,
        prompt_sha256=prompt_sha256(config),
        embedded_column=table.image_column if table.image_kind == "embedded" else None,
        schema=schema,
        is_regrouped=order is not None,
        source_files=len(table.source.files),
        source_bytes=sum(file.size_bytes for file in table.source.files),
        other_files=len(table.source.others),
        other_names=table.source.others[:100],
    )
    return plan if folder.create(PLAN, plan.to_json()) else read_plan(folder)


def _regroup(folder: JobFolder, input_id: str, order: np.ndarray, rows_per_shard: int) -> str:
    """Write a frozen input down again in another order, which takes the room of all of it; the new one's id."""
    shards = range(-(-len(order) // rows_per_shard))
    thin = pa.concat_tables([read_table(folder, frozen_name(input_id, shard)) for shard in shards])
    regrouped = uuid4().hex
    for shard in shards:
        rows = order[shard * rows_per_shard : (shard + 1) * rows_per_shard]
        folder.create(frozen_name(regrouped, shard), parquet_bytes(thin.take(rows)))
    return regrouped


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def check_same_input(plan: JobPlan, source: Source, folder: JobFolder, *, finished: bool = False) -> None:
    """Refuse to go on when files of the input are other than when they were listed.

    Args:
        source: the input as it is now.
        finished: files that have gone since do not matter to a job that has answered all rows.

    Raises:
        ConfigError: naming the first files that changed, came or went.
    """
    if source.is_fetched:
        return  # all of it that is needed was frozen
    listed = read_table(folder, sources_name(plan.input_id))
    before = dict(zip(listed["path"].to_pylist(), _stamps(listed), strict=True))
    if source.version is not None:  # the job goes on with the version it began with, which has only to be there
        now = {path: stamp for path, stamp in before.items() if is_still_there(path)}
    else:
        now = {file.path: (file.size_bytes, file.mtime_ns, file.tag) for file in source.files}
    changes = {
        "changed": sorted(path for path in before.keys() & now.keys() if before[path] != now[path]),
        "new": sorted(now.keys() - before.keys()),
        "gone": [] if finished else sorted(before.keys() - now.keys()),
    }
    told = [f"{len(paths)} {kind} ({', '.join(paths[:3])})" for kind, paths in changes.items() if paths]
    if told:
        raise ConfigError(
            f"the input of the job in {folder.address} is no longer what it was: {'; '.join(told)}; "
            "put the files back, or choose another output"
        )


def _stamps(listed: pa.Table) -> Iterable[tuple[int, int, str | None]]:
    return zip(*(listed[name].to_pylist() for name in ("size_bytes", "mtime_ns", "tag")), strict=True)


def _listing(source: Source) -> pa.Table:
    return pa.table(
        {
            "path": pa.array([file.path for file in source.files], pa.string()),
            "size_bytes": pa.array([file.size_bytes for file in source.files], pa.int64()),
            "mtime_ns": pa.array([file.mtime_ns for file in source.files], pa.int64()),
            "tag": pa.array([file.tag for file in source.files], pa.string()),
        }
    )


def _user_schema(table: InputTable) -> pa.Schema:
    """The columns that the results take over; one named as a result's own is refused."""
    schema = table.schema
    if table.key_column == ROW_KEY:
        schema = schema.remove(schema.get_field_index(ROW_KEY))
    reserved = (*RESULT_COLUMNS.names, *ASKED.names, ROW)
    taken = [name for name in schema.names if name in reserved]
    if taken:
        raise ConfigError(f"the input has columns that the job writes itself: {', '.join(taken)}; rename or drop them")
    return schema


def _keyed(table: InputTable) -> Iterator[pa.Table]:
    """Thin tables with each row's number and key as two more columns."""
    first = 0
    for thin in table.thin_tables():
        if table.key_column is not None:
            keys = _named_keys(thin, table.key_column)
        else:
            keys = _made_keys(first, _contents(thin, table))
        if table.key_column == ROW_KEY:
            thin = thin.drop_columns([ROW_KEY])
        thin = thin.append_column(pa.field(ROW, pa.int64()), pa.array(range(first, first + len(thin)), pa.int64()))
        yield thin.append_column(pa.field(ROW_KEY, pa.string()), keys)
        first += len(thin)


def _named_keys(thin: pa.Table, column: str) -> pa.ChunkedArray:
    keys = pc.cast(thin.column(column), pa.string())
    if keys.null_count:
        raise ConfigError(f"key column {column!r} has rows without a key; fill them, or leave key_column out")
    return keys


def _contents(thin: pa.Table, table: InputTable) -> list[str]:
    """What each row asks about, as the user wrote it, so that keys survive a move to another folder."""
    if table.image_column is not None and table.image_kind == "reference":
        return [str(name) for name in thin.column(table.image_column).to_pylist()]
    if table.asking:
        return [str(messages) for messages in thin.column(MESSAGES).to_pylist()]
    names = table.source.names
    if table.image_kind == "member":
        samples = zip(thin.column(IMAGES).to_pylist(), thin.column(KEY).to_pylist(), strict=True)
        return [f"{names[places[0]['file'] or 0]}#{key}" for places, key in samples]
    # Of an image that is carried along there is no more to say than which row it is of, and keys count rows.
    return [f"{names[place['file'] or 0]}#{place['row']}" for [place] in thin.column(IMAGES).to_pylist()]


def _made_keys(first: int, contents: list[str]) -> pa.Array:
    """Keys from a row's place and what it asks about: the same whenever the input is the same."""
    texts = (f"{first + row}|{content}" for row, content in enumerate(contents))
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts)
    return pa.array([digest[:32] for digest in digests], pa.string())


def _refuse_duplicates(keys: pa.ChunkedArray, column: str) -> None:
    if pc.count_distinct(keys).as_py() == len(keys):
        return
    counts = pc.value_counts(keys.combine_chunks())
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    raise ConfigError(
        f"key column {column!r} names more than one row {twice[0].as_py()!r}, and {len(twice) - 1} more keys come "
        "twice or more; make them unique, or leave key_column out"
    )


def _cut(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows`, the last one as it comes out."""
    held: pa.Table | None = None
    for table in tables:
        held = table if held is None else pa.concat_tables([held, table])
        while len(held) >= rows:
            yield held.slice(0, rows).combine_chunks()
            held = held.slice(rows)
    if held is not None and len(held):
        yield held.combine_chunks()
