"""The console's pages without a browser: what they show, who may change what, and that callers' text stays text."""

import html
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from outlay.app.console.runs_room import run_href
from outlay.app.control import ControlClient
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.rollup import REFRESH_NS, Rollup
from outlay.kernel.clock import NANOS_PER_SECOND, SystemClock
from outlay.testing import ChildProcess, MockProvider
from tests.harness import MOCK_PRICES

ADMIN, ADA, FINANCE = (
    "the-admin-token-of-this-test",
    "the-token-of-ada-approver",
    "the-token-of-finance-viewer",
)
DEV, ADS = "sk-outlay-of-the-dev-key", "sk-outlay-of-the-ads-key"
EVIL = "<script>alert(1)</script>\"'&"
CONFIG = """\
org: acme
gateway: {{port: 0, wait_s: 0}}
console:
  port: 0
  url: http://console.test
  admin_token: {admin}
  people:
    - {{name: ada, token: {ada}, role: approver, scope: {{team: search}}, max_raise_usd: "0.01"}}
    - {{name: finance, token: {finance}}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: {dev}, team: search}}
  - {{name: ads, secret: {ads}, team: ads}}
budgets:
  - {{name: company, limit_usd: 1, window: lifetime}}
  - {{name: each-team, scope: {{team: "*"}}, limit_usd: 0.006, window: month}}
  - {{name: each-run, scope: {{run: "*"}}, limit_usd: 2, window: lifetime}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""
BODY = {"model": "gpt-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


class World(NamedTuple):
    gateway: ChildProcess
    url: str
    root: str
    path: Path

    def call(self, secret: str = DEV, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(
            f"{self.url}/v1/chat/completions",
            json=BODY,
            headers={"authorization": f"Bearer {secret}", **named},
            timeout=30,
        )

    def spend_all(self, secret: str = DEV, **headers: str) -> httpx.Response:
        """Call until a budget takes no more."""
        for _ in range(400):
            found = self.call(secret, **headers)
            if found.status_code == 402:
                return found
        raise AssertionError("nothing was refused")

    def browser(self, token: str) -> "Browser":
        return Browser(self.root, token)


class Browser:
    """A signed-in browser without a screen: its cookie, its forms."""

    def __init__(self, root: str, token: str) -> None:
        self.http = httpx.Client(base_url=root, timeout=30, headers={"origin": root})
        self.entered = self.http.post("/signin", data={"token": token, "next": "/runs"})

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def page(self, path: str) -> str:
        answer = self.http.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-400:])
        return answer.text

    def table(self, path: str, table: str) -> list[dict[str, Any]]:
        joint = "&" if "?" in path else "?"
        found = self.http.get(f"{path}{joint}table={table}&as=json")
        assert found.status_code == 200, found.text
        rows: list[dict[str, Any]] = found.json()["rows"]
        return rows

    def send(self, path: str, **fields: str) -> str:
        """A form of this session; the text of the notice on the page that follows."""
        csrf = re.search(r'name="csrf" value="([^"]+)"', self.page("/"))
        assert csrf
        answer = self.http.post(path, data={"csrf": csrf[1], "back": "/approvals", **fields})
        assert answer.status_code == 303, answer.text
        shown = self.page(answer.headers["location"])
        notice = re.search(r'<p class="notice (\w+)" role="status">([^<]*)', shown)
        assert notice, shown
        return html.unescape(f"{notice[1]}: {notice[2]}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        path.write_text(CONFIG.format(url=mock.url, admin=ADMIN, ada=ADA, finance=FINANCE, dev=DEV, ads=ADS))
        with (
            ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway,
            ChildProcess([sys.executable, "-m", "outlay.app.console.main", str(path)]) as console,
        ):
            url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
            root = f"http://127.0.0.1:{console.wait_for_json()['port']}"
            yield World(gateway, url, root, path)
            assert console.end() == 0, console.output
            assert not any(
                token in line for line in console.output for token in (ADMIN, ADA, FINANCE, "Traceback")
            )


def written(world: World, charges: int) -> None:
    """Settlements are written a moment after their answer."""
    while True:
        with LedgerReader(world.path.with_name("outlay.db")) as reader:
            if reader.totals()["charges"] >= charges:
                break
    time.sleep(REFRESH_NS / 1e9)  # pages that were looked at sooner share an older look


@pytest.mark.slow
def test_totals_of_pages_are_those_of_the_ledger_and_names_are_text(world: World) -> None:
    for number in range(6):
        secret = (DEV, ADS)[number % 2]
        headers = {"x_outlay_run": EVIL[:40] if number < 4 else "plain", "x_outlay_agent": EVIL[:30]}
        assert world.call(secret, **headers).status_code == 200
    written(world, 6)
    with world.browser(FINANCE) as browser:
        for page in ("/", "/?range=1h&by=run", "/budgets", "/approvals", "/runs", "/charges"):
            shown = browser.page(page)
            assert "<script>alert" not in shown and "http://" not in re.sub(
                r"base_url=http://[\d.:/v]+", "", shown
            )
            assert not re.search(r'<script(?! src="/static/)|style=|\son\w+=', shown)
        for by, name in (("team", "24h"), ("model", "1h"), ("run", "30d"), ("key", "7d"), ("agent", "6h")):
            rows = browser.table(f"/?range={name}&by={by}", "groups")
            with LedgerReader(world.path.with_name("outlay.db")) as reader:
                expected = {row.group[by]: (row.cost_nanos, row.charges) for row in reader.spend([by])}
            assert {row[by]: (row["cost"]["nanos"], row["charges"]) for row in rows} == expected
            slots = browser.table(f"/?range={name}&by={by}", "spend")
            assert sum(row["total"]["nanos"] for row in slots) == sum(cost for cost, _ in expected.values())
        only = browser.table("/?team=ads", "groups")
        assert [row["charges"] for row in only] == [3]
        assert browser.table("/?team=nobody", "groups") == []
        runs = browser.table("/runs", "runs")
        assert {row["run"] for row in runs} == {EVIL[:40], "plain"}
        link = run_href("search", EVIL[:40])
        assert "<script>alert" not in browser.page(link)
        calls = browser.table(link, "calls")
        assert (
            len(calls) == 2
            and sum(row["cost"]["nanos"] for row in calls)
            == browser.table(link, "cumulative")[-1]["cost so far"]["nanos"]
        )
        split = browser.table(link, "split")
        assert sum(row["cost"]["nanos"] for row in split[:-1]) == split[-1]["cost"]["nanos"]
        rows = browser.table("/charges?team=search&range=1h", "charges")
        assert {row["team"] for row in rows} == {"search"} and len(rows) == 3
        accounts = {(row["budget"], row["scope"]): row for row in browser.table("/budgets", "accounts")}
        account = accounts["each-team", "team=search"]
        assert account["spent"]["nanos"] == sum(row["cost"]["nanos"] for row in rows)
        assert account["limit from"] == "$0.006 declared in outlay.yaml:17"
        found = re.search(r'href="(/budgets/account/\d+)">team=search', browser.page("/budgets"))
        assert found
        assert len(browser.table(found[1], "charges")) == 3
        text = browser.http.get("/?table=groups&as=csv")
        assert (
            text.headers["content-type"].startswith("text/csv")
            and "attachment" in text.headers["content-disposition"]
        )
        assert browser.http.get("/?table=nothing&as=csv").status_code == 404


@pytest.mark.slow
def test_a_page_is_sent_again_only_where_it_changed(world: World) -> None:
    assert world.call().status_code == 200
    written(world, 1)
    with world.browser(FINANCE) as browser:
        browser.page("/")
        parts = dict(re.findall(r'data-part="(\w+)" data-digest="(\w+)"', browser.page("/")))
        assert set(parts) == {"kpis", "spend", "budgets", "refusals"}

        def look() -> set[str]:
            have = ",".join(f"{name}={digest}" for name, digest in parts.items())
            found = browser.http.get("/", headers={"x-outlay-have": have}).json()["parts"]
            parts.update((part["id"], part["digest"]) for part in found)
            return {part["id"] for part in found}

        look()
        assert look() == set()
        assert world.call().status_code == 200
        seen: set[str] = set()
        while not {"kpis", "spend", "budgets"} <= seen:  # pytest's own time limit ends it
            seen |= look()
        assert "refusals" not in seen
        world.spend_all()
        while "refusals" not in look():
            pass


@pytest.mark.slow
def test_a_refusal_leads_to_a_page_where_an_approver_lets_the_work_go_on(world: World) -> None:
    refused = world.spend_all()
    error = refused.json()["error"]
    request_id = refused.headers["x-outlay-request-id"]
    assert error["raise_url"] == f"http://console.test/approvals?request={request_id}"
    where = error["raise_url"].removeprefix("http://console.test")
    with world.browser(FINANCE) as viewer:
        assert request_id in viewer.page(where) and "Ask for it" not in viewer.page(where)
    with world.browser(ADMIN) as admin:
        shown = admin.page(where)
        assert "each-team" in shown and "Ask for it" in shown
        said = admin.send("/approvals/asks", request=request_id, reason=EVIL, usd="", hours="")
        assert said.startswith("done: Asked: ask_")
        (ask,) = admin.table("/approvals", "open")
        assert (ask["by"], ask["why"], ask["what"]) == ("console:admin", EVIL, "each-team")
        assert "<script>alert" not in admin.page("/approvals")
    with world.browser(ADA) as ada:
        grant = f"/approvals/{ask['ask']}/grant"
        assert "you may raise by $0.01 at most" in ada.send(grant, usd="0.02")
        assert "must be a whole number of hours" in ada.send(grant, usd="0.005", hours="x")
        assert ada.send(grant, usd="0.006", hours="2").startswith(
            "done: Raised each-team (team=search) by $0.006"
        )
        assert world.call().status_code == 200
        # two small ones are no large one
        again = ada.send(
            "/approvals/raises",
            **{"budget": "each-team", "scope.team": "search", "usd": "0.005", "note": "x"},
        )
        assert "your raises add $0.006 already" in again
        (raised,) = ada.table("/approvals", "raises")
        assert (raised["actor"], raised["raised by"]["nanos"]) == ("console:ada", 6_000_000)
        account = next(row for row in ada.table("/budgets", "accounts") if row["scope"] == "team=search")
        assert (
            account["limit"]["nanos"] == 12_000_000
            and "raise of $0.006 by console:ada" in account["limit from"]
        )
        (decided,) = ada.table("/approvals", "history")
        assert (decided["state"], decided["by"]) == ("approved", "console:ada")
        # another team's account, and the company's, are not hers
        for fields in ({"budget": "each-team", "scope.team": "ads"}, {"budget": "company"}):
            assert "you decide about team=search" in ada.send(
                "/approvals/raises", usd="0.001", note="x", **fields
            )
        assert ada.send(f"/approvals/raises/{raised['raise']}/end").startswith("done: Ended")
    assert world.spend_all().json()["error"]["budget"] == "each-team"


@pytest.mark.slow
def test_roles_hold_in_the_api_too(world: World) -> None:
    def ask(token: str, method: str, path: str, body: Any = None) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.request(method, world.root + path, json=body, headers=headers, timeout=30).status_code

    put = ("PUT", "/api/v1/budgets/mine", {"limit_usd": "1"})
    kill = ("POST", "/api/v1/orders", {"kind": "kill", "scope": {"team": "ads"}, "reason": "x"})
    mine = (
        "POST",
        "/api/v1/raises",
        {"budget": "each-team", "scope": {"team": "search"}, "usd": "0.001", "hours": 1},
    )
    other = (
        "POST",
        "/api/v1/raises",
        {"budget": "each-team", "scope": {"team": "ads"}, "usd": "0.001", "hours": 1},
    )
    large = (
        "POST",
        "/api/v1/raises",
        {"budget": "each-team", "scope": {"team": "search"}, "usd": "0.02", "hours": 1},
    )
    quote = ("POST", "/api/v1/quote", {"body": json.dumps(BODY), "key": "dev"})
    for token, statuses in (
        (FINANCE, (403, 403, 403, 403, 403, 200, 200)),
        (ADA, (403, 403, 201, 403, 403, 200, 200)),
        (ADMIN, (200, 201, 201, 201, 201, 200, 200)),
        ("wrong-token-of-nobody", (401, 401, 401, 401, 401, 401, 401)),
    ):
        found = tuple(
            ask(token, *wanted)
            for wanted in (put, kill, mine, other, large, quote, ("GET", "/api/v1/budgets"))
        )
        assert found == statuses, token
    refused = world.spend_all(DEV)
    asked = httpx.post(
        f"{world.url}/outlay/v1/raises",
        json={"request_id": refused.headers["x-outlay-request-id"], "reason": "x"},
        headers={"authorization": f"Bearer {DEV}"},
    ).json()["id"]
    assert ask(FINANCE, "POST", f"/api/v1/asks/{asked}/deny", {"note": "no"}) == 403
    assert ask(ADA, "POST", f"/api/v1/asks/{asked}/deny", {"note": "no"}) == 200


@pytest.mark.slow
def test_a_session_changes_things_from_the_consoles_own_pages_only(world: World) -> None:
    with world.browser(ADMIN) as browser:
        cookie = browser.entered.headers["set-cookie"]
        assert (browser.entered.status_code, browser.entered.headers["location"]) == (303, "/runs")
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and ADMIN not in cookie
        csrf = re.search(r'name="csrf" value="([^"]+)"', browser.page("/"))
        assert csrf
        act = {"do": "pause", "run": "r", "team": "search", "reason": "x", "back": "/runs"}
        for origin, fields, status in (
            ("https://evil.test", {**act, "csrf": csrf[1]}, 403),
            ("null", {**act, "csrf": csrf[1]}, 403),
            (world.root, act, 403),
            (world.root, {**act, "csrf": "x"}, 403),
            (world.root, {**act, "csrf": csrf[1]}, 303),
        ):
            answer = browser.http.post("/runs/act", data=fields, headers={"origin": origin})
            assert answer.status_code == status, (origin, fields)
        cross = browser.http.post(
            "/runs/act", data={**act, "csrf": csrf[1]}, headers={"sec-fetch-site": "cross-site"}
        )
        assert cross.status_code == 403
        budget = {"limit_usd": "1"}
        assert browser.http.put("/api/v1/budgets/b", json=budget).status_code == 403
        named = {"x-outlay-csrf": csrf[1]}
        assert browser.http.put("/api/v1/budgets/b", json=budget, headers=named).status_code == 200
        # signing in from elsewhere would put a stranger's session into this browser
        stranger = browser.http.post(
            "/signin", data={"token": ADMIN}, headers={"origin": "https://evil.test"}
        )
        assert stranger.status_code == 403
        assert [order["name"] for order in browser.http.get("/api/v1/orders").json()["orders"]] == [
            "pause:run=r,team=search"
        ]
        assert browser.http.post("/signout", data={"csrf": csrf[1]}).status_code == 303
        assert browser.http.get("/").headers["location"] == "/signin?next=%2F"
    with world.browser("a-token-that-is-wrong") as nobody:
        assert nobody.entered.status_code == 401 and "set-cookie" not in nobody.entered.headers
        assert "a-token-that-is-wrong" not in nobody.entered.text


@pytest.mark.slow
def test_a_run_is_paused_killed_and_goes_on(world: World) -> None:
    run = {"x_outlay_run": "r1"}
    assert world.call(**run).status_code == 200
    written(world, 1)
    with world.browser(FINANCE) as viewer:
        assert "Pause or kill" not in viewer.page("/runs/search/r1")
    with world.browser(ADMIN) as admin:
        # a run's account is of its org and team, too: a raise that names run and team reaches it
        raised = {"budget": "each-run", "scope.run": "r1", "scope.team": "search", "usd": "1", "hours": "1"}
        assert admin.send("/approvals/raises", note="x", **raised).startswith("done: Raised each-run")
        account = next(row for row in admin.table("/budgets", "accounts") if row["budget"] == "each-run")
        assert (account["scope"], account["limit"]["usd"]) == ("org=acme,run=r1,team=search", "3.00")
        act = {"run": "r1", "team": "search"}
        assert admin.send("/runs/act", do="pause", reason="look first", **act).startswith("done: Paused r1")
        assert world.call(**run).json()["error"]["code"] == "paused"
        assert [row["state"] for row in admin.table("/runs", "runs")] == ["paused: look first"]
        assert "console:admin" in admin.page("/runs/search/r1")
        assert (
            admin.send("/runs/act", do="lift", run="r1", order="pause:run=r1,team=search")
            == "done: r1 goes on."
        )
        assert world.call(**run).status_code == 200
        assert admin.send("/runs/act", do="kill", reason="a loop", **act).startswith("done: Killed r1")
        assert world.call(**run).json()["error"]["code"] == "killed"
        assert world.call(x_outlay_run="r2").status_code == 200
        assert admin.send("/runs/act", do="erase", reason="x", **act).startswith("problem: ")
        assert admin.http.get("/runs/search/nothing").status_code == 404
        assert admin.http.get("/budgets/account/999999").status_code == 404
        assert admin.http.get(f"/budgets/account/{10**30}").status_code == 422
        for odd in ("²", str(10**30), "-1"):
            assert admin.http.get("/charges", params={"account": odd}).status_code == 200


@pytest.mark.slow
def test_without_a_gateway_pages_say_so(world: World) -> None:
    assert world.call().status_code == 200
    written(world, 1)
    assert world.gateway.end() == 0
    with world.browser(ADMIN) as browser:
        assert "the gateway does not run" in browser.page("/")
        assert "The gateway does not run" in browser.page("/budgets")
        assert "outlay up" in browser.page("/approvals")
        assert len(browser.table("/", "groups")) == 1
        browser.page("/runs")
        assert "not running" in browser.send("/runs/act", do="pause", run="r", team="t", reason="x")


@pytest.mark.slow
def test_sums_follow_corrections_and_late_ends(tmp_path: Path) -> None:
    """The sums of a console that looked at every moment are those of the ledger."""
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        path.write_text(
            CONFIG.format(url=mock.url, admin=ADMIN, ada=ADA, finance=FINANCE, dev=DEV, ads=ADS).replace(
                "0.006", "1"
            )
        )
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway:
            world = World(gateway, f"http://127.0.0.1:{gateway.wait_for_json()['port']}", "", path)
            ledger = tmp_path / "outlay.db"
            # what was made a second ago is added up for good
            rollup = Rollup(ledger, SystemClock(), settling_s=1)
            stop = threading.Event()
            failures: list[BaseException] = []

            def watch() -> None:
                try:
                    while not stop.is_set():
                        rollup.step()
                except BaseException as error:  # the test tells it
                    failures.append(error)

            watcher = threading.Thread(target=watch)
            watcher.start()
            for _ in range(5):
                world.call()
            mock.behave(failure="cut_headers")
            for _ in range(3):
                world.call()
            mock.behave(failure="none")
            written(world, 8)
            with LedgerReader(ledger) as reader:
                unknown = reader.unknown()
            assert len(unknown) == 3
            client = ControlClient(ledger)
            try:
                client.resolve(unknown[0].id, 123_456, "test", "invoice")
                client.resolve(unknown[0].id, 7_000, "test", "invoice again")
                client.resolve(unknown[1].id, 0, "test", "nothing")
                opening = {
                    "budget": "company",
                    "identity": {"org": "acme", "team": "ads"},
                    "nanos": 900_000_000,
                }
                client.open_with({**opening, "at": unknown[0].placed_at - 10**12, "note": "before"}, "test")
            finally:
                client.close()
            written(world, 9)
            time.sleep(
                2.5
            )  # past the time after which the newest are added up, and for which looks are shared
            stop.set()
            watcher.join()
            assert not failures
            day = 86_400 * NANOS_PER_SECOND
            since = SystemClock().now() // day * day - day
            cells = rollup.cells(since, since + 4 * day, day)
            with LedgerReader(ledger) as reader:
                (row,) = reader.spend([])
            assert sum(cell.figures.cost for cell in cells) == row.cost_nanos
            assert sum(cell.figures.unknown for cell in cells) == row.unknown_nanos > 0
            assert sum(cell.figures.charges for cell in cells) == row.charges == 9
            fresh = Rollup(ledger, SystemClock()).cells(since, since + 4 * day, day)
            assert sum(cell.figures.cost for cell in fresh) == row.cost_nanos
