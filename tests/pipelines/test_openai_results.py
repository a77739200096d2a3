"""A job's rows as OpenAI's batch API hands them back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.folder import JobFolder
from pipelines.layout import SUCCESS, shard_name
from pipelines.openai_results import export_openai
from pipelines.result_rows import result_schema
from skipvision.errors import ConfigError
from tests.pipelines.committed_jobs import planned_job

ANSWERED = {
    "row_key": "a", "answer": "zwölf ☃", "finish_reason": "stop", "text_tokens": 10, "visual_tokens": 100,
    "retained_tokens": 20, "skipped_tokens": 30, "merged_tokens": 50, "dropped_tokens": 0, "summary_tokens": 2,
    "cached_tokens": 32, "output_tokens": 7, "seconds": 0.5,
}  # fmt: skip


def refused(key: str, code: str) -> dict[str, Any]:
    return {"row_key": key, "error_code": code, "error_message": f"{code} it is"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def job(tmp_path) -> JobFolder:
    """Two shards, not in the order in which they were committed."""
    folder = planned_job(tmp_path, pa.schema([]))
    for shard, rows in ((1, [ANSWERED | {"row_key": "d"}]), (0, [ANSWERED, refused("b", "image_empty"),
                                                                 refused("c", "poison")])):  # fmt: skip
        memory = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=result_schema(pa.schema([]))), memory)
        folder.create(shard_name(shard), memory.getvalue())
    folder.create(SUCCESS, b"")
    return folder


def test_answers_and_errors_stand_apart_each_with_its_custom_id(job, tmp_path):
    done = export_openai(job.address, output=tmp_path / "out.jsonl")
    answers, errors = lines(tmp_path / "out.jsonl"), lines(tmp_path / "out.errors.jsonl")
    assert (done.rows, done.finished) == (4, True)
    assert [line["custom_id"] for line in answers] == ["a", "d"]
    assert [line["custom_id"] for line in errors] == ["b", "c"]
    assert len({line["id"] for line in answers + errors}) == 4
    assert {line["error"] for line in answers + errors} == {None}


def test_an_answer_is_a_completion_that_counts_what_the_model_read(job, tmp_path):
    export_openai(job.address, output=tmp_path / "out.jsonl")
    response = lines(tmp_path / "out.jsonl")[0]["response"]
    body = response["body"]
    assert response["status_code"] == 200
    assert (body["object"], body["model"]) == ("chat.completion", "zoo")
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "zwölf ☃", "refusal": None}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert body["usage"] == {"prompt_tokens": 62, "completion_tokens": 7, "total_tokens": 69}


def test_an_error_says_whose_fault_it_was(job, tmp_path):
    export_openai(job.address, output=tmp_path / "out.jsonl", errors=tmp_path / "elsewhere.jsonl")
    theirs, ours = (line["response"] for line in lines(tmp_path / "elsewhere.jsonl"))
    assert (theirs["status_code"], ours["status_code"]) == (400, 500)
    assert theirs["body"]["error"] == {
        "message": "image_empty it is", "type": "invalid_request_error", "param": None, "code": "image_empty",
    }  # fmt: skip
    assert ours["body"]["error"]["type"] == "server_error"


def test_lines_have_the_same_names_whenever_they_are_written(job, tmp_path):
    ids = []
    for name in ("one.jsonl", "two.jsonl"):
        export_openai(job.address, output=tmp_path / name)
        ids.append([line["id"] for line in lines(tmp_path / name)])
    assert ids[0] == ids[1]


def test_a_place_that_cannot_be_written_is_refused_and_nothing_is_left(job, tmp_path):
    for output in (tmp_path, job.path / "data" / "x.jsonl"):
        with pytest.raises(ConfigError, match="output"):
            export_openai(job.address, output=output)
    with pytest.raises(ConfigError, match="cannot be written"):
        export_openai(job.address, output=tmp_path / "out.jsonl", errors=tmp_path / "none" / "e.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
