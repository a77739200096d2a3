"""What HTTP and Ray Serve add to the engine: `python -m benchmarks.service`.

The engine has one core to itself, in its replica as when it is alone; the client, the door and the rest of Ray share
the other. Alone it is called in its own process with the same requests.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import aiohttp
import torch
import typer

from benchmarks.machine import ROOT, versions_of, write_result
from benchmarks.random_llava import save_random, small
from skipvision.scenes import scene

RESULT = ROOT / "benchmarks" / "results" / "service.json"
ENGINE_CORE, OTHER_CORE = 0, 1
MAX_RUNNING = 32
RANDOM = "random-92m"
"""Its answers are as long as they may be. Those of the model that ships end after some tokens, so that with it requests
count, and not tokens."""


def measure(
    requests: Annotated[int, typer.Option(min=20, help="One after another, of each kind.")] = 200,
    load: Annotated[int, typer.Option(min=32, help="At once, for the throughput.")] = 256,
    port: Annotated[int, typer.Option(help="A free port.")] = 8642,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    assert (os.cpu_count() or 1) > 1, "the engine and the rest need a core each"
    kinds = {"text": [_body(number, None) for number in range(requests)],
             "an image": [_body(number, _url(number % 8)) for number in range(requests)]}  # fmt: skip
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        save_random(Path(folder), small(), dtype=torch.float32)
        models = {"zoo": None, RANDOM: folder}
        heavy = {name: [_body(number, None, model=name, max_tokens=64) for number in range(load)] for name in models}
        alone_seconds = {kind: alone.submit(_alone, bodies).result() for kind, bodies in kinds.items()}
        alone_rates = {name: alone.submit(_alone_rates, heavy[name], models[name]).result() for name in models}
        with _service(port, models) as address, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as client:
            told = {kind: client.submit(_ask_one_by_one, address, bodies).result() for kind, bodies in kinds.items()}
            rates = {name: client.submit(_ask_at_once, address, heavy[name]).result() for name in models}
    kinds_measured = [
        {
            "kind": kind,
            "engine_alone": _percentiles(alone_seconds[kind]),
            "service": _percentiles([wall for wall, _ in told[kind]]),
            "added": _percentiles([wall - engine for wall, engine in told[kind]]),
        }
        for kind in kinds
    ]
    throughput = [{"model": name, "engine_alone": alone_rates[name], "service": rates[name]} for name in models]
    write_result(
        output, "service",
        {"requests": requests, "load": load, "kinds": kinds_measured, "throughput": throughput,
         "serve": versions_of("ray", "uvicorn", "fastapi")},
    )  # fmt: skip


def _body(number: int, url: str | None, *, model: str = "zoo", max_tokens: int = 8) -> dict[str, Any]:
    asked = [{"type": "text", "text": f"What is number {number}?"}]
    shown = [{"type": "image_url", "image_url": {"url": url}}] if url else []
    return {"model": model, "messages": [{"role": "user", "content": shown + asked}], "max_tokens": max_tokens,
            "temperature": 2, "seed": number}  # fmt: skip


def _url(seed: int) -> str:
    encoded = io.BytesIO()
    scene(seed).render(224).save(encoded, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()


def _alone(bodies: list[dict[str, Any]]) -> list[float]:
    """Seconds of each request, called one by one; in a process of its own."""
    engine, requests = _engine_and_requests(bodies)
    seconds = []
    for request in requests:
        started = time.perf_counter()
        engine.answer([request])
        seconds.append(time.perf_counter() - started)
    return seconds[len(seconds) // 10 :]


def _alone_rates(bodies: list[dict[str, Any]], model: str | None) -> dict[str, float]:
    """Of all requests at once, after some that warm up."""
    engine, requests = _engine_and_requests(bodies, model)
    engine.answer(requests[:MAX_RUNNING])
    fresh = [replace(request, request_id=f"again-{number}") for number, request in enumerate(requests)]
    started = time.perf_counter()
    answers = engine.answer(fresh)
    return _rates(len(answers), sum(len(answer.output_ids) for answer in answers), time.perf_counter() - started)


def _engine_and_requests(bodies: list[dict[str, Any]], model: str | None = None) -> tuple[Any, list[Any]]:
    os.sched_setaffinity(0, {ENGINE_CORE})
    from service import chat
    from service.config import ServiceConfig
    from skipvision.engine import Engine, Request
    from skipvision.fetch import decode_data_url
    from skipvision.images import decode_image

    torch.set_num_threads(1)
    engine = Engine.load(model, max_running=MAX_RUNNING)
    asked = [chat.read(json.dumps(body).encode(), ServiceConfig()) for body in bodies]
    return engine, [
        Request(
            prompt=each.conversation,
            sampling=each.sampling,
            images=tuple(engine.prepare(decode_image(decode_data_url(url, max_bytes=2**24))) for url in each.urls),
        )
        for each in asked
    ]


def _rates(requests: int, tokens: int, seconds: float) -> dict[str, float]:
    return {"requests_per_second": requests / seconds, "tokens_per_second": tokens / seconds}


class _service:  # noqa: N801 -- used as a `with` block
    """The service, its engines on one core and everything else on the other."""

    def __init__(self, port: int, models: Mapping[str, str | None]) -> None:
        from service.config import ModelConfig, ServiceConfig
        from service.running import serving

        offered = tuple(ModelConfig(name=name, model=model, max_running=MAX_RUNNING) for name, model in models.items())
        self._names, self._serving = tuple(models), serving(ServiceConfig(port=port, models=offered))

    def __enter__(self) -> str:
        import psutil
        from ray import serve

        address = self._serving.__enter__()
        replicas = {
            serve.get_deployment_handle(f"model {name}", f"skipvision {name}").stats.remote().result()["pid"]
            for name in self._names
        }
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            _pin(process.pid, ENGINE_CORE if process.pid in replicas else OTHER_CORE)
        return address

    def __exit__(self, *error: object) -> None:
        self._serving.__exit__(None, None, None)


def _pin(pid: int, core: int) -> None:
    """All threads of a process."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _ask_one_by_one(address: str, bodies: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """In a process of its own, as clients are."""
    os.sched_setaffinity(0, {OTHER_CORE})
    return asyncio.run(_one_by_one(address, bodies))


def _ask_at_once(address: str, bodies: list[dict[str, Any]]) -> dict[str, float]:
    os.sched_setaffinity(0, {OTHER_CORE})
    return asyncio.run(_rate(address, bodies))


async def _one_by_one(address: str, bodies: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """For each request its seconds, and those of the engine in it."""
    told = []
    async with aiohttp.ClientSession(address) as session:
        for body in bodies:
            started = time.perf_counter()
            async with session.post("/v1/chat/completions", json=body) as answer:
                said = await answer.json()
            told.append((time.perf_counter() - started, said["skipvision"]["seconds"]["total"]))
    return told[len(told) // 10 :]


async def _rate(address: str, bodies: list[dict[str, Any]]) -> dict[str, float]:
    async def ask(session: aiohttp.ClientSession, body: dict[str, Any]) -> int:
        async with session.post("/v1/chat/completions", json=body) as answer:
            return int((await answer.json())["usage"]["completion_tokens"])

    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=2 * MAX_RUNNING)) as session:
        await asyncio.gather(*(ask(session, body) for body in bodies[:MAX_RUNNING]))
        started = time.perf_counter()
        tokens = await asyncio.gather(*(ask(session, body) for body in bodies))
        return _rates(len(tokens), sum(tokens), time.perf_counter() - started)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


if __name__ == "__main__":
    typer.run(measure)
