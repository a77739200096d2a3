"""A prepared shard as requests to an engine: what each row asks, about which pictures, under which settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.asked import MESSAGES, SAMPLING
from pipelines.prepare import ERROR_CODE, ERROR_MESSAGE, PICTURES, PROMPT, pictures_of
from pipelines.result_rows import ROW_KEY
from skipvision.conversation import read_messages
from skipvision.engine import Request, Sampling
from skipvision.errors import InputError

_COLUMNS = (ROW_KEY, PROMPT, MESSAGES, SAMPLING, PICTURES, ERROR_CODE, ERROR_MESSAGE)


def requests_of(prepared: pa.Table, sampling: Sampling) -> list[Request | InputError]:
    """One for each row of a shard, in order: what to ask, or why it is not asked.

    Args:
        sampling: of the job; a row's own settings stand above it, and every row draws with a seed of its own.
    """
    pictures = pictures_of(prepared)
    return [_asked(row, pictures, sampling) for row in prepared.select(_COLUMNS).to_pylist()]


def row_seed(seed: int, row_key: str) -> int:
    """The seed of one row: the same in every attempt, and another for every row."""
    digest = hashlib.blake2b(f"{seed}|{row_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _asked(row: Mapping[str, Any], pictures: Mapping[int, np.ndarray], sampling: Sampling) -> Request | InputError:
    if row[ERROR_CODE] is not None:
        return InputError(row[ERROR_MESSAGE], code=row[ERROR_CODE])
    own = json.loads(row[SAMPLING] or "{}")
    try:
        return Request(
            prompt=row[PROMPT] if row[MESSAGES] is None else read_messages(row[MESSAGES]),
            # Views of the block in shared memory: nothing is copied until the engine moves them to its device.
            images=tuple(pictures[number] for number in row[PICTURES]),
            sampling=_sampling(sampling, own, row[ROW_KEY]),
            whole=True,
        )
    except InputError as error:
        return error


def _sampling(of_job: Sampling, own: Mapping[str, Any], row_key: str) -> Sampling:
    changes: dict[str, Any] = {"seed": row_seed(of_job.seed, row_key), **own}
    if isinstance(own.get("stop"), list):
        changes["stop"] = tuple(own["stop"])
    return replace(of_job, **changes)
