"""The body of a request, read within limits of size and time, and only where it is what it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from service.errors import TIMEOUT, ApiError


async def read_body(request: Request, *, most_bytes: int, idle_seconds: float) -> bytes:
    """Read a JSON body.

    Args:
        idle_seconds: longest time between two parts of it.

    Raises:
        ApiError: 413, 415, or 408 for one that does not come.
    """
    _check_kind(request)
    if _announced(request) > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()
    parts = request.stream()
    while (part := await _next(parts, idle_seconds)) is not None:
        body += part
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


async def _next(parts: AsyncIterator[bytes], idle_seconds: float) -> bytes | None:
    """The next part; None: that was all."""
    try:
        async with asyncio.timeout(idle_seconds):
            return await anext(parts, None)
    except TimeoutError as error:
        raise ApiError(
            f"nothing more of the request came for {idle_seconds:g} seconds", status=408, kind=TIMEOUT,
            code="request_timeout",
        ) from error  # fmt: skip


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            f"the content type must be application/json; got {kind or 'none'}", status=415,
            code="content_type_unsupported",
        )  # fmt: skip
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(
            f"the content encoding {encoding:.40} is not read here; send the body as it is", status=415,
            code="content_encoding_unsupported",
        )  # fmt: skip


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() else 0


def _too_large(most_bytes: int) -> ApiError:
    return ApiError(
        f"the request is larger than {most_bytes >> 20} MiB; send smaller images, or their addresses", status=413,
        code="request_too_large",
    )  # fmt: skip
