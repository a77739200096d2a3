"""The fetcher for callers without an event loop of their own, or with one that must not wait."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

from skipvision.errors import FetchError
from skipvision.fetch.client import AsyncFetcher
from skipvision.fetch.policy import FetchPolicy

T = TypeVar("T")


class Fetcher:
    """The blocking face of `AsyncFetcher`, for any thread and for notebooks: its event loop has its own thread.

    The thread starts with the first fetch and ends with `close`, or with the fetcher. Pickles as its policy.
    """

    def __init__(self, policy: FetchPolicy | None = None) -> None:
        self.policy = policy or FetchPolicy()
        self._lock = threading.Lock()
        self._running: tuple[AsyncFetcher, _LoopThread] | None = None
        self._stop: Callable[[], Any] = lambda: None

    def fetch(self, url: str) -> bytes:
        """The bytes behind one URL.

        Raises:
            FetchError: `url_invalid`, `url_scheme`, `url_refused`, `fetch_not_found`, `fetch_http_error`,
                `fetch_timeout`, `fetch_too_large`, `fetch_unreachable`, `fetch_host_failing` or `fetch_redirects`.
        """
        fetcher, thread = self._started()
        return thread.run(fetcher.fetch(url))

    def fetch_many(self, urls: Iterable[str]) -> list[bytes | FetchError]:
        """The bytes or the error of each URL, in order, side by side; one that comes twice is fetched once."""
        fetcher, thread = self._started()
        return thread.run(fetcher.fetch_many(urls))

    def close(self) -> None:
        """Drop all connections and end the thread. A later fetch starts anew."""
        with self._lock:
            self._stop()
            self._running = None

    def _started(self) -> tuple[AsyncFetcher, _LoopThread]:
        with self._lock:
            if self._running is None:
                fetcher, thread = AsyncFetcher(self.policy), _LoopThread()
                self._stop = weakref.finalize(self, thread.stop, fetcher.close)
                self._running = fetcher, thread
            return self._running

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Fetcher, (self.policy,)


class _LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name="skipvision-fetch", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # when the caller was interrupted; otherwise it is done already

    def stop(self, last_words: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end(last_words)))
        if threading.current_thread() is not self._thread:  # the garbage collector runs in any thread
            self._thread.join()

    async def _end(self, last_words: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await last_words()
        finally:
            self._loop.stop()

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.close()
