"""Several answers to one request: one reading of the prompt, and each as if it had been asked for alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from skipvision.engine import Delta, Engine, Request, Sampling, answer_seed
from skipvision.engine.logits_hook import LogitsHook
from skipvision.errors import InputError, QueueFullError
from skipvision.families import Family
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture

DRAWN = Sampling(max_tokens=12, ignore_eos=True, temperature=1.3, seed=7)
REMEMBERED = SkipConfig(retain=4, merge_skipped_to=6)
FORKS = {
    "roomy": {},
    "beyond the step": {"max_step_tokens": 3},
    "the trunk in parts": {"max_step_tokens": 7},
    "others run": {"max_running": 6},
    "answers give way": {"cache_tokens": 128},
    "all of it": {"cache_tokens": 128, "max_step_tokens": 3, "max_running": 6},
}


def ask(engine: Engine, *, pictures: int = 1, sampling: Sampling = DRAWN, **rest: object) -> Request:
    images = tuple(engine.prepare(picture(seed)) for seed in range(pictures))
    return Request(prompt="what is there", images=images, sampling=sampling, **rest)


def drive(engine: Engine) -> list[Delta]:
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step()
    return deltas


def one_by_one(family: Family, request: Request, skip: SkipConfig) -> list[tuple[int, ...]]:
    """What as many requests would say, with the seeds that the answers have, each alone."""
    seeds = [answer_seed(request.sampling.seed, index) for index in range(request.n)]
    asked = [
        replace(request, n=1, request_id=f"{seed}", sampling=replace(request.sampling, seed=seed)) for seed in seeds
    ]
    return [answer.output_ids for answer in Engine(family, skip=skip, max_running=1).answer(asked)]


@pytest.mark.parametrize("skip", [CARRIED, REMEMBERED, SkipConfig()], ids=["carried", "remembered", "all tokens"])
@pytest.mark.parametrize("limits", FORKS.values(), ids=FORKS)
def test_each_is_what_a_request_of_its_own_would_say(family: Family, limits: dict[str, int], skip: SkipConfig) -> None:
    engine = Engine(family, skip=skip, **limits)
    asked = [ask(engine, n=6), ask(engine, pictures=0), ask(engine, pictures=0, n=5), ask(engine, pictures=2, n=3)]
    answers = engine.answer(asked)
    expected = [said for request in asked for said in one_by_one(family, request, skip)]
    assert [answer.output_ids for answer in answers] == expected
    assert len(set(expected)) > 10, "most must differ"
    ids = [(request.request_id, index) for request in asked for index in range(request.n)]
    assert [(answer.request_id, answer.index) for answer in answers] == ids
    assert engine.stats().free_pages == engine.stats().num_pages


def test_a_prompt_is_read_and_its_images_are_encoded_once(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(family, skip=CARRIED)
    passes: list[int] = []
    encode = family.encode
    monkeypatch.setattr(family, "encode", lambda pixels, **kw: (passes.append(len(pixels)), encode(pixels, **kw))[1])
    answers = engine.answer([ask(engine, pictures=2, n=9)])
    assert passes == [2]
    assert engine.stats().shared_prompt_tokens == 8 * (answers[0].plan.prompt_tokens - 1)


def test_pages_of_the_prompt_are_held_once(family: Family) -> None:
    """Each answer takes 10 pages alone; in a pool of 48, 16 of them run side by side with 8 of those in common."""
    prompt = "what " * 140
    engine = Engine(family, cache_tokens=48 * 16)
    request = Request(prompt=prompt, n=16, sampling=replace(DRAWN, max_tokens=3))
    engine.answer([request])
    tokens = len(family.tokenize(prompt, num_images=0).text_ids)
    assert tokens + 2 > 9 * 16
    assert engine.stats().shared_prompt_tokens == 15 * (tokens - 1)
    assert engine.stats().preemptions == 0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_first_answers_do_not_depend_on_how_many_follow(family: Family, n: int) -> None:
    engine = Engine(family)
    most = engine.answer([ask(engine, n=7)])
    fewer = engine.answer([ask(engine, n=n)])
    assert [answer.output_ids for answer in fewer] == [answer.output_ids for answer in most[:n]]


def test_every_answer_has_a_seed_of_its_own_and_the_first_the_request_s() -> None:
    assert answer_seed(5, 0) == 5
    seeds = {answer_seed(seed, index) for seed in range(50) for index in range(1, 50)}
    assert len(seeds) == 50 * 49
    assert all(Sampling(seed=seed) for seed in seeds)


def test_a_stream_tells_them_apart_and_ends_with_the_last(family: Family) -> None:
    engine = Engine(family)
    sampling = Sampling(max_tokens=40, temperature=2.0)
    deltas = list(engine.stream(ask(engine, n=4, sampling=sampling)))
    for index in range(4):
        own = [delta for delta in deltas if delta.index == index]
        answer = own[-1].answer
        assert "".join(delta.text for delta in own) == answer.text
        assert tuple(delta.token_id for delta in own) == answer.output_ids
    assert len({delta.answer.output_ids for delta in deltas if delta.answer}) == 4
    assert not engine.has_work


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_cancelling_cancels_all_that_are_left(family: Family, steps: int) -> None:
    engine = Engine(family, max_step_tokens=30)
    engine.add(ask(engine, n=5, request_id="a"))
    engine.add(ask(engine, request_id="b"))
    for _ in range(steps):
        engine.step()
    engine.cancel("a")
    last = [delta for delta in drive(engine) if delta.answer]
    assert {(delta.request_id, delta.index, delta.answer.finish_reason) for delta in last} == {
        *(("a", index, "cancelled") for index in range(5)),
        ("b", 0, "length"),
    }
    assert engine.stats().free_pages == engine.stats().num_pages


def test_leaving_a_stream_early_cancels_all_of_it(family: Family) -> None:
    engine = Engine(family)
    stream = engine.stream(ask(engine, n=5))
    for _ in range(7):
        next(stream)
    stream.close()
    assert engine.stats().free_pages == engine.stats().num_pages
    assert not engine.has_work


def test_they_enter_the_line_together(family: Family) -> None:
    engine = Engine(family, max_running=4, max_waiting=2)
    engine.add(ask(engine, n=4, request_id="a"))
    with pytest.raises(QueueFullError):
        engine.add(ask(engine, request_id="b"))
    with pytest.raises(InputError, match="'a' is being answered"):
        engine.add(ask(engine, request_id="a"))
    assert len([delta for delta in drive(engine) if delta.answer]) == 4


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "2", None, 5, 129])
def test_a_number_of_answers_out_of_range_is_refused(family: Family, n: object) -> None:
    engine = Engine(family, max_running=4)
    with pytest.raises(InputError, match="n must be a whole number from 1 to 4") as refusal:
        engine.add(ask(engine, n=n))
    assert refusal.value.code == "sampling_invalid"


def test_no_engine_gives_more_than_128(family: Family) -> None:
    engine = Engine(family, max_running=500)
    with pytest.raises(InputError, match="from 1 to 128"):
        engine.add(ask(engine, n=129))


class Counting:
    """A hook that forks: forbids the token it let through last."""

    def __init__(self) -> None:
        self.calls = 0

    def fork(self) -> LogitsHook:
        return Counting()

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        assert self.calls == len(output_ids), "another answer has called this hook"
        self.calls += 1
        return logits.index_fill_(0, torch.tensor(output_ids[-1:], dtype=torch.int64), -torch.inf)


def test_each_calls_a_hook_of_its_own(family: Family) -> None:
    engine = Engine(family)
    answers = engine.answer([ask(engine, n=4, logits_hook=Counting())])
    assert [answer.error for answer in answers] == [None] * 4
    assert all(a != b for answer in answers for a, b in zip(answer.output_ids, answer.output_ids[1:], strict=False))


def test_one_whose_hook_fails_ends_alone(family: Family) -> None:
    class FailsOnce(Counting):
        forks = 0

        def fork(self) -> LogitsHook:
            type(self).forks += 1
            return (lambda output_ids, logits: None) if self.forks == 2 else Counting()

    engine = Engine(family)
    answers = engine.answer([ask(engine, n=3, logits_hook=FailsOnce())])
    assert [answer.finish_reason for answer in answers] == ["length", "error", "length"]
    assert engine.stats().free_pages == engine.stats().num_pages


def test_a_hook_that_cannot_fork_serves_one_answer_only(family: Family) -> None:
    engine = Engine(family)
    with pytest.raises(InputError, match=r"n is 2 and the logits_hook has no fork\(\)"):
        engine.add(ask(engine, n=2, logits_hook=lambda output_ids, logits: logits))


def test_a_hook_whose_fork_fails_is_refused(family: Family) -> None:
    class Unforkable(Counting):
        def fork(self) -> LogitsHook:
            raise ValueError("one of a kind")

    engine = Engine(family)
    with pytest.raises(InputError, match=r"fork\(\) raised ValueError: one of a kind") as refusal:
        engine.add(ask(engine, n=2, logits_hook=Unforkable()))
    assert refusal.value.code == "logits_hook_failed"
    assert not engine.has_work
