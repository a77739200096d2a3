"""How decoding requests are grouped by where their caches stand."""

from __future__ import annotations

import numpy as np

from skipvision.engine.packing import PackedDecodes, pack_decodes
from skipvision.engine.pages import PAGE_TOKENS, PageTable


def standing_at(pages: list[int], tokens: int) -> PageTable:
    table = PageTable()
    table.pages, table.cached_tokens = pages, tokens
    return table


def run_at(page: int, tokens: int) -> PageTable:
    return standing_at(list(range(page, page + -(-tokens // PAGE_TOKENS))), tokens)


def groups(*tables: PageTable, pages: int = 100) -> list[PackedDecodes]:
    return list(pack_decodes(tables, num_slots=pages * PAGE_TOKENS))


def test_caches_at_equal_distances_are_one_group() -> None:
    (group,) = groups(*(run_at(page, 40 + page) for page in (2, 6, 10, 14)))
    assert (group.slots, group.first_slot, group.distance) == (None, 2 * PAGE_TOKENS, 4 * PAGE_TOKENS)
    assert group.lengths.tolist() == [42, 46, 50, 54]


def test_a_gap_begins_a_new_group_and_takes_nobody_along_who_stands_better_with_the_next() -> None:
    found = groups(*(run_at(page, 40) for page in (0, 4, 8, 20, 24, 28, 40, 43, 46)))
    assert [(group.first_slot // PAGE_TOKENS, len(group.lengths)) for group in found] == [(0, 3), (20, 3), (40, 3)]
    found = groups(*(run_at(page, 40) for page in (0, 10, 14, 18)))
    assert [len(group.lengths) for group in found] == [1, 3]


def test_a_much_longer_cache_is_not_read_with_short_ones() -> None:
    found = groups(run_at(0, 30), run_at(20, 30), run_at(40, 300))
    assert [group.lengths.tolist() for group in found] == [[30, 30], [300]]


def test_no_view_reaches_beyond_the_cache() -> None:
    tables = run_at(0, 40), run_at(4, 33)
    assert len(groups(*tables, pages=7)) == 1
    assert len(groups(*tables[::-1][1:], run_at(4, 32), pages=6)) == 2


def test_caches_in_several_places_are_gathered_together() -> None:
    in_place, first, second = run_at(0, 20), standing_at([9, 4], 20), standing_at([7], 3)
    second.pages = [7, 2]
    found = groups(in_place, first, second)
    assert [group.lengths.tolist() for group in found] == [[20], [20, 3]]
    slots = found[1].slots
    assert slots is not None
    assert np.array_equal(slots[0], [*range(144, 160), *range(64, 68)])
    assert slots[1].tolist() == [112, 113, 114] + [0] * 17


def test_caches_that_begin_alike_share_a_trunk_up_to_where_they_part() -> None:
    leader, first, second = run_at(3, 70), standing_at([3, 4, 5, 20], 60), standing_at([3, 4, 5, 9], 49)
    trunk, alone = groups(leader, first, second, run_at(30, 40))
    assert (trunk.first_slot, trunk.trunk_tokens) == (3 * PAGE_TOKENS, 3 * PAGE_TOKENS)
    assert trunk.lengths.tolist() == [70, 60, 49]
    assert trunk.slots is not None
    assert trunk.slots[0].tolist() == list(range(96, 118))
    assert trunk.slots[2].tolist() == [144] + [0] * 21
    assert (alone.first_slot, alone.slots) == (30 * PAGE_TOKENS, None)


def test_a_trunk_in_two_places_is_read_in_place_as_far_as_it_goes() -> None:
    (group,) = groups(standing_at([3, 4, 8, 20], 60), standing_at([3, 4, 8, 9], 60))
    assert (group.first_slot, group.trunk_tokens) == (48, 32)
    assert group.slots is not None
    assert group.slots[0, :17].tolist() == [*range(128, 144), 320]


def test_a_step_without_decoding_requests_has_no_group() -> None:
    assert groups() == []
