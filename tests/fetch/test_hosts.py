"""A host that has stopped answering is left alone, and asked again now and then."""

from __future__ import annotations

from collections import defaultdict

import pytest

from skipvision.errors import FetchError
from skipvision.fetch import Fetcher, hosts
from skipvision.fetch.hosts import Hosts
from tests.fetch.site import PICTURE, Site, policy, redirect


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hosts, "monotonic", clock)
    return clock


@pytest.fixture
def known() -> Hosts:
    return Hosts(max_per_host=1, patience_seconds=300)


def is_left_alone(known: Hosts, host: str = "a") -> bool:
    try:
        known.check(host)
    except FetchError as error:
        return error.code == "fetch_host_failing"
    return False


def fail(known: Hosts, times: int, host: str = "a") -> None:
    for _ in range(times):
        known.failed(host)


def test_many_failures_within_a_moment_are_not_the_end_of_a_host(known, clock):
    fail(known, 1000)
    clock.now += 299
    assert not is_left_alone(known)


def test_a_few_failures_over_a_long_time_are_not_either(known, clock):
    fail(known, 19)
    clock.now += 10_000
    assert not is_left_alone(known)


def test_a_host_that_fails_for_long_is_asked_once_in_ten_seconds(known, clock):
    fail(known, 20)
    clock.now += 300
    assert [is_left_alone(known) for _ in range(3)] == [False, True, True]
    clock.now += 10
    assert [is_left_alone(known) for _ in range(2)] == [False, True]
    assert not is_left_alone(known, "b")


def test_one_answer_makes_all_well_again(known, clock):
    fail(known, 20)
    clock.now += 300
    known.answered("a")
    fail(known, 20)
    assert not is_left_alone(known)


def test_hosts_in_trouble_are_not_remembered_without_bound(known, clock):
    for number in range(5000):
        known.failed(str(number))
    assert len(known._troubles) == 4096
    fail(known, 20, "4999")
    clock.now += 300
    assert not is_left_alone(known, "4999")
    assert is_left_alone(known, "4999"), "the latest are remembered"


def impatient(**settings: object) -> Fetcher:
    return Fetcher(policy(host_patience_seconds=0.0, max_attempts=1, max_per_host=1, **settings))


def codes(fetcher: Fetcher, *urls: str) -> list[str]:
    return [outcome.code if isinstance(outcome, FetchError) else "" for outcome in fetcher.fetch_many(urls)]


def test_a_server_that_only_fails_is_asked_no_more(site):
    site.answers = defaultdict(lambda: [(503, {}, b"")])
    with impatient() as fetcher:
        assert codes(fetcher, *(f"{site.root}/{i}" for i in range(20))) == ["fetch_http_error"] * 20
        assert codes(fetcher, *(f"{site.root}/{i}" for i in range(3))).count("fetch_host_failing") == 2
    assert len(site.paths) == 21


def test_answers_that_say_no_are_answers(site):
    site.answers = defaultdict(lambda: [(404, {}, b"")])
    with impatient() as fetcher:
        assert codes(fetcher, *(f"{site.root}/{i}" for i in range(25))) == ["fetch_not_found"] * 25


def test_a_server_that_falls_silent_counts_as_failing(site):
    with impatient(total_seconds=0.05) as fetcher:
        for _ in range(20):
            fetcher_hosts(fetcher).failed("127.0.0.1")
        site.answers["/slow"] = [lambda handler: handler.connection.recv(1)]
        assert codes(fetcher, site.root + "/slow") == ["fetch_timeout"]
        assert codes(fetcher, site.root + "/other") == ["fetch_host_failing"]


def test_where_a_redirect_leads_is_what_fails_and_not_who_redirects(site):
    failing = Site("127.0.0.3")
    failing.answers = defaultdict(lambda: [(503, {}, b"")])
    site.answers = defaultdict(lambda: [redirect(failing.root + "/x")], {"/good": [(200, {}, PICTURE)]})
    try:
        with impatient(allow_networks=("127.0.0.1/32", "127.0.0.3/32")) as fetcher:
            codes(fetcher, *(f"{site.root}/{i}" for i in range(22)))
            assert codes(fetcher, site.root + "/21", site.root + "/good") == ["fetch_host_failing", ""]
    finally:
        failing.close()


def fetcher_hosts(fetcher: Fetcher) -> Hosts:
    return fetcher._started()[0]._hosts
