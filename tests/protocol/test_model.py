"""Nothing is lost and nothing doubled under any schedule of crashes, lost answers, races and zombies: the model."""

from __future__ import annotations

import pytest

from tests.protocol.model import BROKEN, Protocol, explore


def test_nothing_is_lost_or_doubled_under_twenty_thousand_schedules():
    wrong, faults = explore(Protocol(), range(20_000))
    assert wrong == []
    assert faults > 20_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_or_doubled_under_a_million_schedules():
    wrong, faults = explore(Protocol(), range(1_000_000, 2_000_000))
    assert wrong == []
    assert faults > 1_000_000


@pytest.mark.parametrize("broken", BROKEN)
def test_a_protocol_that_leaves_something_out_is_caught(broken):
    wrong, _ = explore(broken(), range(3000))
    assert wrong
