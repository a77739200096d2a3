from __future__ import annotations

import pytest
import torch

from skipvision.engine.kv_cache import KvCache, choose_num_pages
from skipvision.engine.pages import PAGE_TOKENS, PagePool, PageTable, pages_for
from skipvision.errors import ConfigError
from skipvision.method.flops import DecoderShape

SHAPE = DecoderShape(hidden=32, ffn_hidden=64, layers=2, heads=4, kv_heads=2, head_dim=8, vocab=50)
CPU = torch.device("cpu")


def take(pool: PagePool, tokens: int) -> PageTable:
    table = PageTable()
    pool.hand_out(table, table.pages_to_hold(tokens))
    return table


def test_pages_are_handed_out_once_and_all_come_back() -> None:
    pool = PagePool(10)
    tables = [take(pool, tokens) for tokens in (1, PAGE_TOKENS, PAGE_TOKENS + 1, 5 * PAGE_TOKENS)]
    held = [page for table in tables for page in table.pages]
    assert sorted(held) == sorted(set(held))
    assert (len(held), pool.free_tokens) == (9, PAGE_TOKENS)

    for table in tables[::-1]:
        pool.give_back(table)
    assert pool.free_tokens == pool.capacity_tokens == 10 * PAGE_TOKENS
    assert sorted(take(pool, 10 * PAGE_TOKENS).pages) == list(range(10))


def test_giving_back_twice_gives_back_once() -> None:
    pool = PagePool(3)
    table = take(pool, 20)
    pool.give_back(table)
    pool.give_back(table)
    assert pool.free_tokens == 3 * PAGE_TOKENS


def test_a_sequence_lacks_pages_only_beyond_the_ones_it_has() -> None:
    pool = PagePool(9)
    table = take(pool, PAGE_TOKENS + 1)
    assert (len(table.pages), table.pages_to_hold(2 * PAGE_TOKENS)) == (2, 0)
    table.append(20)
    assert [table.pages_to_hold(more) for more in (0, 12, 13, 28, 29)] == [0, 0, 1, 1, 2]
    pool.give_back(table)
    assert table.pages_to_hold(1) == 1


def test_a_sequence_reads_back_what_it_wrote_across_scattered_pages() -> None:
    pool = PagePool(6)
    take(pool, PAGE_TOKENS)
    table = take(pool, 3 * PAGE_TOKENS)
    table.pages = table.pages[::-1]
    cache = KvCache(SHAPE, num_pages=6, device=CPU, dtype=torch.float32)
    keys, values = torch.randn(2, 40, SHAPE.kv_heads, SHAPE.head_dim)
    for part in (slice(0, 7), slice(7, 33), slice(33, 40)):
        slots = torch.from_numpy(table.append(part.stop - part.start))
        cache.write(1, slots, keys[part], values[part])

    assert table.cached_tokens == 40
    gathered = cache.gather(1, torch.from_numpy(table.slots(0, 40)))
    assert torch.equal(gathered[0], keys.transpose(0, 1))
    assert torch.equal(gathered[1], values.transpose(0, 1))
    assert not cache.keys[0].any(), "the other layer is untouched"


@pytest.mark.parametrize("tokens", [5, PAGE_TOKENS, 2 * PAGE_TOKENS + 3])
def test_sequences_that_share_a_beginning_go_on_apart_and_free_it_with_the_last(tokens: int) -> None:
    pool = PagePool(9)
    cache = KvCache(SHAPE, num_pages=9, device=CPU, dtype=torch.float32)
    first, others = take(pool, tokens), [PageTable(), PageTable()]
    keys = torch.randn(tokens, SHAPE.kv_heads, SHAPE.head_dim)
    cache.write(0, torch.from_numpy(first.append(tokens)), keys, keys)
    for other in others:
        pool.hand_out(other, 1 if tokens % PAGE_TOKENS else 0)
    copies = [copy for other in others if (copy := pool.share(first, other))]
    if copies:
        cache.copy_pages(copies)
    full = tokens // PAGE_TOKENS
    assert pool.free_pages == 9 - full - 3 * bool(tokens % PAGE_TOKENS)

    own = {}
    for table in (first, *others):
        pool.hand_out(table, table.pages_to_hold(2))
        own[id(table)] = torch.randn(2, SHAPE.kv_heads, SHAPE.head_dim)
        cache.write(0, torch.from_numpy(table.append(2)), own[id(table)], own[id(table)])
    for table in (first, *others):
        for part in cache.gather(0, torch.from_numpy(table.slots(0, tokens + 2))):
            assert torch.equal(part.transpose(0, 1), torch.cat([keys, own[id(table)]]))
    pool.give_back(first)
    assert torch.equal(cache.gather(0, torch.from_numpy(others[0].slots(0, tokens)))[0], keys.transpose(0, 1))
    for table in others:
        pool.give_back(table)
    assert pool.free_tokens == pool.capacity_tokens


