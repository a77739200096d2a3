"""The same images answered twice by one engine: with all visual tokens, and with skipping; timed and compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.token_map import TokenMap, map_tokens
from skipvision.method.flops import decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One image and its two answers."""

    name: str
    truth: str | None
    """What the picture shows, where it is known."""
    rgb: np.ndarray
    """(height, width, 3) uint8, upright."""
    pixels: np.ndarray
    """(3, height', width') uint8: what the model sees."""
    all_tokens: Answer
    skipping: Answer
    tokens: TokenMap

    @property
    def same(self) -> bool:
        return self.all_tokens.text == self.skipping.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """What both ways cost. Seconds are measured, on this machine; operations and bytes follow from the plans."""

    images: int
    same_answers: int
    rounds: int
    all_tokens_seconds: float
    """Median over the rounds, of answering all images once."""
    skipping_seconds: float
    all_tokens_flops: int
    """Language model only, prefill and decode, causal count."""
    skipping_flops: int
    all_tokens_kv_bytes: int
    """Keys and values held once the prompts were read, all images added up."""
    skipping_kv_bytes: int

    def line(self) -> str:
        return (
            f"all tokens {self.all_tokens_seconds:.2f} s, skipping {self.skipping_seconds:.2f} s, "
            f"same answer {self.same_answers} of {self.images}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All pairs and the bill."""

    skip: SkipConfig
    prompt: str
    pairs: tuple[Pair, ...]
    bill: Bill


def compare(
    engine: Engine,
    images: Mapping[str, np.ndarray],
    *,
    prompt: str,
    truths: Mapping[str, str | None],
    max_tokens: int,
    rounds: int,
) -> Comparison:
    """Answer `prompt` for all images with and without skipping, `rounds` times each after a warm-up.

    The two take turns, and the one that begins changes from round to round, so that a machine that slows down or
    warms up favours neither. Both prepare nothing: resizing is the same for both and is done before.

    Args:
        images: name -> (height, width, 3) uint8 RGB.
        truths: name -> what is known to be in the picture, if it is.
    """
    pixels = {name: engine.prepare(rgb) for name, rgb in images.items()}
    ways = {"all": SkipConfig(), "skip": engine.skip}
    answers = {way: _answer(engine, pixels, prompt, skip, max_tokens)[0] for way, skip in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            seconds[way].append(_answer(engine, pixels, prompt, ways[way], max_tokens)[1])
    pairs = tuple(
        Pair(
            name=name,
            truth=truths.get(name),
            rgb=images[name],
            pixels=pixels[name],
            all_tokens=full,
            skipping=skipped,
            tokens=map_tokens(engine.family, pixels[name], engine.skip),
        )
        for name, full, skipped in zip(images, answers["all"], answers["skip"], strict=True)
    )
    bill = Bill(
        images=len(pairs),
        same_answers=sum(pair.same for pair in pairs),
        rounds=rounds,
        all_tokens_seconds=statistics.median(seconds["all"]),
        skipping_seconds=statistics.median(seconds["skip"]),
        all_tokens_flops=_flops(engine, answers["all"]),
        skipping_flops=_flops(engine, answers["skip"]),
        all_tokens_kv_bytes=_kv_bytes(engine, answers["all"]),
        skipping_kv_bytes=_kv_bytes(engine, answers["skip"]),
    )
    return Comparison(skip=engine.skip, prompt=prompt, pairs=pairs, bill=bill)


def _answer(
    engine: Engine, pixels: Mapping[str, np.ndarray], prompt: str, skip: SkipConfig, max_tokens: int
) -> tuple[list[Answer], float]:
    sampling = Sampling(max_tokens=max_tokens)
    requests = [Request(prompt=prompt, images=(each,), sampling=sampling, skip=skip) for each in pixels.values()]
    start = time.perf_counter()
    answers = engine.answer(requests)
    return answers, time.perf_counter() - start


def _flops(engine: Engine, answers: Sequence[Answer]) -> int:
    shape = engine.family.shape
    return sum(
        prefill_flops(shape, answer.plan)
        + decode_flops(shape, cached_tokens=answer.plan.cached_tokens, output_tokens=len(answer.output_ids))
        for answer in answers
    )


def _kv_bytes(engine: Engine, answers: Sequence[Answer]) -> int:
    size = engine.family.dtype.itemsize
    return sum(kv_bytes(engine.family.shape, answer.plan.cached_tokens, bytes_per_value=size) for answer in answers)
