"""Policies' pure parts: hours of a zone over DST and midnight, and counters that no rolling minute outruns."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.flow.policy import Hours, PolicyMode, PolicySpec, budgets_of, is_open, opens_at, rules_of
from outlay.flow.rates import SECOND_NS, WINDOW_S, Meter, RateLimits

WEEK = ("mon", "tue", "wed", "thu", "fri")
BERLIN = Hours(WEEK, 8 * 60, 20 * 60, "Europe/Berlin")
NIGHT = Hours(("fri",), 22 * 60, 6 * 60, "UTC")


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_NS


@pytest.mark.parametrize(
    ("hours", "at", "open_"),
    [
        (BERLIN, "2026-11-25T07:00", True),  # 08:00 in winter
        (BERLIN, "2026-11-25T06:59", False),
        (BERLIN, "2026-11-25T18:59", True),
        (BERLIN, "2026-11-25T19:00", False),
        (BERLIN, "2026-07-15T06:00", True),  # 08:00 in summer
        (BERLIN, "2026-07-15T05:59", False),
        (BERLIN, "2026-11-28T10:00", False),  # a Saturday
        (BERLIN, "2026-10-26T07:00", True),  # the Monday after the clock went back
        (NIGHT, "2026-11-27T21:59", False),
        (NIGHT, "2026-11-27T22:00", True),
        (NIGHT, "2026-11-28T05:59", True),  # Friday's night ends on Saturday
        (NIGHT, "2026-11-28T06:00", False),
        (NIGHT, "2026-11-28T23:00", False),
        (Hours(("sun",), 0, 24 * 60), "2026-11-29T23:59", True),
    ],
)
def test_hours(hours: Hours, at: str, open_: bool) -> None:
    assert is_open(hours, ns(at)) is open_


def test_when_it_opens_again() -> None:
    assert opens_at(BERLIN, ns("2026-11-27T20:00")) == ns("2026-11-30T07:00")
    assert opens_at(NIGHT, ns("2026-11-28T06:00")) == ns("2026-12-04T22:00")


def test_velocity_is_budgets_and_models_are_rules() -> None:
    policy = PolicySpec(
        name="p", scope={"team": "*"}, nanos_per_minute=5, nanos_per_hour=9, deny_models=("x",)
    )
    minute, hour = budgets_of(policy)
    assert (minute.name, minute.limit_nanos, minute.window.seconds, minute.hard) == (
        "p/usd-per-minute",
        5,
        60,
        True,
    )
    assert (hour.name, hour.window.seconds) == ("p/usd-per-hour", 3600)
    assert rules_of(policy)[0].deny == ("x",)
    shadow = PolicySpec(name="p", mode=PolicyMode.SHADOW, nanos_per_minute=5, deny_models=("x",))
    assert not budgets_of(shadow)[0].hard
    assert rules_of(shadow) == ()


def test_a_call_counts_at_its_bound_until_it_has_settled() -> None:
    limits = RateLimits("p", "all")
    limits.tokens_limit = 1_000
    now = ns("2026-11-25T07:00")
    assert limits.refuses(600, now, is_first=True) is None
    limits.begin(600, now, is_first=True)
    refused = limits.refuses(600, now, is_first=True)
    assert refused is not None
    assert refused[:3] == ("tokens_per_minute", 1_000, 600)
    limits.end(600, 100, now + SECOND_NS)
    assert limits.refuses(600, now + SECOND_NS, is_first=True) is None
    assert limits.refuses(901, now + SECOND_NS, is_first=True) is not None
    assert limits.refuses(901, now + 63 * SECOND_NS, is_first=True) is None


def test_calls_in_flight() -> None:
    limits = RateLimits("p", "all")
    limits.parallel = 2
    for _ in range(2):
        assert limits.refuses(1, 0, is_first=True) is None
        limits.begin(1, 0, is_first=True)
    assert limits.refuses(1, 0, is_first=True) == ("parallel", 2, 2, 1)
    limits.end(1, 1, 0)
    assert limits.refuses(1, 0, is_first=True) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 3)), max_size=60),
    st.integers(1, 8),
)
def test_no_rolling_minute_holds_more_than_the_limit(steps: list[tuple[int, int]], limit: int) -> None:
    limits = RateLimits("p", "all")
    limits.requests_limit = limit
    now, admitted = 10**18, []
    for pause_ms, _ in steps:
        now += pause_ms * 1_000_000
        refused = limits.refuses(0, now, is_first=True)
        if refused is None:
            limits.begin(0, now, is_first=True)
            limits.end(0, 0, now)
            admitted.append(now)
            continue
        # and whoever comes back after what it was told is let in, if nobody else was meanwhile
        again = now + refused[3] * SECOND_NS
        probe = RateLimits("p", "all")
        probe.requests_limit = limit
        for at in admitted:
            probe.requests.post(1, at)
        assert probe.refuses(0, again, is_first=True) is None
    for start in admitted:
        inside = [at for at in admitted if start <= at < start + WINDOW_S * SECOND_NS]
        assert len(inside) <= limit


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 50)), max_size=80))
def test_a_meter_never_loses_within_a_minute_and_keeps_nothing_for_long(steps: list[tuple[int, int]]) -> None:
    meter = Meter()
    now, posted = 10**18, []
    for pause_ms, count in steps:
        now += pause_ms * 1_000_000
        meter.post(count, now)
        posted.append((now, count))
        total = meter.total(now)
        assert total >= sum(count for at, count in posted if now - at < WINDOW_S * SECOND_NS)
        assert total <= sum(count for at, count in posted if now - at <= (WINDOW_S + 2) * SECOND_NS)
