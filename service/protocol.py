"""HTTP/1.1 as uvicorn speaks it, for clients that are slow, endless or no clients at all.

uvicorn waits for ever for a request that never becomes whole, reads headers of any size, and answers what is no HTTP in
plain text. Bodies have limits of their own (see `body`), and so have answers (see `door`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import ApiError

HEADER_SECONDS = 10.0
"""From the first byte of a request, or of a connection, to the last of its headers."""
MOST_HEADER_BYTES = 64 * 1024


class DoorProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._until_whole: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and is to say something."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            return
        self._wait()
        is_rest_of_body = self.cycle is not None and self.cycle.more_body
        if not is_rest_of_body:  # of a request that was refused before it was whole
            self._header_bytes += len(data)
        if self._header_bytes > MOST_HEADER_BYTES:
            self._refuse(
                ApiError(
                    f"the headers of a request may have {MOST_HEADER_BYTES >> 10} KiB; send fewer, or shorter ones",
                    status=431,
                    code="headers_too_large",
                )
            )

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(ApiError("this is not an HTTP/1.1 request", code="invalid_http"))

    def _wait(self) -> None:
        if self._until_whole is None:
            self._until_whole = self.loop.call_later(HEADER_SECONDS, self._cut)

    def _stop_waiting(self) -> None:
        self._header_bytes = 0
        if self._until_whole is not None:
            self._until_whole.cancel()
            self._until_whole = None

    def _cut(self) -> None:
        self.transport.abort()

    def _refuse(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        answer = error.response()
        phrase = {400: "Bad Request", 431: "Request Header Fields Too Large"}[answer.status_code]
        head = [f"HTTP/1.1 {answer.status_code} {phrase}".encode(), b"connection: close"]
        head += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
