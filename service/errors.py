"""What goes wrong, in OpenAI's shape: a status, a type, a code, and words for whoever asked.

What a request can meet of the project's own errors has an answer in `answer_to`; anything else is a fault of ours, and
is said to be one without a word about what it was. Retry-After is sent where trying again helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from skipvision.errors import CapacityError, EngineDeadError, InputError

INVALID, AUTHENTICATION, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
RATE, QUOTA = "rate_limit_error", "insufficient_quota"
UNAVAILABLE, SERVER, TIMEOUT = "service_unavailable_error", "server_error", "timeout_error"

RENAMED = {"prompt_too_long": "context_length_exceeded"}
"""Codes that OpenAI's clients know by another name."""


class ApiError(Exception):
    """A refusal, as it is answered."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param = status, kind, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


def answer_to(error: BaseException) -> ApiError:
    """What is answered where `error` was raised."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(str(error), code=RENAMED.get(error.code, error.code))
    if isinstance(error, CapacityError):
        return overloaded()
    if isinstance(error, EngineDeadError):
        return engine_lost()
    if isinstance(error, TimeoutError):
        return ApiError("the answer took too long", status=408, kind=TIMEOUT, code="request_timeout")
    return ApiError("the service failed at this request; it is not the request's fault", status=500, kind=SERVER)


def overloaded() -> ApiError:
    return ApiError(
        "the service has as much to do as it can hold; try again in some seconds",
        status=503, kind=UNAVAILABLE, code="server_is_overloaded", headers={"Retry-After": "5"},
    )  # fmt: skip


def engine_lost() -> ApiError:
    return ApiError(
        "the replica that answered this was lost, and a second one too; try again in some seconds",
        status=503, kind=UNAVAILABLE, code="engine_lost", headers={"Retry-After": "5"},
    )  # fmt: skip


def of_status(status: int, detail: str) -> ApiError:
    """For what the framework refuses by itself: paths that are none, methods that a path does not know."""
    codes = {404: "path_not_found", 405: "method_not_allowed"}
    return ApiError(detail, status=status, code=codes.get(status))
