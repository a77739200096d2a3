"""Requests that nobody thought of: from the OpenAPI document by schemathesis, and bodies by hypothesis.

Whatever is sent, the service answers, says what is wrong in the shape of all errors, and goes on.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

from tests.service.conftest import KEYS, Service
from tests.service.test_service import error_of

SHORT = 4
"""Tokens of an answer, where a request is right: it is not the model that is tried here."""
REFUSED = {400, 404, 413}
AUTHORIZED = {"Authorization": f"Bearer {KEYS['full']}"}
DOCUMENTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
MODES = {"as documented": schemathesis.GenerationMode.POSITIVE, "otherwise": schemathesis.GenerationMode.NEGATIVE}


def often(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def shortened(body: Any) -> Any:
    """The same request, its answer no longer than need be, where it would have one."""
    if isinstance(body, dict):
        limits = [name for name in ("max_tokens", "max_completion_tokens") if name in body]
        for name in limits:
            if isinstance(body[name], int) and SHORT < body[name] <= 4096:
                body[name] = SHORT
        if not limits:
            body["max_tokens"] = SHORT
        if isinstance(body.get("n"), int) and 2 < body["n"] <= 8:
            body["n"] = 2
        if isinstance(body.get("model"), str) and "x" not in body["model"]:
            body["model"] = "zoo"  # or nearly all would end at a model that is not there
        if len(repr(body.get("messages"))) % 2:
            body["messages"] = [{"role": "user", "content": "hello"}]  # or at messages that say nothing
    return body


def by_schemathesis(service: Service, mode: schemathesis.GenerationMode, examples: int) -> Counter[int]:
    """Ask what the document allows, or what it does not, at each of its paths; how often each status was answered."""
    document = schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    checks = [check for check in CHECKS.get_all() if check.__name__ in DOCUMENTED]
    assert len(checks) == len(DOCUMENTED)
    statuses: Counter[int] = Counter()
    for operation in (each.ok() for each in document.get_all_operations()):
        is_asking = bool(operation.body)
        if mode is schemathesis.GenerationMode.NEGATIVE and not (is_asking or operation.path_parameters):
            continue  # nothing in it could be wrong

        @often(examples if is_asking else math.ceil(examples / 20))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            case.body = shortened(case.body)
            answer = case.call(headers=AUTHORIZED, timeout=120)
            statuses[answer.status_code] += 1
            case.validate_response(answer, checks=checks)

        ask()
    return statuses


@pytest.mark.parametrize("mode", MODES)
def test_what_the_openapi_document_allows_and_what_it_does_not_is_answered(service: Service, mode: str) -> None:
    statuses = by_schemathesis(service, MODES[mode], examples=100)
    assert statuses.total() >= 100
    assert set(statuses) <= {200, *REFUSED, 401, 405, 415, 422}, "the key, too, may be what is wrong"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES)
def test_twenty_thousand_requests_end_in_no_fault(service: Service, mode: str) -> None:
    statuses = by_schemathesis(service, MODES[mode], examples=10_000)
    print(mode, dict(statuses))
    assert statuses.total() >= 10_000
    assert max(statuses) < 500


WORDS = st.sampled_from(
    ["hello", "", " ", "</s>", "<image>", "<s>USER:", "{{ messages }}", "{% raw %}", "\x00", "\ud800", "\U0001f600" * 9,
     "a" * 3000, "\u202e", "\r\n\r\n", "ASSISTANT:", "\u0001" + "0" + "\u0001", "%s%n", "日本語"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 9), st.floats(allow_nan=True), st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, -0.0, True])
)
URLS = st.sampled_from(
    ["data:image/png;base64,", "data:image/png;base64,AAAA", "data:;base64,====", "data:text/html,<p>",
     "file:///etc/passwd", "https://127.0.0.1/", "https://localhost:1/x.png", "http://example.com/x.png",
     "ftp://x/y", "https://", "::", "\x00"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}) | st.fixed_dictionaries(
    {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": URLS})}
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "user", "system", "assistant", "developer", "tool", ""]),
        "content": WORDS | st.lists(PARTS, max_size=4) | ANYTHING,
    }
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(-1, SHORT) | ANYTHING,
    "temperature": st.floats(0, 2) | NUMBERS,
    "top_p": st.floats(0, 1) | NUMBERS,
    "top_k": NUMBERS,
    "n": st.integers(1, 2) | NUMBERS,
    "seed": NUMBERS,
    "stop": WORDS | st.lists(WORDS, max_size=3) | ANYTHING,
    "stream": st.booleans() | ANYTHING,
    "stream_options": st.just({"include_usage": True}) | ANYTHING,
    "logprobs": st.booleans() | ANYTHING,
    "top_logprobs": st.integers(0, 20) | NUMBERS,
    "response_format": st.sampled_from([{"type": "json_object"}, {"type": "text"}, {"type": "json_schema"}]) | ANYTHING,
    "skipvision": st.fixed_dictionaries({"skip": st.sampled_from(["off", "8/8", "0/0", "999/1", "uniform:9", "x"])}),
    "surprise": ANYTHING,
}
BODIES = st.fixed_dictionaries(
    {"model": st.just("zoo"), "messages": st.lists(MESSAGES, min_size=1, max_size=3) | ANYTHING}, optional=FIELDS
)


def ask_hostile_bodies(service: Service, examples: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    with service.client() as client:

        @often(examples)
        @given(body=BODIES)
        def ask(body: dict[str, Any]) -> None:
            statuses[_answer(client, json.dumps(shortened(body)).encode())] += 1

        @often(examples // 4)
        @given(body=BODIES, at=st.integers(0, 2000), junk=st.binary(max_size=8))
        def ask_in_pieces(body: dict[str, Any], at: int, junk: bytes) -> None:
            """Cut off, or with something in between that is no JSON, nor even text."""
            sent = json.dumps(shortened(body)).encode()
            statuses[_answer(client, sent[:at] + junk + sent[at:])] += 1

        ask()
        ask_in_pieces()
    return statuses


def _answer(client: httpx.Client, sent: bytes) -> int:
    answer = client.post("/v1/chat/completions", content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, *REFUSED}, (answer.status_code, answer.text, sent)
    if answer.status_code == 200:
        return 200
    error = error_of(answer)
    assert error["type"] == "invalid_request_error", (error, sent)
    assert error["code"], (error, sent)
    return answer.status_code


def test_a_body_of_any_kind_is_answered_or_refused_by_name(service: Service) -> None:
    statuses = ask_hostile_bodies(service, examples=200)
    assert statuses[200], "some are right"
    assert statuses[400], "and most are not"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_thousand_bodies_end_in_no_fault(service: Service) -> None:
    print(dict(ask_hostile_bodies(service, examples=4_000)))
