"""The application as a Serve config file deploys it, behind Ray Serve's own proxy: two models, an adapter of one."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import torch
import yaml
from openai import OpenAI
from peft import LoraConfig, get_peft_model
from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import resolve_model
from tests.service.conftest import free_port, local_cluster, wait_until_ready

ASKED = {"messages": [{"role": "user", "content": "What can you do?"}], "max_tokens": 12}


def save_adapter(folder: Path) -> Path:
    """Random, and so large that it changes what is said."""
    torch.manual_seed(0)
    stock = LlavaForConditionalGeneration.from_pretrained(resolve_model("zoo"), dtype=torch.float32)
    target = LoraConfig(r=4, lora_alpha=64, target_modules=r".*language_model.*\.o_proj", init_lora_weights=False)
    get_peft_model(stock, target).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("deployed"), free_port()
    models = [{"adapters": {"odd": str(save_adapter(folder / "odd"))}}, {"model": "zoo-plain"}]
    args = {"models": models, "body_seconds": 2}
    settings = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "proxy_location": "HeadOnly",
        "applications": [{"name": "skipvision", "import_path": "service:application", "args": args}],
    }
    file, log = folder / "serve.yaml", folder / "log"
    file.write_text(yaml.safe_dump(settings))
    with local_cluster() as cluster:
        command = [sys.executable, "-m", "ray.serve.scripts", "run", "--address", cluster, str(file)]
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as run:
            try:
                wait_until_ready(f"http://127.0.0.1:{port}/readyz", run, log)
                yield f"http://127.0.0.1:{port}"
            finally:
                run.terminate()
                run.wait(60)


def said(address: str, model: str, **fields: object) -> str:
    answer = httpx.post(f"{address}/v1/chat/completions", json={"model": model, **ASKED, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_each_model_and_each_adapter_is_asked_by_its_name(address: str, picture_url: str) -> None:
    names = [model["id"] for model in httpx.get(f"{address}/v1/models").json()["data"]]
    assert names == ["zoo", "zoo:odd", "zoo-plain"]
    assert said(address, "zoo:odd") != said(address, "zoo")
    shown = [{"type": "image_url", "image_url": {"url": picture_url}}, {"type": "text", "text": "Describe the image."}]
    about = {"messages": [{"role": "user", "content": shown}], "max_tokens": 40}
    answers = {name: said(address, name, **about) for name in names}
    assert answers["zoo"].startswith("a small purple star")
    assert answers["zoo-plain"].startswith("a small purple star")
    assert answers["zoo:odd"] != answers["zoo"]


@pytest.mark.parametrize("name", ["zoo:even", "zoo:", ":odd", "zoo-plain:odd", "zoo:odd:odd"])
def test_an_adapter_that_is_not_there_is_not_the_model_without_it(address: str, name: str) -> None:
    answer = httpx.post(f"{address}/v1/chat/completions", json={"model": name, **ASKED}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_stream_comes_through_the_proxy_as_it_is_said(address: str) -> None:
    client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    chunks = list(client.chat.completions.create(model="zoo", stream=True, **ASKED))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said(address, "zoo")


def test_a_header_of_the_proxy_lifts_no_limit(address: str) -> None:
    """Ray Serve's proxy has a timeout of its own, which a header turns off; the door's is another."""
    host, port = address.removeprefix("http://").split(":")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        "x-request-timeout-seconds: 100000\r\nx-request-disconnect-disabled: ?1\r\n\r\n{"
    )
    with socket.create_connection((host, int(port)), timeout=30) as connected:
        connected.sendall(head.encode())
        told = connected.recv(65536)
    assert told.startswith(b"HTTP/1.1 408 ")
