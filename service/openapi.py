"""The API described for programs and for `/docs`: what the routes read and answer by hand, and who may take them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.schemas import ChatRequest

_REF = "#/components/schemas/{model}"

CHAT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="ChatRequest")}}},
    },
    "responses": {
        "200": {
            "description": "The answer; with `stream`, its chunks, each an event's `data`, and at last `[DONE]`.",
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model="ChatCompletion")}},
                "text/event-stream": {"schema": {"$ref": _REF.format(model="ChatEvent")}},
            },
        }
    },
}
"""Of the route that reads its body by hand, so that its size is known before it is read."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": _REF.format(model="Refusal")}}},
    }
    for status, description in {
        400: "Something in the request is wrong; `code` and `param` say what.",
        401: "No key, or none that is known.",
        403: "The key may not ask this model.",
        404: "No such model.",
        408: "It took too long.",
        413: "The request is too large.",
        415: "The body is not JSON.",
        429: "The tenant's limits; Retry-After says when to come again.",
        503: "The service is full or starting; Retry-After says when to come again.",
    }.items()
}

_COUNT = {"type": "integer", "minimum": 0}
_COMPLETION = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage", "skipvision"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": {"type": "string"},
        "choices": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "message", "logprobs", "finish_reason"],
                "properties": {
                    "index": _COUNT,
                    "message": {
                        "type": "object",
                        "required": ["role", "content", "refusal"],
                        "properties": {
                            "role": {"const": "assistant"},
                            "content": {"type": "string"},
                            "refusal": {"type": "null"},
                        },
                    },
                    "logprobs": {"type": ["object", "null"]},
                    "finish_reason": {"enum": ["stop", "length"]},
                },
            },
        },
        "usage": {
            "type": "object",
            "required": ["prompt_tokens", "completion_tokens", "total_tokens", "skipvision"],
            "properties": {
                "prompt_tokens": _COUNT,
                "completion_tokens": _COUNT,
                "total_tokens": _COUNT,
                "skipvision": {
                    "type": "object",
                    "description": "Visual tokens by fate, and modelled work beside that of all tokens.",
                    "additionalProperties": {"type": "integer"},
                },
            },
        },
        "skipvision": {
            "type": "object",
            "required": ["seconds", "token_maps"],
            "properties": {
                "seconds": {"type": "object", "additionalProperties": {"type": "number"}},
                "token_maps": {"type": "array", "items": {"type": "object"}},
            },
        },
    },
}

_EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}

_REFUSAL = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(app: FastAPI) -> None:
    """Add to what FastAPI finds out by itself."""
    found = app.openapi

    def openapi() -> dict[str, Any]:
        document = found()
        body = ChatRequest.model_json_schema(ref_template=_REF)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(
            body.pop("$defs", {}), ChatRequest=body, Refusal=_REFUSAL, ChatCompletion=_COMPLETION, ChatEvent=_EVENT
        )
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            if path.startswith("/v1/"):
                for method in methods.values():
                    method["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
