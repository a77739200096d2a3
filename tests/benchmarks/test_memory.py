"""What a running sequence holds is weighed, and skipping holds less."""

from __future__ import annotations

import pytest

from benchmarks import tables
from benchmarks.machine import circumstances
from benchmarks.memory import weigh


@pytest.fixture(scope="module")
def weighed(tiny_config) -> dict:
    return {**circumstances(), **weigh(tiny_config, ("off", "100/156"), requests=2, new_tokens=2)}


def test_what_is_held_is_what_the_plan_says_in_whole_pages(weighed):
    for setting in weighed["settings"]:
        beyond = setting["held_tokens"] / 2 - setting["cached_tokens"]
        assert 0 <= beyond <= 2 * 16, "the new tokens, and the rest of a page"


def test_skipping_holds_less_and_both_grow(weighed):
    everything, skipping = weighed["settings"]
    assert skipping["held_tokens"] < everything["held_tokens"]
    assert skipping["work"]["cached_bytes"] < everything["work"]["cached_bytes"]
    assert everything["grown_bytes"] > 0


def test_the_table_has_a_row_for_each_setting(weighed):
    assert [line.split(" | ")[0] for line in tables.memory(weighed).splitlines()[2:4]] == ["| off", "| 100/156"]
