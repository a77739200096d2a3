"""A small web server on this machine, and the policy under which it may be asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skipvision.fetch import FetchPolicy

Answer = tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]
PICTURE = b"\x89PNG and so on"


class Site:
    """A small web server. `answers[path]` is what it says, in turn, the last one for ever; it remembers all."""

    def __init__(self, host: str, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, list[Answer]] = defaultdict(lambda: [(200, {}, PICTURE)])
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.now_open = self.most_open = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.root = f"{'https' if tls else 'http'}://{host}:{self._server.server_port}"
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(site) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with site._lock:
                    site.paths.append(self.path)
                    site.headers.append(dict(self.headers))
                    queue = site.answers[self.path]
                    answer = queue.pop(0) if len(queue) > 1 else queue[0]
                    site.now_open += 1
                    site.most_open = max(site.most_open, site.now_open)
                try:
                    answer(self) if callable(answer) else self.say(*answer)
                finally:
                    with site._lock:
                        site.now_open -= 1

            def say(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def redirect(location: str, status: int = 302) -> Answer:
    return status, {"Location": location}, b""


def drop_the_line(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def policy(**settings: object) -> FetchPolicy:
    return FetchPolicy(**({"allow_networks": ("127.0.0.1/32",), "pause_seconds": 0.0} | settings))
