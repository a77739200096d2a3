"""The door: HTTP in, questions to replicas, answers out. Who asks, and how much, is decided here and nowhere else.

A request is known by its key, read within its limits, checked, admitted for its tenant, its images fetched and decoded,
and only then given to a replica. One line of JSON in the log says how it ended, without what was asked, shown or
answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pydantic_core
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service import chat
from service.asking import events_of
from service.auth import AuthError, Keyring, TenantConfig
from service.body import read_body
from service.config import ServiceConfig
from service.errors import AUTHENTICATION, PERMISSION, QUOTA, RATE, ApiError, answer_to
from service.ledger import Ledger
from service.limits import Admission, Limits, RateLimitError
from service.meter import ServiceMeter
from service.models import Offer, find
from service.pictures import Pictures
from service.traces import Trace, trace_of, unwatched
from service.wire import Event, Piece, Spent
from skipvision.metrics.feed import Numbers
from skipvision.tracing import tracer

log = logging.getLogger("skipvision.service")

STAGE_OF = {"fetch images": "read", "decode images": "prepare"}
"""Parts of a request's work -> stages of the metrics."""

TIDY_SECONDS = 2.0
"""Between looks at the key files, and savings of the ledger."""


def log_to_stderr() -> None:
    """The service's own lines, as they are: one JSON object each, among whatever else its process says there."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.StreamHandler())


@dataclass(kw_only=True, slots=True)
class Visit:
    """One request, for the log, the meter and its trace."""

    request_id: str = field(default_factory=lambda: uuid4().hex)
    began: float = field(default_factory=time.monotonic)
    told: dict[str, Any] = field(default_factory=dict)
    meter: ServiceMeter
    tenant: str
    model: str | None = None
    """That is offered, once it is known."""
    own_skip: bool = False
    """Whether the request brings a setting of its own."""
    trace: Trace | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.told["tenant"] = self.tenant
        self.meter.begin()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around a part of the work, for the trace and for the stages' seconds."""
        began = time.monotonic()
        with (self.trace.part if self.trace is not None else unwatched)(name):
            yield
        if name in STAGE_OF and self.model is not None:
            self.meter.spend_time(time.monotonic() - began, stage=STAGE_OF[name], model=self.model)

    def hear(self, event: Event) -> None:
        """What is said of the answer, as it comes."""
        assert self.model is not None, "nothing is said before a model was asked"
        if isinstance(event, Piece):
            self.meter.finished(event, model=self.model, own_skip=self.own_skip)
        if isinstance(event, Spent):
            self.meter.spend(event, model=self.model, own_skip=self.own_skip, tenant=self.tenant)
        if self.trace is not None:
            self.trace.hear(event)

    def end(self, status: int, code: str | None = None) -> None:
        self.ended = True
        seconds = time.monotonic() - self.began
        self.meter.end(status, seconds, model=self.model, tenant=self.tenant, code=code)
        if self.trace is not None:
            self.trace.tell(status, code, self.request_id, self.told)
        told = {"status": status, "code": code, "seconds": round(seconds, 4), **self.told}
        line = {"request_id": self.request_id, **told}
        log.info("%s", json.dumps(line))

    def fail(self, error: Exception) -> ApiError:
        """End with what is answered to an error; one of ours stands in the log with its traceback."""
        answer = answer_to(error)
        if answer.status == 500:
            log.error("request %s failed", self.request_id, exc_info=error)
        self.end(answer.status, answer.code)
        return answer


