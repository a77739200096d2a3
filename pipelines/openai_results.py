"""A job's rows as OpenAI's batch API hands them back: one file with answers, one with errors, a line for each row."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipelines.committed import committed_rows
from pipelines.folder import JobFolder
from pipelines.layout import SUCCESS
from pipelines.plan import JobPlan
from pipelines.result_places import check_outside, replacing
from pipelines.result_rows import ROW_KEY
from pipelines.results import Export, open_job
from skipvision.families.checkpoint import DEFAULT_MODEL

SERVER_ERRORS = frozenset({"poison"})
"""Codes of rows that ended as an error for no fault of their sender."""


def export_openai(folder: str | Path, *, output: str | Path, errors: str | Path | None = None) -> Export:
    """Write the answers that a job has committed to `output` and its errors to `errors`, both in input order.

    Each line has the `custom_id` of its row, which is its key, so that any job's rows can be written so.

    Args:
        folder: a job's folder, local or in an object store.
        output: a path or an object store's address, outside the job's `data/`; replaced once the new file is complete.
        errors: as `output`. None: beside it, with `.errors` before its suffix. Written empty where there are none.

    Raises:
        ConfigError: the folder is no job, or a file cannot be written.
    """
    job, plan = open_job(folder)
    answered = str(output)
    failed = _beside(answered) if errors is None else str(errors)
    for target in (answered, failed):
        check_outside(target, job)
    finished = job.read(SUCCESS) is not None
    written = 0
    with replacing(answered) as answers, replacing(failed) as refusals:
        for row, is_error in _lines(job, plan):
            (refusals if is_error else answers).write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            written += 1
    return Export(rows=written, output=answered, finished=finished)


def _beside(output: str) -> str:
    """`answers.errors.jsonl` for `answers.jsonl`."""
    folder, slash, name = output.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}{slash}{stem}.errors.{suffix}" if dot else f"{output}.errors"


def _lines(job: JobFolder, plan: JobPlan) -> Iterator[tuple[dict[str, Any], bool]]:
    """Each row's line, and whether it is an error's."""
    batch = _Batch(plan.input_id, plan.settings["model"] or DEFAULT_MODEL, int(time.time()))
    for rows in committed_rows(job, plan):
        for row in rows.to_pylist():
            yield batch.line(row), row["error_code"] is not None


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all lines have in common."""

    job: str
    model: str
    created: int
    """Seconds since 1970."""

    def line(self, row: dict[str, Any]) -> dict[str, Any]:
        name = blake2b(f"{self.job}|{row[ROW_KEY]}".encode(), digest_size=12).hexdigest()
        status, body = (200, self._completion(row, name)) if row["error_code"] is None else _error(row)
        response = {"status_code": status, "request_id": f"req_{name}", "body": body}
        return {"id": f"batch_req_{name}", "custom_id": row[ROW_KEY], "response": response, "error": None}

    def _completion(self, row: dict[str, Any], name: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": row["answer"], "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": row["finish_reason"]}
        # What the decoder read: visual tokens as they were left, not as the encoder made them.
        prompt = sum(row[f"{kind}_tokens"] for kind in ("text", "retained", "skipped", "summary"))
        usage = {"prompt_tokens": prompt, "completion_tokens": row["output_tokens"]}
        return {
            "id": f"chatcmpl-{name}",
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }


def _error(row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of a row that ended as an error."""
    code = row["error_code"]
    status, kind = (500, "server_error") if code in SERVER_ERRORS else (400, "invalid_request_error")
    return status, {"error": {"message": row["error_message"], "type": kind, "param": None, "code": code}}
