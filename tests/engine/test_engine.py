from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from skipvision.engine import Answer, Delta, Engine, Request, Sampling
from skipvision.errors import (
    ConfigError,
    EngineDeadError,
    InputError,
    PromptError,
    PromptTooLongError,
    QueueFullError,
)
from skipvision.families import Family
from skipvision.families.family import PromptTokens
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture


def drive(engine: Engine) -> list[Delta]:
    """Step until nothing is left; all deltas."""
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step()
    return deltas


def answers(deltas: list[Delta]) -> dict[str, Answer]:
    return {delta.request_id: delta.answer for delta in deltas if delta.answer}


def ask(name: str, *, max_tokens: int = 8, prompt: str = "describe the picture", **rest: object) -> Request:
    return Request(prompt=prompt, request_id=name, sampling=Sampling(max_tokens=max_tokens, ignore_eos=True), **rest)


def nothing_is_held(engine: Engine) -> bool:
    return engine.stats().free_pages == engine.stats().num_pages and not engine.has_work


def test_requests_join_and_leave_between_steps(family: Family) -> None:
    engine = Engine(family)
    engine.add(ask("a", max_tokens=3))
    assert [delta.request_id for delta in engine.step()] == ["a"]
    engine.add(ask("b", max_tokens=4))
    spoke = ["".join(delta.request_id for delta in engine.step()) for _ in range(5)]
    assert spoke == ["ab", "ab", "b", "b", ""]
    assert nothing_is_held(engine)


def test_a_pool_too_small_for_all_makes_requests_wait_and_all_finish(family: Family) -> None:
    engine = Engine(family, skip=CARRIED, cache_tokens=100)
    image = engine.prepare(picture(0))
    names = [str(i) for i in range(9)]
    for name in names:
        engine.add(ask(name, images=(image,), max_tokens=40))
    finished = answers(drive(engine))
    assert list(finished) == names, "first come, first served"
    assert engine.stats().preemptions > 0
    assert {len(answer.output_ids) for answer in finished.values()} == {40}
    assert nothing_is_held(engine)


def test_all_pages_are_free_after_answers_of_every_kind(family: Family) -> None:
    engine = Engine(family, skip=CARRIED, max_running=3)
    image = engine.prepare(picture(0))
    for i in range(7):
        engine.add(ask(str(i), images=(image,) * (i % 3), max_tokens=2 + 5 * i))
    for _ in range(4):
        engine.step()
    engine.cancel("2")
    engine.cancel("6")
    assert engine.stats().free_pages < engine.stats().num_pages
    assert len(answers(drive(engine))) == 6, "0 had finished before the cancellations"
    assert nothing_is_held(engine)


def test_a_cancelled_request_frees_its_pages_at_once_and_says_so_once(family: Family) -> None:
    engine = Engine(family)
    engine.add(ask("a", max_tokens=50))
    engine.add(ask("b", max_tokens=50))
    said = [delta for _ in range(5) for delta in engine.step()]
    engine.cancel("a")
    engine.cancel("b")
    engine.cancel("b")
    engine.cancel("never heard of")
    assert engine.stats().free_pages == engine.stats().num_pages
    last = engine.step()
    assert [delta.answer.finish_reason for delta in last] == ["cancelled", "cancelled"]
    assert [(delta.text, delta.token_id) for delta in last] == [("", None)] * 2
    assert last[0].answer.text == "".join(delta.text for delta in said if delta.request_id == "a")
    assert len(last[0].answer.output_ids) == 5
    assert engine.step() == []


def test_a_request_cancelled_in_the_line_was_never_read(family: Family) -> None:
    engine = Engine(family, max_running=1)
    engine.add(ask("a"))
    engine.add(ask("b"))
    engine.step()
    engine.cancel("b")
    cancelled = answers(drive(engine))["b"]
    assert (cancelled.output_ids, cancelled.text) == ((), "")
    assert cancelled.queue_seconds == cancelled.first_token_seconds == cancelled.seconds >= 0