class Door:
    """What the HTTP routes do.

    Args:
        replicas: of each model that is offered, by its name.
        numbers: what is counted goes there.
        look: publishes what there is of replicas; called every other second, in a thread.
    """

    def __init__(
        self,
        config: ServiceConfig,
        offered: Mapping[str, Offer],
        replicas: Mapping[str, DeploymentHandle[Any]],
        numbers: Numbers,
        look: Callable[[], None],
    ) -> None:
        self.config, self.offered, self._replicas = config, offered, replicas
        self._keyring = Keyring(config.tenants, anonymous=config.anonymous)
        self._ledger = Ledger(Path(config.ledger) if config.ledger else None)
        self._limits = Limits(self._keyring.tenants, ledger=self._ledger)
        self._pictures = Pictures(config)
        self._numbers, self._look = numbers, look
        self._meter = ServiceMeter(numbers.registry, offered, (tenant.name for tenant in self._keyring.tenants))
        self.tracer = tracer(config.traces, config.traces_share, service="skipvision")
        """None: traces are off."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None, None]:
        """Keep keys and ledger tidy for as long as the block lasts."""
        for offer in self.offered.values():
            await self._pictures.begin(offer.location)
        tidying = asyncio.create_task(self._tidy())
        try:
            yield
        finally:
            tidying.cancel()
            await self._pictures.close()
            self._ledger.close()
            await asyncio.to_thread(self._numbers.close)
            if self.tracer is not None:
                await asyncio.to_thread(self.tracer.close)

    async def tenant(self, request: Request) -> TenantConfig:
        """Who asks. Not in a thread of its own, which the framework would give to what is not `async`.

        Raises:
            ApiError: 401.
        """
        try:
            return self._keyring.tenant_of(request.headers.get("authorization"))
        except AuthError as error:
            raise ApiError(
                str(error), status=401, kind=AUTHENTICATION, code=error.code, headers={"WWW-Authenticate": "Bearer"}
            ) from error

    async def chat(self, request: Request, tenant: TenantConfig) -> Response:
        """POST /v1/chat/completions."""
        visit = Visit(meter=self._meter, tenant=tenant.name, trace=trace_of(request))
        try:
            return await self._chat(request, tenant, visit)
        except asyncio.CancelledError:
            visit.end(499)
            raise
        except Exception as error:
            answer = visit.fail(error)
            answer.headers |= {"x-request-id": visit.request_id}
            return answer.response()

    async def _chat(self, request: Request, tenant: TenantConfig, visit: Visit) -> Response:
        with visit.part("read body"):
            body = await read_body(
                request, most_bytes=self.config.max_body_mib << 20, idle_seconds=self.config.body_seconds
            )
            asked = chat.read(body, self.config)
        offer, adapter = self._offer(asked.request.model, tenant)
        if visit.trace is not None:
            visit.trace.ask(asked, asked.skip or offer.skip)
        tokens = asked.tokens(of_image=offer.visual_tokens)
        visit.model = offer.name
        visit.told |= {"model": asked.request.model, "images": len(asked.urls), "streamed": asked.streamed}
        deadline = asyncio.get_running_loop().time() + self.config.request_seconds
        async with asyncio.timeout_at(deadline), AsyncExitStack() as until_answered:
            with visit.part("admit"):
                admission = until_answered.enter_context(self._admit(tenant, len(asked.urls), tokens))
            images = await self._pictures.prepared(asked.urls, offer.location, visit.part)
            question = chat.question(asked, images, request_id=visit.request_id, adapter=adapter, tokens=tokens)
            visit.own_skip = question.skip is not None
            events = events_of(self._replicas[offer.name], question, streamed=asked.streamed)
            prompt_tokens = asked.prompt_tokens(of_image=offer.visual_tokens)
            told = await until_answered.enter_async_context(
                aclosing(_settling(events, admission, prompt_tokens, visit))
            )
            first = await anext(told)  # what is wrong with the question is known before a status is sent
            writer = chat.Writer(asked, visit.request_id)
            headers = {"x-request-id": visit.request_id, "cache-control": "no-store"}
            if asked.streamed:
                lines = _lines(first, told, writer, deadline, visit)
                return _Stream(lines, headers | self._limits.headers(tenant), until_answered.pop_all(), visit)
            async for _ in told:
                raise AssertionError("an answer that is not streamed comes at once")
            visit.end(200)
            body = pydantic_core.to_json(writer.whole(first))
            return Response(body, headers=headers | self._limits.headers(tenant), media_type="application/json")

    def models(self, tenant: TenantConfig) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [
            offer.described(adapter)
            for offer in self.offered.values() for adapter in (None, *offer.config.adapters)
            if tenant.may_ask(offer.name)
        ]}  # fmt: skip

    def model(self, name: str, tenant: TenantConfig) -> dict[str, Any]:
        """GET /v1/models/{name}."""
        offer, adapter = self._offer(name, tenant)
        return offer.described(adapter)

    def _offer(self, name: str, tenant: TenantConfig) -> tuple[Offer, str | None]:
        found = find(self.offered, name)
        if found is None:
            raise ApiError(
                f"the model {name!r:.100} is not offered here; GET /v1/models lists those that are",
                status=404, code="model_not_found", param="model",
            )  # fmt: skip
        if not tenant.may_ask(found[0].name):
            raise ApiError(
                f"this key may not ask the model {name}", status=403, kind=PERMISSION, code="model_not_allowed",
                param="model",
            )  # fmt: skip
        return found

    def _admit(self, tenant: TenantConfig, images: int, tokens: int) -> Admission:
        try:
            return self._limits.admit(tenant, images=images, tokens=tokens)
        except RateLimitError as error:
            pause = error.retry_after_seconds
            headers = self._limits.headers(tenant)
            if pause is not None:
                headers["Retry-After"] = str(max(1, math.ceil(pause)))
            else:
                headers["x-should-retry"] = "false"  # OpenAI's clients try again otherwise
            kind = QUOTA if error.code == "insufficient_quota" else RATE
            raise ApiError(str(error), status=429, kind=kind, code=error.code, headers=headers) from error

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(self._keyring.refresh)
            await asyncio.to_thread(self._ledger.save)
            await asyncio.to_thread(self._look)


async def _settling(
    told: AsyncGenerator[list[Event], None], admission: Admission, prompt_tokens: int, visit: Visit
) -> AsyncGenerator[list[Event], None]:
    """The same; what was spent is charged, and of an answer that is broken off what was said of it."""
    spent, output_tokens = False, 0
    try:
        with visit.part("answer"):
            async with aclosing(told):
                async for events in told:
                    output_tokens += sum(event.output_tokens for event in events if isinstance(event, Piece))
                    for event in events:
                        visit.hear(event)
                        if isinstance(event, Spent):
                            spent, prompt_tokens, output_tokens = True, event.prompt_tokens, event.output_tokens
                    yield events
    finally:
        if spent or output_tokens:
            admission.settle(prompt_tokens + output_tokens)
            visit.told |= {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}


class _Stream(StreamingResponse):
    """Server-sent events. What was entered for the request is left with them, even if none of them was sent."""

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        until_answered: AsyncExitStack,
        visit: Visit,
    ) -> None:
        super().__init__(lines, headers=headers, media_type="text/event-stream")
        self._until_answered, self._visit = until_answered, visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._until_answered:
                await super().__call__(scope, receive, send)
        finally:
            if not self._visit.ended:
                self._visit.end(499)


async def _lines(
    first: list[Event],
    told: AsyncGenerator[list[Event], None],
    writer: chat.Writer,
    deadline: float,
    visit: Visit,
) -> AsyncGenerator[bytes, None]:
    """One for each chunk; what goes wrong after the first is one of them, and the last."""
    try:
        async with asyncio.timeout_at(deadline):
            async for events in _after(first, told):
                for chunk in writer.chunks(events):
                    yield _line(chunk)
            yield b"data: [DONE]\n\n"
            visit.end(200)
    except (asyncio.CancelledError, GeneratorExit):
        visit.end(499)
        raise
    except Exception as error:
        yield _line(visit.fail(error).body())


async def _after(first: list[Event], rest: AsyncGenerator[list[Event], None]) -> AsyncGenerator[list[Event], None]:
    yield first
    async for events in rest:
        yield events


def _line(value: Any) -> bytes:
    return b"data: " + pydantic_core.to_json(value) + b"\n\n"
