"""Admission: never more than is allowed, nothing lost or kept back, and refusals that say truly when to come again."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.auth import TenantConfig
from service.ledger import Ledger
from service.limits import Admission, Limits, RateLimitError

SECOND_NS = 1_000_000_000
MIDNIGHT = 1_773_532_800.0


class Time:
    """Both clocks, moved by hand."""

    def __init__(self, epoch: float = MIDNIGHT + 3600) -> None:
        self.now_ns, self.epoch = 0, epoch

    def pass_by(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        self.epoch += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def limits_of(time: Time, *tenants: TenantConfig, ledger: Ledger | None = None) -> Limits:
    return Limits(tenants, ledger=ledger, clock=lambda: time.now_ns, wall=lambda: time.epoch)


def acme(**limits) -> TenantConfig:
    return TenantConfig(name="acme", **limits)


def refused(limits: Limits, tenant: TenantConfig, *, images: int = 0, tokens: int = 1) -> RateLimitError:
    with pytest.raises(RateLimitError) as refusal:
        limits.admit(tenant, images=images, tokens=tokens)
    return refusal.value


def served(limits: Limits, tenant: TenantConfig, *, images: int = 0, tokens: int = 1, used: int | None = None) -> None:
    with limits.admit(tenant, images=images, tokens=tokens) as admission:
        admission.settle(tokens if used is None else used)


def test_without_limits_everything_is_admitted(time):
    limits = limits_of(time, acme())
    for _ in range(1000):
        served(limits, acme(), images=100, tokens=10**9)
    assert limits.headers(acme()) == {}


def test_a_rate_is_a_burst_and_then_an_even_flow(time):
    tenant = acme(requests_per_minute=4)
    limits = limits_of(time, tenant)
    for _ in range(4):
        served(limits, tenant)
    refusal = refused(limits, tenant)
    assert (refusal.code, refusal.resource) == ("rate_limit_exceeded", "requests")
    assert (refusal.limit, refusal.remaining, refusal.retry_after_seconds) == (4, 0, 15.0)
    assert str(refusal) == "4 requests per minute are allowed: 0 are left, 1 asked for; try again in 15.000 s"
    time.pass_by(15)
    served(limits, tenant)
    refused(limits, tenant)


def test_of_several_limits_the_one_that_stands_longest_is_told(time):
    tenant = acme(requests_per_minute=60, images_per_minute=2, tokens_per_minute=600)
    limits = limits_of(time, tenant)
    served(limits, tenant, images=2, tokens=600)
    refusal = refused(limits, tenant, images=1, tokens=10)
    assert (refusal.resource, refusal.retry_after_seconds) == ("images", 30.0)


def test_a_refused_request_takes_nothing(time):
    tenant = acme(requests_per_minute=5, images_per_minute=1, tokens_per_minute=10, max_concurrent=2, tokens_per_day=20)
    limits = limits_of(time, tenant)
    before = limits.headers(tenant)
    for _ in range(9):
        refused(limits, tenant, images=2)
        refused(limits, tenant, tokens=11)
    assert limits.headers(tenant) == before
    assert limits.in_flight(tenant) == 0


@pytest.mark.parametrize(
    ("allowed", "code", "says"),
    [
        ({"tokens_per_minute": 100}, "rate_limit_exceeded", "asks for 130 tokens, and at most 100 per minute"),
        ({"tokens_per_day": 100}, "insufficient_quota", "asks for 130 tokens per day, and at most 100 are allowed"),
        (
            {"tokens_per_minute": 100, "max_concurrent": 1, "tokens_per_day": 999},
            "rate_limit_exceeded",
            "100 per minute",
        ),
    ],
)
def test_a_request_that_can_never_be_admitted_is_told_by_how_much_it_is_too_large(time, allowed, code, says):
    refusal = refused(limits_of(time, acme(**allowed)), acme(**allowed), tokens=130)
    assert (refusal.code, refusal.retry_after_seconds) == (code, None)
    assert says in str(refusal)
    assert "never be admitted; make it smaller by 30" in str(refusal)


def test_too_many_images_for_any_minute_are_told_so(time):
    refusal = refused(limits_of(time, acme(images_per_minute=8)), acme(images_per_minute=8), images=9)
    assert "make it smaller by 1" in str(refusal)


def test_what_was_estimated_too_high_is_given_back(time):
    tenant = acme(tokens_per_minute=100)
    limits = limits_of(time, tenant)
    served(limits, tenant, tokens=100, used=40)
    assert limits.headers(tenant)["x-ratelimit-remaining-tokens"] == "60"


def test_what_was_estimated_too_low_is_a_debt(time):
    tenant = acme(tokens_per_minute=60)
    limits = limits_of(time, tenant)
    served(limits, tenant, tokens=10, used=90)
    assert limits.headers(tenant)["x-ratelimit-remaining-tokens"] == "0"
    assert refused(limits, tenant, tokens=1).retry_after_seconds == 31.0


def test_a_place_is_free_again_when_the_request_ends(time):
    tenant = acme(max_concurrent=2)
    limits = limits_of(time, tenant)
    with limits.admit(tenant, images=0, tokens=1):
        with limits.admit(tenant, images=0, tokens=1):
            refusal = refused(limits, tenant)
            assert (refusal.code, refusal.resource) == ("rate_limit_exceeded", "concurrent requests")
            assert (refusal.limit, refusal.remaining, refusal.retry_after_seconds) == (2, 0, 1.0)
        served(limits, tenant)
    assert limits.in_flight(tenant) == 0


def test_a_place_is_given_back_once_however_often_it_is_closed(time):
    tenant = acme()
    limits = limits_of(time, tenant)
    other = limits.admit(tenant, images=0, tokens=1)
    with limits.admit(tenant, images=0, tokens=1) as admission:
        admission.close()
        admission.close()
    assert limits.in_flight(tenant) == 1
    other.close()
    assert limits.in_flight(tenant) == 0


@pytest.mark.parametrize("end", [lambda place: place.settle(3), lambda place: place.close()])
def test_tokens_are_settled_once_and_before_the_end(time, end):
    admission = limits_of(time, acme()).admit(acme(), images=0, tokens=5)
    end(admission)
    with pytest.raises(RuntimeError, match="settled once, and before it ends"):
        admission.settle(3)


def test_a_request_that_answered_nothing_costs_no_tokens_but_was_a_request(time):
    tenant = acme(requests_per_minute=9, images_per_minute=9, tokens_per_minute=90, tokens_per_day=90)
    limits = limits_of(time, tenant)
    with suppress(OSError), limits.admit(tenant, images=2, tokens=90):
        raise OSError
    left = {name: value for name, value in limits.headers(tenant).items() if "remaining" in name}
    assert list(left.values()) == ["8", "7", "90"]
    served(limits, tenant, tokens=90)


def test_a_cancelled_request_leaves_nothing_behind(time):
    tenant = acme(max_concurrent=1, tokens_per_minute=10, tokens_per_day=10)
    limits = limits_of(time, tenant)

    async def request() -> None:
        with limits.admit(tenant, images=0, tokens=10):
            await asyncio.Event().wait()

    async def cancelled() -> None:
        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        assert limits.in_flight(tenant) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert limits.in_flight(tenant) == 0
    served(limits, tenant, tokens=10)


def test_a_used_up_budget_begins_anew_at_midnight(time):
    tenant = acme(tokens_per_day=100)
    limits = limits_of(time, tenant)
    served(limits, tenant, tokens=100, used=95)
    refusal = refused(limits, tenant, tokens=6)
    assert (refusal.code, refusal.resource, refusal.remaining) == ("insufficient_quota", "tokens per day", 5)
    assert refusal.retry_after_seconds == 23 * 3600
    assert "5 are left, 6 asked for" in str(refusal)
    served(limits, tenant, tokens=5)
    time.pass_by(23 * 3600)
    served(limits, tenant, tokens=100)


def test_what_requests_in_work_may_still_need_is_not_promised_twice(time):
    tenant = acme(tokens_per_day=100)
    limits = limits_of(time, tenant)
    with limits.admit(tenant, images=0, tokens=80) as admission:
        refusal = refused(limits, tenant, tokens=30)
        assert (refusal.code, refusal.remaining) == ("rate_limit_exceeded", 20)
        admission.settle(10)
        served(limits, tenant, tokens=30)


def test_a_budget_outlives_the_process(tmp_path, time):
    tenant = acme(tokens_per_day=100)
    for left in (100, 40):
        ledger = Ledger(tmp_path / "ledger", clock=lambda: time.now_ns, wall=lambda: time.epoch)
        limits = limits_of(time, tenant, ledger=ledger)
        assert refused(limits, tenant, tokens=101).remaining == left
        served(limits, tenant, tokens=left, used=60 if left == 100 else 40)
        ledger.close()


def test_tenants_do_not_feel_each_other(time):
    one, other = acme(requests_per_minute=1), TenantConfig(name="zeta", requests_per_minute=1)
    limits = limits_of(time, one, other)
    served(limits, one)
    refused(limits, one)
    served(limits, other)


def test_a_tenant_that_is_not_configured_has_no_state(time):
    with pytest.raises(KeyError, match="zeta"):
        limits_of(time, acme()).admit(TenantConfig(name="zeta"), images=0, tokens=1)


@pytest.mark.parametrize("asked", [{"images": -1, "tokens": 1}, {"images": 0, "tokens": -1}])
def test_negative_amounts_are_refused(time, asked):
    with pytest.raises(ValueError, match="at least 0"):
        limits_of(time, acme()).admit(acme(), **asked)


def test_negative_use_is_refused(time):
    with pytest.raises(ValueError, match="at least 0; got -1"):
        limits_of(time, acme()).admit(acme(), images=0, tokens=1).settle(-1)


def test_the_headers_are_those_of_openai(time):
    tenant = acme(requests_per_minute=60, tokens_per_minute=6000)
    limits = limits_of(time, tenant)
    served(limits, tenant, tokens=6000, used=6150)
    assert limits.headers(tenant) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m1.5s",
    }
    time.pass_by(0.8800001)
    assert limits.headers(tenant)["x-ratelimit-reset-requests"] == "120ms"
    time.pass_by(600)
    assert limits.headers(tenant)["x-ratelimit-reset-requests"] == "0s"


def test_a_refusal_survives_the_way_to_another_process(time):
    sent = refused(limits_of(time, acme(tokens_per_day=5)), acme(tokens_per_day=5), tokens=6)
    received = pickle.loads(pickle.dumps(sent))
    assert (str(received), vars(received)) == (str(sent), vars(sent))


def check_windows(admitted: list[tuple[int, int]], per_minute: int) -> None:
    """Between any two admissions, those included: at most a full bucket, and the flow of the time between them."""
    for first, (start, _) in enumerate(admitted):
        total = 0
        for when, amount in admitted[first:]:
            total += amount
            assert (total - per_minute) * 60 * SECOND_NS <= per_minute * (when - start)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0, 100)), st.integers(0, 6)), max_size=60))
def test_no_window_has_more_than_a_burst_and_what_flowed_in(schedule):
    time, tenant = Time(), acme(requests_per_minute=5, images_per_minute=6)
    limits, admitted = limits_of(time, tenant), []
    for seconds, images in schedule:
        time.pass_by(seconds)
        with suppress(RateLimitError):
            served(limits, tenant, images=images)
            admitted.append((time.now_ns, images))
    check_windows([(when, 1) for when, _ in admitted], 5)
    check_windows(admitted, 6)


class AnySchedule(RuleBasedStateMachine):
    """Requests of two tenants that come, end well or badly, and are refused, at any times."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time(MIDNIGHT - 300)
        self.tenants = [
            acme(requests_per_minute=7, images_per_minute=11, max_concurrent=3, tokens_per_minute=500),
            TenantConfig(name="zeta", tokens_per_minute=900, tokens_per_day=2000, max_concurrent=4),
        ]
        self.ledger = Ledger(None, clock=lambda: self.time.now_ns, wall=lambda: self.time.epoch)
        self.limits = limits_of(self.time, *self.tenants, ledger=self.ledger)
        self.in_work: list[tuple[TenantConfig, Admission, int]] = []
        self.admitted: list[tuple[int, str, int]] = []  # when, whose, how many images
        self.settled: dict[tuple[str, float], int] = {}

    @rule(which=st.integers(0, 1), images=st.integers(0, 12), tokens=st.integers(0, 1000))
    def ask(self, which: int, images: int, tokens: int) -> None:
        refusal = self._refusal(which, images, tokens)
        if refusal is None or refusal.retry_after_seconds is None:
            return
        are_in_the_way = self.limits.in_flight(self.tenants[which]) > 0
        self.time.pass_by(refusal.retry_after_seconds)
        again = self._refusal(which, images, tokens)
        if again is not None:
            assert are_in_the_way, f"{again}, after {refusal}"
            assert again.resource in ("concurrent requests", "tokens per day")
            assert again.code == "rate_limit_exceeded"

    def _refusal(self, which: int, images: int, tokens: int) -> RateLimitError | None:
        tenant = self.tenants[which]
        try:
            admission = self.limits.admit(tenant, images=images, tokens=tokens)
        except RateLimitError as refusal:
            return refusal
        self.in_work.append((tenant, admission, tokens))
        self.admitted.append((self.time.now_ns, tenant.name, images))
        return None

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 90), st.sampled_from([0.0, 60.0, 86_400.0])))
    def wait(self, seconds: float) -> None:
        self.time.pass_by(seconds)

    @precondition(lambda self: self.in_work)
    @rule(pick=st.integers(0, 99), used=st.floats(0, 1.5), fails_after=st.booleans())
    def answer(self, pick: int, used: float, fails_after: bool) -> None:
        tenant, admission, estimate = self.in_work.pop(pick % len(self.in_work))
        tokens = round(used * estimate)
        with suppress(OSError), admission:
            admission.settle(tokens)
            if fails_after:
                raise OSError
        page = tenant.name, self.time.epoch // 86_400
        self.settled[page] = self.settled.get(page, 0) + tokens

    @precondition(lambda self: self.in_work)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        _, admission, _ = self.in_work.pop(pick % len(self.in_work))
        with suppress(asyncio.CancelledError), admission:
            raise asyncio.CancelledError

    @invariant()
    def no_window_has_more_than_a_burst_and_what_flowed_in(self) -> None:
        mine = [(when, images) for when, name, images in self.admitted if name == "acme"]
        check_windows([(when, 1) for when, _ in mine], 7)
        check_windows(mine, 11)

    @invariant()
    def no_more_at_a_time_than_allowed_and_each_is_known(self) -> None:
        for tenant in self.tenants:
            in_work = sum(owner is tenant for owner, _, _ in self.in_work)
            assert self.limits.in_flight(tenant) == in_work <= tenant.max_concurrent

    @invariant()
    def the_ledger_is_the_sum_of_what_was_settled(self) -> None:
        for tenant in self.tenants:
            assert self.ledger.tokens_of(tenant.name) == self.settled.get((tenant.name, self.time.epoch // 86_400), 0)

    def teardown(self) -> None:
        """Once all have ended and the day is over, everything is as at the beginning."""
        for _, admission, _ in self.in_work:
            admission.close()
        self.time.pass_by(86_400)
        for tenant in self.tenants:
            served(self.limits, tenant, tokens=tenant.tokens_per_minute)


TestAnySchedule = AnySchedule.TestCase
TestAnySchedule.settings = settings(deadline=None, derandomize=True, max_examples=50, stateful_step_count=30)
