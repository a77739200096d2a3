"""A service that is told to end finishes what it has begun."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.service.conftest import free_port, wait_until_ready


@pytest.mark.slow
def test_a_request_that_is_being_answered_is_finished_and_the_address_is_free_again(tmp_path):
    """Started by its one command, without a cluster or a settings file."""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "skipvision.cli", "serve", "--port", str(port)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
        assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in log.read_text()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, port)
            time.sleep(0.5)
            process.terminate()
            told = answer.result()
        assert process.wait(120) == 0
    assert told.status_code == 200
    assert told.json()["usage"]["completion_tokens"] == 700
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def ask(port: int) -> httpx.Response:
    # Hot enough never to end by itself.
    asked = {"model": "zoo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 700, "temperature": 2,
             "seed": 1}  # fmt: skip
    return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=120)
