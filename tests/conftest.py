"""What many tests need: a tiny checkpoint, and one local Ray for the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.tiny_llava import build_tiny_llava


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA checkpoint of 16 visual tokens per image; never written to."""
    return build_tiny_llava(tmp_path_factory.mktemp("model") / "tiny-llava")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, started once: a job finds it and leaves it running."""
    import ray

    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 API on this machine, and an address in it; this process and what it starts know the way there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_REGION": "us-east-1",
                "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ALLOW_HTTP": "true"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="jobs")
        yield "s3://jobs"
    server.stop()
