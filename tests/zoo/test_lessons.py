"""Lessons: several turns behind one picture are what each would be alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from skipvision.exercises.drawing import Label, Sheet
from skipvision.families.checkpoint import scaled_paper_setting
from skipvision.families.patch import skipping
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.gaze import gaze_loss
from skipvision.zoo.lessons import Reader, _exchange, _Turns, lessons
from skipvision.zoo.photograph import normalise
from skipvision.zoo.schedule import Schedule
from skipvision.zoo.shape import VISUAL_TOKENS, build_tokenizer, model_config
from skipvision.zoo.sights import patch_truth
from skipvision.zoo.turns import MADE_IN_TURN, Turn

SKIP = scaled_paper_setting(VISUAL_TOKENS)
KEPT = replace(SKIP, forget_skipped=False)


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(model_config()).eval()
    return Reader(model, SummaryPooling(model.config.text_config.hidden_size), build_tokenizer())


@pytest.fixture(scope="module")
def batch(reader):
    return lessons(reader.tokenizer, range(7, 10), kinds=MADE_IN_TURN, questions=3)


def by_turn(batch):
    return [replace(lesson, turns=(turn,)) for lesson in batch for turn in lesson.turns]


def weight(lesson):
    return sum((len(turn.ids) - turn.answer_start) ** 0.5 for turn in lesson.turns)


@pytest.mark.parametrize("config", [SkipConfig(), SKIP], ids=["all", "skip"])
@pytest.mark.parametrize("forgetting", [False, True])
def test_turns_do_not_see_each_other(reader, batch, config, forgetting):
    together = reader.loss(batch, config, forgetting=forgetting)
    alone = [(reader.loss([one], config, forgetting=forgetting), weight(one)) for one in by_turn(batch)]
    torch.testing.assert_close(together, sum(loss * n for loss, n in alone) / sum(n for _, n in alone))


@pytest.mark.parametrize("config", [SkipConfig(), SKIP], ids=["all", "skip"])
def test_a_lesson_is_the_prompt_that_the_model_is_asked_with(reader, batch, config):
    (lesson,) = by_turn(batch)[:1]
    (turn,) = lesson.turns
    before, after = list(reader.before), list(reader.after)
    ids = [*before, *[reader.model.config.image_token_id] * VISUAL_TOKENS, *after, *turn.ids]
    labels = [-100] * (len(ids) - len(turn.ids) + turn.answer_start) + list(turn.ids[turn.answer_start :])
    pixels = normalise(torch.from_numpy(lesson.pixels)[None])
    with skipping(reader.model, config, reader.summary):
        stock = reader.model(
            input_ids=torch.tensor([ids]), pixel_values=pixels, labels=torch.tensor([labels]), use_cache=False
        ).loss
    torch.testing.assert_close(reader.loss([lesson], config), stock)


def test_forgetting_teaches_what_decoding_will_see(reader, batch):
    (lesson,) = by_turn(batch)[:1]
    (turn,) = lesson.turns
    prompt = [
        *reader.before,
        *[reader.model.config.image_token_id] * VISUAL_TOKENS,
        *reader.after,
        *turn.ids[: turn.answer_start],
    ]
    answer = turn.ids[turn.answer_start :]
    pixels = normalise(torch.from_numpy(lesson.pixels)[None])
    with torch.no_grad(), skipping(reader.model, SKIP, reader.summary):
        read = reader.model(input_ids=torch.tensor([prompt]), pixel_values=pixels, use_cache=True)
        logits, cache = [read.logits[0, -1]], read.past_key_values
        for token in answer[:-1]:
            step = reader.model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            logits.append(step.logits[0, -1])
    decoded = torch.nn.functional.cross_entropy(torch.stack(logits), torch.tensor(answer))
    torch.testing.assert_close(reader.loss([lesson], SKIP, forgetting=True), decoded, rtol=1e-4, atol=1e-4)
    assert not torch.isclose(reader.loss([lesson], SKIP), decoded, rtol=1e-4, atol=1e-4)


def test_the_tower_learns_nothing_and_everything_else_does(reader, batch):
    reader.model.zero_grad()
    reader.loss(batch, SKIP, forgetting=True).backward()
    assert all(p.grad is None for p in reader.core.vision_tower.parameters())
    unused = [p for p in reader.learnable().parameters() if p.grad is None]
    assert not unused


def test_a_head_is_drawn_to_where_the_answer_is_read(reader):
    (lesson,) = lessons(reader.tokenizer, range(10_000_002, 10_000_003), kinds=["needle"], questions=8)
    module = reader.learnable()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    schedule = Schedule(module, peak=5e-3, steps=200, name="looking")
    first = None
    for _ in range(25):
        _, looks = reader.losses([lesson], SkipConfig.parse("saliency:64"))
        first = looks.item() if first is None else first
        schedule.learn(looks)
    module.load_state_dict(kept)
    assert looks.item() < 0.7 * first


def test_each_token_of_an_answer_is_looked_for_where_it_stands(reader):
    label = Label("K7", 0.5, 0.5, 0.1)
    sheet = Sheet((255, 255, 255), labels=(Label("AB", 0.2, 0.2, 0.1), label))
    read = {}
    for token, patch in _exchange(reader.tokenizer, Turn("What?", "K7", label.looks()), 1.0).looks:
        read.setdefault(token, []).append(patch)
    asked = len(reader.tokenizer("What? ASSISTANT:", add_special_tokens=False)["input_ids"])
    assert [*read] == [asked, asked + 1]
    truth = patch_truth(sheet)["middle"].flatten()
    assert all(truth[patch] == 1 for patches in read.values() for patch in patches)
    assert read[asked] < read[asked + 1]


def test_only_what_is_retained_is_looked_for(batch):
    turns = _Turns(batch, start=5)
    every = torch.arange(VISUAL_TOKENS).expand(len(batch), -1)
    shown = turns.looked_for(every)
    assert shown.sum() == len({(n, seen) for n, seen in turns._looks.tolist()}) > 0
    assert turns.looked_for(every[:, ::3]).equal(shown[:, ::3])


def test_what_is_read_nowhere_says_nothing_of_the_gaze():
    scores, weights = torch.tensor([[2.0, 0.0], [7.0, 9.0]]), torch.tensor([1.0, 3.0])
    wanted = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(gaze_loss(scores, wanted, weights), -scores[0].log_softmax(dim=0)[0])
    assert gaze_loss(scores, torch.zeros(2, 2), weights) == 0
