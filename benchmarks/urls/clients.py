"""Who is tried: the project's fetcher under each policy, and two clients that show what it is worth."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp

from benchmarks.urls.servers import OPENED
from skipvision.fetch import Fetcher, FetchPolicy

Fetch = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who fetches URLs."""

    start: Callable[[], AbstractContextManager[Fetch]]
    """As a process that starts anew: with no connection, and no name resolved."""
    policy: FetchPolicy | None = None
    """None: it has none."""
    opened: frozenset[str] = frozenset()
    """Addresses inside that it may ask."""


def clients() -> dict[str, Client]:
    """Those without rules come first: what they reach shows that it is there."""
    job = FetchPolicy(allow_networks=("10.20.0.0/16",))
    return {
        "no rules": Client(_without_rules),
        "`is_global` first": Client(_checking_first),
        "job": _ours(job, opened=frozenset({OPENED})),
        "service, http too": _ours(FetchPolicy.service(http=True)),
        "service": _ours(FetchPolicy.service()),
    }


def _ours(policy: FetchPolicy, opened: frozenset[str] = frozenset()) -> Client:
    # How long a busy machine takes is not what is tried.
    patient = replace(policy, connect_seconds=30.0, total_seconds=60.0, pause_seconds=0.01)
    return Client(partial(_fetching, patient), patient, opened)


@contextmanager
def _fetching(policy: FetchPolicy) -> Iterator[Fetch]:
    with Fetcher(policy) as fetcher:
        yield fetcher.fetch


@contextmanager
def _without_rules() -> Iterator[Fetch]:
    """As a program without any thought of this does; each fetch with a connection and a name looked up of its own."""

    async def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))

    async def get(url: str) -> bytes:
        async with opened.get(url) as response:
            return await response.read()

    with asyncio.Runner() as runner:
        opened = runner.run(session())
        try:
            yield lambda url: runner.run(get(url))
        finally:
            runner.run(opened.close())


@contextmanager
def _checking_first() -> Iterator[Fetch]:
    """As a program does that has thought of it once: the host must have global addresses, and then is fetched from."""

    def check_and_fetch(url: str) -> bytes:
        parts = urlsplit(url)
        for *_, address in socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM):
            if not ip_address(address[0]).is_global:
                raise PermissionError("not a global address")
        return fetch(url)

    with _without_rules() as fetch:
        yield check_and_fetch
