"""The fetcher itself: one bounded, judged request after another until there are bytes or a reason why not."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from skipvision.errors import FetchError
from skipvision.fetch.addresses import AddressRules, refused
from skipvision.fetch.data_urls import decode_data_url
from skipvision.fetch.failures import PassingError, check_answer, translating_failures
from skipvision.fetch.flights import Flights
from skipvision.fetch.hosts import Hosts
from skipvision.fetch.policy import FetchPolicy

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_HEADERS = {"Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity", "User-Agent": "skipvision"}


class AsyncFetcher:
    """Fetches in the event loop of its caller. Close it in the same loop."""

    def __init__(self, policy: FetchPolicy | None = None) -> None:
        self.policy = policy or FetchPolicy()
        self._rules = self.policy.rules
        self._session: aiohttp.ClientSession | None = None
        self._parallel = asyncio.Semaphore(self.policy.max_parallel)
        self._hosts = Hosts(max_per_host=self.policy.max_per_host, patience_seconds=self.policy.host_patience_seconds)
        self._flights = Flights()

    async def fetch(self, url: str) -> bytes:
        """As `Fetcher.fetch`."""
        if url[:5].lower() == "data:" and "data" in self.policy.schemes:
            return decode_data_url(url, max_bytes=self.policy.max_bytes)
        return await self._flights.join(self._rules.parse(url).with_fragment(None), self._in_turn)

    async def fetch_many(self, urls: Iterable[str]) -> list[bytes | FetchError]:
        """As `Fetcher.fetch_many`."""
        in_order = list(urls)
        once = list(dict.fromkeys(in_order))
        outcomes = dict(zip(once, await asyncio.gather(*map(self._outcome, once)), strict=True))
        return [outcomes[url] for url in in_order]

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _outcome(self, url: str) -> bytes | FetchError:
        try:
            return await self.fetch(url)
        except FetchError as error:
            return error

    async def _in_turn(self, target: URL) -> bytes:
        # The host's turn comes first: those who wait for a slow host must not hold a place that others could use.
        async with self._hosts.turn(_name(target)), self._parallel:
            try:
                async with asyncio.timeout(self.policy.total_seconds) as clock:
                    return await self._persist(target, clock)
            except TimeoutError as error:
                raise FetchError("the server did not answer in time", code="fetch_timeout") from error

    async def _persist(self, target: URL, clock: asyncio.Timeout) -> bytes:
        """Try until it works, has failed for good, or another pause would end after the time is over."""
        attempt, deadline = 1, clock.when() or 0.0
        while True:
            try:
                return await self._follow(target, clock)
            except PassingError as failure:
                pause = self._pause(attempt) if failure.retry_after is None else failure.retry_after
                if attempt == self.policy.max_attempts or asyncio.get_running_loop().time() + pause >= deadline:
                    raise failure.error from failure
            await asyncio.sleep(pause)
            attempt += 1

    def _pause(self, attempt: int) -> float:
        """Seconds, scattered so that the many who failed together do not come back together."""
        return self.policy.pause_seconds * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)

    async def _follow(self, target: URL, clock: asyncio.Timeout) -> bytes:
        for _ in range(self.policy.max_redirects + 1):
            host = _name(target)
            self._hosts.check(host)
            try:
                answer = await self._ask(target)
            except (PassingError, TimeoutError, asyncio.CancelledError) as failure:
                if clock.expired() or not isinstance(failure, asyncio.CancelledError):
                    self._hosts.failed(host)
                raise
            self._hosts.answered(host)
            if isinstance(answer, bytes):
                return answer
            target = self._rules.follow(target, answer)
        raise FetchError(f"the URL redirects more than {self.policy.max_redirects} times", code="fetch_redirects")

    async def _ask(self, target: URL) -> bytes | str:
        """The bytes at `target`, or where else it says they are."""
        with translating_failures():
            async with self._open_session().get(target, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    return location
                return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        check_answer(response)
        body = bytearray()
        if (response.content_length or 0) <= self.policy.max_bytes:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self.policy.max_bytes:
                    break
            else:
                return bytes(body)
        raise FetchError(f"the answer is larger than {self.policy.max_bytes} bytes", code="fetch_too_large")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_JudgingResolver(self._rules, max_parallel=self.policy.max_parallel),
                    socket_factory=self._socket,
                    limit=0,
                    limit_per_host=self.policy.max_per_host,  # for hosts that are reached by redirects
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.policy.connect_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for the very address that is connected to next: judged again, whatever way it came here."""
        family, kind, protocol, _, address = info
        if not self._rules.admits(str(address[0]), int(address[1])):
            raise refused()
        return socket.socket(family, kind, protocol)


class _JudgingResolver(AbstractResolver):
    """Resolves a name to addresses that may all be connected to, or refuses it.

    The connector connects to exactly what comes from here. One closed address among open ones closes the name: that
    mixture is how rebinding looks.
    """

    def __init__(self, rules: AddressRules, *, max_parallel: int) -> None:
        self._rules = rules
        # A lookup cannot be stopped: one whose fetch was given up goes on in its thread, for up to thirty seconds with
        # the usual resolver. Names that nobody answers for must not take the threads of those that are good.
        self._threads = ThreadPoolExecutor(4 * max_parallel, thread_name_prefix="skipvision-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        if not all(self._rules.admits(str(address[0]), port) and not any(address[3:]) for *_, address in found):
            raise refused()
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=_NUMERIC)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _name(url: URL) -> str:
    """What hosts are told apart by."""
    return str(url.raw_host).lower().rstrip(".")
