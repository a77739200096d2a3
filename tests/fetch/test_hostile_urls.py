"""URLs that want to be let in, in a network made for them: nothing inside is asked, and good ones are fetched there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.machine import circumstances
from benchmarks.urls.__main__ import tried_by_all
from benchmarks.urls.addresses import METADATA
from benchmarks.urls.catalogue import Catalogue, catalogue
from benchmarks.urls.network import why_not
from benchmarks.urls.spellings import SPELLINGS
from skipvision.errors import FetchError
from skipvision.fetch import FetchPolicy
from skipvision.metrics.catalogue import ERROR_CODES

PAGE = Path(__file__).parents[2] / "docs" / "fetching.md"

WITHOUT_RULES = ("no rules", "`is_global` first")
POLICIES = ("job", "service, http too", "service")
LEAD_INSIDE = ("metadata by number", "inside by number", "metadata by name", "inside by name", "redirects inside")

pytestmark = pytest.mark.timeout(
    900
)  # some twenty seconds of work, but more than a thousand connections for each client


@pytest.fixture(scope="module")
def clients() -> dict[str, Any]:
    if reason := why_not():
        pytest.skip(f"a network for hostile URLs cannot be made here: {reason}")
    return tried_by_all()


@pytest.fixture(scope="module")
def urls() -> Catalogue:
    return catalogue()


def hits(client: dict[str, Any], group: str) -> int:
    return client["groups"][group]["hits"]


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_inside_is_asked_and_every_url_ends_with_its_code(clients, urls, policy):
    tried = clients[policy]
    assert tried["hits"] == 0
    assert tried["unexpected"] == []
    assert sum(group["urls"] for group in tried["groups"].values()) == len(urls.urls) >= 300
    assert not any("fetched" in group["codes"] for group in tried["groups"].values())


def test_good_urls_are_fetched_in_the_same_network(clients, urls):
    encrypted, plain = len(urls.good), len(urls.good_over_http)
    assert encrypted >= 10
    assert clients["service"]["good"] == encrypted
    assert clients["service, http too"]["good"] == encrypted + plain
    assert clients["job"]["good"] == encrypted + plain + len(urls.good_in_jobs)


def test_a_client_without_rules_reaches_what_is_inside(clients):
    """What nobody could reach would prove nothing."""
    naive = clients["no rules"]
    unreachable = 2 * sum(address.startswith("fe80") for address in METADATA.values())  # without naming a device
    assert hits(naive, "metadata by number") == 2 * len(METADATA) - unreachable
    for group in LEAD_INSIDE:
        assert hits(naive, group) > naive["groups"][group]["urls"] / 2, group


def test_a_client_that_checks_the_name_first_is_led_inside_by_redirects_and_rebinding(clients):
    checking = clients["`is_global` first"]
    assert hits(checking, "metadata by name") == 0
    assert min(hits(checking, group) for group in ("redirects inside", "rebinding names")) > 30


def test_there_are_enough_ways_to_write_what_is_inside(urls):
    assert len(set(SPELLINGS)) == len(SPELLINGS) >= 60
    assert len({hostile.url for hostile in urls.urls}) == len(urls.urls)


def test_where_the_network_cannot_be_made_the_reason_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "unshare" in str(why_not())


def test_the_page_names_every_code_and_the_bounds_of_both_policies():
    page = PAGE.read_text()
    codes = {code for code in ERROR_CODES if code.startswith(("fetch_", "url_"))} - {FetchError.default_code}
    assert {code for code in codes if f"| `{code}` |" not in page} == set()
    job, service = FetchPolicy(), FetchPolicy.service()
    for row in (
        f"| one answer | {job.max_bytes >> 20} MiB | {service.max_bytes >> 20} MiB |",
        f"| one URL, with redirects and tries | {bounds(job)} | {bounds(service)} |",
        f"| connections to one host | {job.max_per_host} | {service.max_per_host} |",
    ):
        assert row in page


def bounds(policy: FetchPolicy) -> str:
    return f"{policy.total_seconds:.0f} s, {policy.max_redirects} redirects, {policy.max_attempts} tries"


def test_the_table_has_a_row_for_each_group_and_one_for_all():
    groups = {"a": {"urls": 3, "hits": 2, "codes": {"url_refused": 3}}, "b": {"urls": 1, "hits": 0, "codes": {"x": 1}}}
    client = {"good": 4, "hits": 5, "groups": groups, "unexpected": []}
    result = {**circumstances(), "fetched_with": {"aiohttp": "3"}, "clients": {"job": client, "service": client}}
    rows = [line.strip("| ").split(" | ") for line in tables.urls(result).splitlines()[2:5]]
    assert rows == [["a", "3", "2", "2"], ["b", "1", "0", "0"], ["all", "4", "2", "2"]]
