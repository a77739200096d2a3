"""Chat messages as people and tables write them: read strictly, or refused by the number of the message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipvision.conversation import ImagePart, Message, images_of, read_messages, to_json
from skipvision.errors import PromptError

QUESTION = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}},
                                        {"type": "text", "text": "What is it?"}]}  # fmt: skip


def test_messages_are_read_with_their_images_where_they_stand():
    system, asked, answered, again = read_messages(
        [
            {"role": "developer", "content": "Be brief."},
            QUESTION,
            {"role": "assistant", "content": [{"type": "text", "text": "A star."}]},
            {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image", "image": "c.png"},
                                         {"type": "text", "text": "?"}]},
        ]
    )  # fmt: skip
    assert system == Message("system", ("Be brief.",))
    assert asked.parts == (ImagePart("https://a/b.png"), "What is it?")
    assert answered.text == "A star."
    assert again.parts == ("And ", ImagePart("c.png"), "?")
    assert images_of((system, asked, answered, again)) == (ImagePart("https://a/b.png"), ImagePart("c.png"))


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ({"type": "image_url", "image_url": "d.png"}, "d.png"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
         "data:image/png;base64,AAAA"),
        ({"type": "image", "image": b"\x89PNG"}, b"\x89PNG"),
        ({"type": "image", "image": {"bytes": b"\x89PNG", "path": "a.png"}}, b"\x89PNG"),
        ({"type": "image", "image": {"bytes": None, "path": "a.png"}}, "a.png"),
        ({"type": "image", "url": "https://a/b"}, "https://a/b"),
        ({"type": "image"}, None),
        ({"type": "image", "text": None, "image_url": None, "image": "e.png"}, "e.png"),
    ],
)  # fmt: skip
def test_an_image_may_be_named_in_every_usual_way(part, source):
    [message] = read_messages([{"role": "user", "content": [part, {"type": "text", "text": "?", "image": None}]}])
    assert message.images == (ImagePart(source),)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "a list of at least one"), ([], "a list of at least one"), ("{}", "a list of at least one"),
        ("[", "not JSON"), ("[" * 100_000, "not JSON"), (["hello"], "a list of at least one"),
        ([QUESTION, {"role": "tool", "content": "x"}], "message 2: the role must be one of"),
        ([{"role": None, "content": "x"}], "message 1: the role"), ([{"role": ["user"], "content": "x"}], "the role"),
        ([{"role": "user", "content": None}], "message 1: the content must be text or a list of parts; got NoneType"),
        ([{"role": "user", "content": 7}], "got int"), ([{"role": "user", "content": []}], "got list"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "must be text, image_url or image"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]}], "names no address"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "has no text"),
        ([{"role": "system", "content": QUESTION["content"]}, QUESTION], "message 1: only the user may show an image"),
        ([QUESTION, {"role": "assistant", "content": "A"}], "the last message must be the user's"),
        ('[{"role": "user", "content": "\\ud800"}]', "message 1 holds half of a character"),
        ([{"role": "user", "content": [{"type": "image", "image": "\ud800"}, QUESTION["content"][1]]}], "half of a"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused_with_the_place(value, says):
    with pytest.raises(PromptError, match=says) as caught:
        read_messages(value)
    assert caught.value.code == "messages_invalid"


@pytest.mark.parametrize("content", ["", "  \n", [{"type": "image", "image": "a.png"}]])
def test_a_conversation_that_asks_nothing_has_no_prompt(content):
    with pytest.raises(PromptError, match="ask something") as caught:
        read_messages([{"role": "user", "content": content}])
    assert caught.value.code == "prompt_missing"


def test_json_text_is_read_as_the_list_that_it_is():
    assert read_messages(json.dumps([QUESTION])) == read_messages([QUESTION])


texts = st.text().filter(str.strip)
parts = st.lists(st.one_of(texts, st.builds(ImagePart, st.just("a.png"))), min_size=1, max_size=4)
turns = st.lists(st.tuples(parts, texts), max_size=3)


@given(turns=turns, last=texts)
def test_writing_a_conversation_down_leaves_out_where_its_images_are_and_nothing_else(turns, last):
    said = [
        message
        for parts, answer in turns
        for message in (Message("user", tuple(parts)), Message("assistant", (answer,)))
    ]
    conversation = (*said, Message("user", (last,)))
    places = tuple(
        Message(message.role, tuple(part if isinstance(part, str) else ImagePart() for part in message.parts))
        for message in conversation
    )
    assert read_messages(to_json(conversation)) == places