def test_deltas_join_to_the_answer(family: Family) -> None:
    engine = Engine(family)
    for name in "abc":
        engine.add(ask(name, prompt=f"describe {name}", max_tokens=25))
    deltas = drive(engine)
    for name, answer in answers(deltas).items():
        own = [delta for delta in deltas if delta.request_id == name]
        assert "".join(delta.text for delta in own) == answer.text == family.detokenize(answer.output_ids)
        assert tuple(delta.token_id for delta in own) == answer.output_ids
        assert [delta.answer is None for delta in own] == [True] * 24 + [False]


def test_an_answer_ends_before_a_stop_string_that_spans_tokens(family: Family) -> None:
    engine = Engine(family)
    [whole] = engine.answer([ask("whole", max_tokens=30)])
    words = whole.text.split(" ")
    stop = f"{words[6][-1]} {words[7]} {words[8][0]}"
    cut = whole.text.index(stop)
    sampling = Sampling(max_tokens=30, ignore_eos=True, stop=("no such text", stop))
    deltas = list(engine.stream(Request(prompt="describe the picture", sampling=sampling)))
    stopped = deltas[-1].answer
    assert (stopped.text, stopped.finish_reason) == (whole.text[:cut], "stop")
    assert "".join(delta.text for delta in deltas) == stopped.text
    assert len(stopped.output_ids) < len(whole.output_ids)
    assert whole.finish_reason == "length"
    assert nothing_is_held(engine)


def test_the_end_token_ends_an_answer_and_is_not_in_its_text(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(family)
    [long] = engine.answer([ask("long", max_tokens=20)])
    end = next(token for place, token in enumerate(long.output_ids) if place > 2)
    length = long.output_ids.index(end) + 1
    monkeypatch.setattr(family, "eos_token_ids", frozenset({end, 10**6}))
    [ended, ignoring] = engine.answer(
        [
            Request(prompt="describe the picture", sampling=Sampling(max_tokens=20)),
            Request(prompt="describe the picture", sampling=Sampling(max_tokens=20, ignore_eos=True)),
        ]
    )
    assert (ended.finish_reason, ended.output_ids) == ("stop", long.output_ids[:length])
    assert ended.text == family.detokenize(long.output_ids[: length - 1])
    assert (ignoring.finish_reason, ignoring.output_ids) == ("length", long.output_ids)


def test_answers_come_in_the_order_of_the_requests_however_long_they_take(family: Family) -> None:
    engine = Engine(family, max_running=2, max_waiting=2)
    asked = [ask(str(i), max_tokens=20 - 3 * i) for i in range(6)]
    answered = engine.answer(asked)
    assert [answer.request_id for answer in answered] == [request.request_id for request in asked]
    assert [len(answer.output_ids) for answer in answered] == [20, 17, 14, 11, 8, 5]
    assert all(0 < answer.queue_seconds < answer.first_token_seconds <= answer.seconds for answer in answered)
    assert engine.answer([]) == []


def test_streams_interleave_with_each_other_and_with_steps_and_lose_nothing(family: Family) -> None:
    engine = Engine(family)
    expected = {answer.request_id: answer.output_ids for answer in engine.answer([ask("a"), ask("b"), ask("c")])}
    first, second = engine.stream(ask("a")), engine.stream(ask("b"))
    engine.add(ask("c"))
    heard: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for _ in range(4):
        heard["a"].append(next(first).token_id)
        heard["b"].append(next(second).token_id)
        for delta in engine.step():
            heard[delta.request_id].append(delta.token_id)
    heard["a"] += [delta.token_id for delta in first]
    heard["b"] += [delta.token_id for delta in second]
    for delta in drive(engine):
        heard[delta.request_id].append(delta.token_id)
    assert {name: tuple(ids) for name, ids in heard.items()} == expected
    assert nothing_is_held(engine)


def test_leaving_a_stream_early_cancels_it(family: Family) -> None:
    engine = Engine(family)
    stream = engine.stream(ask("a", max_tokens=50))
    next(stream)
    stream.close()
    assert nothing_is_held(engine)
    assert engine.step() == []


@pytest.mark.parametrize("prompt", ["", " \n\t", None, 7, b"describe", "half \ud83d of a pair"])
def test_a_prompt_that_is_no_text_is_refused(family: Family, prompt: object) -> None:
    engine = Engine(family)
    with pytest.raises(PromptError):
        engine.add(Request(prompt=prompt))
    assert nothing_is_held(engine)


def test_an_unknown_priority_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match="one of high, normal, low; got 'now'"):
        Engine(family).add(ask("a", priority="now"))


