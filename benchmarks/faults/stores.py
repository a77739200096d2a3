"""An object store on this machine: moto's server, which speaks S3 with conditional puts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "s3://jobs"


@contextmanager
def s3_server() -> Iterator[Mapping[str, str]]:
    """Serve `BUCKET` inside the `with` block; the environment that shows a process the way there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells every request
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        client = boto3.client("s3", region_name="us-east-1", endpoint_url=address, **keys)
        client.create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        settings = {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
        yield settings | {name.upper(): value for name, value in keys.items()}
    finally:
        server.stop()


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
