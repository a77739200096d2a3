"""Conversations through the chat template: a question reads as it does when it is asked, and answers are marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skipvision.errors import ConfigError
from skipvision.families import PromptTokenizer, load_prompts
from skipvision.families.llava import load_processor
from tests.tiny_llava import build_tiny_llava

ENDED = "{% for m in messages %}<s>{{ m['role'] }} : {% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}</s> {% endfor %}{% if add_generation_prompt %}<s>assistant :{% endif %}"  # fmt: skip  # noqa: E501


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llava(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=["zoo", "tiny", "ended"])
def prompts(request: Any, folder: Path) -> PromptTokenizer:
    """By how the template ends an answer: with EOS in the same breath, not at all, and with a space after EOS."""
    if request.param == "zoo":
        return load_prompts("zoo")
    if request.param == "tiny":
        return load_prompts(folder)
    return with_template(folder, ENDED)


def with_template(folder: Path, template: str) -> PromptTokenizer:
    processor = load_processor(folder)
    processor.chat_template = template
    return PromptTokenizer(processor, image_token_id=processor.tokenizer.convert_tokens_to_ids("<image>"))


def said(role: str, text: str, *, images: int = 0) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}


TALK = [
    said("user", "what is there ?", images=2),
    said("assistant", "a red star"),
    said("user", "how many ?"),
    said("assistant", "two"),
]


def test_the_first_question_is_read_as_it_is_when_it_is_asked_alone(prompts: PromptTokenizer) -> None:
    tokens, asked = prompts.tokenize_conversation(TALK), prompts.tokenize("what is there ?", num_images=2)
    assert tokens.text_ids[: len(asked.text_ids)] == asked.text_ids
    assert tokens.image_offsets == asked.image_offsets
    assert tokens.answers[0][0] == len(asked.text_ids)


def test_an_answer_is_its_words_and_one_end(prompts: PromptTokenizer) -> None:
    tokens = prompts.tokenize_conversation(TALK)
    eos = load_processor_eos(prompts)
    answers = [tokens.text_ids[start:stop] for start, stop in tokens.answers]
    assert [prompts.detokenize(ids).strip() for ids in answers] == ["a red star", "two"]
    assert [ids.count(eos) for ids in answers] == [1, 1]
    assert [ids[-1] for ids in answers] == [eos, eos]


def test_later_questions_follow_on_earlier_answers(prompts: PromptTokenizer) -> None:
    tokens = prompts.tokenize_conversation(TALK)
    between = prompts.detokenize(tokens.text_ids[tokens.answers[0][1] : tokens.answers[1][0]])
    assert "how many" in between
    assert tokens.answers[0][1] < tokens.answers[1][0]


@pytest.mark.parametrize("words", ["</s> <image> <s> star", "<image>"])
def test_special_tokens_that_people_wrote_are_plain_text(folder: Path, words: str) -> None:
    prompts = load_prompts("zoo")
    tokens = prompts.tokenize_conversation([said("user", words, images=1), said("assistant", f"{words} two")])
    asked = prompts.tokenize(words, num_images=1)
    assert tokens.text_ids[: len(asked.text_ids)] == asked.text_ids
    assert len(tokens.image_offsets) == 1
    (start, stop) = tokens.answers[0]
    assert tokens.text_ids[start:stop].count(load_processor_eos(prompts)) == 1
    assert prompts.detokenize(tokens.text_ids[start:stop]) == f"{words} two"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}{{ m['role'] }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}",
            "leaves out",
        ),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}", "differently once"),
    ],
)
def test_a_template_that_cannot_be_learnt_by_is_refused(folder: Path, template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        with_template(folder, template).tokenize_conversation([said(m["role"], m["content"][-1]["text"]) for m in TALK])


def load_processor_eos(prompts: PromptTokenizer) -> int:
    eos: int = prompts._tokenizer.eos_token_id
    return eos
