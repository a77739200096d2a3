"""What is said to a model, message by message: OpenAI's form, read strictly into plain values.

Read are `{"role": …, "content": text or parts}` with parts of type `text`, `image_url` and `image`. What training
samples look like beside that is `tuning.conversation`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skipvision.errors import PromptError

Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_IMAGE_KEYS = ("image", "bytes", "url", "path")
"""Where a part may hold its image. Of bytes and path, as data set libraries write both, the bytes are the image."""


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image in a message."""

    source: bytes | str | None = None
    """The encoded image, or its path or address. None: the next of the images that stand beside the conversation."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says at a time."""

    role: Role
    parts: tuple[str | ImagePart, ...]

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


Conversation = tuple[Message, ...]


def read_messages(value: Any) -> Conversation:
    """Read a question with what was said before it.

    Args:
        value: a list of messages, or the same as JSON text. Keys that hold None count as absent, since tables of
            structs have every key.

    Raises:
        PromptError: `messages_invalid`, naming the message and what is wrong with it; `prompt_missing`.
    """
    listed = _parsed(value)
    if not _is_list_of_objects(listed):
        raise _invalid("messages must be a list of at least one message, each an object with role and content")
    conversation = tuple(_message(each, number) for number, each in enumerate(listed, start=1))
    for number, message in enumerate(conversation, start=1):
        _check_characters(message, number)
    if conversation[-1].role != "user":
        raise _invalid(f"the last message must be the user's; it is the {conversation[-1].role}'s")
    if not conversation[-1].text.strip():
        raise PromptError("the last message has no text; ask something")
    return conversation


def images_of(conversation: Conversation) -> tuple[ImagePart, ...]:
    """All images, in the order in which they are shown."""
    return tuple(image for message in conversation for image in message.images)


def to_json(conversation: Conversation) -> str:
    """The conversation without its images' sources, as `read_messages` reads it."""
    return json.dumps([as_templates_read(message) for message in conversation], ensure_ascii=False)


def as_templates_read(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it, with a place for each image."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts]
    return {"role": message.role, "content": parts}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _invalid("messages are text that is not JSON") from error


def _message(message: Mapping[str, Any], number: int) -> Message:
    spoken_by = message.get("role")
    role = _ROLES.get(spoken_by) if isinstance(spoken_by, str) else None
    if role is None:
        raise _invalid(f"message {number}: the role must be one of {', '.join(_ROLES)}; got {spoken_by!r:.40}")
    content = message.get("content")
    parts = (content,) if isinstance(content, str) else _parts(content, number)
    if role != "user" and any(isinstance(part, ImagePart) for part in parts):
        raise _invalid(f"message {number}: only the user may show an image; this message is the {role}'s")
    return Message(role, parts)


def _check_characters(message: Message, number: int) -> None:
    said = [part if isinstance(part, str) else part.source for part in message.parts]
    try:
        "".join(each for each in said if isinstance(each, str)).encode()
    except UnicodeEncodeError as error:
        raise _invalid(f"message {number} holds half of a character (a lone surrogate); send valid Unicode") from error


def _parts(content: Any, number: int) -> tuple[str | ImagePart, ...]:
    if not _is_list_of_objects(content):
        raise _invalid(f"message {number}: the content must be text or a list of parts; got {type(content).__name__}")
    return tuple(_part(part, number) for part in content)


def _part(part: Mapping[str, Any], number: int) -> str | ImagePart:
    match part.get("type"):
        case "text" if isinstance(part.get("text"), str):
            return str(part["text"])
        case "image":
            return ImagePart(_source(part))
        case "image_url":
            if source := _source(part.get("image_url")):
                return ImagePart(source)
            raise _invalid(f"message {number}: a part of type image_url names no address")
        case "text":
            raise _invalid(f"message {number}: a part of type text has no text")
        case kind:
            raise _invalid(f"message {number}: a part must be text, image_url or image; got {kind!r:.40}")


def _source(value: Any) -> bytes | str | None:
    """The image itself, or its path or address: alone, or under one of the usual keys."""
    if isinstance(value, Mapping):
        return next((source for key in _IMAGE_KEYS if (source := _source(value.get(key)))), None)
    return value if isinstance(value, bytes | str) and value else None


def _is_list_of_objects(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return listed and bool(value) and all(isinstance(each, Mapping) for each in value)


def _invalid(message: str) -> PromptError:
    return PromptError(message, code="messages_invalid")
