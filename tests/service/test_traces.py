"""What a collector hears of a real service: each request in its parts, and nothing of what was said in it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest

from tests.collector import Collector, Seen, assert_nested, children, collector, names, undocumented
from tests.service.conftest import KEYS, Service, running_service
from tests.service.test_service import about, body, endless

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
pytestmark = pytest.mark.slow

BEFORE = ["read body", "admit"]
IMAGES = ["fetch images", "decode images"]
ENGINE = ["queue", "encode", "prefill", "decode"]
CHAT = "/v1/chat/completions"


@dataclass
class Traced:
    """A service that is traced, and who hears of it."""

    service: Service
    seen: Collector
    away: Any
    """Call it, and the collector is gone."""

    def ask(self, asked: dict[str, Any], **headers: str) -> httpx.Response:
        with self.service.client() as client:
            return client.post(CHAT, json=asked, headers=headers)

    def trace_of(self, answer: httpx.Response) -> tuple[list[Seen], Seen]:
        """All spans, and the first of them."""
        told = answer.headers["x-request-id"]
        spans = self.seen.wait_for(lambda span: span.attributes.get("skipvision.request_id") == told)
        [root] = [span for span in spans if span.name.startswith("chat")]
        return spans, root


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    key = folder / "key"
    key.write_text(KEYS["full"])
    listening = collector()
    seen = listening.__enter__()
    is_there = True

    def away() -> None:
        nonlocal is_there
        if is_there:
            is_there = False
            listening.__exit__(None, None, None)

    settings = {"tenants": [{"name": "search", "key_files": [str(key)]}], "traces": seen.address}
    with running_service(folder, settings) as service:
        yield Traced(service, seen, away)
    away()


def test_a_request_is_told_part_by_part(traced: Traced, picture_url: str) -> None:
    began = time.time_ns()
    answer = traced.ask(body(messages=about(picture_url), max_tokens=40, skipvision={"skip": "44/69"}))
    ended = time.time_ns()
    spans, root = traced.trace_of(answer)
    told = answer.json()

    assert names(children(spans, root)) == [*BEFORE, *IMAGES, "answer"]
    assert names(children(spans, children(spans, root)[-1])) == ENGINE
    assert len(spans) == 1 + 5 + 4
    assert_nested(spans, root)
    assert began <= root.began < root.ended <= ended + 10**9
    assert (root.name, root.kind, root.parent, root.failed) == ("chat zoo", 2, "", False)

    usage, attributes = told["usage"], root.attributes
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "zoo"
    assert attributes["gen_ai.response.id"] == told["id"]
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert (attributes["http.response.status_code"], attributes["skipvision.tenant"]) == (200, "search")
    assert attributes["skipvision.skip"] == "44/69"
    ours = {name: value for name, value in usage["skipvision"].items() if name != "tokens_saved"}
    assert {name: attributes[f"skipvision.{name}"] for name in ours} == ours
    seconds = told["skipvision"]["seconds"]
    for span in (span for span in spans if span.name in ENGINE):
        assert (span.ended - span.began) / 1e9 == pytest.approx(seconds[span.name], abs=1e-6)


def test_a_trace_goes_on_from_the_callers(traced: Traced) -> None:
    answer = traced.ask(body(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=private")
    spans, root = traced.trace_of(answer)
    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert {span.trace for span in spans} == {TRACE}
    assert names(children(spans, root)) == [*BEFORE, "answer"]
    unwanted = traced.ask(body(), traceparent=f"00-{TRACE[::-1]}-{PARENT}-00")
    traced.trace_of(traced.ask(body()))
    ids = {span.attributes.get("skipvision.request_id") for span in traced.seen.spans()}
    assert unwanted.headers["x-request-id"] not in ids


def test_a_stream_is_told_to_its_last_byte(traced: Traced, picture_url: str) -> None:
    asked = body(messages=about(picture_url), stream=True, n=2, max_tokens=8, temperature=1)
    with traced.service.client() as client, client.stream("POST", CHAT, json=asked) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    spans, root = traced.trace_of(answer)
    assert_nested(spans, root)
    assert root.attributes["gen_ai.request.stream"] is True
    assert len(root.attributes["gen_ai.response.finish_reasons"]) == root.attributes["gen_ai.request.choice.count"] == 2
    assert names(children(spans, children(spans, root)[-1])) == ENGINE


@pytest.mark.parametrize(
    ("asked", "status", "code", "parts"),
    [
        (body(max_tokens=0), 400, "invalid_value", ["read body"]),
        (body(model="my-secret-model"), 404, "model_not_found", ["read body"]),
        (body(messages=about("data:image/png;base64,c2VjcmV0")), 400, "image_unidentified", [*BEFORE, *IMAGES]),
        (body(messages=about("https://secret.invalid/a.png?k=secret")), 400, None, [*BEFORE, *IMAGES]),
        (body(messages=[{"role": "user", "content": "word " * 9000}]), 400, "context_length_exceeded",
         [*BEFORE, "answer"]),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_its_code(
    traced: Traced, asked: dict[str, Any], status: int, code: str | None, parts: list[str]
) -> None:
    answer = traced.ask(asked)
    spans, root = traced.trace_of(answer)
    assert answer.status_code == root.attributes["http.response.status_code"] == status
    assert root.attributes["error.type"] == answer.json()["error"]["code"] == (code or root.attributes["error.type"])
    assert root.failed
    assert names(children(spans, root)) == parts
    assert_nested(spans, root)


def test_a_client_without_a_key_is_told_too(traced: Traced) -> None:
    assert httpx.post(traced.service.address + CHAT, json=body()).status_code == 401
    [root] = traced.seen.wait_for(lambda span: span.attributes.get("http.response.status_code") == 401)
    assert (root.name, root.failed, root.attributes["error.type"]) == ("chat", True, "401")
    assert httpx.get(traced.service.address + "/healthz").status_code == 200
    assert {span.attributes["http.route"] for span in traced.seen.spans() if span.kind == 2} == {CHAT}


def test_a_client_that_leaves_is_told_as_499(traced: Traced, picture_url: str) -> None:
    asked = endless(messages=about(picture_url), stream=True, skipvision={"skip": "8/8"})
    with traced.service.client() as client, client.stream("POST", CHAT, json=asked) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    spans, root = traced.trace_of(answer)
    assert root.attributes["http.response.status_code"] == 499
    assert (root.failed, root.attributes["error.type"]) == (True, "499")
    assert names(children(spans, root)) == [*BEFORE, *IMAGES, "answer"]
    assert_nested(spans, root)


def test_nothing_of_what_was_asked_shown_or_answered_is_sent(traced: Traced, picture_url: str) -> None:
    pixels = picture_url.partition(",")[2]
    answer = traced.ask(body(messages=about(picture_url, "Is the wallaby asleep?"), max_tokens=12, user="alice"))
    traced.trace_of(answer)
    sent = b"".join(traced.seen.bodies)
    said = answer.json()["choices"][0]["message"]["content"]
    secrets = ("wallaby", said, "purple star", "data:image", pixels[:40], "secret", "alice", KEYS["full"], "vendor")
    assert b"chat zoo" in sent
    assert not undocumented(traced.seen.spans())
    assert [secret for secret in secrets if secret.encode() in sent] == []
    assert all(not span.message for span in traced.seen.spans())
    assert not re.search(rb"traceback|/[a-z-]+/\w+\.py", sent, re.IGNORECASE)


def test_a_collector_that_goes_away_is_missed_by_nobody(traced: Traced) -> None:
    """The last of them: it does not come back."""
    traced.ask(body())
    traced.away()
    for _ in range(8):
        began = time.monotonic()
        assert traced.ask(body()).status_code == 200
        assert time.monotonic() - began < 5
    time.sleep(3)
    complaints = [line for line in traced.service.log.read_text().splitlines() if "xport" in line]
    assert len(complaints) <= 2
    assert not re.search("traceback", traced.service.log.read_text(), re.IGNORECASE)
