"""A server that answers as Prometheus does, over HTTP, with made-up values for whatever labels an expression keeps."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

VALUES = (-12.5, 0.25, 1234.5)
LONG = "a-name-that-is-much-longer-than-any-column-has-room-for"


class FakePrometheus(ThreadingHTTPServer):
    """Remembers what it was asked; `empty`: has no series; `refuses`: has an error instead."""

    def __init__(self, *, empty: bool = False, refuses: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.empty, self.refuses = empty, refuses
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, asked: dict[str, str]) -> dict[str, Any]:
        self.asked.append(asked)
        if self.empty:
            return {"resultType": "vector", "result": []}
        labels = re.search(r" by \(([^)]*)\)", asked["query"])
        names = [name for name in labels[1].split(", ") if name != "le"] if labels else []
        count = len(VALUES) if names else 1
        series = [({name: f"{name}-{number}-{LONG}" for name in names}, VALUES[number]) for number in range(count)]
        if path.endswith("/query"):
            result = [{"metric": metric, "value": [float(asked["time"]), str(value)]} for metric, value in series]
            return {"resultType": "vector", "result": result}
        start, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        times = [start + number * step for number in range(int((end - start) / step) + 1)]
        return {
            "resultType": "matrix",
            "result": [
                {
                    "metric": metric,
                    "values": [[time, str(value * (1 + math.sin(time / 300) / 3))] for time in times[3:]],
                }
                for metric, value in series
            ],
        }


class _Answering(BaseHTTPRequestHandler):
    server: FakePrometheus

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        if self.server.refuses:
            self._send(400, {"status": "error", "error": self.server.refuses})
        else:
            self._send(200, {"status": "success", "data": self.server.answer(self.path, asked)})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def fake_prometheus(*, empty: bool = False, refuses: str = "") -> Iterator[FakePrometheus]:
    with FakePrometheus(empty=empty, refuses=refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
