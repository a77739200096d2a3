"""The trace of a chat request: from its headers to the last byte of its answer, part by part.

What is asked, shown or answered is told nowhere in it, nor any key or address; a model is named once it is known to be
one that is offered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import answer_to
from service.wire import Event, Piece, Spent
from skipvision.tracing import Clock

if TYPE_CHECKING:
    from service.chat import Asked
    from skipvision.tracing.otlp import Tracer

PATH = "/v1/chat/completions"

Parts = Callable[[str], AbstractContextManager[None]]
"""Around the work that a name stands for."""

_IN_SCOPE = "skipvision.trace"

_ENGINE_PARTS = ("queue", "encode", "prefill", "decode")

_NAMES = {
    "tenant": "skipvision.tenant",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
}
"""What the log calls it -> what OpenTelemetry does, or we do there."""


def unwatched(_: str) -> AbstractContextManager[None]:
    """Parts of what is not traced."""
    return nullcontext()


def trace_of(request: Request) -> Trace | None:
    """None: this one is not traced."""
    found: Trace | None = request.scope.get(_IN_SCOPE)
    return found


class Traced:
    """The application with a trace around each chat request that is to have one."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(PATH):
            return await self._app(scope, receive, send)
        trace = Trace(self._tracer, Headers(scope=scope).get("traceparent"))
        if not trace.is_made:
            return await self._app(scope, receive, send)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = trace.status or message["status"]
            await send(message)

        try:
            await self._app({**scope, _IN_SCOPE: trace}, receive, watched)
        finally:
            trace.end()


class Trace:
    """Of one request."""

    def __init__(self, tracer: Tracer, traceparent: str | None) -> None:
        self._tracer, self._clock = tracer, Clock()
        self._root = tracer.begin("chat", self._clock.now(), traceparent=traceparent, serves=True)
        self._open = self._root
        self._began = 0
        """Of the part that is open."""
        self._reasons: dict[int, str] = {}
        self.status: int | None = None
        self._code: str | None = None
        self._told: Mapping[str, Any] = {}

    @property
    def is_made(self) -> bool:
        return self._root.is_recording()

    def ask(self, asked: Asked, skip: str) -> None:
        """What is asked for, known to be offered and within the limits."""
        model = asked.request.model
        self._root.update_name(f"chat {model}")
        self._root.set_attributes(
            {
                "gen_ai.request.model": model,
                "gen_ai.request.max_tokens": asked.sampling.max_tokens,
                "gen_ai.request.choice.count": asked.answers,
                "gen_ai.request.stream": asked.streamed,
                "skipvision.images": len(asked.urls),
                "skipvision.skip": skip,
            }
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around some of the work on the request, one after the other."""
        self._began = self._clock.now()
        self._open = self._tracer.part(name, self._root, self._began)
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._tracer.fail(self._open, "cancelled")
            raise
        except Exception as error:
            self._tracer.fail(self._open, answer_to(error).code or type(error).__name__)
            raise
        finally:
            self._open.end(self._clock.now())
            self._open = self._root

    def hear(self, event: Event) -> None:
        """What is said of the answer, as it comes."""
        if isinstance(event, Piece) and event.finish_reason is not None:
            self._reasons[event.index] = event.finish_reason
        elif isinstance(event, Spent):
            self._spend(event)

    def tell(self, status: int, code: str | None, request_id: str, told: Mapping[str, Any]) -> None:
        """How the request ended, as it stands in the log."""
        self.status, self._code, self._told = status, code, told
        self._root.set_attribute("skipvision.request_id", request_id)
        self._root.set_attribute("gen_ai.response.id", f"chatcmpl-{request_id}")

    def end(self) -> None:
        """The last byte has gone."""
        status = self.status or 500
        self._root.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "skipvision",
                "http.request.method": "POST",
                "http.route": PATH,
                "http.response.status_code": status,
                **{name: self._told[known] for known, name in _NAMES.items() if known in self._told},
            }
        )
        if self._reasons:
            reasons = [self._reasons[index] for index in sorted(self._reasons)]
            self._root.set_attribute("gen_ai.response.finish_reasons", reasons)
        if status >= 400:
            self._tracer.fail(self._root, self._code or str(status))
        self._root.end(self._clock.now())

    def _spend(self, spent: Spent) -> None:
        """The engine's parts, by the seconds that it measured: they end with the answer, as it came here."""
        flops, whole = spent.flops, spent.flops_all_tokens
        ours = {**spent.by_fate, "flops": sum(flops.values()), "flops_all_tokens": sum(whole.values()),
                "kv_bytes": spent.kv_bytes, "kv_bytes_all_tokens": spent.kv_bytes_all_tokens,
                "first_token_seconds": spent.seconds["first_token"]}  # fmt: skip
        self._root.set_attributes({f"skipvision.{name}": value for name, value in ours.items()})
        now = self._clock.now()
        began = max(self._began, now - int(spent.seconds["total"] * 1e9))
        seconds = {name: spent.seconds[name] for name in _ENGINE_PARTS}
        told = {
            "encode": {"skipvision.images": spent.images, "skipvision.visual_tokens": spent.by_fate["visual_tokens"]},
            "prefill": {"gen_ai.usage.input_tokens": spent.prompt_tokens, "skipvision.flops": flops["prefill"]},
            "decode": {"gen_ai.usage.output_tokens": spent.output_tokens, "skipvision.flops": flops["decode"]},
        }
        self._tracer.lay_out(seconds, self._open, began, now, told)
