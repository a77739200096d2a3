"""The engine answers every item under every trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median

import numpy as np

from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.errors import ConfigError
from skipvision.evaluation.items import Item
from skipvision.evaluation.trial import Trial
from skipvision.families.checkpoint import check_fits, choose_skip, load_summary, patch_grid, read_config, resolve_model
from skipvision.images import RgbPixels
from skipvision.method.flops import Convention, DecoderShape, prefill_flops
from skipvision.method.plan import SkipConfig, SkipPlan, plan_prompt

_AT_ONCE = 64
"""Items whose pictures are in memory together."""
_ALONE = 24
"""Items that are answered one at a time too, for their latency."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial came to; the lists are in the order of the items."""

    trial: Trial
    skip: SkipConfig
    answers: tuple[str, ...]
    grades: tuple[float, ...]
    kept_tokens: tuple[int, ...]
    """Visual tokens that enter the decoder: retained and skipped ones."""
    visual_tokens: tuple[int, ...]
    paper_flops: tuple[tuple[int, int], ...]
    """Of each prefill, and of the same with all tokens; convention `paper`."""
    causal_flops: tuple[tuple[int, int], ...]
    """The same with text and head; convention `causal`."""
    seconds: float
    """For all items together, pictures decoded and prepared beforehand."""
    latency_seconds: float
    """Until the first token of an answer when nothing else is asked; median of the first items."""
    visual_grid: int
    """Patches along the side of a picture, for telling sizes in patches."""


Listener = Callable[[Trial, int], None]
"""Told of every trial how many items it has answered."""


def evaluate(
    items: Sequence[Item], trials: Sequence[Trial], *, max_tokens: int, device: str = "auto", dtype: str = "auto",
    listener: Listener | None = None,
) -> list[Outcome]:  # fmt: skip
    """Answer all items under all trials, greedily; each model is loaded once.

    Raises:
        ConfigError: a model or a setting does not fit; found out for all trials before anything is answered.
    """
    skips = [_checked_skip(trial) for trial in trials]
    outcomes: dict[int, Outcome] = {}
    for model in dict.fromkeys(trial.model for trial in trials):
        # Every trial looks at every picture itself: what an earlier one saw would flatter the speed of a later one.
        with closing(Engine.load(model, skip="off", device=device, dtype=dtype, vision_cache_bytes=0)) as engine:
            own = [at for at, trial in enumerate(trials) if trial.model == model]
            latencies = _latencies(engine, items[:_ALONE], [(trials[at], skips[at]) for at in own])
            for at, latency in zip(own, latencies, strict=True):
                outcomes[at] = _try(engine, items, trials[at], skips[at], latency, max_tokens, listener)
    return [outcomes[at] for at in range(len(trials))]


def _checked_skip(trial: Trial) -> SkipConfig:
    config = read_config(trial.model)
    skip = choose_skip(trial.skip, config)
    check_fits(skip, config)
    if skip.summarise and load_summary(resolve_model(trial.model), config.text_config.hidden_size) is None:
        raise ConfigError(
            f"trial {trial.name} needs summary tokens and the checkpoint has none; add :plain to its setting"
        )
    return skip


def _try(
    engine: Engine, items: Sequence[Item], trial: Trial, skip: SkipConfig, latency_seconds: float, max_tokens: int,
    listener: Listener | None,
) -> Outcome:  # fmt: skip
    answers: list[Answer] = []
    seconds = 0.0
    for some in _chunks(items):
        requests = [_request(engine, item, trial, skip, max_tokens) for item in some]
        started = time.perf_counter()
        answers += engine.answer(requests)
        seconds += time.perf_counter() - started
        if listener is not None:
            listener(trial, len(answers))
    shape = engine.family.shape
    plans = [answer.plan for answer in answers]
    return Outcome(
        trial=trial,
        skip=skip,
        answers=tuple(answer.text for answer in answers),
        grades=tuple(item.grade(answer.text) for item, answer in zip(items, answers, strict=True)),
        kept_tokens=tuple(plan.retained_tokens + plan.skipped_tokens for plan in plans),
        visual_tokens=tuple(plan.visual_tokens for plan in plans),
        paper_flops=tuple(_spent_and_full(plan, shape, "paper") for plan in plans),
        causal_flops=tuple(_spent_and_full(plan, shape, "causal") for plan in plans),
        seconds=seconds,
        latency_seconds=latency_seconds,
        visual_grid=patch_grid(read_config(trial.model)),
    )


def _request(engine: Engine, item: Item, trial: Trial, skip: SkipConfig, max_tokens: int) -> Request:
    images = tuple(engine.prepare(picture) for picture in _shown(item, trial))
    return Request(prompt=item.question, images=images, skip=skip, sampling=Sampling(max_tokens=max_tokens))


def _latencies(engine: Engine, items: Sequence[Item], trials: Sequence[tuple[Trial, SkipConfig]]) -> list[float]:
    """Of each trial. They take turns item by item, so that a machine that slows down slows all of them."""
    seconds: list[list[float]] = [[] for _ in trials]
    for item in items:
        for own, (trial, skip) in zip(seconds, trials, strict=True):
            own.append(_timed(engine, _request(engine, item, trial, skip, 1)))
    return [median(own) for own in seconds]


def _timed(engine: Engine, request: Request) -> float:
    """Seconds that a request takes when it is alone."""
    started = time.perf_counter()
    engine.answer([request])
    return time.perf_counter() - started


def _spent_and_full(plan: SkipPlan, shape: DecoderShape, convention: Convention) -> tuple[int, int]:
    """FLOPs of a prefill, and of the same prompt with all tokens."""
    visual_tokens = [image.visual_tokens for image in plan.images]
    full = plan_prompt(SkipConfig(), text_tokens=plan.text_tokens, visual_tokens=visual_tokens)
    spent, whole = (prefill_flops(shape, each, convention=convention) for each in (plan, full))
    return spent, whole


def _shown(item: Item, trial: Trial) -> Iterator[RgbPixels]:
    if trial.shown == "nothing":
        return
    picture = item.picture()
    yield np.full_like(picture, 255) if trial.shown == "blank" else picture


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
