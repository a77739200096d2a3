"""Log-probabilities are the model's own, whatever a token was chosen by, and only for those who ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Answer, Engine, Request, Sampling, TokenLogprobs
from skipvision.engine.logprobs import token_logprobs
from skipvision.families import Family
from tests.engine.subjects import CARRIED, picture

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.0, -torch.inf], [1.0, 1.0, 4.0]])
SAMPLINGS = [
    Sampling(max_tokens=9, ignore_eos=True, logprobs=5),
    Sampling(max_tokens=12, ignore_eos=True, logprobs=0, temperature=1.5, top_k=30, seed=3),
    Sampling(max_tokens=7, ignore_eos=True),
    Sampling(max_tokens=7, ignore_eos=True, logprobs=20, temperature=0.7, top_p=0.8),
]


@torch.no_grad()
def stock_logprobs(
    stock: LlavaForConditionalGeneration, inputs: dict[str, Any], output_ids: tuple[int, ...]
) -> torch.Tensor:
    """transformers' log_softmax for each place of an answer: (tokens, vocab)."""
    prompt = stock(**inputs, use_cache=True)
    # The decoder alone: a random model also writes the image token, which is no image then.
    said = torch.tensor([output_ids[:-1]])
    rest = stock.model.language_model(input_ids=said, past_key_values=prompt.past_key_values)
    logits = torch.cat([prompt.logits[0, -1:], stock.lm_head(rest.last_hidden_state[0])])
    return logits.log_softmax(dim=-1)


def test_they_are_what_transformers_gives_the_same_tokens(
    family: Family, stock: LlavaForConditionalGeneration, stock_inputs: Callable[..., Any]
) -> None:
    engine = Engine(family)
    image = engine.prepare(picture(0))
    answers = engine.answer([Request(prompt="what is there", images=(image,), sampling=each) for each in SAMPLINGS])
    inputs = stock_inputs("what is there", [picture(0)])
    for sampling, answer in zip(SAMPLINGS, answers, strict=True):
        if sampling.logprobs is None:
            assert answer.logprobs is None
            continue
        expected = stock_logprobs(stock, inputs, answer.output_ids)
        assert tuple(told.token_id for told in answer.logprobs) == answer.output_ids
        chosen = expected[range(len(answer.output_ids)), list(answer.output_ids)]
        torch.testing.assert_close(torch.tensor([told.logprob for told in answer.logprobs]), chosen)
        values, ids = expected.topk(sampling.logprobs) if sampling.logprobs else (expected[:, :0], expected[:, :0])
        assert [[token for token, _ in told.likeliest] for told in answer.logprobs] == ids.tolist()
        torch.testing.assert_close(torch.tensor([[x for _, x in told.likeliest] for told in answer.logprobs]), values)


def test_deltas_carry_what_the_answer_holds_through_preemption_and_parts(family: Family) -> None:
    roomy, narrow = Engine(family, skip=CARRIED), Engine(family, skip=CARRIED, cache_tokens=128, max_step_tokens=17)
    image = roomy.prepare(picture(0))
    asked = [
        Request(prompt="what is there", images=(image,) * (i % 2), sampling=replace(each, max_tokens=30 + 9 * i))
        for i, each in enumerate(SAMPLINGS)
    ]
    for request in asked:
        narrow.add(request)
    deltas = []
    while narrow.has_work:
        deltas += narrow.step()
    assert narrow.stats().preemptions > 0
    answers = {delta.request_id: delta.answer for delta in deltas if delta.answer}
    for expected in roomy.answer(asked):
        answer: Answer = answers[expected.request_id]
        said = [delta.logprobs for delta in deltas if delta.request_id == expected.request_id]
        assert said == list(answer.logprobs or [None] * len(answer.output_ids))
        assert [told.likeliest for told in answer.logprobs or ()] == [
            tuple((token, pytest.approx(logprob, abs=1e-4)) for token, logprob in told.likeliest)
            for told in expected.logprobs or ()
        ]


def test_each_row_gets_as_many_of_the_likeliest_as_it_asks_for_and_others_nothing() -> None:
    first, second, third = token_logprobs(LOGITS, [0, 1, 2], [2, None, 0])
    own = LOGITS.log_softmax(dim=-1)
    assert first == TokenLogprobs(0, own[0, 0].item(), ((1, own[0, 1].item()), (2, own[0, 2].item())))
    assert second is None
    assert third == TokenLogprobs(2, own[2, 2].item())


def test_a_vocabulary_smaller_than_the_wish_is_named_whole() -> None:
    [told] = token_logprobs(LOGITS[1:2], [0], [20])
    assert [token for token, _ in told.likeliest] == [0, 1, 2]
    assert told.likeliest[2][1] == -torch.inf
