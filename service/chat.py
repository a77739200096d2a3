"""Between OpenAI's chat completions and questions to a replica: bodies read, answers and chunks written."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic_core
from pydantic import ValidationError

from service.config import ServiceConfig
from service.errors import ApiError, answer_to
from service.schemas import NOT_OFFERED, ChatRequest, ObjectFormat, SchemaFormat
from service.wire import Piece, Question, Spent, SpokenToken
from skipvision.conversation import Conversation, images_of, read_messages
from skipvision.engine import Sampling
from skipvision.engine.grammar import json_grammar
from skipvision.errors import ConfigError, InputError
from skipvision.method.plan import SkipConfig

_CHARACTERS_OF_A_TOKEN = 3
_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read and is within the limits."""

    request: ChatRequest
    conversation: Conversation
    sampling: Sampling
    grammar: str | None
    skip: str | None

    @property
    def answers(self) -> int:
        return self.request.n or 1

    @property
    def streamed(self) -> bool:
        return bool(self.request.stream)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with what was spent."""
        return bool(self.request.stream_options and self.request.stream_options.include_usage)

    @property
    def token_maps(self) -> bool:
        return bool(self.request.skipvision and self.request.skipvision.token_map)

    @property
    def urls(self) -> list[str]:
        """Where its images are."""
        return [str(part.source) for part in images_of(self.conversation)]

    def prompt_tokens(self, *, of_image: int) -> int:
        """About how many it has, and rather too many: those of its images are taken for `of_image` each."""
        text = sum(len(message.text) for message in self.conversation) // _CHARACTERS_OF_A_TOKEN
        return text + of_image * len(self.urls)

    def tokens(self, *, of_image: int) -> int:
        """About how many it may take in all."""
        return self.prompt_tokens(of_image=of_image) + self.answers * self.sampling.max_tokens


def read(body: bytes, config: ServiceConfig) -> Asked:
    """Read a request's body.

    Raises:
        ApiError: naming the field that is wrong.
    """
    try:
        request = ChatRequest.model_validate(pydantic_core.from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        raise _refusal(error) from error
    except ValueError as error:
        raise ApiError(f"the body is not JSON: {error}", code="invalid_json") from error
    _check_bounds(request, config)
    try:
        conversation = read_messages([message.model_dump(exclude_none=True) for message in request.messages])
        return Asked(request, conversation, _sampling(request, config), _grammar(request), _skip(request))
    except InputError as error:
        answer = answer_to(error)
        param = {"schema_invalid": "response_format", "skip_invalid": "skipvision.skip"}.get(error.code, "messages")
        raise ApiError(str(answer), code=answer.code, param=param) from error


def question(asked: Asked, images: tuple[Any, ...], *, request_id: str, adapter: str | None, tokens: int) -> Question:
    return Question(
        request_id=request_id,
        conversation=asked.conversation,
        images=images,
        sampling=asked.sampling,
        answers=asked.answers,
        skip=asked.skip,
        adapter=adapter,
        grammar=asked.grammar,
        token_maps=asked.token_maps,
        tokens=tokens,
    )


class Writer:
    """Writes the answer to one request, whole or in chunks."""

    def __init__(self, asked: Asked, request_id: str) -> None:
        self._asked = asked
        self._head = {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": asked.request.model}
        self._begun: set[int] = set()

    def whole(self, events: Iterable[Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        pieces: dict[int, list[Piece]] = {index: [] for index in range(self._asked.answers)}
        spent: Spent | None = None
        for event in events:
            if isinstance(event, Piece):
                pieces[event.index].append(event)
            else:
                spent = event
        assert spent is not None, "what was spent is said at the end"
        choices = [_choice(index, said) for index, said in pieces.items()]
        return {**self._head, "object": "chat.completion", "choices": choices, **_usage(spent)}

    def chunks(self, events: Iterable[Any]) -> Iterable[dict[str, Any]]:
        """The chunks of a stream for what has come."""
        for event in events:
            if isinstance(event, Piece):
                yield from self._piece(event)
            elif self._asked.with_usage:
                yield {**self._head, "object": "chat.completion.chunk", "choices": [], **_usage(event)}

    def _piece(self, piece: Piece) -> Iterable[dict[str, Any]]:
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            yield self._chunk(piece.index, {"role": "assistant", "content": ""}, None, None)
        if piece.text or piece.tokens:
            logprobs = None if piece.tokens is None else _logprobs(piece.tokens)
            yield self._chunk(piece.index, {"content": piece.text}, logprobs, None)
        if piece.finish_reason is not None:
            yield self._chunk(piece.index, {}, None, piece.finish_reason)

    def _chunk(self, index: int, delta: Mapping[str, str], logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        nothing_yet = {"usage": None} if self._asked.with_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **nothing_yet}


def _choice(index: int, said: Sequence[Piece]) -> dict[str, Any]:
    tokens = [token for piece in said for token in piece.tokens or ()]
    return {
        "index": index,
        "message": {"role": "assistant", "content": "".join(piece.text for piece in said), "refusal": None},
        "logprobs": _logprobs(tokens) if any(piece.tokens is not None for piece in said) else None,
        "finish_reason": said[-1].finish_reason,
    }


def _logprobs(tokens: Sequence[SpokenToken]) -> dict[str, Any]:
    return {
        "content": [
            {**_token(token.text, token.logprob), "top_logprobs": [_token(*each) for each in token.likeliest]}
            for token in tokens
        ],
        "refusal": None,
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    # A token may be part of a character; its bytes are not told then.
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": None if "�" in text else list(text.encode())}


def _usage(spent: Spent) -> dict[str, Any]:
    read_less = spent.by_fate["merged_tokens"] + spent.by_fate["dropped_tokens"] - spent.by_fate["summary_tokens"]
    ours = {
        **spent.by_fate,
        "tokens_saved": read_less,
        "flops": sum(spent.flops.values()),
        "flops_all_tokens": sum(spent.flops_all_tokens.values()),
        "kv_bytes": spent.kv_bytes,
        "kv_bytes_all_tokens": spent.kv_bytes_all_tokens,
    }
    usage = {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.output_tokens,
        "total_tokens": spent.prompt_tokens + spent.output_tokens,
        "skipvision": ours,
    }
    return {"usage": usage, "skipvision": {"seconds": dict(spent.seconds), "token_maps": list(spent.token_maps)}}


def _check_bounds(request: ChatRequest, config: ServiceConfig) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise ApiError(
            "max_tokens and max_completion_tokens are the same setting; send one", param="max_tokens",
            code="invalid_value",
        )  # fmt: skip
    longest = request.max_completion_tokens or request.max_tokens or config.max_tokens
    images = text = 0
    for message in request.messages:
        parts = [message.content] if isinstance(message.content, str) else message.content
        images += sum(not isinstance(part, str) and part.type == "image_url" for part in parts)
        text += sum(len(part if isinstance(part, str) else getattr(part, "text", "")) for part in parts)
    for param, asked, most, what in (
        ("max_tokens", longest, config.most_tokens, "tokens to one answer"),
        ("n", request.n or 1, config.most_answers, "answers"),
        ("messages", images, config.most_images, "images"),
        ("messages", text, config.most_text, "characters of text"),
    ):
        if asked > most:
            raise ApiError(
                f"{param} asks for {asked:,} {what} and at most {most:,} are allowed here; ask for {asked - most:,} "
                "fewer", param=param, code="too_many",
            )  # fmt: skip
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError("top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    if request.stream_options is not None and not request.stream:
        raise ApiError("stream_options needs stream: true", param="stream_options", code="invalid_value")


def _sampling(request: ChatRequest, config: ServiceConfig) -> Sampling:
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return Sampling(
        max_tokens=request.max_completion_tokens or request.max_tokens or config.max_tokens,
        temperature=config.temperature if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k,
        seed=secrets.randbelow(_SEEDS) if request.seed is None else request.seed % _SEEDS,
        stop=tuple(stop),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def _grammar(request: ChatRequest) -> str | None:
    match request.response_format:
        case ObjectFormat():
            return json_grammar(None)
        case SchemaFormat(json_schema=wish):
            return json_grammar(wish.schema_)
        case _:
            return None


def _skip(request: ChatRequest) -> str | None:
    wish = request.skipvision.skip.strip() if request.skipvision else "auto"
    if wish == "auto":
        return None
    try:
        return SkipConfig.parse(wish).describe()
    except ConfigError as error:
        raise InputError(str(error), code="skip_invalid") from error


def _refusal(error: ValidationError) -> ApiError:
    """The first thing that is wrong, said about its field."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Names of models and of kinds stand in the place too, where one of several kinds was tried.
    place = [str(step) for step in first["loc"] if not str(step)[:1].isupper() and "[" not in str(step)]
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        message, code = f"{param} is no parameter of this service; leave it out", "unknown_parameter"
    elif first["type"] == "missing":
        message, code = f"{param} is missing", "missing_parameter"
    elif first["loc"] and first["loc"][0] in NOT_OFFERED:
        message, code = f"{param} is not offered by this service; leave it out", "unsupported_parameter"
    else:
        message, code = f"{param or 'the body'}: {first['msg']}", "invalid_value"
    return ApiError(message, param=param, code=code)
