from __future__ import annotations

from typing import Any

import pytest
import torch

from skipvision.engine.intake import Intake, Limits
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.live_request import LiveRequest
from skipvision.engine.model_runner import ModelRunner
from skipvision.engine.pages import PagePool
from skipvision.engine.request import Request, Sampling
from skipvision.engine.scheduler import Step
from skipvision.engine.vision_cache import VisionCache
from skipvision.families import Family
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture

REMEMBERED = SkipConfig(retain=4, merge_skipped_to=6)


class Bench:
    """A runner with a cache of its own, and requests that have their pages."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.pool = PagePool(100)
        self.cache = KvCache(family.shape, num_pages=100, device=family.device, dtype=family.dtype)
        self.runner = ModelRunner(family, self.cache, VisionCache(0))
        limits = Limits(context_tokens=512, step_tokens=512, cache_tokens=512)
        self.intake = Intake(family, SkipConfig(), limits)

    def admitted(self, prompt: str, *, pictures: int, skip: SkipConfig, first: int = 0) -> LiveRequest:
        images = tuple(self.family.preparer.prepare(picture(seed)) for seed in range(first, first + pictures))
        request = Request(prompt=prompt, images=images, skip=skip, sampling=Sampling(max_tokens=9))
        [live] = self.intake.accept(request)
        for table in (live.cached, live.transient):
            self.pool.hand_out(table, table.pages_to_hold(live.plan.prompt_tokens + 9))
        return live

    @torch.inference_mode()
    def run(
        self, *, decodes: tuple[LiveRequest, ...] = (), prompts: tuple[LiveRequest, ...] = (), most: int = 10**6
    ) -> torch.Tensor:
        """One step that reads `most` tokens of each prompt."""
        readings = [live.reading(min(live.unread_tokens, most)) for live in prompts]
        step = Step(tuple(live.reading(1) for live in decodes), tuple(readings))
        logits = self.runner.run(step)
        for reading in step.readings:
            reading.request.read_tokens = reading.stop
        return logits

    def filled_slots(self) -> set[int]:
        """Slots that hold something, the same in every layer and for keys and values."""
        filled = [x.any(dim=-1).any(dim=0) for x in (*self.cache.keys, *self.cache.values)]
        assert all(torch.equal(filled[0], other) for other in filled)
        return set(filled[0].nonzero().flatten().tolist())


def test_after_the_prompt_the_cache_holds_the_kept_tokens_and_nothing_else(family: Family) -> None:
    bench = Bench(family)
    asked = (
        bench.admitted("describe", pictures=1, skip=CARRIED),
        bench.admitted("describe a star", pictures=0, skip=CARRIED),
        bench.admitted("what", pictures=2, skip=CARRIED),
        bench.admitted("is there", pictures=1, skip=REMEMBERED),
        bench.admitted("is there a", pictures=1, skip=SkipConfig()),
    )
    bench.run(prompts=asked)

    assert [live.cached.cached_tokens for live in asked] == [live.plan.cached_tokens for live in asked]
    assert sum(live.plan.skipped_tokens for live in asked) == 6 + 0 + 12 + 6 + 0
    kept = [live.plan.prompt_tokens - live.cached.cached_tokens for live in asked]
    assert kept == [6, 0, 12, 0, 0]
    slots = [slot for live in asked for slot in live.cached.slots(0, live.plan.cached_tokens).tolist()]
    assert bench.filled_slots() == set(slots)
    assert len(slots) == len(set(slots))


def test_each_generated_token_adds_one_row_at_the_position_after_all_prompt_tokens(family: Family) -> None:
    bench = Bench(family)
    live = bench.admitted("describe", pictures=1, skip=CARRIED)
    bench.run(prompts=(live,))
    for place in range(3):
        live.hear(7, end_tokens=())
        assert live.read_tokens == live.plan.prompt_tokens + place
        bench.run(decodes=(live,))
        assert live.cached.cached_tokens == live.plan.cached_tokens + place + 1
    assert len(bench.filled_slots()) == live.plan.cached_tokens + 3


@pytest.mark.parametrize("most", [1, 5, 11, 13, 26])
def test_a_prompt_read_in_parts_leaves_the_cache_and_the_logits_of_one_read_whole(family: Family, most: int) -> None:
    whole, parts = Bench(family), Bench(family)
    asked = [bench.admitted("what", pictures=2, skip=CARRIED) for bench in (whole, parts)]
    expected = whole.run(prompts=(asked[0],))
    steps = 0
    while asked[1].unread_tokens:
        logits = parts.run(prompts=(asked[1],), most=most)
        steps += 1
        dropped = asked[1].transient.cached_tokens
        assert dropped + asked[1].cached.cached_tokens == asked[1].read_tokens or not asked[1].unread_tokens
    assert steps == -(-asked[1].plan.prompt_tokens // most)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    kept = [torch.from_numpy(live.cached.slots(0, live.plan.cached_tokens)) for live in asked]
    for layer in range(family.shape.layers):
        torch.testing.assert_close(
            parts.cache.gather(layer, kept[1]), whole.cache.gather(layer, kept[0]), rtol=1e-4, atol=1e-5
        )


def test_all_images_of_a_step_are_encoded_in_one_pass(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    encode = family.encode

    def counted(pixels: torch.Tensor, **options: Any) -> object:
        passes.append(len(pixels))
        return encode(pixels, **options)

    monkeypatch.setattr(family, "encode", counted)
    bench = Bench(family)
    kinds = ((0, 1, CARRIED), (1, 2, REMEMBERED), (3, 0, CARRIED))
    bench.run(prompts=tuple(bench.admitted("what", pictures=n, skip=skip, first=first) for first, n, skip in kinds))
    assert passes == [3]

    monkeypatch.setattr("skipvision.engine.visual.IMAGES_PER_PASS", 2)
    bench.run(prompts=tuple(bench.admitted("what", pictures=1, skip=CARRIED, first=first) for first in range(5)))
    assert passes == [3, 2, 2, 1]


def test_seconds_go_to_the_stages_that_took_place(family: Family) -> None:
    bench = Bench(family)
    live = bench.admitted("describe", pictures=0, skip=CARRIED)
    bench.run(prompts=(live,))
    text_only = bench.runner.clock.seconds()
    assert text_only["prefill"] > 0 == text_only["encode"] == text_only["merge"] == text_only["decode"]
    live.hear(7, end_tokens=())
    bench.run(decodes=(live,), prompts=(bench.admitted("describe", pictures=1, skip=CARRIED),))
    for stage in ("encode", "merge", "prefill", "decode"):
        assert bench.runner.clock.seconds()[stage] > text_only[stage]
