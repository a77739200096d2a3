"""An image is encoded once while it is remembered, and nobody's answer can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvision.engine import Engine, Request, Sampling
from skipvision.engine.vision_cache import VisionCache, digest_of
from skipvision.errors import ConfigError
from skipvision.families import Family
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture

GREEDY = Sampling(max_tokens=10, ignore_eos=True)
TOKENS_BYTES = (4 + 6 + 2) * 64 * 4
"""Of one image of the tiny checkpoint under `CARRIED`, in float32."""


@pytest.fixture
def passes(family: Family, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass of the encoder has seen."""
    passes: list[int] = []
    encode = family.encode
    monkeypatch.setattr(family, "encode", lambda pixels, **kw: (passes.append(len(pixels)), encode(pixels, **kw))[1])
    return passes


def ask(engine: Engine, *pictures: int, prompt: str = "what is there", skip: SkipConfig | None = None) -> Request:
    images = tuple(engine.prepare(picture(seed)) for seed in pictures)
    return Request(prompt=prompt, images=images, skip=skip, sampling=GREEDY)


def outputs(engine: Engine, asked: list[Request]) -> list[tuple[int, ...]]:
    return [answer.output_ids for answer in engine.answer(asked)]


def test_answers_are_the_same_with_the_cache_as_without_in_any_company(family: Family) -> None:
    remembers, forgets = Engine(family, skip=CARRIED), Engine(family, skip=CARRIED, vision_cache_bytes=0)
    skips = [None, SkipConfig(), SkipConfig(retain=5, forget_skipped=True)]
    for turn in range(4):
        asked = [
            ask(remembers, *range(i % 3 + turn, turn + 3), prompt=f"what {'is ' * i}", skip=skips[(i + turn) % 3])
            for i in range(6)
        ]
        assert outputs(remembers, asked) == outputs(forgets, asked)


def test_an_image_that_comes_again_is_not_encoded_again(family: Family, passes: list[int]) -> None:
    engine = Engine(family, skip=CARRIED)
    engine.answer([ask(engine, 0), ask(engine, 1)])
    engine.answer([ask(engine, 1, prompt="how many"), ask(engine, 2, 0)])
    assert passes == [2, 1]


def test_without_the_cache_it_is(family: Family, passes: list[int]) -> None:
    engine = Engine(family, skip=CARRIED, vision_cache_bytes=0)
    for _ in range(2):
        engine.answer([ask(engine, 0)])
    assert passes == [1, 1]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_an_image_twice_in_one_step_is_encoded_once(family: Family, passes: list[int], cache_bytes: int) -> None:
    engine = Engine(family, skip=CARRIED, vision_cache_bytes=cache_bytes)
    engine.answer([ask(engine, 0, 1, 0), ask(engine, 1), ask(engine, 1, skip=SkipConfig())])
    assert passes == [2], "under two settings, too"


def test_another_setting_is_another_reading(family: Family, passes: list[int]) -> None:
    engine = Engine(family, skip=CARRIED)
    asked = [ask(engine, 0, skip=skip) for skip in (None, SkipConfig(), SkipConfig(retain=3))]
    said = [outputs(engine, [request])[0] for request in asked]
    assert passes == [1, 1, 1]
    assert len(set(said)) == 3


def test_who_gave_way_finds_its_images_again(family: Family, passes: list[int]) -> None:
    engine = Engine(family, skip=CARRIED, cache_tokens=128)
    asked = [replace(ask(engine, seed), sampling=replace(GREEDY, max_tokens=50)) for seed in range(5)]
    engine.answer(asked)
    assert engine.stats().preemptions > 0
    assert sum(passes) == 5


def test_the_least_recently_used_goes_first_and_no_more_is_held_than_may(family: Family, passes: list[int]) -> None:
    engine = Engine(family, skip=CARRIED, vision_cache_bytes=2 * TOKENS_BYTES + 1)
    for seed in (0, 1, 0, 2, 0, 1):
        engine.answer([ask(engine, seed)])
    assert len(passes) == 4, "0 stays, since it was used again; 1 went for 2 and 2 for 1"


def test_a_negative_size_is_refused(family: Family) -> None:
    with pytest.raises(ConfigError, match="vision_cache_bytes must be at least 0, which keeps nothing; got -1"):
        Engine(family, vision_cache_bytes=-1)


def key(name: bytes) -> tuple[bytes, SkipConfig]:
    return name, CARRIED


def tokens(count: int) -> Tensor:
    return torch.ones(count, 10)


def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    cache = VisionCache(400)
    cache.put(key(b"a"), tokens(5))
    cache.put(key(b"b"), tokens(11))
    assert cache.get(key(b"b")) is None
    assert torch.equal(cache.get(key(b"a")), tokens(5))
    assert cache.bytes_held == 200


def test_a_large_one_pushes_out_as_many_as_it_must() -> None:
    cache = VisionCache(400)
    for name in (b"a", b"b", b"c"):
        cache.put(key(name), tokens(3))
    cache.put(key(b"d"), tokens(6))
    assert [cache.get(key(name)) is not None for name in (b"a", b"b", b"c", b"d")] == [False, False, True, True]
    assert cache.bytes_held == 360
    cache.clear()
    assert (cache.get(key(b"d")), cache.bytes_held) == (None, 0)


def test_it_does_not_hold_the_batch_that_its_tokens_were_made_in() -> None:
    cache = VisionCache(400)
    batch = torch.ones(50, 3, 10)
    cache.put(key(b"a"), batch[7])
    assert cache.get(key(b"a")).untyped_storage().nbytes() == 120


def test_a_digest_tells_pixels_and_shapes_apart() -> None:
    pixels = np.arange(24, dtype=np.uint8)
    shapes = [(3, 2, 4), (3, 4, 2), (3, 8, 1)]
    assert len({digest_of(pixels.reshape(shape)) for shape in shapes}) == 3
    assert digest_of(pixels.reshape(3, 2, 4)) != digest_of(pixels[::-1].reshape(3, 2, 4))
    turned = np.asfortranarray(pixels.reshape(3, 2, 4))
    assert digest_of(turned) == digest_of(pixels.reshape(3, 2, 4)), "whatever the order in memory"