def test_sequences_of_one_size_stand_at_equal_distances_and_grow_in_place() -> None:
    pool = PagePool(40)
    tables = [PageTable() for _ in range(5)]
    for table in tables:
        pool.claim(table, 6)
        pool.hand_out(table, 2)
    starts = [table.first_slot for table in tables]
    assert starts == [place * 6 * PAGE_TOKENS for place in range(5)]

    pool.give_back(tables[2])
    again = PageTable()
    pool.claim(again, 6)
    for table in (*tables[:2], again, *tables[3:]):
        pool.hand_out(table, 6 - len(table.pages))
    assert [table.first_slot for table in (*tables[:2], again, *tables[3:])] == starts


def test_a_claim_is_given_up_to_whoever_needs_the_last_pages() -> None:
    pool = PagePool(8)
    first, second = PageTable(), PageTable()
    pool.claim(first, 8)
    pool.hand_out(first, 2)
    pool.claim(second, 4)
    assert not second.claim, "no four pages are left that nobody claims"
    pool.hand_out(second, 5)
    pool.hand_out(first, 1)
    assert sorted(first.pages + second.pages) == list(range(8))
    assert first.first_slot is None
    pool.give_back(first)
    pool.give_back(second)
    pool.claim(second, 8)
    assert second.claim == range(8)


def test_unclaimed_pages_go_first() -> None:
    pool = PagePool(8)
    first = PageTable()
    pool.claim(first, 5)
    pool.hand_out(first, 1)
    assert take(pool, 3 * PAGE_TOKENS).pages == [5, 6, 7]
    assert take(pool, PAGE_TOKENS).pages == [1]


def test_sequences_at_equal_distances_are_read_in_place() -> None:
    cache = KvCache(SHAPE, num_pages=12, device=CPU, dtype=torch.float32)
    cache.keys.normal_()
    cache.values.normal_()
    rows = cache.rows(1, 3 * PAGE_TOKENS, count=3, distance=2 * PAGE_TOKENS, tokens=20)
    slots = torch.arange(3)[:, None] * 2 * PAGE_TOKENS + 3 * PAGE_TOKENS + torch.arange(20)
    for view, gathered, whole in zip(rows, cache.gather(1, slots), (cache.keys, cache.values), strict=True):
        assert torch.equal(view, gathered.transpose(0, 1))
        assert view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_the_operators_number_is_taken_and_rounded_up_to_pages() -> None:
    chosen = choose_num_pages(SHAPE, device=CPU, dtype=torch.float32, wish_tokens=100, useful_tokens=10**9)
    assert chosen == pages_for(100) == 7


def test_without_a_number_no_more_is_taken_than_can_be_filled_or_is_free() -> None:
    def choose(useful_tokens: int) -> int:
        return choose_num_pages(SHAPE, device=CPU, dtype=torch.float32, wish_tokens=None, useful_tokens=useful_tokens)

    assert choose(100) == 7
    bytes_per_token = SHAPE.layers * 2 * SHAPE.kv_heads * SHAPE.head_dim * 4
    assert choose(10**15) * PAGE_TOKENS * bytes_per_token <= 4 * 2**30


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="cache_tokens must be at least 1"):
        choose_num_pages(SHAPE, device=CPU, dtype=torch.float32, wish_tokens=0, useful_tokens=1)