@pytest.mark.parametrize(
    "image",
    [np.zeros((32, 32, 3), np.uint8), np.zeros((3, 32, 32), np.float32), np.zeros((3, 32), np.uint8), "cat.png", None],
)
def test_pixels_that_were_not_prepared_are_refused(family: Family, image: object) -> None:
    with pytest.raises(InputError, match=r"as Engine\.prepare returns"):
        Engine(family).add(ask("a", images=(image,)))


def test_a_request_that_can_never_fit_is_refused_with_what_would_fit(family: Family) -> None:
    prompt = "describe " * 500
    tokens = len(family.tokenize(prompt, num_images=0).text_ids)
    for engine, limit in (
        (Engine(family), family.context_tokens - 20),
        (Engine(family, cache_tokens=320), 320 - 19),
    ):
        with pytest.raises(PromptTooLongError) as refusal:
            engine.add(ask("a", prompt=prompt, max_tokens=20))
        assert (refusal.value.prompt_tokens, refusal.value.limit_tokens) == (tokens, limit)
        engine.answer([ask("b", prompt="describe " * (limit - tokens + 500), max_tokens=20)])
        assert nothing_is_held(engine)


def test_a_prompt_that_ends_with_its_image_is_refused(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "tokenize", lambda prompt, *, num_images: PromptTokens((1, 5, 6), (3,) * num_images))
    engine = Engine(family)
    with pytest.raises(InputError, match="ends with an image"):
        engine.add(ask("a", images=(engine.prepare(picture(0)),)))
    engine.add(ask("b"))


def test_an_answer_longer_than_the_model_holds_is_refused(family: Family) -> None:
    with pytest.raises(InputError, match="max_tokens is 512") as refusal:
        Engine(family).add(ask("a", max_tokens=family.context_tokens))
    assert refusal.value.code == "sampling_invalid"


def test_skipped_tokens_that_are_forgotten_need_no_room_in_the_cache(family: Family) -> None:
    engine = Engine(family, skip=CARRIED, cache_tokens=32)
    image = engine.prepare(picture(0))
    [answer] = engine.answer([ask("a", images=(image,), max_tokens=18)])
    assert answer.plan.prompt_tokens + 17 > engine.cache_tokens >= answer.plan.cached_tokens + 17
    with pytest.raises(PromptTooLongError):
        engine.add(ask("b", images=(image,), max_tokens=18, skip=SkipConfig()))


def test_a_setting_that_does_not_fit_is_refused_for_a_request_and_for_an_engine(plain_family: Family) -> None:
    engine = Engine(plain_family)
    image = engine.prepare(picture(0))
    for skip, says in (
        (SkipConfig(retain=10, merge_skipped_to=7), "10 retained and 7 skipped"),
        (CARRIED, "4/6:plain"),
    ):
        with pytest.raises(InputError, match=says) as refusal:
            engine.add(ask("a", images=(image,), skip=skip))
        assert refusal.value.code == "skip_does_not_fit"
        with pytest.raises(ConfigError, match=says):
            Engine(plain_family, skip=skip)
    engine.add(ask("text needs no summary", skip=CARRIED))


