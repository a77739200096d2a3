"""A service that is told to end finishes what it has begun."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.service.conftest import free_port, wait_until_ready

LONG = 200
"""Tokens of an answer that takes a second at least, and that its schema does not let end before."""


@pytest.mark.slow
def test_a_request_that_is_being_answered_is_finished_and_the_address_is_free_again(tmp_path):
    """Started by its one command, without a cluster or a settings file."""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "skipvision.cli", "serve", "--port", str(port)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
            while f"curl http://127.0.0.1:{port}/v1/chat/completions" not in log.read_text():
                time.sleep(0.1)
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(ask, port)
                time.sleep(0.5)
                process.terminate()
                told = answer.result()
            assert process.wait(120) == 0, log.read_text()
        finally:
            process.kill()
    assert told.status_code == 200
    assert told.json()["usage"]["completion_tokens"] == LONG
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def ask(port: int) -> httpx.Response:
    schema = {"type": "object", "properties": {"x": {"type": "string", "minLength": 9 * LONG}}, "required": ["x"]}
    wish = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    asked = {"model": "zoo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": LONG,
             "response_format": wish}  # fmt: skip
    return httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked, timeout=120)
