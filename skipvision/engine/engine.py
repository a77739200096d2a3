"""The engine: requests join and leave between steps, and every step is one forward pass for all of them.

Single-threaded: call one engine from one thread. Where several want its answers, one thread drives it and hands the
deltas out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.device_attention import spare_pages
from skipvision.engine.intake import Intake, Limits
from skipvision.engine.kv_cache import KvCache, choose_num_pages
from skipvision.engine.live_request import LiveRequest
from skipvision.engine.logits_hook import apply_hooks
from skipvision.engine.logprobs import token_logprobs
from skipvision.engine.model_runner import ModelRunner
from skipvision.engine.outbox import Outbox
from skipvision.engine.pages import PagePool
from skipvision.engine.request import MOST_ANSWERS, Answer, Delta, Request
from skipvision.engine.sampling import Choice, check_numbers, choose_tokens
from skipvision.engine.scheduler import Scheduler, Step
from skipvision.engine.stats import EngineStats, Meter
from skipvision.engine.vision_cache import VisionCache
from skipvision.errors import ConfigError, EngineDeadError, InputError
from skipvision.families import load_family
from skipvision.families.adapters import AdapterSet, load_adapter
from skipvision.families.family import Family
from skipvision.method.plan import SkipConfig


class EngineLimits(TypedDict, total=False):
    """What `Engine.load` passes on to `Engine`."""

    max_running: int
    max_step_tokens: int
    cache_tokens: int | None
    max_waiting: int | None
    vision_cache_bytes: int
    adapters: Mapping[str, str | Path] | None
    cuda_graphs: bool


class Engine:
    """Answers requests with one loaded checkpoint.

    Args:
        family: the checkpoint.
        skip: how much visual work to leave out of requests that do not say. None: nothing.
        max_running: requests that generate at the same time.
        max_step_tokens: prompt tokens that one step reads; generated tokens come on top, one for each running request.
            A longer prompt is read in several steps, so that it does not keep the others from speaking.
        cache_tokens: tokens whose keys and values are held, for all running requests together, rounded up to whole
            pages. None: by what memory is free, up to what `max_running` requests can fill.
        max_waiting: requests that may wait. None: any number.
        vision_cache_bytes: what was made of images, kept on the model's device for those who ask about them later. 0:
            nothing is kept.
        adapters: LoRA adapters that requests may name, each a folder as peft saves it.
        cuda_graphs: on an NVIDIA GPU, record the steps in which everyone decodes. It takes some seconds at the start.

    Raises:
        ConfigError: a limit is out of range, or `skip` or an adapter does not fit the checkpoint.
    """

    def __init__(
        self,
        family: Family,
        *,
        skip: SkipConfig | None = None,
        max_running: int = 32,
        max_step_tokens: int = 8192,
        cache_tokens: int | None = None,
        max_waiting: int | None = None,
        vision_cache_bytes: int = 256 * 2**20,
        adapters: Mapping[str, str | Path] | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        _check_limits(max_running, max_step_tokens, max_waiting, vision_cache_bytes)
        self.family, self.skip = family, skip or SkipConfig()
        loaded = {name: load_adapter(name, folder) for name, folder in (adapters or {}).items()}
        self._adapters = AdapterSet(family.layers, loaded)
        self._pool = PagePool(
            choose_num_pages(
                family.shape,
                device=family.device,
                dtype=family.dtype,
                wish_tokens=cache_tokens,
                useful_tokens=max_running * family.context_tokens,
            )
        )
        limits = self._limits(max_step_tokens, max_running)
        self._intake = Intake(family, self.skip, limits, self._adapters.names)
        self._scheduler = Scheduler(
            self._pool, max_running=max_running, max_step_tokens=max_step_tokens, max_waiting=max_waiting
        )
        num_pages = self._pool.num_pages + spare_pages(family.device)
        self._cache = KvCache(family.shape, num_pages=num_pages, device=family.device, dtype=family.dtype)
        self._vision_cache = VisionCache(vision_cache_bytes)
        self._runner = ModelRunner(
            family,
            self._cache,
            self._vision_cache,
            self._adapters,
            graphed_decodes=max_running if cuda_graphs else 0,
        )
        self._meter = Meter(self._scheduler, self._pool, self._runner, self._vision_cache, max_running=max_running)
        self._unfinished: dict[str, list[LiveRequest]] = {}  # by request id: the answers that are still to be given
        self._closed = False
        self._outbox = Outbox()

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        skip: str | SkipConfig = "auto",
        device: str = "auto",
        dtype: str = "auto",
        **limits: Unpack[EngineLimits],
    ) -> Self:
        """Load a checkpoint folder or hub id; None loads the small model that ships with the package.

        Args:
            skip: a setting, or one as `SkipConfig.parse` reads it; `auto` is what the checkpoint carries.

        Raises:
            ConfigError: there is no such model, it is of no supported kind, or a setting does not fit it.
        """
        carried = isinstance(skip, str) and skip.strip() == "auto"
        wish = SkipConfig.parse(skip) if isinstance(skip, str) and not carried else skip
        family = load_family(model, device=device, dtype=dtype)
        return cls(family, skip=wish if isinstance(wish, SkipConfig) else family.carried_skip, **limits)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB -> the (3, height', width') uint8 that a `Request` takes."""
        return self.family.preparer.prepare(rgb)

    def add(self, request: Request) -> str:
        """Put a request in the line; its id.

        Raises:
            InputError: the request is wrong, and which of the kinds says how.
            QueueFullError: too many are waiting.
            EngineDeadError: the engine is closed or broken.
        """
        self._enter(self._accept(request))
        return request.request_id

    def step(self) -> list[Delta]:
        """Read the prompts there is room for and one more token of every running request, in one forward pass.

        Returns:
            What is new, request by request, and the last words of those that were cancelled since the last step.

        Raises:
            EngineDeadError: the pass failed; the engine is closed, and none of its requests will be answered.
        """
        with self._closing_on_failure():
            step = self._scheduler.next_step()
            if step.readings:
                _note_start(step)
                with self._meter.step(step):
                    choices = self._read(step)
                self._outbox.put(*self._tell(step.speakers, choices))
        return self._outbox.take_unfollowed()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests, in their order, and of each all answers; they enter the line as it has room.

        Raises:
            InputError: one of them is wrong; none was started.
        """
        accepted = [self._accept(replace(request, whole=True)) for request in requests]
        if len({request.request_id for request in requests}) < len(requests):
            raise InputError("two of the requests have the same id; give each its own")
        answers = {(delta.request_id, delta.index): delta.answer for delta in self._follow(accepted) if delta.answer}
        return [answers[request.request_id, index] for request in requests for index in range(request.n)]

    def stream(self, request: Request) -> Iterator[Delta]:
        """Answer one request delta by delta, moving all others on as well. Leaving the loop early cancels it.

        Raises:
            InputError, QueueFullError, EngineDeadError: as `add`, at the call.
        """
        return self._follow([], self.add(request))

    def cancel(self, request_id: str) -> None:
        """Stop a request; its pages are free at once, and the next `step` returns the last delta of each answer.

        A request that is unknown, or finished already, is none to stop: a client may hang up as the answer leaves.
        """
        for answer in self._unfinished.pop(request_id, ()):
            self._scheduler.remove(answer.live_id)
            self._meter.finished["cancelled"] += 1
            self._outbox.put(answer.cancelled())

    def forget_images(self) -> None:
        """Drop what was made of images, so that those who ask about them have them encoded again."""
        self._vision_cache.clear()

    def close(self) -> None:
        """Drop all requests and free the cache. The checkpoint stays with whoever else holds it."""
        for live_id in self._scheduler.request_ids():
            self._scheduler.remove(live_id)
        self._unfinished.clear()
        self._outbox = Outbox()
        self._cache.free()
        self._vision_cache.clear()
        self._closed = True

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to say."""
        return self._scheduler.has_work or self._outbox.has_unfollowed

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values can be held."""
        return self._pool.capacity_tokens

    @property
    def attention(self) -> str:
        """How it attends and decodes on its device, in words."""
        return self._runner.describe()

    def oldest_waiting_seconds(self) -> float:
        """How long the head of the line has waited; 0.0: nobody waits. May be asked from any thread."""
        added_at = self._scheduler.head_added_at
        return 0.0 if added_at is None else time.perf_counter() - added_at

    def stats(self) -> EngineStats:
        """What it is doing now, and what it has done so far."""
        return self._meter.stats()

    def _limits(self, max_step_tokens: int, max_running: int) -> Limits:
        return Limits(
            context_tokens=self.family.context_tokens,
            step_tokens=max_step_tokens,
            cache_tokens=self._pool.capacity_tokens,
            answers=min(max_running, MOST_ANSWERS),
        )

    def _accept(self, request: Request) -> list[LiveRequest]:
        self._check_open()
        if request.request_id in self._unfinished:
            raise InputError(f"a request with the id {request.request_id!r} is being answered; choose another id")
        return self._intake.accept(request)

    def _enter(self, answers: list[LiveRequest]) -> None:
        self._scheduler.add(*answers)
        self._unfinished[answers[0].request_id] = answers

    def _read(self, step: Step) -> list[Choice | InputError]:
        """Run a step through the model: the next token of everyone who speaks, or what is wrong with it."""
        logits = self._runner.run(step)
        if copies := self._scheduler.settle(step):
            self._cache.copy_pages(copies)
        return self._choose(step.speakers, logits)

    def _choose(self, speakers: Sequence[LiveRequest], logits: Tensor) -> list[Choice | InputError]:
        """The next token of every one who speaks, or what is wrong with it; `logits` is (speakers, vocab)."""
        if not speakers:
            return []
        with self._runner.clock.timing(sample=1):
            samplings, outputs = [each.sampling for each in speakers], [each.output_ids for each in speakers]
            hooks = [each.logits_hook for each in speakers]
            if any(hook is not None for hook in hooks):
                check_numbers(logits)  # before a caller sees them; `choose_tokens` looks without a wait of its own
            shaped, failures = apply_hooks(logits, hooks, outputs)
            tokens = choose_tokens(shaped, samplings, list(map(len, outputs)))
            logprobs = token_logprobs(logits, tokens, [sampling.logprobs for sampling in samplings])
        choices = map(Choice, tokens, logprobs)
        return [failures.get(row, choice) for row, choice in enumerate(choices)]

    def _tell(self, speakers: Sequence[LiveRequest], choices: Iterable[Choice | InputError]) -> list[Delta]:
        """Give each request its token; those that have said their last free their pages."""
        end_tokens = self.family.eos_token_ids
        deltas = [
            request.failed(choice)
            if isinstance(choice, InputError)
            else request.hear(choice.token_id, end_tokens, choice.logprobs)
            for request, choice in zip(speakers, choices, strict=True)
        ]
        for request, delta in zip(speakers, deltas, strict=True):
            if delta.answer is not None:
                self._meter.finished[delta.answer.finish_reason] += 1
                self._finish(request)
        return deltas

    def _finish(self, answer: LiveRequest) -> None:
        self._scheduler.remove(answer.live_id)
        rest = self._unfinished[answer.request_id]
        rest.remove(answer)
        if not rest:
            del self._unfinished[answer.request_id]

    def _follow(self, outside: Iterable[list[LiveRequest]], *inside: str) -> Iterator[Delta]:
        """Yield the deltas of some requests until each has said its last; those of others stay for their readers.

        Args:
            outside: requests that enter the line as it has room.
            inside: ids of those that are in it already.
        """
        entering = deque(outside)
        everyone = frozenset([*inside, *(answers[0].request_id for answers in entering)])
        unfinished = set(everyone)
        with self._outbox.following(everyone):
            try:
                while unfinished:
                    while entering and not self._scheduler.line_is_full:
                        self._enter(entering.popleft())
                    self._outbox.put(*self.step())
                    for delta in self._outbox.take(everyone):
                        if delta.answer is not None and delta.request_id not in self._unfinished:
                            unfinished.discard(delta.request_id)
                        yield delta
            finally:
                for request_id in unfinished:
                    self.cancel(request_id)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineDeadError("the engine is closed; make a new one")

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Close the engine when its pass fails: some layers' keys are written and others' are not.

        An interrupt from the keyboard closes it too, and goes on as it is.
        """
        self._check_open()
        try:
            with torch.inference_mode():
                yield
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and not isinstance(error, EngineDeadError):
                raise EngineDeadError(f"the forward pass failed with {type(error).__name__}") from error
            raise


def _check_limits(max_running: int, max_step_tokens: int, max_waiting: int | None, vision_cache_bytes: int) -> None:
    for name, limit in (("max_running", max_running), ("max_step_tokens", max_step_tokens)):
        if limit < 1:
            raise ConfigError(f"{name} must be at least 1; got {limit}")
    if max_waiting is not None and max_waiting < 1:
        raise ConfigError(f"max_waiting must be at least 1, or None for no limit; got {max_waiting}")
    if vision_cache_bytes < 0:
        raise ConfigError(f"vision_cache_bytes must be at least 0, which keeps nothing; got {vision_cache_bytes}")


def _note_start(step: Step) -> None:
    now = time.perf_counter()
    for reading in step.chunks:
        if reading.request.read_at is None:
            reading.request.read_at = now
