"""The engine with the attention of NVIDIA GPUs says what it says without, its two kernels in their plain forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from skipvision.engine import Engine, Request, Sampling
from skipvision.engine.cuda.attention import CudaAttention, PackedRows
from skipvision.engine.cuda.reference import packed_one_by_one, paged_one_by_one
from skipvision.engine.cuda.varlen import PackedAttention
from skipvision.engine.device_attention import DeviceAttention, PlainAttention
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.packing import PackedChunks
from skipvision.families import Family
from tests.engine.subjects import CARRIED, picture
from tests.engine.test_equivalence import mixed, outputs

LIMITS = {
    "roomy": {},
    "prompts are read in parts": {"max_step_tokens": 17},
    "prompts are read token by token": {"max_step_tokens": 1},
    "answers give way": {"cache_tokens": 128, "max_step_tokens": 40},
}


def with_gpu_attention(monkeypatch: pytest.MonkeyPatch, packed: PackedAttention | None) -> None:
    """Engines that are made from here on attend as on a GPU."""

    def choose(family: Family, cache: KvCache) -> DeviceAttention:
        return CudaAttention(cache, PlainAttention(cache), paged_one_by_one, packed)

    monkeypatch.setattr("skipvision.engine.model_runner.choose_attention", choose)


@pytest.mark.parametrize("packed", [packed_one_by_one, None], ids=["packed", "one length at a time"])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_no_token_changes(
    family: Family, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], packed: PackedAttention | None
) -> None:
    roomy = Engine(family, skip=CARRIED)
    asked = mixed(roomy)
    expected = outputs(roomy, asked)
    with_gpu_attention(monkeypatch, packed)
    assert outputs(Engine(family, skip=CARRIED, **limits), asked) == expected


def test_questions_that_share_an_image_read_its_pages(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Engine(family, skip=CARRIED)
    image = plain.prepare(picture(0))
    sampling = Sampling(max_tokens=15, ignore_eos=True, temperature=1.0)
    asked = [Request(prompt=f"{'what ' * n}is", images=(image,), sampling=sampling) for n in (1, 2, 3)]
    asked += [replace(asked[0], request_id=f"draw {seed}", sampling=replace(sampling, seed=seed)) for seed in (1, 2)]
    expected = outputs(plain, asked)
    with_gpu_attention(monkeypatch, packed_one_by_one)
    engine = Engine(family, skip=CARRIED)
    assert outputs(engine, asked) == expected
    assert engine.stats().shared_prompt_tokens > 0


def chunk(start: int, stop: int, *, chunks: int = 1, past: Sequence[int] = (), speaks: bool = True) -> PackedChunks:
    return PackedChunks(start, stop, chunks, torch.tensor(past, dtype=torch.int64).numpy(), speaks)


def test_chunks_without_a_past_are_read_where_they_are(family: Family) -> None:
    cache = KvCache(family.shape, num_pages=1, device=family.device, dtype=family.dtype)
    k, v = torch.randn(2, 12, family.shape.kv_heads, family.shape.head_dim)
    fresh = [chunk(2, 8, chunks=2), chunk(8, 12)]
    rows = PackedRows.of(fresh, family.device, only_last=False)
    keys, values = rows.with_past(cache, 0, k, v)
    assert (keys.data_ptr(), values.data_ptr()) == (k[2:].data_ptr(), v[2:].data_ptr())
    assert rows.segments.queries.tolist() == rows.segments.keys.tolist() == [0, 3, 6, 10]


def test_only_chunks_that_speak_are_asked_for_their_last_row(family: Family) -> None:
    chunks = [chunk(0, 4, speaks=False), chunk(4, 6, past=[9, 8, 7]), chunk(6, 8, past=[3], speaks=False), chunk(8, 9)]
    rows = PackedRows.of(chunks, family.device, only_last=True)
    assert rows.segments.queries.tolist() == [0, 1, 2]
    assert rows.segments.keys.tolist() == [0, 5, 6]
    assert rows.places == ((3, slice(4, 6)), (0, slice(8, 9)))
    assert PackedRows.of([chunk(0, 4, speaks=False)], family.device, only_last=True) is None
