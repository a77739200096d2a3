"""The adapter over the releases' signatures, and the plain form that the fast ones are held to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from skipvision.engine.cuda.reference import packed_one_by_one
from skipvision.engine.cuda.varlen import Segments, adapt

SCALING = 0.3
LENGTHS = [(3, 3), (1, 9), (5, 20)]
"""Queries and keys of each sequence."""


def random_rows(*, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor, Segments]:
    generator = torch.Generator().manual_seed(0)
    queries, keys = zip(*LENGTHS, strict=True)
    q = torch.randn(sum(queries), heads, 8, generator=generator)
    k, v = torch.randn(2, sum(keys), kv_heads, 8, generator=generator)
    return q, k, v, Segments.of(queries, keys, q.device)


def with_a_flag(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    """As torch 2.10 has it."""
    assert is_causal
    assert (max_q, max_k) == (5, 20)
    return packed_one_by_one(query, key, value, Segments(cu_seq_q, cu_seq_k, max_q, max_k), key.shape[-1] ** -0.5)


def with_a_window(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    """As torch had it between 2.10 and 2.12."""
    assert window_size == (-1, 0)
    return packed_one_by_one(query, key, value, Segments(cu_seq_q, cu_seq_k, max_q, max_k), scale)


def with_grouped_heads(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1),
    enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    """As torch 2.12 and 2.13 have it."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return with_a_window(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


@pytest.mark.parametrize("release", [with_a_flag, with_a_window, with_grouped_heads])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
def test_every_release_is_asked_for_the_same_attention(
    release: Callable[..., Tensor], heads: int, kv_heads: int
) -> None:
    inputs = random_rows(heads=heads, kv_heads=kv_heads)
    torch.testing.assert_close(adapt(release)(*inputs, SCALING), packed_one_by_one(*inputs, SCALING))


def test_the_installed_release_takes_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_rows(heads=4, kv_heads=2)
    with pytest.raises(NotImplementedError, match="_flash_attention_forward"):  # it has no CPU kernel, only the form
        adapt(varlen_attn)(*inputs, SCALING)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
def test_the_last_query_of_each_sequence_sees_its_last_key(heads: int, kv_heads: int) -> None:
    q, k, v, segments = random_rows(heads=heads, kv_heads=kv_heads)
    mixed = packed_one_by_one(q, k, v, segments, SCALING)
    query = key = 0
    for queries, keys in LENGTHS:
        rows, columns = slice(query, query + queries), slice(key, key + keys)
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        by_head = (x.transpose(0, 1)[None] for x in (q[rows], k[columns], v[columns]))
        expected = scaled_dot_product_attention(*by_head, attn_mask=seen, scale=SCALING, enable_gqa=heads != kv_heads)
        torch.testing.assert_close(mixed[rows], expected[0].transpose(0, 1))
        query, key = rows.stop, columns.stop
