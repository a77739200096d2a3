"""A small server that speaks the page's contract: the page itself, its models, and answers that arrive slowly."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

PAGE = Path(__file__).parents[2] / "service" / "page"
SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GRID, RETAINED, SKIPPED, ALONE = 16, 44, 69, 12
TOKENS = GRID * GRID


class PageServer:
    """What it answers is set by the test; what it was asked is kept in `asked`."""

    def __init__(self) -> None:
        self.reset()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._completions, methods=["POST"]),
                Mount("/page", StaticFiles(directory=PAGE)),
            ]
        )

    def reset(self) -> None:
        self.answer = "a large blue circle at the top left, a large yellow star at the right and the text ART"
        self.models = ["zoo"]
        self.skip = "44/69"
        self.pause_seconds = 0.02
        self.key: str | None = None
        self.refusal: tuple[int, str] | None = None
        self.breaks_off_with: str | None = None
        self.box: list[float] | None = None
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = self._now = 0
        self.hung_up = threading.Event()

    @property
    def skip_settings(self) -> list[str]:
        return [body["skipvision"]["skip"] for body in self.asked]

    def picture(self, place: int = -1) -> tuple[str, Image.Image]:
        """The media type and the pixels of a picture that was sent."""
        url = self.asked[place]["messages"][0]["content"][0]["image_url"]["url"]
        head, _, data = url.partition(",")
        return head.removeprefix("data:").removesuffix(";base64"), Image.open(io.BytesIO(base64.b64decode(data)))

    async def _page(self, _: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": SECURITY_POLICY})

    async def _models(self, request: Request) -> Response:
        if wrong := self._without_key(request):
            return wrong
        settings = {"skip": self.skip, "visual_tokens": TOKENS, "adapters": []}
        models = [
            {"id": name, "object": "model", "owned_by": "skipvision", "skipvision": settings} for name in self.models
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _completions(self, request: Request) -> Response:
        if wrong := self._without_key(request):
            return wrong
        self.asked.append(await request.json())
        if self.refusal:
            status, message = self.refusal
            return _error(status, message)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    def _without_key(self, request: Request) -> Response | None:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "the API key is missing or unknown", code="invalid_api_key")
        return None

    async def _stream(self) -> AsyncIterator[str]:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        is_whole = False
        try:
            async for event in self._events():
                yield f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"
            is_whole = True
        finally:
            self._now -= 1
            if not is_whole:
                self.hung_up.set()

    async def _events(self) -> AsyncIterator[dict[str, Any] | str]:
        body = self.asked[-1]
        is_off = body["skipvision"]["skip"] == "off"
        started = monotonic()
        await asyncio.sleep(self.pause_seconds * (12 if is_off else 3))
        first = monotonic() - started
        for place, word in enumerate(self.answer.split(" ")):
            yield _chunk({"content": f" {word}" if place else word})
            await asyncio.sleep(self.pause_seconds)
        if self.breaks_off_with:
            yield {
                "error": {"message": self.breaks_off_with, "type": "server_error", "param": None, "code": "engine_dead"}
            }
            return
        yield _chunk({}, finish_reason="stop")
        yield self._last(body, first, monotonic() - started, is_off=is_off)
        yield "[DONE]"

    def _last(self, body: dict[str, Any], first: float, total: float, *, is_off: bool) -> dict[str, Any]:
        tokens = _off_tokens() if is_off else _skipping_tokens()
        usage = {
            "prompt_tokens": 20 + TOKENS,
            "completion_tokens": 18,
            "total_tokens": 38 + TOKENS,
            "skipvision": tokens,
        }
        seconds = {"queue": first / 20, "encode": first / 4, "prefill": 0.7 * first, "decode": total - first}
        token_map = {"rows": GRID, "columns": GRID, "fates": self._fates(body, is_off=is_off)}
        if self.box:
            token_map["box"] = self.box
        about = {"token_maps": [token_map], "seconds": seconds | {"first_token": first, "total": total}}
        return {"object": "chat.completion.chunk", "choices": [], "usage": usage, "skipvision": about}

    def _fates(self, body: dict[str, Any], *, is_off: bool) -> str:
        """Retain the patches that stand out from the background, as a stand-in for a vision encoder."""
        if is_off:
            return "r" * TOKENS
        _, picture = self.picture(self.asked.index(body))
        pixels = np.asarray(picture.convert("L").resize((GRID * 8, GRID * 8)), dtype=np.float32)
        outstanding = np.abs(pixels - np.median(pixels)).reshape(GRID, 8, GRID, 8).mean(axis=(1, 3)).ravel()
        order = outstanding.argsort(kind="stable")[::-1]
        fates = np.full(TOKENS, "m")
        fates[order[RETAINED : RETAINED + ALONE]] = "s"
        fates[order[:RETAINED]] = "r"
        return "".join(fates)


@contextmanager
def serving(server: PageServer) -> Iterator[str]:
    """Serve on a free port of this machine; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(server.app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not web.started:
        sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join()


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "zoo", "choices": [choice]}


def _error(status: int, message: str, code: str | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status)


def _off_tokens() -> dict[str, int]:
    return _tokens(retained=TOKENS, flops=1_054_000_000, kv_bytes=1_640_448)


def _skipping_tokens() -> dict[str, int]:
    return _tokens(retained=RETAINED, skipped=SKIPPED, summary=2, flops=308_000_000, kv_bytes=350_208)


def _tokens(*, retained: int, flops: int, kv_bytes: int, skipped: int = 0, summary: int = 0) -> dict[str, int]:
    merged = TOKENS - retained - skipped
    return {
        "visual_tokens": TOKENS,
        "retained_tokens": retained,
        "skipped_tokens": skipped,
        "merged_tokens": merged,
        "dropped_tokens": 0,
        "summary_tokens": summary,
        "tokens_saved": merged - summary,
        "flops": flops,
        "flops_all_tokens": 1_054_000_000,
        "kv_bytes": kv_bytes,
        "kv_bytes_all_tokens": 1_640_448,
    }
