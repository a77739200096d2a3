"""The door's own socket, asked by clients that keep to HTTP and by others; without Ray, over a small application."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service import protocol
from service.listening import bound_socket, listening
from skipvision.errors import ConfigError
from tests.service.conftest import free_port

HEAD = b"POST /length HTTP/1.1\r\nHost: here\r\n"


async def length(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def refuse(_: Request) -> Response:
    return JSONResponse({"refused": True}, status_code=413)


async def slow(_: Request) -> Response:
    await asyncio.sleep(1)
    return PlainTextResponse("done")


@contextmanager
def door() -> Iterator[int]:
    app = Starlette(routes=[Route(f"/{each.__name__}", each, methods=["POST"]) for each in (length, refuse, slow)])
    port = free_port()
    with bound_socket("127.0.0.1", port) as bound, listening(app, bound, drain_seconds=10):
        yield port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "HEADER_SECONDS", 0.5)
        with door() as port:
            yield port


@contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connected:
        yield connected


def told(connected: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    try:
        while part := connected.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


def answered(connected: socket.socket, end: bytes) -> bytes:
    """What comes up to some end."""
    said = b""
    while not said.endswith(end):
        said += connected.recv(65536)
    return said


def test_a_request_in_small_parts_is_answered(port: int) -> None:
    with connection(port) as connected:
        for part in (b"POST /len", b"gth HTTP/1.1\r\nHost", b": here\r\nContent-Length: 4\r\n\r", b"\nab", b"cd"):
            connected.sendall(part)
            time.sleep(0.02)
        assert b"200 OK" in answered(connected, b"4")


def nothing(connected: socket.socket) -> None:
    pass


def a_part_of_a_head(connected: socket.socket) -> None:
    connected.sendall(HEAD)


def a_head_drop_by_drop(connected: socket.socket) -> None:
    connected.sendall(HEAD)
    with suppress(OSError):
        for _ in range(100):
            connected.sendall(b"X-Drop: 1\r\n")
            time.sleep(0.05)


def a_second_head_that_does_not_end(connected: socket.socket) -> None:
    connected.sendall(HEAD + b"Content-Length: 2\r\n\r\nhi")
    answered(connected, b"2")
    connected.sendall(HEAD)


def a_body_that_does_not_end_after_it_was_refused(connected: socket.socket) -> None:
    connected.sendall(b"POST /refuse HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\nhi")
    answered(connected, b"}")
    connected.sendall(b"more")


@pytest.mark.parametrize(
    "behave",
    [
        nothing,
        a_part_of_a_head,
        a_head_drop_by_drop,
        a_second_head_that_does_not_end,
        a_body_that_does_not_end_after_it_was_refused,
    ],
    ids=lambda behave: behave.__name__,
)
def test_a_client_that_is_too_slow_is_cut(port: int, behave: Callable[[socket.socket], None]) -> None:
    with connection(port) as connected:
        behave(connected)
        started = time.monotonic()
        told(connected)
        assert time.monotonic() - started < 5


def test_a_client_that_is_slow_costs_another_nothing(port: int) -> None:
    with connection(port) as waiting:
        waiting.sendall(HEAD)
        assert httpx.post(f"http://127.0.0.1:{port}/length", content=b"abc").text == "3"


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (HEAD + b"X: " + b"x" * 70_000 + b"\r\n", 431, "headers_too_large"),
        (b"POST /" + b"x" * 70_000, 431, "headers_too_large"),
        (b"hello\r\n\r\n", 400, "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, "invalid_http"),
        (HEAD + b"Content-Length: -3\r\n\r\nabc", 400, "invalid_http"),
        (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400, "invalid_http"),
    ],
    ids=["header", "path", "no HTTP", "TLS", "two lengths", "negative", "chunks and a length"],
)
def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(
    port: int, sent: bytes, status: int, code: str
) -> None:
    with connection(port) as connected:
        connected.sendall(sent)
        head, _, body = told(connected).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["code"] == code


def test_an_early_refusal_is_read_although_the_body_still_comes(port: int) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}/refuse", content=b"x" * 5_000_000)
    assert (answer.status_code, answer.json()) == (413, {"refused": True})


def test_nothing_says_what_serves_here(port: int) -> None:
    assert "server" not in httpx.post(f"http://127.0.0.1:{port}/length", content=b"abc").headers


def test_what_was_begun_is_finished_and_the_address_is_free_again() -> None:
    with ThreadPoolExecutor(1) as pool:
        with door() as port:
            answer = pool.submit(httpx.post, f"http://127.0.0.1:{port}/slow", timeout=20)
            time.sleep(0.4)
        assert answer.result().text == "done"
    with bound_socket("127.0.0.1", port):
        pass


def test_an_address_that_is_taken_is_refused_before_anything_starts() -> None:
    with door() as port, pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
        bound_socket("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at 203\.0\.113\.7:80"):
        bound_socket("203.0.113.7", 80)
