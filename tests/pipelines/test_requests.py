"""A prepared shard as requests: messages and settings of a row's own, or why it is not asked."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from pipelines.asked import IMAGES, Asked, as_table
from pipelines.prepare import PREPARED
from pipelines.requests import requests_of, row_seed
from pipelines.result_rows import ROW_KEY
from skipvision.conversation import ImagePart, Message, to_json
from skipvision.engine import Request, Sampling
from skipvision.errors import InputError

OF_JOB = Sampling(max_tokens=9, temperature=0.5, seed=3)
TALK = (Message("system", ("Be brief.",)), Message("user", (ImagePart(), "What?")))


def asked(*rows: dict, sampling: Sampling = OF_JOB) -> list[Request | InputError]:
    """Rows of a prepared shard that show the picture 0, which the first of them brings."""
    picture = {"number": 0, "height": 1, "width": 2, "pixels": bytes(range(6))}
    table = as_table([Asked(messages=row.get("messages"), sampling=row.get("sampling")) for row in rows])
    table = table.drop_columns([IMAGES]).append_column(ROW_KEY, pa.array([f"k{at}" for at in range(len(rows))]))
    for field in PREPARED:
        values = {"__prompt": [row.get("prompt") for row in rows], "__pictures": [[0]] * len(rows),
                  "__pixels": [[picture], *[[]] * (len(rows) - 1)],
                  "__error_code": [row.get("code") for row in rows],
                  "__error_message": [row.get("code") and "no" for row in rows]}  # fmt: skip
        table = table.append_column(field, pa.array(values.get(field.name, [None] * len(rows)), field.type))
    return requests_of(table, sampling)


def test_a_row_asks_by_its_prompt_or_by_its_messages_about_the_same_picture():
    plain, talk = asked({"prompt": "What?"}, {"prompt": "unused", "messages": to_json(TALK)})
    assert (plain.prompt, talk.prompt) == ("What?", TALK)
    assert [request.images[0].tolist() for request in (plain, talk)] == [[[[0, 1]], [[2, 3]], [[4, 5]]]] * 2


def test_settings_of_a_row_stand_above_those_of_the_job():
    own = {"max_tokens": 2, "stop": [".", ";"], "seed": 7}
    job, row = asked({"prompt": "a"}, {"prompt": "a", "sampling": json.dumps(own)})
    assert job.sampling == Sampling(max_tokens=9, temperature=0.5, seed=row_seed(3, "k0"))
    assert row.sampling == Sampling(max_tokens=2, temperature=0.5, seed=7, stop=(".", ";"))


@pytest.mark.parametrize(
    "own", [{"temperature": -1}, {"max_tokens": "many"}, {"top_p": 0}, {"stop": [""]}, {"seed": 1.5}, {"stop": 5}]
)
def test_a_setting_out_of_range_costs_its_own_row(own):
    wrong, right = asked({"prompt": "a", "sampling": json.dumps(own)}, {"prompt": "a"})
    assert isinstance(wrong, InputError)
    assert wrong.code == "sampling_invalid"
    assert isinstance(right, Request)


def test_a_row_with_an_error_is_not_asked():
    [refused] = asked({"prompt": "a", "code": "image_empty"})
    assert (refused.code, str(refused)) == ("image_empty", "no")
