"""Whatever goes wrong is answered in OpenAI's shape, with a status that says whether to try again."""

from __future__ import annotations

import pytest

from service.errors import ApiError, answer_to
from skipvision.errors import (
    CapacityError,
    ConfigError,
    EngineDeadError,
    ImageError,
    InputError,
    PromptTooLongError,
    QueueFullError,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("what is wrong"), 400, "input_invalid"),
        (ImageError("what is wrong", code="image_bomb"), 400, "image_bomb"),
        (PromptTooLongError(prompt_tokens=70, limit_tokens=64), 400, "context_length_exceeded"),
        (QueueFullError("full"), 503, "server_is_overloaded"),
        (CapacityError("full"), 503, "server_is_overloaded"),
        (EngineDeadError("dead"), 503, "engine_lost"),
        (TimeoutError(), 408, "request_timeout"),
        (ApiError("no", status=413, code="request_too_large"), 413, "request_too_large"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_has_its_status_and_its_code(error, status, code):
    answer = answer_to(error)
    assert (answer.status, answer.code) == (status, code)
    assert set(answer.body()["error"]) == {"message", "type", "param", "code"}
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("error", [ValueError("/etc/shadow"), ConfigError("/etc/shadow"), KeyError("/etc/shadow")])
def test_a_fault_of_ours_is_said_without_a_word_of_what_it_was(error):
    answer = answer_to(error)
    assert (answer.status, answer.kind, answer.code) == (500, "server_error", None)
    assert "shadow" not in str(answer.body())


def test_a_prompt_that_is_too_long_says_by_how_much():
    assert "shorten it by 6" in str(answer_to(PromptTooLongError(prompt_tokens=70, limit_tokens=64)))
