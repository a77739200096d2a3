"""Training samples as people write them -> one form: who says what, and which image stands where.

Two formats are read. LLaVA's: `conversations`, a list of `{"from": "human" | "gpt" | "system", "value": text}`, with
`image` (or `images`) beside it and `<image>` in the text. And `messages`: `{"role": "user" | "assistant" | "system",
"content": text or parts}`, whose images are parts of their own or stand in `images` in order. Either list may be JSON
text, as Parquet files often hold it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from skipvision.conversation import Conversation, ImagePart, Message, Role
from skipvision.errors import SampleError

PLACEHOLDER = "<image>"
"""Where an image stands in the text of LLaVA's format."""

_ROLES: dict[str, Role] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
_SOURCES = ("image", "path", "url", "bytes")
"""Keys of a part that may hold its image."""


def read_conversation(row: Any) -> Conversation:
    """Read one sample.

    Raises:
        SampleError: `sample_invalid`, `sample_turns` or `sample_images`, saying what is wrong with it.
    """
    if not isinstance(row, Mapping):
        raise SampleError(f"a sample must be an object with conversations or messages; got {type(row).__name__}")
    images = [*_images_of(row)]
    if row.get("conversations") is not None:
        said = [_said(each, "from", "value") for each in _listed(row["conversations"], "conversations")]
    elif row.get("messages") is not None:
        said = [_said(each, "role", "content") for each in _listed(row["messages"], "messages")]
    else:
        raise SampleError("the sample has neither conversations nor messages")
    conversation = _place_images(said, images)
    _check_turns(conversation)
    return conversation


def _images_of(row: Mapping[str, Any]) -> Iterator[ImagePart]:
    """Those that stand beside the conversation."""
    named = row.get("image") if row.get("image") is not None else row.get("images")
    if named is None:
        return
    for each in named if isinstance(named, Sequence) and not isinstance(named, str | bytes) else [named]:
        source = _source(each)
        if source is None:
            raise SampleError("an image of the sample is neither bytes nor a path or address", code="sample_images")
        yield ImagePart(source)


def _source(value: Any) -> bytes | str | None:
    """The image itself, or its path or address: alone, or under one of the usual keys."""
    if isinstance(value, Mapping):
        # Of bytes and path, as data set libraries write both, the bytes are the image.
        found = [value[key] for key in reversed(_SOURCES) if value.get(key) is not None]
        return _source(found[0]) if found else None
    return value if isinstance(value, bytes | str) and value else None


def _listed(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise SampleError(f"{name} is text that is not JSON") from error
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise SampleError(f"{name} must be a list of at least one message; got {value!r:.60}")
    return value


def _said(message: Any, who: str, what: str) -> tuple[Role, Any]:
    """Role and content of a message as written."""
    if not isinstance(message, Mapping) or str(message.get(who)) not in _ROLES:
        known = ", ".join(sorted(_ROLES))
        raise SampleError(f"a message must say under {who!r} who speaks, one of {known}; got {message!r:.80}")
    return _ROLES[str(message[who])], message.get(what)


def _place_images(said: Sequence[tuple[Role, Any]], images: list[ImagePart]) -> Conversation:
    """Messages whose parts are text and images, those beside the conversation put where they belong."""
    waiting = iter(images)
    marked = bool(images)
    messages = [Message(role, tuple(_parts(content, waiting, marked=marked))) for role, content in said]
    left = [*waiting]
    first = next((at for at, message in enumerate(messages) if message.role == "user"), None)
    if left and len(left) == len(images) and first is not None:  # none is marked: they are what the question is about
        messages[first] = Message("user", (*left, *messages[first].parts))
    elif left:
        raise SampleError(f"{len(images)} images are given and {len(left)} have no place", code="sample_images")
    return tuple(messages)


def _parts(content: Any, waiting: Iterator[ImagePart], *, marked: bool) -> Iterator[str | ImagePart]:
    """Text and images of one message.

    Args:
        waiting: images beside the conversation that have no place yet.
        marked: whether the placeholder in a text stands for one of them.
    """
    if isinstance(content, str):
        yield from _around_placeholders(content, waiting) if marked else [content]
        return
    if not _is_list_of_objects(content):
        raise SampleError(f"a message's content must be text or a list of parts; got {content!r:.60}")
    for part in content:
        match part.get("type"):
            case "text" if isinstance(part.get("text"), str):
                yield part["text"]
            case "image":
                source = _source({key: part[key] for key in _SOURCES if key in part})
                yield ImagePart(source) if source is not None else _next_image(waiting)
            case "image_url":
                source = _source(part.get("image_url"))
                if source is None:
                    raise SampleError("a part of type image_url names no address", code="sample_images")
                yield ImagePart(source)
            case kind:
                raise SampleError(f"a part of a message must be text, image or image_url; got {kind!r}")


def _around_placeholders(text: str, waiting: Iterator[ImagePart]) -> Iterator[str | ImagePart]:
    """A text cut at its placeholders, without the line break that sets an image off: the chat template writes that."""
    pieces = text.split(PLACEHOLDER)
    for at, piece in enumerate(pieces):
        if at > 0:
            yield _next_image(waiting)
            piece = piece.removeprefix("\n")
        if at < len(pieces) - 1:
            piece = piece.removesuffix("\n")
        if piece.strip() or len(pieces) == 1:
            yield piece


def _next_image(waiting: Iterator[ImagePart]) -> ImagePart:
    image = next(waiting, None)
    if image is None:
        raise SampleError("the text has places for more images than are given", code="sample_images")
    return image


def _is_list_of_objects(content: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(content, Sequence) and bool(content) and all(isinstance(part, Mapping) for part in content)


def _check_turns(conversation: Conversation) -> None:
    """Perhaps a system message, then question and answer in turn."""
    spoken = conversation[1:] if conversation[0].role == "system" else conversation
    in_turn = all(message.role == ("user", "assistant")[at % 2] for at, message in enumerate(spoken))
    if not spoken or not in_turn or spoken[-1].role != "assistant":
        order = ", ".join(message.role for message in conversation[:6])
        raise SampleError(
            f"user and assistant must take turns and end with an answer; got {order}", code="sample_turns"
        )
    for message in spoken[1::2]:
        if message.images:
            raise SampleError("an answer has an image; only what is asked may have", code="sample_images")
        if not "".join(part for part in message.parts if isinstance(part, str)).strip():
            raise SampleError("an answer is blank", code="sample_turns")
