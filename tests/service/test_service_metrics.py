"""What the service publishes is what its clients counted."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.config import ServiceConfig
from skipvision.errors import ConfigError
from skipvision.metrics import STATUSES
from tests.service.conftest import Service
from tests.service.test_service import about, body, endless

NOT_OF_CHAT = {401, 405, 431}
"""Statuses of what does not come as far as a chat request with a known key."""


def scraped(service: Service) -> Counter[str]:
    """Every series of the service by its name and labels."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(service.metrics).text):
        for sample in family.samples:
            labels = (f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[" ".join([sample.name.removeprefix("skipvision_"), *labels])] = sample.value
    return found


def test_the_totals_are_what_the_answers_said(service: Service, picture_url: str) -> None:
    before = scraped(service)
    asked = [
        body(messages=about(picture_url), max_tokens=40),
        body(n=2),
        body(messages=about(picture_url), max_tokens=2),
    ]
    with service.client() as client:
        answers = [client.post("/v1/chat/completions", json=each).json() for each in asked]
        refused = client.post("/v1/chat/completions", json=body(max_tokens=0))
    grown = scraped(service)
    grown.subtract(before)

    usages = [answer["usage"] for answer in answers]
    ours = [usage["skipvision"] for usage in usages]
    visual, summary = (sum(each[f"{fate}_tokens"] for each in ours) for fate in ("visual", "summary"))
    prompts, generated = (sum(each[f"{kind}_tokens"] for each in usages) for kind in ("prompt", "completion"))
    assert refused.status_code == 400
    assert grown["requests_total status=200"] == 3
    assert grown["requests_total status=400"] == 1
    assert grown["request_seconds_count"] == grown["first_token_seconds_count"] == 3
    assert grown["images_total outcome=ok"] == 2
    fates = {fate: grown[f"visual_tokens_total fate={fate}"] for fate in ("retained", "skipped", "merged", "dropped")}
    assert fates == {fate: sum(each[f"{fate}_tokens"] for each in ours) for fate in fates}
    assert sum(fates.values()) == visual == 512
    assert grown["summary_tokens_total"] == summary
    read = prompts - sum(fates[fate] for fate in ("retained", "skipped")) - summary
    assert grown["text_tokens_total direction=prompt"] == read
    assert grown["text_tokens_total direction=generated"] == generated
    finished = Counter(choice["finish_reason"] for answer in answers for choice in answer["choices"])
    assert {reason: grown[f"answers_total finish_reason={reason}"] for reason in ("stop", "length")} == {
        reason: finished[reason] for reason in ("stop", "length")
    }
    for name, told in (("flops", "flops"), ("baseline_flops", "flops_all_tokens")):
        phases = [grown[f"{name}_total phase={phase}"] for phase in ("prefill", "decode")]
        assert sum(phases) == sum(each[told] for each in ours)
        assert all(phases)
    assert grown["kv_cache_bytes_total"] == sum(each["kv_bytes"] for each in ours)
    assert grown["baseline_kv_cache_bytes_total"] == sum(each["kv_bytes_all_tokens"] for each in ours)


def test_a_stream_counts_when_it_has_ended_and_one_that_is_left_is_no_answer(service: Service) -> None:
    before = scraped(service)
    with service.client() as client:
        whole = client.post("/v1/chat/completions", json=body(stream=True)).text
        with client.stream("POST", "/v1/chat/completions", json=endless(stream=True)) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            assert scraped(service)["requests_running"] == 1
    assert whole.endswith("data: [DONE]\n\n")
    after = before
    while not (after - before)["requests_total status=499"]:
        after = scraped(service)
    grown = after - before
    assert grown["requests_total status=200"] == 1
    assert sum(value for name, value in grown.items() if name.startswith("answers_total")) == 1
    assert after["requests_running"] == 0


def test_numbers_are_at_their_own_port_alone(service: Service) -> None:
    with service.client() as client:
        assert client.get("/metrics").status_code == 404
    assert "skipvision_build_info" in httpx.get(service.metrics).text


def test_every_status_that_the_service_answers_is_in_the_catalogue() -> None:
    found = {200, 400, 499}
    for file in (Path(__file__).parents[2] / "service").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "status" and isinstance(node.value, ast.Constant):
                found.add(node.value.value)
    assert {str(status) for status in found - NOT_OF_CHAT} == set(STATUSES)


def test_a_port_for_both_is_refused() -> None:
    with pytest.raises(ConfigError, match="metrics_port is 8000, where requests are answered"):
        ServiceConfig(metrics_port=8000)
