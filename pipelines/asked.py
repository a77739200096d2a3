"""What a row asks, where it brings more than a prompt: messages with images, settings of its own, or a line of an
OpenAI batch.

Everything is read here, once, when the input is frozen. A row that is wrong keeps its place and becomes an error with a
code; it is never asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pipelines.location import IMAGES, PLACES, Location, places_of
from skipvision.conversation import images_of, read_messages, to_json
from skipvision.errors import InputError, PromptError

MESSAGES, SAMPLING = "__messages", "__sampling"
REFUSED_CODE, REFUSED_MESSAGE = "__refused_code", "__refused_message"

ASKED = pa.schema(
    [
        (IMAGES, PLACES),
        (MESSAGES, pa.string()),  # as `conversation.to_json` writes them; null: the row asks by its prompt
        (SAMPLING, pa.string()),  # a JSON object of the settings that the row has of its own
        (REFUSED_CODE, pa.string()),
        (REFUSED_MESSAGE, pa.string()),
    ]
)
"""Columns of the frozen input."""

Kind = Literal["messages", "openai"]
"""`messages`: a column of messages and perhaps one of settings; `openai`: `custom_id`, `method`, `url` and `body`."""

OPENAI_COLUMNS = ("custom_id", "method", "url", "body")
ENDPOINT = "/v1/chat/completions"

_SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "ignore_eos")
_NAMES = {"max_completion_tokens": "max_tokens"} | {name: name for name in _SETTINGS}
"""What a setting is called by callers -> by `Sampling`."""
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "stream": (False,), "logprobs": (False,), "presence_penalty": (0,),
    "frequency_penalty": (0,), "repetition_penalty": (1,), "min_p": (0,), "min_tokens": (0,), "logit_bias": ({},),
    "response_format": ({"type": "text"},), "tools": ([],), "skip_special_tokens": (True,), "detokenize": (True,),
    "stop_token_ids": ([],),
}  # fmt: skip
"""Settings that are not offered, with the values that ask for nothing."""
_SILENT = frozenset({"model", "messages", "user", "metadata", "store", "service_tier", "safety_identifier"})
"""Fields of a body that do not change what is answered. The job's model answers, whatever `model` says."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One row's question."""

    images: tuple[Location, ...] = ()
    messages: str | None = None
    sampling: str | None = None
    refused: InputError | None = None


def as_table(rows: Sequence[Asked]) -> pa.Table:
    """The columns `ASKED` of some rows."""
    values = {
        MESSAGES: [row.messages for row in rows],
        SAMPLING: [row.sampling for row in rows],
        REFUSED_CODE: [row.refused and row.refused.code for row in rows],
        REFUSED_MESSAGE: [row.refused and str(row.refused) for row in rows],
    }
    columns = [pa.array(values[name], ASKED.field(name).type) for name in values]
    return pa.Table.from_arrays([places_of([row.images for row in rows]), *columns], schema=ASKED)


def read_row(messages: Any, settings: Any, locate: Callable[[str], Location]) -> Asked:
    """A row of kind `messages`.

    Args:
        locate: where an image is that a message names by path or address.
    """
    return _refusing(lambda: _asked(messages, _object(settings, "sampling_params"), locate))


def read_openai_line(line: Mapping[str, Any], locate: Callable[[str], Location]) -> Asked:
    """A line of an OpenAI batch file.

    Args:
        line: its fields by `OPENAI_COLUMNS`.
    """
    return _refusing(lambda: _from_line(line, locate))


def _from_line(line: Mapping[str, Any], locate: Callable[[str], Location]) -> Asked:
    for name, wanted in (("method", "POST"), ("url", ENDPOINT)):
        if line.get(name) not in (None, wanted):
            raise _unsupported(f"{name} must be {wanted}; got {line[name]!r:.60}")
    body = _object(line.get("body"), "body")
    if not body:
        raise InputError("the line has no body", code="input_invalid")
    return _asked(body.get("messages"), {key: body[key] for key in body if key not in _SILENT}, locate)


def _refusing(read: Callable[[], Asked]) -> Asked:
    try:
        return read()
    except InputError as error:
        return Asked(refused=error)


def _asked(messages: Any, settings: Mapping[str, Any], locate: Callable[[str], Location]) -> Asked:
    if messages is None:
        raise PromptError("the row has no messages")
    conversation = read_messages(messages)
    images = tuple(_located(image.source, locate) for image in images_of(conversation))
    sampling = own_sampling(settings)
    return Asked(images, to_json(conversation), json.dumps(sampling) if sampling else None)


def _located(source: bytes | str | None, locate: Callable[[str], Location]) -> Location:
    if isinstance(source, bytes):
        return Location(content=source)
    return Location() if source is None else locate(source)


def own_sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a row has of its own, by the names of `Sampling`; what is None is not set.

    Raises:
        InputError: `parameter_unsupported`, for what is not offered here.
    """
    own: dict[str, Any] = {}
    for name, value in settings.items():
        if value is None or (name in _IDLE and value in _IDLE[name]):
            continue
        if name not in _NAMES:
            known = ", ".join(sorted(_NAMES))
            raise _unsupported(f"the parameter {name!r:.60} is not supported here; supported are {known}")
        own[_NAMES[name]] = _as_sampling_has_it(name, value)
    return {name: value for name, value in own.items() if value is not None}


def _as_sampling_has_it(name: str, value: Any) -> Any:
    if name == "top_k" and value in (-1, 0):  # how others write "from all"
        return None
    if name == "stop" and isinstance(value, str):
        return [value]
    return value


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """A value that should be an object, or JSON text of one; nothing is an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} is text that is not JSON") from error
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be an object; got {type(value).__name__}")
    return value


def _unsupported(message: str) -> InputError:
    return InputError(message, code="parameter_unsupported")
