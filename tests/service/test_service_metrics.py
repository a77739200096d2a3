"""What the service publishes is what its clients counted."""

from __future__ import annotations

import ast
import time
from collections import Counter
from collections.abc import Callable, Set
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


SILENCE_SECONDS = 2.5
"""Longer than from one report of a replica to the next."""
ADDED_UP = {"workload", "model", "skip", "basis"}
"""Labels that most of these tests have one value of."""


def scraped(service: Service, *, over: Set[str] = ADDED_UP) -> Counter[str]:
    """Every series of the service by its name and labels, added up over some of these."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(service.metrics).text):
        for sample in family.samples:
            labels = (f"{name}={value}" for name, value in sorted(sample.labels.items()) if name not in over)
            found[" ".join([sample.name.removeprefix("skipvision_"), *labels])] += sample.value
    return found


def logged(service: Service) -> int:
    """Requests that have ended, by the log, which has a line for each."""
    return sum(line.startswith('{"request_id"') for line in service.log.read_text().splitlines())


def is_silent(service: Service) -> bool:
    """Whether the replica has nothing more to tell of its engine's work."""
    first = scraped(service)
    time.sleep(SILENCE_SECONDS)
    now = scraped(service)
    told = ("token_gap_seconds_count", "engine_steps_total", "batch_slots_total state=used")
    return all(first[name] == now[name] for name in told)


def requests_ended(counts: Counter[str]) -> float:
    return sum(value for name, value in counts.items() if name.startswith("requests_total "))


def grown_by(requests: int, before: Counter[str], service: Service, *, over: Set[str] = ADDED_UP) -> Counter[str]:
    """What has grown since `before`, once so many more requests have ended and been told of."""
    ended = int(requests_ended(before)) + requests
    wait_for(lambda: logged(service) == ended == requests_ended(scraped(service)))
    grown = scraped(service, over=over)
    grown.subtract(before)
    return grown


def wait_for(holds: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.2)


@pytest.fixture
def before(service: Service) -> Counter[str]:
    """What is published when all that earlier tests asked has ended and been told of."""
    wait_for(lambda: logged(service) == requests_ended(now := scraped(service)) and not now["requests_running"])
    return scraped(service)


def test_the_totals_are_what_the_answers_said(service: Service, before: Counter[str], picture_url: str) -> None:
    asked = [
        body(messages=about(picture_url), max_tokens=40),
        body(n=2),
        body(messages=about(picture_url), max_tokens=2),
    ]
    with service.client() as client:
        answers = [client.post("/v1/chat/completions", json=each).json() for each in asked]
        refused = client.post("/v1/chat/completions", json=body(max_tokens=0))
    grown = grown_by(4, before, service)

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


def test_a_stream_counts_when_it_has_ended_and_one_that_is_left_is_no_answer(
    service: Service, before: Counter[str]
) -> None:
    with service.client() as client:
        whole = client.post("/v1/chat/completions", json=body(stream=True)).text
        with client.stream("POST", "/v1/chat/completions", json=endless(stream=True)) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            wait_for(lambda: scraped(service)["requests_running"] == 1)
    assert whole.endswith("data: [DONE]\n\n")
    grown = grown_by(2, before, service)
    assert grown["requests_total status=499"] == grown["requests_total status=200"] == 1
    assert sum(value for name, value in grown.items() if name.startswith("answers_total")) == 1
    wait_for(lambda: scraped(service)["requests_running"] == 0)


def test_what_is_refused_is_counted_by_code_and_by_tenant(service: Service, before: Counter[str]) -> None:
    by_model = ADDED_UP - {"model"}
    start = scraped(service, over=by_model)
    with service.client("hasty") as client:
        asked = (body(max_tokens=0), body(model="another"), body(), body(), body())
        statuses = Counter(client.post("/v1/chat/completions", json=each).status_code for each in asked)
    assert statuses[429] >= 1, "two are answered in a minute"
    grown = grown_by(5, start, service, over=by_model)
    assert grown["errors_total code=invalid_value model=none stage=request"] == 1
    assert grown["errors_total code=model_not_found model=none stage=request"] == 1
    assert grown["errors_total code=rate_limit_exceeded model=zoo stage=admission"] == statuses[429]
    assert grown["requests_total model=none status=404"] == 1
    outcomes = {
        name: grown[f"tenant_requests_total outcome={name} tenant=hasty"] for name in ("ok", "refused", "limited")
    }
    assert outcomes == {"ok": statuses[200], "refused": 2, "limited": statuses[429]}
    assert grown["tenant_requests_total outcome=ok tenant=full"] == 0


def test_what_a_tenant_s_requests_took_is_counted_for_it(service: Service, before: Counter[str]) -> None:
    with service.client() as client:
        usage = client.post("/v1/chat/completions", json=body()).json()["usage"]
    grown = grown_by(1, before, service)
    assert grown["tenant_tokens_total direction=prompt tenant=full"] == usage["prompt_tokens"]
    assert grown["tenant_tokens_total direction=generated tenant=full"] == usage["completion_tokens"]
    assert grown["tenant_work_seconds_total tenant=full"] > 0
    assert grown["tenant_tokens_total direction=prompt tenant=hasty"] == 0


def test_a_request_with_a_setting_of_its_own_is_counted_apart(
    service: Service, before: Counter[str], picture_url: str
) -> None:
    apart = ADDED_UP - {"skip"}
    start = scraped(service, over=apart)
    with service.client() as client:
        for skip in ("auto", "off", "100/100"):
            asked = body(messages=about(picture_url), skipvision={"skip": skip})
            assert client.post("/v1/chat/completions", json=asked).status_code == 200
    grown = grown_by(3, start, service, over=apart)
    assert grown["images_total outcome=ok skip=44/69"] == 1
    assert grown["images_total outcome=ok skip=request"] == 2
    assert grown["visual_tokens_total fate=retained skip=44/69"] == 44
    assert grown["visual_tokens_total fate=retained skip=request"] == 256 + 100
    assert scraped(service, over=apart)["retention_target_ratio skip=44/69"] == 44 / 256


def test_the_engine_and_what_it_costs_are_told_by_the_replica(service: Service) -> None:
    wait_for(lambda: is_silent(service))
    before, asked = scraped(service), 12
    with service.client() as client:
        answers = [client.post("/v1/chat/completions", json=body()).json() for _ in range(asked)]
    generated = sum(answer["usage"]["completion_tokens"] for answer in answers)
    wait_for(
        lambda: scraped(service)["token_gap_seconds_count"] - before["token_gap_seconds_count"] == generated - asked
    )
    wait_for(lambda: scraped(service)["engine_steps_total"] - before["engine_steps_total"] >= generated)
    after = scraped(service)
    grown = Counter(after)
    grown.subtract(before)
    assert grown["batch_slots_total state=used"] == generated
    seconds = {
        state: grown[f"device_seconds_total capacity=on_demand device=cpu state={state}"] for state in ("busy", "idle")
    }
    assert min(seconds.values()) > 0
    assert grown["cost_usd_total capacity=on_demand device=cpu"] == pytest.approx(sum(seconds.values()) * 0.04 / 3600)
    assert after["engines"] == after["replicas state=running"] == after["replicas state=wanted"] == 1
    assert after["queue_depth stage=engine"] == 0
    assert after["hub_sources"] >= 2, "the door and the replica"


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
