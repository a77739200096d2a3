"""What many want at the same time is fetched once, for as long as somebody wants it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from skipvision.errors import FetchError
from skipvision.fetch import AsyncFetcher
from tests.fetch.site import PICTURE, Answer, Site, policy


def after(seconds: float, status: int = 200) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.say(status, {}, PICTURE)

    return answer


def in_a_loop(act: Callable[[AsyncFetcher], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        fetcher = AsyncFetcher(policy())
        try:
            return await act(fetcher)
        finally:
            await fetcher.close()

    return asyncio.run(run())


async def until_asked(site: Site) -> None:
    while not site.paths:
        await asyncio.sleep(0.01)


def test_what_several_callers_want_at_once_is_fetched_once(site):
    site.answers["/a"] = [after(0.3)]

    async def act(fetcher: AsyncFetcher) -> list[bytes]:
        return await asyncio.gather(*(fetcher.fetch(f"{site.root}/a{part}") for part in ("", "#one", "#two")))

    assert in_a_loop(act) == [PICTURE] * 3
    assert site.paths == ["/a"]


def test_what_is_wanted_again_later_is_fetched_again(site):
    async def act(fetcher: AsyncFetcher) -> list[bytes]:
        return [await fetcher.fetch(site.root + "/a"), await fetcher.fetch(site.root + "/a")]

    assert in_a_loop(act) == [PICTURE] * 2
    assert site.paths == ["/a"] * 2


def test_all_who_wait_learn_why_it_failed(site):
    site.answers["/a"] = [after(0.3, status=404)]

    async def act(fetcher: AsyncFetcher) -> list[Any]:
        return await asyncio.gather(*(fetcher.fetch(site.root + "/a") for _ in range(2)), return_exceptions=True)

    assert [error.code for error in in_a_loop(act)] == ["fetch_not_found"] * 2


def test_one_who_goes_away_does_not_take_the_others_along(site):
    site.answers["/a"] = [after(0.3)]

    async def act(fetcher: AsyncFetcher) -> bytes:
        first, second = (asyncio.create_task(fetcher.fetch(site.root + "/a")) for _ in range(2))
        await until_asked(site)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert in_a_loop(act) == PICTURE
    assert site.paths == ["/a"]


def test_what_nobody_wants_any_more_is_given_up(site):
    site.answers["/a"] = [after(2), (200, {}, PICTURE)]

    async def act(fetcher: AsyncFetcher) -> tuple[int, bytes | FetchError]:
        only = asyncio.create_task(fetcher.fetch(site.root + "/a"))
        await until_asked(site)
        only.cancel()
        await asyncio.wait([only])
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()), await fetcher.fetch(site.root + "/a")

    tasks, picture = in_a_loop(act)
    assert tasks == 1
    assert picture == PICTURE
