"""Everything that listens in the network: public web servers at a few addresses, and a counter at all others."""

from __future__ import annotations

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

SITE, SITE_IPV6, OTHER_SITE = "93.184.216.34", "2606:2800:220:1::34", "151.101.1.69"
OPENED = "10.20.0.5"
"""A store inside, which an operator may open."""
PICTURE, SECRET = b"\x89PNG and so on", b"role credentials"
TLS_PORT = 443
PORTS = (TLS_PORT, 80, 22, 25, 2375, 6379, 8080, 8265, 9000, 9200, 10250)


def redirecting(location: str, *, status: int = 302) -> str:
    """The path at which a public server redirects to `location`."""
    return f"/to/{status}/{quote(location, safe='')}"


class Servers:
    """Listens at every address there is. What is not public is inside, and a connection to it is a hit."""

    def __init__(self, certificate: Path) -> None:
        self.public: frozenset[str] = frozenset()
        self._hits: list[tuple[str, int]] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        for port in PORTS:
            server = _Listener(self, port, self._tls if port == TLS_PORT else None)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def hits(self) -> int:
        """Connections so far to addresses that are not public."""
        return len(self._hits)

    def inside_since(self, hits: int) -> list[str]:
        """Where connections went after the first `hits`, such as "169.254.169.254 port 80"."""
        return [f"{address} port {port}" for address, port in self._hits[hits:]]

    def saw(self, address: str, port: int) -> None:
        """Count a connection."""
        if address not in self.public:
            self._hits.append((address, port))


class _Listener(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 64

    def __init__(self, servers: Servers, port: int, tls: ssl.SSLContext | None) -> None:
        self._servers, self._tls = servers, tls
        super().__init__(("::", port), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self._servers.saw(*_local_address(request))  # before a byte of it is read: to connect is enough
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._tls:
            request = self._tls.wrap_socket(request, server_side=True)
        self.RequestHandlerClass(request, client_address, self)

    def is_public(self, request: Any) -> bool:
        return _local_address(request)[0] in self._servers.public

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that does not trust the certificate, or speaks something else


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    timeout = 10

    def do_GET(self) -> None:
        _, kind, *rest = self.path.partition("?")[0].split("/")
        if not self.server.is_public(self.connection):
            self._say(200, SECRET)
        elif kind == "to":
            self._say(int(rest[0]), b"", location=unquote(rest[1]))
        else:
            self._say(*((200, PICTURE) if kind == "picture" else (404, b"")))

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _local_address(connection: socket.socket) -> tuple[str, int]:
    """Where a client connected to; an IPv4 address as such."""
    text, port, *_ = connection.getsockname()
    number = ip_address(text)
    return str(getattr(number, "ipv4_mapped", None) or number), port
