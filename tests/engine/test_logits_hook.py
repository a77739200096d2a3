"""A hook decides what its own request may say, is asked once for each token, and fails alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.logits_hook import LogitsHook, apply_hooks
from skipvision.errors import InputError
from skipvision.families import Family
from tests.engine.subjects import CARRIED, picture

GREEDY = Sampling(max_tokens=12, ignore_eos=True)
SCRIPT = (5, 30, 31, 7, 9, 5, 40, 8, 12, 11, 10, 20)


class Script:
    """A stateful hook: lets nothing be said but its tokens, in their order."""

    def __init__(self, tokens: Sequence[int] = SCRIPT) -> None:
        self.tokens = tokens
        self.heard: list[tuple[int, ...]] = []

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        allowed = self.tokens[len(self.heard) % len(self.tokens)]
        self.heard.append(tuple(output_ids))
        return torch.full_like(logits, -torch.inf).index_fill_(0, torch.tensor([allowed]), 0.0)


def ask(hook: object = None, *, sampling: Sampling = GREEDY, prompt: str = "describe the picture") -> Request:
    return Request(prompt=prompt, sampling=sampling, logits_hook=hook)


def test_a_hook_decides_for_its_own_request_alone(family: Family) -> None:
    engine = Engine(family)
    drawn = Sampling(max_tokens=12, ignore_eos=True, temperature=2.0)
    asked = [ask(), ask(Script()), ask(sampling=drawn), ask(Script(SCRIPT[::-1]), sampling=drawn)]
    free, scripted, drawing, backwards = [answer.output_ids for answer in engine.answer(asked)]
    assert [free, drawing] == [answer.output_ids for answer in engine.answer([ask(), ask(sampling=drawn)])]
    assert (scripted, backwards) == (SCRIPT, SCRIPT[::-1])


def test_a_hook_that_changes_logits_in_place_changes_no_logprob(family: Family) -> None:
    def never_likeliest(output_ids: Sequence[int], logits: Tensor) -> Tensor:
        logits[logits.argmax()] = -torch.inf
        return logits

    sampling = Sampling(max_tokens=6, ignore_eos=True, logprobs=2)
    [answer] = Engine(family).answer([ask(never_likeliest, sampling=sampling)])
    for told in answer.logprobs:
        (likeliest, most), second = told.likeliest
        assert second == (told.token_id, told.logprob)
        assert told.token_id != likeliest
        assert told.logprob < most


def test_each_token_is_asked_about_once_however_often_the_prompt_is_read(family: Family) -> None:
    engine = Engine(family, skip=CARRIED, cache_tokens=128, max_step_tokens=17)
    image = engine.prepare(picture(0))
    hooks = [Script() for _ in range(6)]
    sampling = Sampling(max_tokens=60, ignore_eos=True)
    asked = [Request(prompt="what", images=(image,), sampling=sampling, logits_hook=hook) for hook in hooks]
    answers = engine.answer(asked)
    assert engine.stats().preemptions > 2
    for hook, answer in zip(hooks, answers, strict=True):
        assert answer.output_ids == SCRIPT * 5
        assert hook.heard == [answer.output_ids[:place] for place in range(60)]


def raising(output_ids: Sequence[int], logits: Tensor) -> Tensor:
    raise KeyError("no such state")


FAILURES: dict[str, tuple[Callable[..., object], str]] = {
    "raises": (raising, "raised KeyError: 'no such state'"),
    "refuses": (lambda _, logits: logits.sum("no"), "raised"),
    "returns nothing": (lambda _, logits: None, "returned NoneType, not a tensor"),
    "shortens": (lambda _, logits: logits[1:], r"returned torch.float32 \(\d+,\) on cpu; it must return"),
    "adds a dimension": (lambda _, logits: logits[None], r"returned torch.float32 \(1, \d+\)"),
    "narrows": (lambda _, logits: logits.half(), "returned torch.float16"),
    "knows no number": (lambda _, logits: logits.index_fill(0, torch.tensor([3]), torch.nan), "returned nan"),
    "forces": (lambda _, logits: logits.index_fill(0, torch.tensor([3]), torch.inf), "returned inf"),
    "forbids all": (lambda _, logits: logits - torch.inf, "forbade every token"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_hook_that_fails_ends_its_own_request_and_no_other(family: Family, failure: str) -> None:
    fails, says = FAILURES[failure]

    def later(output_ids: Sequence[int], logits: Tensor) -> object:
        return fails(output_ids, logits) if len(output_ids) == 3 else logits

    engine = Engine(family)
    alone = engine.answer([ask()])[0]
    before, ended, after = engine.answer([ask(Script()), ask(later), ask()])
    assert (before.output_ids, after.output_ids) == (SCRIPT, alone.output_ids)
    assert (ended.finish_reason, ended.output_ids) == ("error", alone.output_ids[:3])
    assert alone.text.startswith(ended.text)
    assert ended.error.code == "logits_hook_failed"
    with pytest.raises(InputError, match=f"the logits hook {says}"):
        raise ended.error
    assert engine.stats().free_pages == engine.stats().num_pages
    assert before.error is after.error is None


def test_a_stream_ends_with_the_error(family: Family) -> None:
    *_, last = Engine(family).stream(ask(raising))
    assert (last.text, last.token_id, last.answer.text) == ("", None, "")
    assert last.answer.error.code == "logits_hook_failed"


def test_an_answer_with_an_error_travels_between_processes(family: Family) -> None:
    [answer] = Engine(family).answer([ask(raising)])
    arrived: Answer = pickle.loads(pickle.dumps(answer))
    assert (arrived.error.code, str(arrived.error)) == (answer.error.code, str(answer.error))


def test_a_hook_that_cannot_be_called_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match="logits_hook must be callable, or None; got str"):
        Engine(family).add(ask("grammar"))


def test_without_hooks_the_model_s_logits_are_taken_as_they_are() -> None:
    logits = torch.randn(3, 5)
    shaped, failures = apply_hooks(logits, [None] * 3, [[]] * 3)
    assert shaped is logits
    assert failures == {}


def test_what_a_failed_hook_did_to_its_logits_reaches_nobody() -> None:
    def spoils(output_ids: Sequence[int], logits: Tensor) -> Tensor:
        return logits.fill_(torch.nan)

    logits = torch.randn(2, 5)
    untouched = logits.clone()
    hooks: list[LogitsHook | None] = [spoils, None]
    shaped, failures = apply_hooks(logits, hooks, [[], []])
    assert torch.equal(logits, untouched)
    assert torch.equal(shaped, untouched)
    assert list(failures) == [0]
