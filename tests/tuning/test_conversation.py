"""What people write as samples, and what is read of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipvision.errors import SampleError
from skipvision.tuning.conversation import ImagePart, Message, read_conversation

ASKED = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
ANSWER = {"role": "assistant", "content": "A cat."}
WANTED = (Message("user", (ImagePart("cat.png"), "What?")), Message("assistant", ("A cat.",)))


@pytest.mark.parametrize(
    "row",
    [
        {"image": "cat.png", "conversations": ASKED},
        {"image": ["cat.png"], "conversations": ASKED},
        {"images": ["cat.png"], "conversations": ASKED},
        {"image": {"bytes": None, "path": "cat.png"}, "conversations": ASKED},
        {"image": "cat.png", "conversations": json.dumps(ASKED)},
        {"image": "cat.png", "conversations": [{"from": "human", "value": "What?"}, ASKED[1]]},
        {"images": ["cat.png"], "messages": [{"role": "user", "content": "<image>What?"}, ANSWER]},
        {"images": ["cat.png"], "messages": [{"role": "user", "content": "What?"}, ANSWER]},
        {
            "images": ["cat.png"],
            "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, ANSWER],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "What?"}]},
                ANSWER,
            ]
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "cat.png"}, "text": None},
                        {"type": "text", "text": "What?", "image_url": None},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
            ]
        },
    ],
)
def test_every_usual_way_to_write_a_sample_says_the_same(row: dict[str, Any]) -> None:
    assert read_conversation(row) == WANTED


def test_images_stand_where_the_text_places_them() -> None:
    row = {
        "image": ["a.png", "b.png"],
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Compare <image> with\n<image>\nplease."},
            {"from": "gpt", "value": "Same."},
            {"from": "human", "value": "Sure?"},
            {"from": "gpt", "value": "Yes."},
        ],
    }
    system, first, *others = read_conversation(row)
    assert system == Message("system", ("Be brief.",))
    assert first.parts == ("Compare ", ImagePart("a.png"), " with", ImagePart("b.png"), "please.")
    assert [message.parts for message in others] == [("Same.",), ("Sure?",), ("Yes.",)]


def test_bytes_are_an_image_and_come_before_a_path_beside_them() -> None:
    row = {"image": {"bytes": b"\x89PNG", "path": "cat.png"}, "conversations": ASKED}
    assert read_conversation(row)[0].images == (ImagePart(b"\x89PNG"),)


def test_without_images_the_placeholder_is_what_somebody_wrote() -> None:
    (asked, _) = read_conversation({"messages": [{"role": "user", "content": "What does <image> mean?"}, ANSWER]})
    assert asked.parts == ("What does <image> mean?",)


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (None, "sample_invalid", "NoneType"),
        ({"image": "cat.png"}, "sample_invalid", "neither conversations nor messages"),
        ({"conversations": "{not json"}, "sample_invalid", "not JSON"),
        ({"conversations": []}, "sample_invalid", "at least one"),
        ({"conversations": [{"from": "dog", "value": "?"}]}, "sample_invalid", "dog"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, "sample_invalid", "text or a list of parts"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}, ANSWER]}, "sample_invalid", "video"),
        ({"conversations": ASKED[:1], "image": "cat.png"}, "sample_turns", "got user"),
        ({"conversations": ASKED[1:]}, "sample_turns", "got assistant"),
        (
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": " "}]},
            "sample_turns",
            "blank",
        ),
        ({"conversations": ASKED, "image": ["a.png", "b.png"]}, "sample_images", "1 have no place"),
        (
            {"conversations": [{"from": "human", "value": "<image> <image>"}, ASKED[1]], "image": "a"},
            "sample_images",
            "more",
        ),
        ({"conversations": ASKED, "image": 7}, "sample_images", "neither bytes"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "sample_images", "more images"),
        (
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<image>"}], "image": "a"},
            "sample_images",
            "answer has an image",
        ),
    ],
)
def test_what_cannot_be_learnt_from_says_why(row: Any, code: str, words: str) -> None:
    with pytest.raises(SampleError, match=words) as refusal:
        read_conversation(row)
    assert refusal.value.code == code


WORDS = st.sampled_from(
    ["user", "assistant", "human", "gpt", "text", "image", "image_url", "<image>", "a.png", "", "[]"]
)
KEYS = st.sampled_from(
    ["image", "images", "conversations", "messages", "from", "value", "role", "content", "type", "text"]
)
ANYTHING = st.recursive(
    st.none() | st.integers() | st.binary(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, ANYTHING, max_size=5))
def test_whatever_a_row_holds_it_is_a_conversation_or_a_sample_error(row: dict[str, Any]) -> None:
    try:
        conversation = read_conversation(row)
    except SampleError:
        return
    assert conversation[-1].role == "assistant"
