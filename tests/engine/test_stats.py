"""What an engine counts, and what it charges its requests for: nothing is lost and nothing counted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skipvision.engine import Engine, Request, Sampling
from skipvision.families import Family
from tests.engine.subjects import CARRIED, picture


def ask(engine: Engine, name: str, *pictures: int, max_tokens: int = 8, **rest: object) -> Request:
    images = tuple(engine.prepare(picture(seed)) for seed in pictures)
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
    return Request(prompt=f"what is {name}", images=images, request_id=name, sampling=sampling, **rest)


@pytest.mark.parametrize("limits", [{}, {"cache_tokens": 128, "max_step_tokens": 17}], ids=["roomy", "narrow"])
def test_every_second_of_the_model_is_charged_to_someone_and_only_once(family: Family, limits: dict[str, int]) -> None:
    engine = Engine(family, skip=CARRIED, **limits)
    asked = [ask(engine, f"{i}", *range(i % 3), max_tokens=30 + 9 * i) for i in range(6)]
    answers = engine.answer([*asked, ask(engine, "three", 0, n=3)])
    spent = engine.stats().stage_seconds
    charged = {name: sum(getattr(answer, f"{name}_seconds") for answer in answers) for name in ("prefill", "decode")}
    assert charged == {name: pytest.approx(spent[name]) for name in charged}
    assert sum(answer.encode_seconds for answer in answers) == pytest.approx(spent["encode"] + spent["merge"])
    assert (engine.stats().preemptions > 0) == bool(limits)


def test_only_who_had_an_image_encoded_pays_for_it(family: Family) -> None:
    engine = Engine(family, skip=CARRIED)
    text, one, again, two = engine.answer(
        [ask(engine, "a"), ask(engine, "b", 0, max_tokens=5), ask(engine, "c", 0), ask(engine, "d", 1, 2)]
    )
    assert text.encode_seconds == again.encode_seconds == 0
    assert two.encode_seconds == pytest.approx(2 * one.encode_seconds) != 0
    [later] = engine.answer([ask(engine, "e", 2, 0)])
    assert later.encode_seconds == 0


def test_a_request_s_moments_follow_each_other(family: Family) -> None:
    engine = Engine(family, max_running=2)
    answers = engine.answer([ask(engine, f"{i}", max_tokens=1 + 3 * i) for i in range(5)])
    for i, answer in enumerate(answers):
        assert len(answer.gap_seconds) == 3 * i
        assert all(gap > 0 for gap in answer.gap_seconds)
        assert 0 < answer.queue_seconds < answer.first_token_seconds
        assert answer.first_token_seconds + sum(answer.gap_seconds) <= answer.seconds
        assert answer.prefill_seconds + answer.decode_seconds <= answer.seconds - answer.queue_seconds
    assert answers[0].decode_seconds == 0, "its only token came of its prompt"


def test_a_request_that_was_never_read_is_charged_nothing(family: Family) -> None:
    engine = Engine(family, max_running=1)
    engine.add(ask(engine, "a"))
    engine.add(ask(engine, "b", 0))
    engine.step()
    engine.cancel("b")
    [cancelled] = [delta.answer for delta in engine.step() if delta.answer]
    assert (cancelled.encode_seconds, cancelled.prefill_seconds, cancelled.decode_seconds) == (0, 0, 0)
    assert cancelled.gap_seconds == ()


def test_steps_places_and_pages_are_counted(family: Family) -> None:
    engine = Engine(family, max_running=3, cache_tokens=160)
    engine.answer([ask(engine, "a", max_tokens=4), ask(engine, "b", max_tokens=2)])
    after = engine.stats()
    assert (after.steps, after.slots, after.slots_used) == (4, 12, 2 + 2 + 1 + 1)
    assert (after.pages, after.pages_held) == (4 * 10, 2 + 2 + 1 + 1), "a page each, while it runs"
    assert (after.num_pages, after.free_pages, after.waiting, after.running) == (10, 10, 0, 0)


def test_the_present_is_told_beside_the_past(family: Family) -> None:
    engine = Engine(family, skip=CARRIED, max_running=2)
    for i in range(5):
        engine.add(ask(engine, f"{i}", i))
    before = engine.stats()
    assert (before.waiting, before.running, before.steps, before.vision_cache_bytes) == (5, 0, 0, 0)
    engine.step()
    now = engine.stats()
    assert (now.waiting, now.running, now.steps) == (3, 2, 1)
    assert now.free_pages < now.num_pages
    assert now.vision_cache_bytes == 2 * (4 + 6 + 2) * 64 * 4
    assert before.steps == 0, "a snapshot stays what it was"


def test_answers_are_counted_by_how_they_ended(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(family)
    [whole] = engine.answer([ask(engine, "whole")])
    stopping = replace(
        ask(engine, "stop"), sampling=Sampling(max_tokens=8, stop=(whole.text[2:5],)), prompt="what is whole"
    )
    asked = [stopping, ask(engine, "wrong", logits_hook=lambda output_ids, logits: None), ask(engine, "two", n=2)]
    engine.answer(asked)
    engine.add(ask(engine, "gone", n=3))
    engine.cancel("gone")
    engine.cancel("gone")
    assert engine.stats().finished == {"stop": 1, "length": 3, "cancelled": 3, "error": 1}


def test_images_at_hand_are_counted_and_those_that_had_to_be_encoded(family: Family) -> None:
    engine = Engine(family, skip=CARRIED)
    engine.answer([ask(engine, "a", 0, 1, 0)])
    engine.answer([ask(engine, "b", 1, 2)])
    after = engine.stats()
    assert (after.vision_cache_hits, after.vision_cache_misses) == (2, 3)


def test_what_was_done_since_a_moment_is_a_difference(family: Family) -> None:
    engine = Engine(family, skip=CARRIED)
    engine.answer([ask(engine, "a", 0)])
    first = engine.stats()
    engine.answer([ask(engine, "b", 0), ask(engine, "c", 1)])
    since = engine.stats() - first
    assert (since.steps, since.slots_used, since.vision_cache_hits, since.vision_cache_misses) == (8, 16, 1, 1)
    assert since + (first - first) == since
