"""Parts of the console's pages that need no process: filters, charts, files, decisions, sessions."""

import csv
import io
import urllib.parse

import pytest

from outlay.app.config import ConsoleSection, PersonEntry, Role
from outlay.app.console.charts import MONEY, Series, stacked_bars, steps
from outlay.app.console.filters import Filters
from outlay.app.console.people import Forbidden, Person, check_decision
from outlay.app.console.runs_room import run_href
from outlay.app.console.sessions import IDLE_S, MAX_SESSIONS, SESSION_S, Sessions
from outlay.app.console.tables import Link, Table, Usd
from outlay.app.console.web import own_path
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND, ManualClock

ADMIN, ADA = "the-admin-token-of-this-test", "the-token-of-ada-approver"
EVIL = "<script>alert(1)</script>\"'&"


def test_filters_come_from_the_address_and_go_back_into_it() -> None:
    filters = Filters.of(
        {"range": "7d", "by": "tag.squad", "team": "a&b", "tag.x": "1", "page": "2", "run": ""}
    )
    assert filters.where == (("tag.x", "1"), ("team", "a&b"))
    again = Filters.of(dict(urllib.parse.parse_qsl(filters.query().removeprefix("?"))))
    assert again == filters
    assert Filters.of({"range": "1y", "by": "colour"}) == Filters()
    assert Filters().query() == ""
    assert filters.covers(Identity(team="a&b", tags=(("x", "1"),)))
    assert not filters.covers(Identity(team="a&b"))


@pytest.mark.parametrize("name", ["1h", "6h", "24h", "7d", "30d", "90d"])
def test_ranges_are_whole_slots_that_hold_now(name: str) -> None:
    now = 1_795_859_999 * NANOS_PER_SECOND
    span = Filters(range=name).span(now)
    assert span.since % span.size == span.until % span.size == 0
    assert span.until - span.size <= now < span.until
    assert len(span.slots) == (span.until - span.since) // span.size
    assert all(span.label(at) for at in span.slots)


def test_a_way_back_is_a_path_of_this_console() -> None:
    for path in ("/", "/runs/a/b?t=1#x", "/approvals?request=req_1"):
        assert own_path(path) == path
    for path in (
        "",
        "runs",
        "//evil.test",
        "/\\evil.test",
        "https://evil.test/",
        "/a\nb",
        "javascript:alert(1)",
    ):
        assert own_path(path) == "/"


def test_tables_as_files_hold_exact_amounts_and_no_formulas() -> None:
    table = Table("t", "T", ("who", "cost", "n"), [("=1+1", Usd(1), 3), (Link("@x", "/"), Usd(None), None)])
    assert list(csv.reader(io.StringIO(table.as_csv()))) == [
        ["who", "cost", "n"],
        ["'=1+1", "0.000000001", "3"],
        ["'@x", "", ""],
    ]
    assert table.as_json()["rows"][0] == {"who": "=1+1", "cost": {"usd": "0.000000001", "nanos": 1}, "n": 3}


def test_charts_draw_what_they_are_given_and_escape_names() -> None:
    chart = stacked_bars(
        EVIL, ["a", "b"], [Series(EVIL, [1_000_000_000, 0], 0), Series("x", [5, 5], -1)], MONEY
    )
    assert chart.count("<rect") == 3 and "<script" not in chart and "$1.00" in chart
    assert "style=" not in chart
    line = steps("t", [(0, 1), (1_000_000, 2)], ("a", EVIL), MONEY)
    assert "<script" not in line and line.count('class="step"') == 6


@pytest.mark.parametrize(
    ("team", "run", "href"),
    [
        ("search", "nightly-17", "/runs/search/nightly-17"),
        ("", "a/b c", "/runs/unattributed/a/b%20c"),
        ("x/y", "r", "/runs/-/-?t=x%2Fy&n=r"),
        ("x", "../../budgets", "/runs/-/-?t=x&n=..%2F..%2Fbudgets"),
        ("x", "<b>", "/runs/x/%3Cb%3E"),
    ],
)
def test_a_runs_page_has_an_address_whatever_its_name(team: str, run: str, href: str) -> None:
    assert run_href(team, run) == href


def test_a_decision_needs_scope_and_amount() -> None:
    ada = Person("ada", Role.APPROVER, (("team", "search"),), 10)
    check_decision(ada, {"team": "search", "run": "x"}, 10, 0)
    for values, nanos, raised in (
        ({"team": "ads"}, 1, 0),
        ({}, 1, 0),
        ({"team": "search"}, 11, 0),
        ({"team": "search"}, 6, 5),
    ):
        with pytest.raises(Forbidden):
            check_decision(ada, values, nanos, raised)
    with pytest.raises(Forbidden):
        check_decision(Person("finance", Role.VIEWER), {"team": "search"}, 0, 0)
    check_decision(Person("admin", Role.ADMIN), {}, 10**15, 10**15)


def test_sessions_end_by_time_by_idleness_and_with_their_token() -> None:
    clock = ManualClock()
    sessions = Sessions(clock)
    section = ConsoleSection(admin_token=ADMIN, people=(PersonEntry(name="ada", token=ADA),))
    assert sessions.open(section, "wrong") is None and sessions.open(section, "") is None
    opened = sessions.open(section, ADA)
    assert opened is not None and opened[1].name == "ada"
    found = sessions.find(section, opened[0])
    assert found is not None and len(found[0].csrf) > 30 and ADA not in repr(found[0])
    assert sessions.find(section, opened[0] + "x") is None
    # the token goes: so does whoever had it
    assert sessions.find(ConsoleSection(admin_token=ADMIN), opened[0]) is None
    assert sessions.find(section, opened[0]) is None
    (cookie, _) = sessions.open(section, ADMIN) or ("", None)
    for _ in range(SESSION_S // (IDLE_S - 1)):
        clock.advance((IDLE_S - 1) * NANOS_PER_SECOND)
        assert sessions.find(section, cookie) is not None
    clock.advance((IDLE_S - 1) * NANOS_PER_SECOND)
    assert sessions.find(section, cookie) is None
    (cookie, _) = sessions.open(section, ADMIN) or ("", None)
    clock.advance(IDLE_S * NANOS_PER_SECOND)
    assert sessions.find(section, cookie) is None
    (first, _) = sessions.open(section, ADMIN) or ("", None)
    for _ in range(MAX_SESSIONS):
        sessions.open(section, ADMIN)
    assert sessions.find(section, first) is None
