"""Replicas come and go by the tokens in flight, from none to several and back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from service.autoscaling import UNKNOWN_TOKENS, replicas_for
from tests.service.conftest import running_service


@pytest.mark.parametrize(
    ("tokens", "running", "queued", "replicas"),
    [
        (0, 0, 0, 0),
        (1, 1, 0, 1),
        (1000, 4, 0, 1),
        (1001, 4, 0, 2),
        (1000, 4, 4, 2),
        (10_000, 4, 0, 10),
        (0, 0, 1, 2),
        (0, 1, 0, 1),
    ],
)
def test_there_are_replicas_for_the_tokens_and_for_what_waits(tokens, running, queued, replicas):
    assert UNKNOWN_TOKENS == 1024, "what waits alone counts as so many"
    assert replicas_for(tokens=tokens, running=running, queued=queued, target=1000) == replicas


@pytest.mark.slow
def test_from_none_to_several_and_back_with_nobody_turned_away(tmp_path):
    """The first request waits for a replica to start; many at once bring another one; afterwards all are gone."""
    model = {
        "min_replicas": 0, "max_replicas": 2, "max_running": 4, "target_tokens": 400, "upscale_seconds": 1,
        "downscale_seconds": 3, "zero_seconds": 3,
    }  # fmt: skip
    with running_service(tmp_path, {"models": [model]}) as service:
        assert replicas(service.address) == 0
        started = time.monotonic()
        assert ask(service.address, 0).status_code == 200
        print(f"from none: the first request was answered after {time.monotonic() - started:.1f} s")
        started, most = time.monotonic(), 0
        with ThreadPoolExecutor(16) as pool:
            answers = []
            while most < 2 and time.monotonic() - started < 120:
                answers += [pool.submit(ask, service.address, number) for number in range(16)]
                answers[-1].result()
                most = max(most, replicas(service.address))
            assert {answer.result().status_code for answer in answers} == {200}
        print(f"two replicas after {time.monotonic() - started:.1f} s of load, {len(answers)} requests")
        assert most == 2
        started = time.monotonic()
        while replicas(service.address) and time.monotonic() - started < 120:
            time.sleep(0.5)
        print(f"none again after {time.monotonic() - started:.1f} s")
        assert replicas(service.address) == 0


def replicas(address: str) -> int:
    return int(httpx.get(f"{address}/readyz", timeout=30).json()["replicas"]["zoo"])


def ask(address: str, seed: int) -> httpx.Response:
    asked = {"model": "zoo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 200, "temperature": 2,
             "seed": seed}  # fmt: skip
    return httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=240)
