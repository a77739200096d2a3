"""A replica: one engine with continuous batching behind an async door, which asks, listens, gives up and is drained.

An engine that fails takes its process along. Ray Serve starts another one, and the door asks that one again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any

from monitoring.devices import device_of_this_process
from service.config import ModelConfig
from service.replica_meter import Published, ReplicaMeter
from service.wire import Event, Failed, Piece, Question, Spent, SpokenToken
from skipvision.engine import Answer, Delta, Engine, Request, TokenLogprobs
from skipvision.engine.costs import Cost, Formulas
from skipvision.engine.driver import EngineDriver, News, Refused
from skipvision.engine.grammar import Grammars
from skipvision.engine.token_map import TokenMap, map_tokens
from skipvision.errors import ConfigError, InputError
from skipvision.families.checkpoint import resolve_model
from skipvision.families.llava import load_processor
from skipvision.method.plan import SkipConfig

PACE_SECONDS = 0.03
"""Between what is sent of one answer: each sending costs Ray about a millisecond, whatever it holds. The first token
does not wait."""


class Replica:
    """One engine. Called by Ray Serve in one event loop."""

    def __init__(self, model: ModelConfig, published: Published) -> None:
        began = time.monotonic()
        self._engine = Engine.load(
            model.model,
            skip=model.skip,
            device=model.device,
            dtype=model.dtype,
            max_running=model.max_running,
            max_waiting=model.max_waiting,
            adapters=dict(model.adapters),
        )
        self._location = resolve_model(model.model)
        self._grammars: Grammars | None = None
        self._listeners: dict[str, asyncio.Queue[News]] = {}
        self._only_wholes: set[str] = set()
        """Questions whose answers are told when they are whole."""
        self._tokens: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._formulas = Formulas.of(self._engine.family)
        self._driver = EngineDriver(
            self._engine, self._tell, stall_seconds=model.stall_seconds, held_since=began
        )  # fmt: skip
        device = device_of_this_process(on_gpu=self._engine.family.device.type == "cuda")
        self._meter = ReplicaMeter(self._driver, device, published)

    async def answer(self, question: Question) -> list[Event]:
        """All that is said to a question, at once."""
        heard = self._listen(question, only_wholes=True)
        try:
            if (failed := await self._submit(question, whole=True)) is not None:
                return [failed]
            answers: list[Answer] = []
            while len(answers) < question.answers:
                said = _said_in(await heard.get())
                if isinstance(said, Failed):
                    return [said]
                assert said.answer is not None, "only wholes are told"
                answers.append(said.answer)
            return [*map(self._whole, answers), await self._spent(question, answers)]
        finally:
            self._forget(question)

    async def stream(self, question: Question) -> AsyncGenerator[list[Event], None]:
        """What is said to a question, as it comes. Leaving early gives the question up within a step."""
        heard = self._listen(question, only_wholes=False)
        answers: list[Answer] = []
        held: list[Event] = []
        try:
            if (failed := await self._submit(question, whole=False)) is not None:
                yield [failed]
                return
            while len(answers) < question.answers:
                for news in await _all_of(heard):
                    said = _said_in(news)
                    if isinstance(said, Failed):
                        yield [*held, said]
                        return
                    held.append(self._piece(said))
                    if said.answer is not None:
                        answers.append(said.answer)
                if len(answers) < question.answers:
                    yield _joined(held)
                    held = []
                    await asyncio.sleep(PACE_SECONDS)
            if question.token_maps:  # they take as long as the images did, and nobody waits for the answer's end
                yield _joined(held)
                held = []
            yield [*_joined(held), await self._spent(question, answers)]
        finally:
            self._forget(question)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For the autoscaler: tokens of the questions that are here."""
        return {"tokens_in_flight": float(sum(self._tokens.values()))}

    def stats(self) -> dict[str, Any]:
        """What the engine is doing, for tests and for whoever looks."""
        stats = self._driver.stats()
        return {
            "running": stats.running,
            "waiting": stats.waiting,
            "free_pages": stats.free_pages,
            "num_pages": stats.num_pages,
            "finished": dict(stats.finished),
            "listeners": len(self._listeners),
            "pid": os.getpid(),
        }

    def _listen(self, question: Question, *, only_wholes: bool) -> asyncio.Queue[News]:
        self._loop = asyncio.get_running_loop()
        self._tokens[question.request_id] = question.tokens
        if only_wholes:
            self._only_wholes.add(question.request_id)
        self._listeners[question.request_id] = asyncio.Queue()
        return self._listeners[question.request_id]

    async def _submit(self, question: Question, *, whole: bool) -> Failed | None:
        """Give a question to the engine. What is wrong with it, where that is known without the engine."""
        try:
            self._driver.submit(await self._request(question, whole=whole))
        except InputError as error:
            return Failed(error)
        return None

    def _forget(self, question: Question) -> None:
        """Give a question up; of one that is answered nothing is left to be given up."""
        del self._listeners[question.request_id], self._tokens[question.request_id]
        self._only_wholes.discard(question.request_id)
        self._driver.cancel(question.request_id)

    def _tell(self, news: Sequence[News]) -> None:
        """In the engine's thread: once for each step, since waking the loop costs as much as a small step."""
        assert self._loop is not None, "nobody is told before somebody has asked"
        if wanted := [each for each in news if self._is_wanted(each)]:
            self._loop.call_soon_threadsafe(self._hand_out, wanted)

    def _is_wanted(self, news: News) -> bool:
        return isinstance(news, Refused) or news.answer is not None or news.request_id not in self._only_wholes

    def _hand_out(self, news: Sequence[News]) -> None:
        for each in news:
            if (listener := self._listeners.get(each.request_id)) is not None:
                listener.put_nowait(each)

    async def _request(self, question: Question, *, whole: bool) -> Request:
        return Request(
            whole=whole,
            request_id=question.request_id,
            prompt=question.conversation,
            images=question.images,
            sampling=question.sampling,
            n=question.answers,
            skip=None if question.skip is None else _parsed(question.skip),
            adapter=question.adapter,
            logits_hook=None if question.grammar is None else await self._hook(question.grammar),
        )

    async def _hook(self, grammar: str) -> Any:
        if self._grammars is None:
            self._grammars = await asyncio.to_thread(self._load_grammars)
        return await asyncio.to_thread(self._grammars.hook, grammar)

    def _load_grammars(self) -> Grammars:
        return Grammars(load_processor(self._location).tokenizer, self._engine.family.eos_token_ids)

    def _piece(self, news: Delta) -> Piece:
        tokens = None if news.logprobs is None else (self._spoken(news.logprobs),)
        reason = None if news.answer is None else news.answer.finish_reason
        return Piece(news.index, news.text, int(news.token_id is not None), tokens, reason)

    def _whole(self, answer: Answer) -> Piece:
        tokens = None if answer.logprobs is None else tuple(map(self._spoken, answer.logprobs))
        return Piece(answer.index, answer.text, len(answer.output_ids), tokens, answer.finish_reason)

    def _spoken(self, logprobs: TokenLogprobs) -> SpokenToken:
        text = self._engine.family.detokenize
        likeliest = tuple((text([token]), logprob) for token, logprob in logprobs.likeliest)
        return SpokenToken(text([logprobs.token_id]), logprobs.logprob, likeliest)

    async def _spent(self, question: Question, answers: Sequence[Answer]) -> Spent:
        first = min(answers, key=lambda answer: answer.index)
        plan = first.plan
        spending = self._formulas.spending(*answers)
        self._meter.answered(answers, own_skip=question.skip is not None, extra_seconds=spending.extra_seconds)
        return Spent(
            prompt_tokens=plan.prompt_tokens,
            text_tokens=plan.text_tokens,
            output_tokens=sum(len(answer.output_ids) for answer in answers),
            images=len(question.images),
            by_fate={
                "visual_tokens": plan.visual_tokens,
                "retained_tokens": plan.retained_tokens,
                "skipped_tokens": plan.skipped_tokens,
                "merged_tokens": plan.merged_tokens,
                "dropped_tokens": plan.dropped_tokens,
                "summary_tokens": plan.summary_tokens,
                "cached_tokens": plan.cached_tokens,
            },
            flops=_flops(spending.actual),
            flops_all_tokens=_flops(spending.all_tokens),
            kv_bytes=spending.actual.kv_bytes,
            kv_bytes_all_tokens=spending.all_tokens.kv_bytes,
            seconds={
                "queue": first.queue_seconds,
                "encode": first.encode_seconds,
                "prefill": first.prefill_seconds,
                "decode": sum(answer.decode_seconds for answer in answers),
                "first_token": first.first_token_seconds,
                "total": max(answer.seconds for answer in answers),
            },
            token_maps=await self._maps(question) if question.token_maps else (),
        )  # fmt: skip

    async def _maps(self, question: Question) -> tuple[dict[str, Any], ...]:
        skip = self._engine.skip if question.skip is None else _parsed(question.skip)
        family = self._engine.family

        def drawn(engine: Engine) -> list[TokenMap]:
            return [map_tokens(family, image, skip) for image in question.images]

        try:
            maps = await asyncio.wrap_future(self._driver.between_steps(drawn))
        except ValueError:  # tokens that are no grid, as of pictures that are cut into tiles
            return ()
        return tuple(
            {"rows": each.rows, "columns": each.columns, "fates": "".join(fate[0] for fate in each.fates)}
            for each in maps
        )


