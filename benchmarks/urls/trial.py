"""Runs inside the network: one client after the other tries every URL, and every connection is counted.

What it prints is JSON; see `tried`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.urls.catalogue import Catalogue, HostileUrl, catalogue
from benchmarks.urls.clients import Client, Fetch, clients
from benchmarks.urls.names import NameServer
from benchmarks.urls.network import NAME_SERVER
from benchmarks.urls.servers import OTHER_SITE, PICTURE, SITE, SITE_IPV6, Servers
from skipvision.errors import FetchError

PUBLIC = frozenset({SITE, SITE_IPV6, OTHER_SITE})


def tried(client: Client, urls: Catalogue, servers: Servers, names: NameServer) -> dict[str, Any]:
    """What became of every URL: by group the number of `urls`, of `hits`, and how often each `code` was the answer.

    `good` counts the good URLs that were fetched. `unexpected` says what should not have been, one sentence each: a
    good URL that was not fetched, and of a client with a policy a hit, or a code that is not the URL's.
    """
    servers.public = PUBLIC | client.opened
    names.begin_again()
    groups: dict[str, dict[str, Any]] = defaultdict(lambda: {"urls": 0, "hits": 0, "codes": Counter()})
    unexpected = []
    before = servers.hits
    with client.start() as fetch:
        good = _good_urls(client, urls)
        reached = [url for url in good if _outcome(fetch, url) == PICTURE]
        unexpected += [f"not fetched: {url}" for url in good if url not in reached]
        for hostile in urls.urls:
            hits = servers.hits
            if not _is_as_hostile_as_it_can_be(client, hostile):
                unexpected.append(f"not fetched while it was public: {hostile.url}")
            outcome = _outcome(fetch, hostile.url)
            group = groups[hostile.group]
            group["urls"] += 1
            group["hits"] += servers.hits > hits
            group["codes"][outcome if isinstance(outcome, str) else "fetched"] += 1
            if client.policy:
                unexpected += [f"{outcome!r}: {hostile.url!r}"] if outcome not in _codes(client, hostile) else []
                unexpected += [f"{place} was asked: {hostile.url!r}" for place in servers.inside_since(hits)]
    return {"good": len(reached), "hits": servers.hits - before, "groups": groups, "unexpected": unexpected}


def _good_urls(client: Client, urls: Catalogue) -> Sequence[str]:
    return (
        *urls.good,
        *(urls.good_over_http if _is_asked_over_http(client) else ()),
        *(urls.good_in_jobs if client.opened else ()),
    )


def _is_asked(client: Client, hostile: HostileUrl) -> bool:
    return not hostile.url.startswith("http:") or _is_asked_over_http(client)


def _is_asked_over_http(client: Client) -> bool:
    return client.policy is None or "http" in client.policy.schemes


def _codes(client: Client, hostile: HostileUrl) -> frozenset[str]:
    """What may be answered: nothing that begins with http: is looked at further where http is not fetched."""
    return hostile.codes if _is_asked(client, hostile) else hostile.codes | {"url_scheme"}


def _is_as_hostile_as_it_can_be(client: Client, hostile: HostileUrl) -> bool:
    """Whether a name that was public at first was fetched then, by another process of a client that has a policy.

    One without looks it up at every fetch, or twice, and needs no such help.
    """
    if not (hostile.was_public and client.policy and _is_asked(client, hostile)):
        return True
    with client.start() as fetch:
        return _outcome(fetch, hostile.url) == PICTURE


def _outcome(fetch: Fetch, url: str) -> bytes | str:
    """What was fetched, or the code, or else the name of the error."""
    try:
        return fetch(url)
    except FetchError as error:
        return error.code
    except Exception as error:  # clients without rules fail in every way there is
        return type(error).__name__


if __name__ == "__main__":
    urls = catalogue()
    servers, names = Servers(Path(sys.argv[1], "site.pem")), NameServer(urls.zone, NAME_SERVER)
    print(json.dumps({name: tried(client, urls, servers, names) for name, client in clients().items()}))
