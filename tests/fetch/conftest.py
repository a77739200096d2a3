from __future__ import annotations

from collections.abc import Iterator

import pytest

from skipvision.fetch import Fetcher
from tests.fetch.site import Site, policy


@pytest.fixture
def site() -> Iterator[Site]:
    """On the one address that the tests' policy opens."""
    server = Site("127.0.0.1")
    yield server
    server.close()


@pytest.fixture
def inner_site() -> Iterator[Site]:
    """On an address that stays closed."""
    server = Site("127.0.0.2")
    yield server
    server.close()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(policy()) as fetcher:
        yield fetcher
