"""Every form of the engine's attention against one plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from skipvision.engine.attention import ChunkRows, ScatteredDecodes, StepAttention, StridedDecodes
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.pages import PagePool, PageTable
from skipvision.method.flops import DecoderShape

SCALING = 0.3


def plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The last rows of one sequence attend causally: q (rows, heads, dim), k and v (tokens, kv_heads, dim)."""
    past, group = len(k) - len(q), q.shape[1] // k.shape[1]
    out = torch.empty_like(q)
    for row in range(len(q)):
        for head in range(q.shape[1]):
            seen = slice(0, past + row + 1)
            scores = [math.exp(float(q[row, head] @ key) * SCALING) for key in k[seen, head // group]]
            out[row, head] = torch.tensor(scores) / sum(scores) @ v[seen, head // group]
    return out


class Bench:
    """A cache, and sequences of random tokens of which some are cached."""

    def __init__(self, *, heads: int, kv_heads: int) -> None:
        self.shape = DecoderShape(hidden=1, ffn_hidden=1, layers=2, heads=heads, kv_heads=kv_heads, head_dim=8, vocab=1)
        self.pool = PagePool(20)
        self.cache = KvCache(self.shape, num_pages=20, device=torch.device("cpu"), dtype=torch.float32)
        self.generator = torch.Generator().manual_seed(0)

    def tokens(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        heads = (self.shape.heads, self.shape.kv_heads, self.shape.kv_heads)
        return tuple(torch.randn(count, n, 8, generator=self.generator) for n in heads)

    def cached(self, k: Tensor, v: Tensor, count: int) -> PageTable:
        table = PageTable()
        self.pool.hand_out(table, table.pages_to_hold(len(k)))
        self.cache.write(1, torch.from_numpy(table.append(count)), k[:count], v[:count])
        return table


def bias(lengths: list[int]) -> Tensor:
    """(sequences, 1, 1, longest): 0 where a token counts."""
    seen = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None, None, None]
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
def test_one_step_of_decodes_and_prompts_gives_each_what_a_plain_loop_gives(heads: int, kv_heads: int) -> None:
    bench = Bench(heads=heads, kv_heads=kv_heads)
    speaking = [bench.tokens(count) for count in (40, 33, 3, 17)]  # the first two stand 3 pages apart
    tables = [bench.cached(k, v, len(k) - 1) for _, k, v in speaking]
    fresh, extended = [bench.tokens(9), bench.tokens(9)], bench.tokens(25)
    past = bench.cached(*extended[1:], 19)

    parts = [tuple(x[-1:] for x in tokens) for tokens in speaking]
    parts += [*fresh, tuple(x[19:] for x in extended)]
    q, k, v = (torch.cat(parts_of) for parts_of in zip(*parts, strict=True))
    written = [table.append(1) for table in tables]
    scattered = torch.zeros(2, 17, dtype=torch.int64)
    for row, table in zip(scattered, tables[2:], strict=True):
        row[: table.cached_tokens] = torch.from_numpy(table.slots(0, table.cached_tokens))
    attend = StepAttention(
        cache=bench.cache,
        written_rows=torch.arange(4),
        written_slots=torch.cat([torch.from_numpy(each) for each in written]),
        decodes=[StridedDecodes(0, 48, 2, 40, bias([40, 33])), ScatteredDecodes(range(0), scattered, bias([3, 17]))],
        chunks=[
            ChunkRows(4, 22, 2, None, None, last_is_wanted=False),
            ChunkRows(
                22, 28, 1, torch.from_numpy(past.slots(0, 19)), torch.full((6, 25), -torch.inf).triu(20),
                last_is_wanted=True,
            ),
        ],
    )  # fmt: skip
    expected = [plainly(tokens[0][-1:], *tokens[1:]) for tokens in speaking]
    expected += [*(plainly(*each) for each in fresh), plainly(extended[0][19:], *extended[1:])]
    everything = attend(1, q, k, v, SCALING, only_wanted=False)
    torch.testing.assert_close(everything, torch.cat(expected))
    wanted = torch.tensor([0, 1, 2, 3, 27])
    torch.testing.assert_close(attend(1, q[wanted], k, v, SCALING, only_wanted=True), everything[wanted])


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("lengths", [(5, 1, 9), (4, 4, 4)])
def test_sequences_from_one_trunk_attend_to_it_and_to_their_own(
    heads: int, kv_heads: int, lengths: tuple[int, ...]
) -> None:
    bench = Bench(heads=heads, kv_heads=kv_heads)
    _, *trunk = bench.tokens(32)
    bench.cached(*trunk, 32)
    own = [bench.tokens(length) for length in lengths]
    tables = [bench.cached(k, v, len(k) - 1) for _, k, v in own]
    q, k, v = (torch.cat([tokens[part][-1:] for tokens in own]) for part in range(3))
    written = torch.cat([torch.from_numpy(table.append(1)) for table in tables])
    slots = torch.zeros(3, max(lengths), dtype=torch.int64)
    for row, table in zip(slots, tables, strict=True):
        row[: table.cached_tokens] = torch.from_numpy(table.slots(0, table.cached_tokens))
    rest = bias(list(lengths)) if len(set(lengths)) > 1 else None
    attend = StepAttention(bench.cache, None, written, [ScatteredDecodes(range(32), slots, rest)], [])
    expected = [
        plainly(tokens[0][-1:], *(torch.cat(pair) for pair in zip(trunk, tokens[1:], strict=True))) for tokens in own
    ]
    torch.testing.assert_close(attend(1, q, k, v, SCALING, only_wanted=False), torch.cat(expected))


def test_rows_that_are_not_written_leave_no_trace_in_the_cache() -> None:
    bench = Bench(heads=4, kv_heads=2)
    q, k, v = bench.tokens(8)
    kept = torch.tensor([0, 1, 5, 6, 7])
    table = PageTable()
    bench.pool.hand_out(table, 1)
    chunk = ChunkRows(0, 8, 1, None, None, last_is_wanted=False)
    attend = StepAttention(bench.cache, kept, torch.from_numpy(table.append(5)), [], [chunk])
    attend(0, q[:0], k, v, SCALING, only_wanted=True)

    assert torch.equal(bench.cache.gather(0, torch.from_numpy(table.slots(0, 5)))[0], k[kept].transpose(0, 1))
    for each in (bench.cache.keys, bench.cache.values):
        assert int(each.any(dim=-1).any(dim=1).sum()) == 5
