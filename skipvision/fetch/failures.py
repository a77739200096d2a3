"""What an HTTP answer or a failed connection means to the caller, and whether another try may help."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from skipvision.errors import FetchError

_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


class PassingError(Exception):
    """Something that another try may mend; `error` is what to say when it does not."""

    def __init__(self, error: FetchError, retry_after: float | None = None) -> None:
        self.error, self.retry_after = error, retry_after
        super().__init__(str(error))


def check_answer(response: aiohttp.ClientResponse) -> None:
    """Raise unless the answer holds the file as it is: PassingError or FetchError."""
    status = response.status
    if status in (404, 410):
        raise FetchError(f"the server has no such file (status {status})", code="fetch_not_found")
    error = FetchError(f"the server refused with status {status}", code="fetch_http_error")
    if status in _WORTH_ANOTHER_TRY:
        raise PassingError(error, retry_after=retry_after_seconds(response.headers.get("Retry-After", "")))
    if status != 200:
        raise error
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("the server sent compressed data without being asked", code="fetch_http_error")


def retry_after_seconds(text: str) -> float | None:
    """Seconds from a Retry-After header, which holds a number of seconds or a date; None when it holds neither."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a time zone that is further away than any
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


@contextmanager
def translating_failures() -> Iterator[None]:
    """The one boundary to aiohttp. Timeouts pass: the deadline of the whole fetch answers for them."""
    unreachable = FetchError("the server cannot be reached, or broke the connection", code="fetch_unreachable")
    try:
        yield
    except (FetchError, TimeoutError):
        raise
    except aiohttp.ClientConnectorDNSError as error:
        failure = FetchError("the host of the URL cannot be found", code="fetch_unreachable")
        if error.os_error.errno == socket.EAI_AGAIN:
            raise PassingError(failure) from error
        raise failure from error
    except (aiohttp.InvalidURL, UnicodeError) as error:  # UnicodeError: a label of no or of more than 63 letters
        raise FetchError("the URL names no valid host", code="url_invalid") from error
    except aiohttp.ClientSSLError as error:
        raise FetchError("the server's certificate is not trusted", code="fetch_unreachable") from error
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise PassingError(unreachable) from error
    except aiohttp.ClientError as error:
        raise FetchError("the server's answer is not valid HTTP", code="fetch_http_error") from error
