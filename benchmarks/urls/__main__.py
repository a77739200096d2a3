"""Try every hostile URL in a network of its own, and write down what was reached: `python -m benchmarks.urls`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.machine import versions_of, write_result
from benchmarks.urls.network import run_inside, why_not
from benchmarks.urls.servers import SITE, SITE_IPV6

RESULT = Path(__file__).parents[1] / "results" / "urls.json"


def tried_by_all(*, timeout_seconds: float = 600) -> dict[str, Any]:
    """What `trial.tried` says of each of `clients.clients`."""
    return run_inside(
        "benchmarks.urls.trial",
        addresses=(SITE, SITE_IPV6),
        certified=("site.test", "*.site.test", SITE, SITE_IPV6, f"::ffff:{SITE}"),
        timeout_seconds=timeout_seconds,
    )


if __name__ == "__main__":
    if reason := why_not():
        raise SystemExit(f"no network can be made here: {reason}")
    started = time.monotonic()
    clients = tried_by_all()
    for name, client in clients.items():
        print(f"{name}: {client['hits']} hits, {client['good']} good URLs fetched")
    seconds = round(time.monotonic() - started, 1)
    write_result(
        RESULT, "urls", {"seconds": seconds, "fetched_with": versions_of("aiohttp", "yarl"), "clients": clients}
    )
