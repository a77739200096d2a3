"""The rows a job writes: the user's columns, then these, always in this order and of these types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from skipvision.engine import Answer
from skipvision.errors import InputError

ROW_KEY = "row_key"

RESULT_COLUMNS = pa.schema(
    [
        (ROW_KEY, pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("text_tokens", pa.int64()),
        ("visual_tokens", pa.int64()),
        ("retained_tokens", pa.int64()),
        ("skipped_tokens", pa.int64()),
        ("merged_tokens", pa.int64()),
        ("dropped_tokens", pa.int64()),
        ("summary_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)

Outcome = Answer | InputError
"""What becomes of a row: exactly one of these."""


def result_schema(user_columns: pa.Schema) -> pa.Schema:
    """The schema of every file under `data/`: the same in all of them, columns without a value included."""
    return pa.schema([*user_columns, *RESULT_COLUMNS])


def result_table(rows: pa.Table, outcomes: Sequence[Outcome], user_columns: pa.Schema) -> pa.Table:
    """The rows of a shard as they are committed.

    Args:
        rows: the shard's rows, with the user's columns and their keys.
        outcomes: one for each row, in order.
    """
    told = [_columns(outcome) for outcome in outcomes]
    columns = [rows.column(name) for name in (*user_columns.names, ROW_KEY)]
    columns += [pa.array([row.get(field.name) for row in told], field.type) for field in list(RESULT_COLUMNS)[1:]]
    return pa.Table.from_arrays(columns, schema=result_schema(user_columns))


def _columns(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, InputError):
        return {"error_code": outcome.code, "error_message": _text(str(outcome))}
    plan = outcome.plan
    return {
        "answer": _text(outcome.text),
        "finish_reason": outcome.finish_reason,
        "text_tokens": plan.text_tokens,
        "visual_tokens": plan.visual_tokens,
        "retained_tokens": plan.retained_tokens,
        "skipped_tokens": plan.skipped_tokens,
        "merged_tokens": plan.merged_tokens,
        "dropped_tokens": plan.dropped_tokens,
        "summary_tokens": plan.summary_tokens,
        "cached_tokens": plan.cached_tokens,
        "output_tokens": len(outcome.output_ids),
        "seconds": outcome.seconds,
    }


def _text(text: str) -> str:
    """Half a surrogate pair, which a model can write and no file can hold, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
