"""An object store on this machine: moto's server, which speaks S3 with conditional puts."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import make_server

BUCKET = "s3://jobs"
_LATE_SECONDS = 0.5


@dataclass(slots=True)
class Troubles:
    """A WSGI application in front of a store's, and what happens to requests on their way.

    Of all requests `share` are in trouble: a third is refused with 503 and not done, a third is done and answered with
    500, and a third is done late.
    """

    store: Any
    rng: random.Random
    share: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        fate = self.rng.random() / self.share if self.share else 1.0
        if fate >= 1.0:
            return self.store(environ, start_response)
        if fate < 1 / 3:
            self.seen["refused"] += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _error("503 Slow Down", start_response)
        if fate < 2 / 3:
            self.seen["done, and the answer lost"] += 1
            for _ in self.store(environ, lambda *_: None):
                pass
            return _error("500 Internal Server Error", start_response)
        self.seen["late"] += 1
        time.sleep(_LATE_SECONDS)
        return self.store(environ, start_response)


def _error(status: str, start_response: Any) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [b"<Error><Code>InternalError</Code></Error>"]


@contextmanager
def s3_server(troubles: Callable[[Any], Any] = lambda store: store) -> Iterator[Mapping[str, str]]:
    """Serve `BUCKET` inside the `with` block; the environment that shows a process the way there.

    Args:
        troubles: puts something in front of the store.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells every request
    store = troubles(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=address, **keys)
        client.create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        settings = {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
        yield settings | {name.upper(): value for name, value in keys.items()}
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """These variables in this process's environment inside the `with` block."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
