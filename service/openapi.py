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
    }
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
        components.setdefault("schemas", {}).update(body.pop("$defs", {}), ChatRequest=body, Refusal=_REFUSAL)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            if path.startswith("/v1/"):
                for method in methods.values():
                    method["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