async def _all_of(heard: asyncio.Queue[News]) -> list[News]:
    """What has come; waits for the first of it."""
    news = [await heard.get()]
    while not heard.empty():
        news.append(heard.get_nowait())
    return news


def _flops(cost: Cost) -> dict[str, int]:
    return {"prefill": cost.prefill_flops, "decode": cost.decode_flops}


def _joined(pieces: Iterable[Event]) -> list[Event]:
    """The same, one piece for each answer."""
    joined: dict[int, Piece] = {}
    for piece in pieces:
        assert isinstance(piece, Piece)
        if (before := joined.get(piece.index)) is not None:
            tokens = None if before.tokens is None else before.tokens + (piece.tokens or ())
            said = before.output_tokens + piece.output_tokens
            piece = Piece(piece.index, before.text + piece.text, said, tokens, piece.finish_reason)
        joined[piece.index] = piece
    return list(joined.values())


def _said_in(news: News) -> Delta | Failed:
    """What is said of a question, or why nothing can be."""
    if isinstance(news, Refused):
        return Failed(news.error)
    return news if news.answer is None or news.answer.error is None else Failed(news.answer.error)


def _parsed(skip: str) -> SkipConfig:
    try:
        return SkipConfig.parse(skip)
    except ConfigError as error:
        raise InputError(str(error), code="skip_invalid") from error
