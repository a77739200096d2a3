"""What many tests need: a tiny checkpoint, and one local Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_llava import build_tiny_llava


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA checkpoint of 16 visual tokens per image; never written to."""
    return build_tiny_llava(tmp_path_factory.mktemp("model") / "tiny-llava")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, started once: a job finds it and leaves it running."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # as in a job that starts Ray itself
    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 API on this machine, and an address in it; this process and what it starts know the way there."""
    # Only here: the engine's tests run without it, on a machine with a GPU and little else.
    from benchmarks.faults.stores import BUCKET, environment, s3_server

    with s3_server() as settings, environment(settings):
        yield BUCKET
