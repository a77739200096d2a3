"""Decoding steps that are filled up to a batch size, as CUDA graphs have it, run here one by one without a graph."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from skipvision.engine import Engine, Request, Sampling
from skipvision.engine.cuda.graphs import BATCHES, PaddedDecode, batches_up_to
from skipvision.engine.cuda.reference import paged_one_by_one
from skipvision.engine.device_attention import DeviceAttention
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.pages import PAGE_TOKENS
from skipvision.families import Family
from tests.engine.subjects import CARRIED
from tests.engine.test_equivalence import mixed, outputs


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch) -> list[PaddedDecode]:
    """Engines that are made from here on decode through these."""
    made: list[PaddedDecode] = []

    def choose(family: Family, cache: KvCache, attention: DeviceAttention, *, most: int) -> PaddedDecode:
        made.append(PaddedDecode(family, cache, paged_one_by_one, most=most))
        return made[-1]

    monkeypatch.setattr("skipvision.engine.model_runner.choose_decode_steps", choose)
    monkeypatch.setattr("skipvision.engine.engine.spare_pages", lambda device: 1)
    return made


@pytest.mark.parametrize(
    "limits", [{}, {"max_running": 3}, {"max_running": 5, "cache_tokens": 192}], ids=["roomy", "few", "small"]
)
def test_filled_up_steps_say_what_exact_ones_say(
    family: Family, padded: list[PaddedDecode], monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    with monkeypatch.context() as undone:
        undone.setattr("skipvision.engine.model_runner.choose_decode_steps", lambda *_, most: None)
        exact = Engine(family, skip=CARRIED)
    asked = mixed(exact)
    expected = outputs(exact, asked)
    engine = Engine(family, skip=CARRIED, **limits)
    taken: list[int] = []
    read = padded[0].read
    monkeypatch.setattr(padded[0], "read", lambda batch: (taken.append(batch), read(batch))[1])
    assert outputs(engine, asked) == expected
    assert set(taken) <= set(batches_up_to(limits.get("max_running", 32)))
    assert len(set(taken)) > 1


def test_rows_that_fill_a_step_up_write_to_the_page_of_nobody(family: Family, padded: list[PaddedDecode]) -> None:
    engine = Engine(family, cache_tokens=128)
    keys = engine._cache.keys
    keys[:, :, 128:] = 7.0
    sampling = Sampling(max_tokens=4, ignore_eos=True)
    engine.answer([Request(prompt=f"what {word}", sampling=sampling) for word in ("is", "shape", "star")])
    assert keys.shape[2] == 128 + PAGE_TOKENS
    assert not (keys[:, :, 128] == 7.0).any()
    assert (keys[:, :, 129:] == 7.0).all()
    assert int(keys[0, 0, :128].any(dim=-1).sum()) == sum(engine_tokens(engine, sampling))


def engine_tokens(engine: Engine, sampling: Sampling) -> list[int]:
    """Tokens that each of the three prompts above leaves in the cache; the last one of an answer is never read."""
    prompts = [engine.family.tokenize(f"what {word}", num_images=0) for word in ("is", "shape", "star")]
    return [len(prompt.text_ids) + sampling.max_tokens - 1 for prompt in prompts]


def test_a_step_of_any_size_has_a_batch_that_is_not_much_larger() -> None:
    assert batches_up_to(1) == (1,)
    assert batches_up_to(5) == (1, 2, 4, 8)
    assert batches_up_to(32)[-1] == 32
    assert batches_up_to(1000) == BATCHES
    assert all(larger <= 2 * smaller for smaller, larger in pairwise(BATCHES))


def test_steps_with_prompts_and_steps_too_large_are_left_to_others(
    family: Family, padded: list[PaddedDecode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipvision.engine.cuda.graphs.BATCHES", (1, 2))
    engine = Engine(family)
    exact = [outputs(Engine(family), [request])[0] for request in mixed(engine)]
    assert padded[0].batches == (1, 2)
    assert outputs(engine, mixed(engine)) == exact


def test_nothing_is_left_in_the_buffers_of_the_step_before(family: Family, padded: list[PaddedDecode]) -> None:
    engine = Engine(family, max_running=4)
    sampling = [Sampling(max_tokens=tokens, ignore_eos=True) for tokens in (3, 9, 9, 9)]
    engine.answer([Request(prompt="what", sampling=each) for each in sampling])
    last_page = engine._cache.num_slots // PAGE_TOKENS - 1
    assert torch.equal(padded[0]._tables.tensor[3], torch.full_like(padded[0]._tables.tensor[3], last_page))
    assert padded[0]._lengths.tensor[3] == 1
