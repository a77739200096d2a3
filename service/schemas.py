"""What a request may say: OpenAI's chat completion, strictly, with one field of our own.

A field that is not here is refused by its name rather than passed over, and so is one that asks for what is not
offered. What asks for nothing (`n: 1`, `presence_penalty: 0`) and what only the sender has a use for (`user`,
`metadata`) is accepted, since clients send it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Finite = {"allow_inf_nan": False}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: Annotated[str, Field(min_length=1)]
    """`data:image/…;base64,…`, or the https:// address of an image."""
    detail: Literal["auto", "low", "high"] | None = None
    """Accepted, and changes nothing: `skipvision.skip` says how many visual tokens are read."""


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=1024)]
    name: str | None = None


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class JsonSchema(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Accepted either way: an answer always keeps to the schema."""


class TextFormat(Strict):
    type: Literal["text"]


class ObjectFormat(Strict):
    type: Literal["json_object"]


class SchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class Skipping(Strict):
    """This service's own."""

    skip: Annotated[str, Field(max_length=64)] = "auto"
    """Visual tokens of this request: `off` for all, `R/S`, a reduction such as `uniform:64`; `auto`: as the model's."""
    token_map: bool = False
    """Tell, with the usage, what became of each visual token of each image."""


class ChatRequest(Strict):
    """POST /v1/chat/completions."""

    model: Annotated[str, Field(max_length=256)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1024)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, **Finite)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, **Finite)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=512)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=16)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    skipvision: Skipping | None = None

    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    store: Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None


NOT_OFFERED = frozenset(
    {"store", "presence_penalty", "frequency_penalty", "logit_bias", "tools", "tool_choice", "modalities",
     "service_tier"}
)  # fmt: skip
"""Fields that are accepted where they ask for nothing."""
