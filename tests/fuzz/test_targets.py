"""Made-up and once-found input for everything that reads what strangers send."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.seeds import FOUND, seeds
from fuzz.targets import TARGETS

CASES = [(target, what) for target, found in FOUND.items() for what in found]


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, left out, doubled or put in."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = data[max(0, at - 8) : at]
            case 3:
                data[at:at] = rng.choice((b"\x00", b"\xff\xff", "é".encode(), b"[{", b'"', b"%", b"-1", b"99999999999"))
    return bytes(data)


@pytest.mark.parametrize(("target", "what"), CASES)
def test_what_was_found_once_is_an_answer_or_an_error_of_ours(target, what):
    TARGETS[target](FOUND[target][what])


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_an_answer_or_an_error_of_ours(target):
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
def test_changed_seeds_are_an_answer_or_an_error_of_ours(target):
    given_first = seeds(target)

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(given_first), st.randoms(use_true_random=False))
    def try_it(seed, rng):
        TARGETS[target](mutated(seed, rng))

    try_it()


@pytest.mark.parametrize("target", TARGETS)
def test_any_text_is_an_answer_or_an_error_of_ours(target):
    @settings(max_examples=60, deadline=None, database=None)
    @given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
    def try_it(data):
        TARGETS[target](data)

    try_it()


def test_a_target_that_lets_something_through_is_noticed(monkeypatch):
    monkeypatch.setattr("fuzz.targets.retry_after_seconds", lambda text: -1.0)
    with pytest.raises(AssertionError):
        TARGETS["retry_after"](b"")
