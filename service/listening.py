"""A door with a socket of its own, in a thread of this process."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.protocol import DoorProtocol
from skipvision.errors import ConfigError

KEEP_ALIVE_SECONDS = 60
BACKLOG = 2048


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at an address, at which nobody is answered yet.

    Raises:
        ConfigError: the address is taken, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror}; choose another host or port") from error
    return bound


@contextmanager
def listening(app: ASGIApp, bound: socket.socket, *, drain_seconds: float) -> Iterator[None]:
    """Answer at a socket inside the `with` block; at its end what was begun is finished, for so long.

    Raises:
        RuntimeError: the application did not start.
    """
    settings = uvicorn.Config(
        app,
        http=DoorProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody's word is taken for where a request comes from
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(drain_seconds),
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=[[bound]], name="door", daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            if not thread.is_alive():
                raise RuntimeError("the door did not open; its log says why")
        yield
    finally:
        server.should_exit = True
        thread.join()
