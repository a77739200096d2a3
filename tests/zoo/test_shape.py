"""The shipped model's tokenizer, processor and config."""

from __future__ import annotations

import random

import numpy as np
import pytest
from transformers import LlavaForConditionalGeneration

from skipvision.families.checkpoint import scaled_paper_setting
from skipvision.scenes import scene
from skipvision.zoo.shape import VISUAL_TOKENS, build_processor, build_tokenizer, model_config
from skipvision.zoo.sights import CHARACTERS
from skipvision.zoo.turns import MADE_IN_TURN, questions_about


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("a large red circle at the top left", "the text RXP", "Grüße, 世界 🙂", "  two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_rendered_letters_are_one_token_each(tokenizer):
    for letters in ("AC", CHARACTERS[:8], CHARACTERS[-8:], "TOTAL"):
        assert tokenizer.tokenize(f"the text {letters}")[-len(letters) :] == list(letters)


def test_answers_are_short(tokenizer):
    answers = [
        answer
        for seed in range(40)
        for kind in MADE_IN_TURN
        for _, answer, _ in questions_about(kind, seed, questions=1)
    ]
    assert max(len(tokenizer(answer)["input_ids"]) for answer in answers) < 75


def test_the_processor_pads_to_a_square_and_makes_256_tokens(tokenizer):
    processor = build_processor(tokenizer)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    picture = np.random.default_rng(0).integers(0, 255, (90, 200, 3), np.uint8)
    read = processor(images=picture, text=prompt, add_special_tokens=False, return_tensors="np")
    assert read["pixel_values"].shape == (1, 3, 224, 224)
    assert (read["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum() == VISUAL_TOKENS == 256
    assert prompt == "<s>USER: <image>\nWhat is it? ASSISTANT:"


def test_the_model_is_small_and_its_setting_is_the_papers_scaled():
    model = LlavaForConditionalGeneration(model_config())
    assert sum(p.numel() for p in model.parameters()) * 4 < 30e6
    setting = scaled_paper_setting(VISUAL_TOKENS)
    assert (setting.retain, setting.merge_skipped_to) == (44, 69)
    assert setting.summarise
    assert setting.forget_skipped
    assert (scaled_paper_setting(576).retain, scaled_paper_setting(576).merge_skipped_to) == (100, 156)


def test_questions_are_drawn_from_the_generator_given():
    assert scene(3).questions(random.Random(1), 4) == scene(3).questions(random.Random(1), 4)
