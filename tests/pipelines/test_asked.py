"""Rows that bring messages and settings, and lines of OpenAI batches: what they ask, or a code in their place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.asked import IMAGES, MESSAGES, REFUSED_CODE, REFUSED_MESSAGE, SAMPLING, own_sampling
from pipelines.location import Location
from skipvision.config import JobConfig
from skipvision.conversation import ImagePart, read_messages
from skipvision.errors import ConfigError, InputError
from tests.pipelines.inputs import opened, rows


def jsonl(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def asks(text: str, *images: str) -> list[dict]:
    shown = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def batch_line(custom_id: object, body: object, **fields: object) -> dict:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body} | fields


def test_messages_of_a_row_bring_its_images_and_its_settings(tmp_path):
    path = jsonl(
        tmp_path / "in.jsonl",
        {"id": 1, "messages": asks("What?", "a.png"), "sampling_params": {"max_tokens": 5, "stop": "."}},
        {"id": 2, "messages": asks("Which?", "https://h/b.png", "a.png")},
        {"id": 3, "messages": [{"role": "user", "content": "Hello"}], "sampling_params": {}},
    )
    table = opened(path)
    first, second, third = rows(table)
    assert (table.image_kind, table.schema.names) == ("messages", ["id"])
    assert [Location.of(place) for place in first[IMAGES]] == [Location(str(tmp_path / "a.png"))]
    assert [place["reference"] for place in second[IMAGES]] == ["https://h/b.png", str(tmp_path / "a.png")]
    assert third[IMAGES] == []
    assert json.loads(first[SAMPLING]) == {"max_tokens": 5, "stop": ["."]}
    assert second[SAMPLING] is None is third[SAMPLING]
    assert read_messages(second[MESSAGES])[0].parts == (ImagePart(), ImagePart(), "Which?")


def test_messages_may_be_structs_of_a_parquet_file_with_bytes_in_them(tmp_path):
    content = [{"type": "image", "image": b"\x89PNG", "text": None}, {"type": "text", "image": None, "text": "What?"}]
    table = pa.table({"chat": [[{"role": "user", "content": content}]], "sampling_params": [{"temperature": 0.5}]})
    pq.write_table(table, tmp_path / "in.parquet")
    [row] = rows(opened(tmp_path / "in.parquet", messages_column="chat"))
    assert [Location.of(place) for place in row[IMAGES]] == [Location(content=b"\x89PNG")]
    assert json.loads(row[SAMPLING]) == {"temperature": 0.5}


def test_a_line_of_an_openai_batch_is_a_row_with_its_custom_id_as_key(tmp_path):
    body = {"model": "any", "messages": asks("What?", "a.png"), "max_completion_tokens": 7, "n": 1, "user": "u"}
    table = opened(jsonl(tmp_path / "batch.jsonl", batch_line("q-1", body)))
    [row] = rows(table)
    assert (table.image_kind, table.key_column, table.schema.names) == ("openai", "custom_id", ["custom_id"])
    assert (row["custom_id"], json.loads(row[SAMPLING])) == ("q-1", {"max_tokens": 7})
    assert [place["reference"] for place in row[IMAGES]] == [str(tmp_path / "a.png")]


GOOD = {"messages": asks("What?", "a.png")}


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (batch_line("a", GOOD | {"tools": [{"type": "function"}]}), "parameter_unsupported", "'tools'"),
        (batch_line("a", GOOD | {"n": 2}), "parameter_unsupported", "'n'"),
        (batch_line("a", GOOD | {"stream": True}), "parameter_unsupported", "'stream'"),
        (batch_line("a", GOOD | {"response_format": {"type": "json_object"}}), "parameter_unsupported", "supported"),
        (batch_line("a", GOOD, url="/v1/embeddings"), "parameter_unsupported", "url must be /v1/chat/completions"),
        (batch_line("a", GOOD, method="GET"), "parameter_unsupported", "method must be POST"),
        (batch_line("a", None), "input_invalid", "no body"),
        (batch_line("a", [1]), "input_invalid", "body must be an object"),
        (batch_line("a", "{"), "input_invalid", "not JSON"),
        (batch_line("a", {"model": "m"}), "prompt_missing", "no messages"),
        (batch_line("a", {"messages": "hello"}), "messages_invalid", "not JSON"),
        (batch_line("a", {"messages": asks("  ", "a.png")}), "prompt_missing", "ask something"),
    ],
)  # fmt: skip
def test_a_line_that_is_wrong_keeps_its_place_with_a_code(tmp_path, line, code, says):
    wrong, right = rows(opened(jsonl(tmp_path / "in.jsonl", line, batch_line("b", GOOD))))
    assert (wrong[REFUSED_CODE], wrong["custom_id"]) == (code, "a")
    assert says in wrong[REFUSED_MESSAGE]
    assert right[REFUSED_CODE] is None


def test_an_image_column_or_a_prompt_leaves_messages_to_the_user(tmp_path):
    path = jsonl(tmp_path / "in.jsonl", {"image": "a.png", "messages": asks("What?")})
    assert opened(path).image_kind == "reference"
    assert json.loads(rows(opened(path))[0]["messages"]) == asks("What?"), "it is passed on"
    assert opened(path, messages_column="messages").image_kind == "messages"


def test_a_messages_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no column 'talk'"):
        opened(jsonl(tmp_path / "in.jsonl", {"messages": []}), messages_column="talk")
    with pytest.raises(ConfigError, match="messages_column and prompt contradict"):
        JobConfig(input="x", output="y", messages_column="m", prompt="p")


def test_what_others_call_a_setting_is_understood_and_what_asks_for_nothing_is_left_out():
    given = {
        "max_tokens": 3, "top_k": -1, "temperature": None, "presence_penalty": 0.0, "logprobs": False, "seed": 4,
        "min_p": 0.0, "stop": ["a", "b"], "logit_bias": {},
    }  # fmt: skip
    assert own_sampling(given) == {"max_tokens": 3, "seed": 4, "stop": ["a", "b"]}
    with pytest.raises(InputError, match="'structured_outputs' is not supported here"):
        own_sampling({"structured_outputs": {"regex": "(a+)+"}})
