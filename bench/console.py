"""How long the console's pages take on a ledger of a million charges: from a cold start, then again.

The ledger is written by hand: 30 days, 6 teams, 8 models, 4,000 runs. Its totals on the page are compared with
`LedgerReader.spend`, so a fast page that is wrong fails here.
"""

import calendar
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from bench.machine import rss_megabytes
from bench.measures import Effort, Table
from outlay.flow.ledger.port import ChargeRow
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.testing import ChildProcess

CHARGES = 1_000_000
DAYS = 30
TEAMS = ("search", "support", "research", "platform", "ads", "billing")
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5"),
    ("openai", "gpt-5-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("google", "gemini-2.5-pro"),
    ("local", "llama-3"),
)
RUNS = 4_000
TOKEN = "the-admin-token-of-this-bench"
PAGES = (
    ("/", "overview, 24 h"),
    ("/?range=30d", "overview, 30 days"),
    ("/?range=30d&by=model&team=search", "filtered"),
)
MORE = (("/runs?range=30d", "runs, 30 days"), ("/budgets", "budgets"), ("/charges", "charges"))


def table(effort: Effort) -> Table:
    """See the module."""
    found = Table(f"console: milliseconds of a page on a ledger of {CHARGES:,} charges")
    rounds = effort.rounds
    with tempfile.TemporaryDirectory(prefix="outlay-bench-") as name:
        folder = Path(name)
        write_ledger(folder / "outlay.db", CHARGES, DAYS, time.time_ns())
        config = folder / "outlay.yaml"
        config.write_text(
            f"console: {{port: 0, admin_token: {TOKEN}}}\nbudgets: [{{name: all, limit_usd: 100000}}]\n"
        )
        first: dict[str, list[float]] = {}
        again: dict[str, list[float]] = {}
        for _ in range(rounds):
            # the very first view, while nothing is added up yet
            for path, label in PAGES[:2]:
                with _Console(config) as console:
                    first.setdefault(label, []).append(console.view(path)[0])
        with _Console(config) as console:
            for path, label in (*PAGES, *MORE):
                first.setdefault(label, []).append(console.view(path)[0])
                again[label] = [console.view(path)[0] for _ in range(5)]
            _compare(console, folder / "outlay.db")
            found.notes.append(f"memory of the console then: {rss_megabytes(console.pid):.0f} MB")
        for label, figures in again.items():
            found.rows[label] = {
                "first view ms": statistics.median(first[label]),
                "again ms": statistics.median(figures),
            }
    found.notes.append("totals of the pages equal `outlay spend` to the nano-dollar")
    found.notes.append("first views of the overview: of a console process that has just begun to listen")
    return found


def write_ledger(path: Path, charges: int, days: int, now: int) -> None:
    """A ledger of settled charges, spread over so many days until `now` (UTC ns)."""
    SqliteStore(path).close(now)
    database = apsw.Connection(str(path))
    database.execute("PRAGMA synchronous = OFF")
    rng = random.Random(20261128)
    identities = []
    for number in range(RUNS):
        team = rng.choice(TEAMS)
        for provider, model in rng.sample(MODELS, 2):
            identities.append(
                {
                    "org": "acme",
                    "team": team,
                    "key": f"{team}-{number % 3}",
                    "agent": rng.choice(("planner", "coder", "reader")),
                    "run": f"{team}-run-{number}",
                    "model": model,
                    "provider": provider,
                }
            )
    with database:
        for number, identity in enumerate(identities, 1):
            database.execute("INSERT INTO interned VALUES ('identity', ?, ?)", (number, json.dumps(identity)))
        route = {"provider": "openai", "model": "gpt-4o", "served": "gpt-4o", "operation": "chat"}
        database.execute("INSERT INTO interned VALUES ('route', 1, ?)", (json.dumps(route),))
        database.execute("INSERT INTO interned VALUES ('price', 1, '{\"price_id\": \"bench\"}')")
        database.execute("INSERT INTO interned VALUES ('accounts', 1, '')")
        marks = ",".join("?" * len(ChargeRow._fields))
        database.executemany(
            f"INSERT INTO charges ({','.join(ChargeRow._fields)}) VALUES ({marks})",
            _rows(charges, days, now, len(identities), rng),
        )
    database.close()


def _rows(
    charges: int, days: int, now: int, identities: int, rng: random.Random
) -> Iterator[tuple[Any, ...]]:
    length = days * 86_400 * NANOS_PER_SECOND
    per_run = identities // 40
    for number in range(charges):
        at = now - length + length * number // charges
        # a run's calls lie together in time, as an agent makes them
        centre = identities * number // charges
        identity = min(identities, max(1, centre + rng.randrange(-per_run, per_run)))
        tokens, out = rng.randrange(200, 20_000), rng.randrange(10, 2_000)
        cost = tokens * 2_500 + out * 10_000 + rng.randrange(1_000)
        charge_id = (at // 1_000_000).to_bytes(6, "big") + number.to_bytes(10, "big")
        values = {
            "id": charge_id,
            "request_id": charge_id,
            "attempt": 1,
            "identity_id": identity,
            "route_id": 1,
            "price_id": 1,
            "accounts_id": 1,
            "status": "settled",
            "basis": "outcome_unknown" if number % 997 == 0 else "metered",
            "hold_nanos": cost * 2,
            "cost_nanos": cost,
            "input_tokens": tokens,
            "cache_read_tokens": tokens // 2,
            "output_tokens": out,
            "placed_at": at,
            "first_byte_at": at + 300_000_000,
            "settled_at": at + 2_000_000_000,
            "hold_seq": 2 * number + 1,
            "settle_seq": 2 * number + 2,
            "http_status": 200,
        }
        yield tuple(values.get(name) for name in ChargeRow._fields)


class _Console:
    """A console process and a signed-in browser's requests, on one connection."""

    def __init__(self, config: Path) -> None:
        self._child = ChildProcess([sys.executable, "-m", "outlay.app.console.main", str(config)])
        self.port = self._child.wait_for_json()["port"]
        self.pid = self._child.pid
        origin = f"http://127.0.0.1:{self.port}"
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self._http.request(
            "POST", "/signin", urllib.parse.urlencode({"token": TOKEN, "next": "/"}), {"origin": origin}
        )
        answer = self._http.getresponse()
        answer.read()
        self._cookie = str(answer.getheader("set-cookie")).partition(";")[0]

    def __enter__(self) -> "_Console":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._child.end()

    def view(self, path: str) -> tuple[float, bytes]:
        """Milliseconds until the last byte, and the page."""
        began = time.perf_counter()
        self._http.request("GET", path, headers={"cookie": self._cookie})
        answer = self._http.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        assert answer.status == 200, (path, answer.status)
        return took, body


def _compare(console: _Console, ledger: Path) -> None:
    found = json.loads(console.view("/?range=30d&by=model&table=groups&as=json")[1])
    shown = {row["model"]: row["cost"]["nanos"] for row in found["rows"]}
    spans = json.loads(console.view("/?range=30d&by=model&table=spend&as=json")[1])["rows"]
    since = time.strptime(spans[0]["from"], "%Y-%m-%dT%H:%M:%SZ")
    with LedgerReader(ledger) as reader:
        rows = reader.spend(["model"], calendar.timegm(since) * NANOS_PER_SECOND)
    assert shown == {row.group["model"]: row.cost_nanos for row in rows}, "the page differs from the ledger"