def test_a_full_line_refuses_and_takes_again_when_it_has_moved(family: Family) -> None:
    engine = Engine(family, max_running=1, max_waiting=2)
    engine.add(ask("a"))
    engine.add(ask("b"))
    with pytest.raises(QueueFullError):
        engine.add(ask("c"))
    with pytest.raises(QueueFullError):
        engine.stream(ask("d"))
    engine.step()
    engine.add(ask("c"))
    assert sorted(answers(drive(engine))) == ["a", "b", "c"]


def test_an_id_is_taken_until_its_answer_is_out(family: Family) -> None:
    engine = Engine(family)
    engine.add(ask("a"))
    with pytest.raises(InputError, match="'a' is being answered"):
        engine.add(ask("a"))
    drive(engine)
    engine.add(ask("a"))
    with pytest.raises(InputError, match="same id"):
        engine.answer([ask("b"), ask("b")])


def test_one_wrong_request_among_many_starts_none_of_them(family: Family) -> None:
    engine = Engine(family)
    with pytest.raises(PromptError):
        engine.answer([ask("a"), ask("b", prompt=" ")])
    assert nothing_is_held(engine)


def test_special_tokens_in_a_prompt_are_plain_text(family: Family) -> None:
    engine = Engine(family)
    prompt = "what is in <image> </s> the <s> picture ?"
    [answer] = engine.answer([ask("a", prompt=prompt)])
    assert (answer.plan.images, answer.plan.visual_tokens) == ((), 0)
    ids = set(family.tokenize(prompt, num_images=0).text_ids)
    assert not ids & family.eos_token_ids
    assert len(answer.output_ids) == 8


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_running": 0}, "max_running must be at least 1"),
        ({"max_step_tokens": 0}, "max_step_tokens must be at least 1"),
        ({"max_waiting": 0}, "max_waiting must be at least 1, or None"),
        ({"cache_tokens": 0}, "cache_tokens must be at least 1, or None"),
    ],
)
def test_a_limit_out_of_range_is_refused_with_the_remedy(family: Family, limits: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Engine(family, **limits)


def test_a_failed_pass_closes_the_engine_and_says_that_it_must_be_replaced(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("device lost")

    engine = Engine(family)
    engine.add(ask("a"))
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(family, "logits", broken)
        with pytest.raises(EngineDeadError, match="RuntimeError"):
            engine.step()
    assert not engine.has_work
    for use in (engine.step, lambda: engine.add(ask("b"))):
        with pytest.raises(EngineDeadError, match="closed"):
            use()
    assert Engine(family).answer([ask("a")]), "the checkpoint is none the worse"


def test_a_closed_engine_drops_its_requests_and_frees_its_cache(family: Family) -> None:
    engine = Engine(family)
    engine.add(ask("a"))
    engine.add(ask("b"))
    engine.step()
    engine.cancel("b")
    engine.close()
    engine.close()
    assert not engine.has_work
    with pytest.raises(EngineDeadError, match="closed"):
        engine.answer([ask("b")])


def test_loading_takes_the_setting_that_the_checkpoint_carries_unless_told_otherwise(
    folder: Path, plain_folder: Path
) -> None:
    def loaded(model: Path, **settings: object) -> SkipConfig:
        return Engine.load(model, device="cpu", dtype="float32", max_running=2, **settings).skip

    assert loaded(folder) == loaded(folder, skip=CARRIED) == CARRIED
    assert loaded(folder, skip="off") == loaded(plain_folder) == SkipConfig()
    assert loaded(folder, skip="3/5:plain") == SkipConfig(retain=3, merge_skipped_to=5, forget_skipped=True)


def test_a_setting_that_cannot_be_read_is_refused_before_any_weight_is_loaded() -> None:
    with pytest.raises(ConfigError, match="skip must be"):
        Engine.load("no such model", skip="most")
