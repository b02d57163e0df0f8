"""Calendar windows in named zones against hand-made instants; rings leave bucket by bucket."""

from datetime import UTC, datetime, timedelta

import pytest

from outlay.flow.accounts import Account
from outlay.flow.budgets import BudgetSpec
from outlay.flow.windows import (
    FOREVER,
    ROLLING_BUCKETS,
    WindowKind,
    bounds,
    bucket_leaves_at,
    bucket_nanos,
    bucket_start,
    parse_window,
)

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def utc(text: str) -> int:
    """Nanos of an ISO time with offset."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


# window, zone, an instant in it, its start and its end
CALENDAR = [
    ("day", "UTC", "2026-03-05T12:00+00:00", "2026-03-05T00:00+00:00", "2026-03-06T00:00+00:00"),
    ("day", "Europe/Berlin", "2026-03-29T12:00+02:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
    ("day", "Europe/Berlin", "2026-10-25T12:00+01:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
    ("day", "America/New_York", "2026-03-08T01:59-05:00", "2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00"),
    ("day", "America/New_York", "2026-11-01T01:30-05:00", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00"),
    # midnight itself is skipped: the day begins at the first instant after the gap
    ("day", "Africa/Cairo", "2026-04-24T12:00+03:00", "2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"),
    # Lord Howe moves by half an hour
    (
        "day",
        "Australia/Lord_Howe",
        "2026-04-05T12:00+10:30",
        "2026-04-05T00:00+11:00",
        "2026-04-06T00:00+10:30",
    ),
    (
        "day",
        "Pacific/Kiritimati",
        "2026-01-01T05:00+14:00",
        "2026-01-01T00:00+14:00",
        "2026-01-02T00:00+14:00",
    ),
    ("day", "Etc/GMT+12", "2026-01-01T05:00-12:00", "2026-01-01T00:00-12:00", "2026-01-02T00:00-12:00"),
    ("day", "Asia/Kathmandu", "2026-01-01T00:00+05:45", "2026-01-01T00:00+05:45", "2026-01-02T00:00+05:45"),
    ("week", "UTC", "2026-03-01T23:59+00:00", "2026-02-23T00:00+00:00", "2026-03-02T00:00+00:00"),
    ("week", "Europe/Berlin", "2026-03-29T23:00+02:00", "2026-03-23T00:00+01:00", "2026-03-30T00:00+02:00"),
    ("month", "UTC", "2026-01-31T23:59+00:00", "2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00"),
    ("month", "UTC", "2028-02-29T12:00+00:00", "2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00"),
    ("month", "UTC", "2026-02-28T23:59+00:00", "2026-02-01T00:00+00:00", "2026-03-01T00:00+00:00"),
    ("month", "UTC", "2026-12-31T12:00+00:00", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
    (
        "month",
        "America/New_York",
        "2026-03-20T12:00-04:00",
        "2026-03-01T00:00-05:00",
        "2026-04-01T00:00-04:00",
    ),
    ("quarter", "UTC", "2026-11-30T12:00+00:00", "2026-10-01T00:00+00:00", "2027-01-01T00:00+00:00"),
    ("quarter", "UTC", "2026-03-31T23:59+00:00", "2026-01-01T00:00+00:00", "2026-04-01T00:00+00:00"),
    (
        "quarter",
        "Europe/Berlin",
        "2026-06-30T23:59+02:00",
        "2026-04-01T00:00+02:00",
        "2026-07-01T00:00+02:00",
    ),
    ("year", "UTC", "2028-12-31T23:59+00:00", "2028-01-01T00:00+00:00", "2029-01-01T00:00+00:00"),
    ("year", "Asia/Tokyo", "2026-01-01T00:00+09:00", "2026-01-01T00:00+09:00", "2027-01-01T00:00+09:00"),
]


@pytest.mark.parametrize(("window", "zone", "at", "start", "end"), CALENDAR)
def test_calendar(window: str, zone: str, at: str, start: str, end: str) -> None:
    found = parse_window(window, zone)
    wanted = (utc(start), utc(end))
    assert bounds(found, utc(at)) == wanted
    # the ends belong to it as they should: start inside, end outside
    assert bounds(found, wanted[0]) == bounds(found, wanted[1] - 1) == wanted
    assert bounds(found, wanted[1])[0] == wanted[1]
    assert bounds(found, wanted[0] - 1)[1] == wanted[0]


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("kind", ["day", "week", "month", "quarter", "year"])
def test_windows_have_no_gap_and_no_overlap(kind: str, zone: str) -> None:
    window = parse_window(kind, zone)
    _, end = bounds(window, utc("2026-01-01T00:00+00:00"))
    last = utc("2028-06-01T00:00+00:00")
    while end < last:
        next_start, next_end = bounds(window, end)
        assert next_start == end
        assert next_end > end
        assert bounds(window, (next_start + next_end) // 2) == (next_start, next_end)
        end = next_end


def test_dst_days_have_23_and_25_hours() -> None:
    window = parse_window("day", "Europe/Berlin")
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)):
        start, end = bounds(window, utc(day + "T12:00+01:00"))
        assert (end - start) // HOUR == hours


def test_lifetime() -> None:
    assert bounds(parse_window("lifetime"), 17) == (0, FOREVER)


@pytest.mark.parametrize("text", ["90s", "5m", "24h", "7d", "400d", "1s"])
def test_rolling_lengths(text: str) -> None:
    window = parse_window(text)
    assert window.kind is WindowKind.ROLLING
    seconds = int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]
    assert window.seconds == seconds
    assert bucket_nanos(window) == max(seconds * SECOND // ROLLING_BUCKETS, SECOND // 10)


@pytest.mark.parametrize("text", ["0s", "401d", "fortnight", "rolling", "-5m", "5", "", "1.5h", "Month"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="window"):
        parse_window(text)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "berlin "])
def test_zones_that_are_none(zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse_window("day", zone)


def ring(text: str) -> Account:
    return Account(1, BudgetSpec("ring", {}, 100, parse_window(text)), (), 0, FOREVER)


@pytest.mark.parametrize("text", ["1s", "60s", "90s", "24h"])
def test_spend_leaves_a_ring_when_its_bucket_is_wholly_outside(text: str) -> None:
    account = ring(text)
    window = account.budget.window
    size, length = bucket_nanos(window), window.seconds * SECOND
    begin = utc("2026-05-05T05:05+00:00") // size * size
    account.post(7, begin)
    account.post(5, begin + size - 1)
    account.post(1, begin + size)
    leaves = begin + size + length
    assert account.changes_at(begin) == bucket_leaves_at(window, begin) == leaves
    assert account.leave(leaves - 1) is False
    assert account.spent == 13
    assert account.leave(leaves) is True
    assert account.spent == 1
    assert account.leave(leaves + size) is True
    assert (account.spent, account.changes_at(0), account.resets_at(0)) == (0, FOREVER, None)
    # spend counts for its whole window and at most one bucket longer
    assert length <= leaves - (begin + size - 1) <= leaves - begin <= length + size


def test_a_bucket_contains_its_time() -> None:
    window = parse_window("90s")
    for at in range(0, 10**11, 777_777_777):
        start = bucket_start(window, at)
        assert start <= at < start + bucket_nanos(window)


def test_an_adjustment_meets_the_bucket_it_belongs_to() -> None:
    account = ring("60s")
    start = utc("2026-05-05T05:05+00:00")
    account.post(40, start)
    account.post(10, start + 30 * SECOND)
    account.adjust(-15, start, start + 40 * SECOND)
    assert account.spent == 35
    account.leave(start + 62 * SECOND)
    assert account.spent == 10
    account.adjust(-15, start, start + 63 * SECOND)
    assert account.spent == 10


def test_a_calendar_account_tells_when_it_resets() -> None:
    at = utc("2026-05-05T05:05+00:00")
    window = parse_window("month")
    account = Account(1, BudgetSpec("m", {}, 100, window), (), *bounds(window, at))
    resets = account.resets_at(at)
    assert resets is not None
    assert datetime.fromtimestamp(resets // SECOND, UTC) - timedelta(days=31) == datetime(
        2026, 5, 1, tzinfo=UTC
    )
