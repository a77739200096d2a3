"""What the engine generates against stock transformers and against a plain reference, token for token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.families import Family
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture
from tests.method import reference

PROMPTS = (
    ("describe the picture", 1),
    ("what shape is there ?", 0),
    ("is the red one left of the blue one ? describe a big yellow star and a small green circle", 2),
    ("how many", 1),
)
GREEDY = Sampling(max_tokens=12, ignore_eos=True)
SETTINGS = {
    "carried": CARRIED,
    "unmerged": SkipConfig(retain=5, forget_skipped=True),
    "remembered": SkipConfig(retain=4, merge_skipped_to=6, summarise=True),
    "all retained": SkipConfig(retain=16, summarise=True, forget_skipped=True),
}


def pictures_of(prompt: int) -> list[np.ndarray]:
    return [picture(10 * prompt + i, height=30 + 7 * i) for i in range(PROMPTS[prompt][1])]


def requests(engine: Engine, **changes: Any) -> list[Request]:
    return [
        Request(
            prompt=text,
            images=tuple(map(engine.prepare, pictures_of(i))),
            **({"sampling": GREEDY} | changes),
        )
        for i, (text, _) in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_with_nothing_skipped_it_says_what_transformers_says(
    family: Family, stock: LlavaForConditionalGeneration, stock_inputs: Callable[..., Any], ignore_eos: bool
) -> None:
    engine = Engine(family)
    sampling = Sampling(max_tokens=30, ignore_eos=ignore_eos)
    eos = None if ignore_eos else stock.generation_config.eos_token_id
    for prompt, answer in enumerate(engine.answer(requests(engine, sampling=sampling))):
        inputs = stock_inputs(PROMPTS[prompt][0], pictures_of(prompt))
        output = stock.generate(**inputs, max_new_tokens=30, do_sample=False, eos_token_id=eos)
        assert list(answer.output_ids) == output[0, inputs["input_ids"].shape[1] :].tolist()


@contextmanager
def bypassing_the_ffn(stock: LlavaForConditionalGeneration, keeps: Tensor) -> Iterator[None]:
    """Inside the block the FFN of every layer adds nothing to rows where `keeps`, (rows,), is 0."""

    class Bypass(nn.Module):
        def __init__(self, ffn: nn.Module) -> None:
            super().__init__()
            self.ffn = ffn

        def forward(self, rows: Tensor) -> Tensor:
            return self.ffn(rows) * keeps[None, :, None]

    layers = stock.model.language_model.layers
    blocks = [layer.mlp for layer in layers]
    try:
        for layer in layers:
            layer.mlp = Bypass(layer.mlp)
        yield
    finally:
        for layer, block in zip(layers, blocks, strict=True):
            layer.mlp = block


def greedy_by_rereading(
    stock: LlavaForConditionalGeneration, prompt: reference.Prompt, *, forget: bool, num_tokens: int
) -> list[int]:
    """Generate with the stock decoder and no cache: everything is read again for each token, under a mask."""
    start, rows, tokens = len(prompt.rows), prompt.rows, []
    for _ in range(num_tokens):
        seen = torch.ones(len(rows), len(rows), dtype=torch.bool).tril()
        if forget:
            seen[start:, sorted(prompt.skipped)] = False
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        keeps = torch.tensor([float(position not in prompt.skipped) for position in range(len(rows))])
        with bypassing_the_ffn(stock, keeps):
            read = stock.model.language_model(inputs_embeds=rows[None], attention_mask=mask[None, None])
        tokens.append(int(stock.lm_head(read.last_hidden_state[0, -1]).argmax()))
        rows = torch.cat([rows, stock.get_input_embeddings()(torch.tensor(tokens[-1:]))])
    return tokens


@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_with_skipping_it_says_what_the_stock_decoder_says_under_a_mask(
    family: Family, stock: LlavaForConditionalGeneration, stock_inputs: Callable[..., Any], setting: str
) -> None:
    skip = SETTINGS[setting]
    engine = Engine(family, skip=skip)
    for prompt, answer in enumerate(engine.answer(requests(engine))):
        inputs = stock_inputs(PROMPTS[prompt][0], pictures_of(prompt))
        assembled = reference.assemble(
            stock,
            inputs["input_ids"][0].tolist(),
            inputs.get("pixel_values"),
            retain=skip.retain,
            merge_skipped_to=skip.merge_skipped_to,
            summary=family.summary.state_dict() if skip.summarise else None,
        )
        assert (len(assembled.rows), len(assembled.skipped)) == (answer.plan.prompt_tokens, answer.plan.skipped_tokens)
        expected = greedy_by_rereading(stock, assembled, forget=skip.forget_skipped, num_tokens=GREEDY.max_tokens)
        assert list(answer.output_ids) == expected


def mixed(engine: Engine) -> list[Request]:
    """Other lengths, images, settings and samplings side by side."""
    skips = [CARRIED, None, SETTINGS["unmerged"], SETTINGS["remembered"], SkipConfig(), SETTINGS["carried"]]
    samplings = [
        GREEDY,
        Sampling(max_tokens=20, temperature=1.3, seed=4, ignore_eos=True),
        Sampling(max_tokens=7, temperature=0.8, top_k=20, top_p=0.9, seed=5),
        Sampling(max_tokens=15, temperature=2.0, top_p=0.95, seed=4),
        Sampling(max_tokens=3),
        Sampling(max_tokens=20, temperature=1.3, seed=9, ignore_eos=True),
    ]
    questions = [*requests(engine), *requests(engine)]
    return [
        Request(prompt=question.prompt, images=question.images, skip=skip, sampling=sampling)
        for question, skip, sampling in zip(questions, skips, samplings, strict=False)
    ]


def outputs(engine: Engine, asked: Sequence[Request]) -> list[tuple[int, ...]]:
    return [answer.output_ids for answer in engine.answer(asked)]


def test_a_request_in_a_mixed_batch_gets_the_tokens_it_gets_alone(family: Family) -> None:
    engine = Engine(family, skip=CARRIED)
    asked = mixed(engine)
    alone = [outputs(Engine(family, skip=CARRIED), [request])[0] for request in asked]
    assert len(set(alone)) == len(alone), "the requests must not all say the same"
    assert outputs(engine, asked) == alone
    assert outputs(engine, asked[::-1]) == alone[::-1]


NARROW = {
    "few run": {"max_running": 2},
    "prompts come one by one": {"max_step_tokens": 60},
    "prompts are read in parts": {"max_step_tokens": 17},
    "prompts are read token by token": {"max_step_tokens": 1},
}


@pytest.mark.parametrize("limits", NARROW.values(), ids=NARROW)
def test_want_of_room_changes_no_token(family: Family, limits: dict[str, int]) -> None:
    roomy, narrow = Engine(family, skip=CARRIED), Engine(family, skip=CARRIED, **limits)
    asked = mixed(roomy)
    assert outputs(narrow, asked) == outputs(roomy, asked)
    assert narrow.stats().free_pages == narrow.stats().num_pages


@pytest.mark.parametrize("limits", [{}, {"max_step_tokens": 23}, {"max_running": 3}])
def test_giving_way_to_an_older_answer_changes_no_token(family: Family, limits: dict[str, int]) -> None:
    roomy, narrow = Engine(family, skip=CARRIED), Engine(family, skip=CARRIED, cache_tokens=128, **limits)
    asked = [
        replace(request, sampling=replace(request.sampling, max_tokens=30 + 10 * i, ignore_eos=True))
        for i, request in enumerate(mixed(roomy))
    ]
    assert outputs(narrow, asked) == outputs(roomy, asked)
    assert narrow.stats().free_pages == narrow.stats().num_pages
    assert narrow.stats().preemptions > 2 > roomy.stats().preemptions == 0


FORKS = {
    "roomy": {},
    "beyond the step": {"max_step_tokens": 30},
    "the trunk in parts": {"max_step_tokens": 7},
    "few run": {"max_running": 3},
    "answers give way": {"cache_tokens": 160},
    "all of it": {"cache_tokens": 160, "max_step_tokens": 19, "max_running": 5},
}


@pytest.mark.parametrize("skip", [CARRIED, SETTINGS["remembered"]], ids=["carried", "remembered"])
@pytest.mark.parametrize("limits", FORKS.values(), ids=FORKS)
def test_questions_about_one_image_share_its_reading_and_are_answered_as_if_alone(
    family: Family, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], skip: SkipConfig
) -> None:
    engine = Engine(family, skip=skip, **limits)
    images = [engine.prepare(picture(seed)) for seed in (0, 1)]
    sampling = Sampling(max_tokens=15, ignore_eos=True, temperature=1.0)
    asked = [
        Request(prompt=f"{'what ' * (1 + i % 4)}is there", images=(image,) * (1 + i % 2), sampling=sampling)
        for image in images
        for i in (0, 2, 4, 1, 3)
    ]
    asked += [replace(asked[0], request_id=f"draw {i}", sampling=replace(sampling, seed=i)) for i in range(4)]
    alone = outputs(Engine(family, skip=skip, max_running=1), asked)
    passes: list[int] = []
    encode = family.encode
    monkeypatch.setattr(family, "encode", lambda pixels, **kw: (passes.append(len(pixels)), encode(pixels, **kw))[1])
    assert outputs(engine, asked) == alone
    assert engine.stats().free_pages == engine.stats().num_pages
    assert engine.stats().shared_prompt_tokens > 0
    assert sum(passes) == 2, "each image once, alone or as a pair"


@pytest.mark.parametrize("cache_tokens", [32, 48, 64])
def test_what_would_not_fit_if_it_were_shared_is_read_by_each(plain_family: Family, cache_tokens: int) -> None:
    skip = SkipConfig(retain=2, forget_skipped=True)
    engine = Engine(plain_family, skip=skip, cache_tokens=cache_tokens)
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    images = (engine.prepare(picture(0)),) * 2
    asked = [Request(prompt=f"what {word}", images=images, sampling=sampling) for word in ("is", "shape", "is")]
    for request in asked:
        engine.add(request)
    said: dict[str, tuple[int, ...]] = {}
    for _ in range(100):
        said.update({delta.request_id: delta.answer.output_ids for delta in engine.step() if delta.answer})
    alone = outputs(Engine(plain_family, skip=skip, max_running=1), asked)
    assert [said.get(request.request_id) for request in asked] == alone


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_those_who_share_an_image_go_on_when_one_of_them_is_cancelled(family: Family, place: int, steps: int) -> None:
    engine = Engine(family, skip=CARRIED, max_step_tokens=9)
    image = engine.prepare(picture(0))
    asked = [Request(prompt=f"what {word}", images=(image,), sampling=GREEDY) for word in ("shape", "is", "there")]
    alone = outputs(Engine(family, skip=CARRIED, max_running=1), asked)
    for request in asked:
        engine.add(request)
    heard = [delta for _ in range(steps) for delta in engine.step()]
    engine.cancel(asked[place].request_id)
    while engine.has_work:
        heard += engine.step()
    finished = {delta.request_id: delta.answer for delta in heard if delta.answer}
    for i, request in enumerate(asked):
        said = finished[request.request_id].output_ids
        assert said == (alone[i] if i != place else alone[i][: len(said)])
    assert engine.stats().free_pages == engine.stats().num_pages


def test_two_hundred_requests_of_all_kinds_and_cancellations_leave_no_page_and_lose_no_token(family: Family) -> None:
    rng = random.Random(0)
    engine = Engine(family, skip=CARRIED, cache_tokens=320, max_step_tokens=40, max_running=12)
    pixels = [engine.prepare(picture(seed)) for seed in range(4)]
    words = [
        "describe",
        "what",
        "shape",
        "is",
        "there",
        "in",
        "the",
        "red",
        "blue",
        "picture",
        "of",
        "a",
        "big",
        "star",
    ]
    asked = [
        Request(
            request_id=str(i),
            prompt=" ".join(rng.choices(words, k=rng.randint(1, 40))),
            images=tuple(rng.choices(pixels, k=rng.choice((0, 1, 1, 2, 3)))),
            skip=rng.choice([CARRIED, None, SkipConfig(), *SETTINGS.values()]),
            sampling=Sampling(
                max_tokens=rng.randint(1, 60), temperature=rng.choice((0, 1.5)), seed=i, ignore_eos=rng.random() < 0.8
            ),
        )
        for i in range(200)
    ]
    cancelled = set(rng.sample(range(200), 30))
    waiting, said = asked[::-1], {}
    while waiting or engine.has_work:
        for _ in range(min(len(waiting), rng.randint(0, 6))):
            engine.add(waiting.pop())
        for delta in engine.step():
            said[delta.request_id] = delta.answer or said.get(delta.request_id)
        if rng.random() < 0.3 and cancelled:
            engine.cancel(str(cancelled.pop()))
    assert (engine.stats().free_pages, len(said)) == (engine.stats().num_pages, 200)
    assert engine.stats().preemptions > 5
    assert engine.stats().shared_prompt_tokens > 0
    for whole in Engine(family, skip=CARRIED).answer(asked):
        answer = said[whole.request_id]
        if answer.finish_reason == "cancelled":
            assert answer.output_ids == whole.output_ids[: len(answer.output_ids)]
        else:
            assert (answer.output_ids, answer.text) == (whole.output_ids, whole.text)


def test_another_seed_gives_another_answer_and_the_same_seed_the_same(family: Family) -> None:
    engine = Engine(family)
    ask = [
        Request(prompt="describe", sampling=Sampling(max_tokens=20, temperature=1.5, seed=seed, ignore_eos=True))
        for seed in (0, 1, 0)
    ]
    # The same words twice in one batch, too: ids are drawn per request.
    first, other, again = outputs(engine, ask)
    assert first == again != other
