"""Asking a Prometheus, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

TIMEOUT_SECONDS = 30


class RefusedError(Exception):
    """A Prometheus did not answer an expression; the message holds both, what it said and what it was asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of an answer."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    """Seconds since 1970, ascending."""
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server, by its address."""

    url: str

    def at(self, expr: str, time: float) -> list[Series]:
        """The answer at one moment."""
        return self._ask("query", query=expr, time=time)

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """The answer at every step from `start` to `end`."""
        return self._ask("query_range", query=expr, start=start, end=end, step=step)

    def _ask(self, path: str, **asked: str | float) -> list[Series]:
        request = Request(f"{self.url.rstrip('/')}/api/v1/{path}", data=urlencode(asked).encode())
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                data = json.load(answer)["data"]
        except HTTPError as error:
            raise RefusedError(f"{error.read().decode(errors='replace')} for {asked['query']}") from error
        if data["resultType"] == "scalar":
            return [_series({}, [data["result"]])]
        return [_series(each["metric"], each.get("values") or [each["value"]]) for each in data["result"]]


def _series(labels: Mapping[str, str], points: list[Any]) -> Series:
    return Series(
        labels={name: value for name, value in labels.items() if name != "__name__"},
        times=tuple(float(time) for time, _ in points),
        values=tuple(float(value) for _, value in points),
    )
