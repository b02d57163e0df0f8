"""Whoever reads a ledger is told the same by PostgreSQL as by SQLite: every public method of every reader."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from outlay.app.config import Config
from outlay.app.console.application import create_application
from outlay.app.console.desk import Desk
from outlay.app.operations import ConfigSource
from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger import history
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.history import HistoryReader
from outlay.flow.ledger.place import Database, LedgerPlace
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.rollup import Cell, Rollup
from outlay.flow.ledger.room_reader import RoomReader
from outlay.flow.ledger.rows import open_rows
from outlay.flow.ledger.run_reader import RunReader
from outlay.flow.scope import DIMENSIONS
from outlay.kernel.clock import ManualClock
from tests.store_contract.bench import Bench, budget
from tests.store_contract.rows import Shuffled
from tests.store_contract.story import BUDGETS, DAY, HOUR, SECOND, seeded, tell

MINUTE = 60 * SECOND
PLACES = ("sqlite", "postgres")


class World(NamedTuple):
    """A ledger with the story in it. `rollup` looked at every pause."""

    place: LedgerPlace
    clock: ManualClock
    rollup: Rollup

    @property
    def now(self) -> int:
        return self.clock.now()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    found = []
    with contextlib.ExitStack() as leaving:
        for kind in PLACES:
            with pytest.MonkeyPatch.context() as monkeypatch:
                seeded(monkeypatch, 7)
                bench = Bench(kind, tmp_path_factory.mktemp(kind), BUDGETS)
                leaving.callback(bench.leave)
                place = Database(bench.url) if kind == "postgres" else bench.path
                # what was made a moment ago is added up for good: corrections and late ends must be found
                rollup = Rollup(place, bench.clock, settling_s=1)
                leaving.callback(rollup.close)
                for _ in tell(bench):
                    rollup.step(0)
                bench.clock.advance(SECOND)
                found.append(World(place, bench.clock, rollup))
        yield found[0], found[1]


Ask = Callable[[Any, World], object]


def newest(reader: LedgerReader) -> bytes:
    return bytes.fromhex(reader.charges(1)[0].id)


def account(reader: LedgerReader, world: World, name: str, scope: str = "team=search") -> int:
    return next(
        found.id for found in reader.accounts(world.now) if (found.budget, found.scope) == (name, scope)
    )


def retried(reader: LedgerReader) -> bytes:
    return bytes.fromhex(next(found.request_id for found in reader.charges() if found.attempt == 2))


def at_rest(reader: LedgerReader, _world: World) -> object:
    with reader.at_rest(), reader.at_rest():
        return reader.totals()


def past(reader: HistoryReader, since: int, until: int, **how: bool) -> object:
    return [(*row[:13], row[13] and json.loads(row[13])) for row in reader.past(since, until, **how)]


def behind(reader: RoomReader, world: World, where: dict[str, str], **how: Any) -> object:
    return reader.charges_behind(0, world.now, where, **how)


def specs(reader: HistoryReader, world: World, since: int) -> object:
    wanted: list[BudgetSpec] = [*BUDGETS, budget("last-day", None, "1d")]
    return list(reader.spent_before(wanted, since))


LEDGER: dict[str, list[Ask]] = {
    "at_rest": [at_rest],
    "spend": [
        *((lambda reader, _, name=name: reader.spend([name])) for name in DIMENSIONS),
        lambda reader, _: reader.spend([]),
        lambda reader, _: reader.spend(["tag.env", "tag.cost_center"]),
        lambda reader, _: reader.spend(["served", "operation", "basis", "status"]),
        lambda reader, _: reader.spend(["decision"]),
        lambda reader, _: reader.spend(["day", "team"]),
        lambda reader, world: reader.spend(["hour"], world.now - DAY, world.now - MINUTE),
    ],
    "accounts": [
        lambda reader, world: reader.accounts(world.now),
        lambda reader, world: reader.accounts(world.now, with_past=True),
        lambda reader, world: reader.accounts(world.now + 2 * HOUR, budget="burst"),
        lambda reader, world: reader.accounts(world.now - 2 * DAY, budget="customers"),
    ],
    "charges": [
        lambda reader, _: reader.charges(),
        lambda reader, _: reader.charges(3, basis="metered"),
        lambda reader, _: reader.charges(5, before=newest(reader)),
        lambda reader, _: reader.charges(5, basis="void", before=newest(reader)),
    ],
    "unknown": [lambda reader, _: reader.unknown()],
    "request": [
        lambda reader, _: reader.request(retried(reader)),
        lambda reader, _: reader.request(newest(reader)),
    ],
    "totals": [lambda reader, _: reader.totals()],
    "objects": [lambda reader, _: reader.objects()],
    "versions": [
        lambda reader, _: reader.versions("key"),
        lambda reader, _: reader.versions("policy", "b"),
    ],
}
RUNS: dict[str, list[Ask]] = {
    "runs": [
        lambda reader, _: reader.runs(),
        lambda reader, _: reader.runs(0, 2),
        lambda reader, world: reader.runs(world.now - HOUR),
        lambda reader, _: reader.runs(run="r-child"),
    ],
    "run_charges": [
        lambda reader, _: reader.run_charges("r-parent", team="search"),
        lambda reader, _: reader.run_charges("r-child", team="Ads", org="acme"),
        lambda reader, world: reader.run_charges("r-child", team="search", since_ns=world.now - HOUR),
    ],
}
ROOM: dict[str, list[Ask]] = {
    "held": [lambda reader, _: reader.held()],
    "refusals": [
        lambda reader, world: reader.refusals(0, world.now + DAY, HOUR),
        lambda reader, world: reader.refusals(0, world.now + DAY, MINUTE, {"team": "search", "key": "k1"}),
        lambda reader, world: reader.refusals(0, world.now + DAY, DAY, {"team": "unattributed"}),
    ],
    "past_limits": [lambda reader, _: reader.past_limits()],
    "booked_under": [
        lambda reader, world: reader.booked_under(
            {account(reader, world, "each-team"), account(reader, world, "tiny", "team=Ads")}
        )
    ],
    "limit_history": [
        lambda reader, world: reader.limit_history(account(reader, world, "each-team")),
        lambda reader, world: reader.limit_history(account(reader, world, "all", "org=acme")),
        lambda reader, _: reader.limit_history(reader.past_limits()[0].account_id),
    ],
    "account_values": [lambda reader, world: reader.account_values(account(reader, world, "burst"))],
    "account_sets": [lambda reader, world: reader.account_sets(account(reader, world, "burst"))],
    "charges_behind": [
        lambda reader, world: behind(reader, world, {}),
        lambda reader, world: behind(reader, world, {"team": "ads"}),
        lambda reader, world: behind(reader, world, {"team": "Ads", "customer": 'émile\'s "shop" 100%?'}),
        lambda reader, world: behind(reader, world, {"run": "r {}':\n?", "model": "M-1\x00"}),
        lambda reader, world: behind(reader, world, {"billing": "billed", "agent": "unattributed"}),
        lambda reader, world: behind(reader, world, {"tag.env": "prod"}),
        lambda reader, world: behind(reader, world, {"tag.env": "unattributed", "org": "acme"}),
        lambda reader, world: behind(
            reader, world, {"team": "search"}, account_id=account(reader, world, "burst"), limit=2
        ),
        lambda reader, world: behind(reader, world, {}, before=newest(reader), limit=3),
    ],
    "opened_runs": [lambda reader, _: reader.opened_runs()],
}
HISTORY: dict[str, list[Ask]] = {
    "past": [
        lambda reader, _: past(reader, 0, 2**63 - 1),
        lambda reader, world: past(reader, world.now - HOUR, world.now - MINUTE, with_usage=False),
    ],
    "booked": [lambda reader, world: reader.booked(0, world.now)],
    "spent_before": [
        lambda reader, world: specs(reader, world, world.now - MINUTE),
        lambda reader, world: specs(reader, world, world.now - 2 * DAY),
    ],
    "identity": [lambda reader, _: [reader.identity(row[6]) for row in reader.past(0, 2**62)]],
    "route": [lambda reader, _: [reader.route(row[7]) for row in reader.past(0, 2**62)]],
    "price": [lambda reader, _: [reader.price(row[8]) for row in reader.past(0, 2**62)]],
}
QUESTIONS: list[tuple[type[LedgerReader], dict[str, list[Ask]]]] = [
    (LedgerReader, LEDGER),
    (RunReader, RUNS),
    (RoomReader, ROOM),
    (HistoryReader, HISTORY),
]


@pytest.mark.parametrize(
    ("kind", "ask"),
    [
        pytest.param(kind, ask, id=f"{kind.__name__}.{name}-{number}")
        for kind, questions in QUESTIONS
        for name, asks in questions.items()
        for number, ask in enumerate(asks)
    ],
)
def test_a_reader_is_told_the_same(
    worlds: tuple[World, World], kind: type[LedgerReader], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 4)
    answers = []
    for world in worlds:
        with kind(world.place) as reader:
            answers.append(ask(reader, world))
    sqlite, postgres = answers
    for world in worlds:
        with contextlib.closing(open_rows(world.place)) as rows:
            assert ask(kind(Shuffled(rows)), world) == sqlite, "whatever order rows come in"  # type: ignore[arg-type]
    assert postgres == sqlite
    assert repr(postgres) == repr(sqlite), "also of the same types"
    assert sqlite, "the story has something to say to this"


@pytest.mark.parametrize(("kind", "questions"), QUESTIONS, ids=lambda item: getattr(item, "__name__", "it"))
def test_no_method_of_a_reader_is_forgotten(
    kind: type[LedgerReader], questions: dict[str, list[Ask]]
) -> None:
    own = {
        name
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }
    assert own - {"close"} == set(questions)


def ordered(cells: list[Cell]) -> list[Cell]:
    sums: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        key = (cell.at, cell.number)
        known = sums.get(key)
        sums[key] = cell if known is None else cell._replace(figures=known.figures.plus(cell.figures))
    return sorted(cells := list(sums.values()))


def test_sums_are_the_same_and_those_of_the_reader(worlds: tuple[World, World]) -> None:
    answers = []
    for world in worlds:
        fresh = Rollup(world.place, world.clock)
        day = world.now // DAY * DAY
        found = []
        for since, until, size in (
            (day - 5 * DAY, day + DAY, DAY),
            (day - DAY, day + DAY, HOUR),
            (world.now // MINUTE * MINUTE - 300 * MINUTE, world.now // MINUTE * MINUTE + MINUTE, MINUTE),
        ):
            watched = ordered(world.rollup.cells(since, until, size))
            assert watched == ordered(fresh.cells(since, until, size))
            assert watched
            found.append(watched)
        with LedgerReader(world.place) as reader:
            (whole,) = reader.spend([])
        figures = [cell.figures for cell in found[0]]
        assert sum(item.cost for item in figures) == whole.cost_nanos
        assert sum(item.unknown for item in figures) == whole.unknown_nanos > 0
        assert sum(item.charges for item in figures) == whole.charges
        fresh.close()
        answers.append((found, world.rollup.names, fresh.revision > 0))
    assert answers[0] == answers[1]


def test_an_audit_says_the_same(worlds: tuple[World, World]) -> None:
    sqlite, postgres = (audit(world.place) for world in worlds)
    assert sqlite == postgres
    assert isinstance(sqlite, Audit) and sqlite.findings == () and sqlite.open_holds and sqlite.overrun_nanos


PAGES = (
    "/",
    "/?range=30d&by=team",
    "/?range=7d&by=model&team=search",
    "/budgets",
    "/budgets?past=1",
    "/runs?range=30d",
    "/runs/search/r-parent",
    "/runs/search/r-child",
    "/charges",
    "/charges?team=Ads",
    "/api/v1/spend?by=team,model,day&since=9d",
    "/api/v1/charges",
    "/api/v1/unknown",
    "/api/v1/verify",
    "/metrics",
    "/healthz",
)


def pages(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, str]]:
    path = folder / "outlay.yaml"
    path.write_text(
        "console: {admin_token: the-admin-token-of-this-test}\n"
        "budgets:\n"
        "  - {name: all, limit_usd: 0.0005, window: lifetime}\n"
        '  - {name: each-team, scope: {team: "*"}, limit_usd: 0.0004, window: month}\n'
        "  - {name: burst, limit_usd: 0.0002, window: 1h}\n"
    )
    monkeypatch.setattr(Config, "ledger_place", property(lambda _config: world.place))
    desk = Desk(ConfigSource(path, {}), world.clock)  # type: ignore[arg-type]

    async def run() -> dict[str, tuple[int, str]]:
        transport = httpx.ASGITransport(create_application(desk))
        headers = {"authorization": "Bearer the-admin-token-of-this-test"}
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            answers = {path: await client.get(path, headers=headers) for path in PAGES}
        return {path: (answer.status_code, answer.text) for path, answer in answers.items()}

    with contextlib.closing(desk):
        return asyncio.run(run())


def test_the_console_shows_the_same(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another place in the configuration is all that it takes."""
    sqlite, postgres = (pages(world, tmp_path, monkeypatch) for world in worlds)
    for path in PAGES:
        assert sqlite[path] == postgres[path]
    assert [(path, said) for path, said in sqlite.items() if said[0] != 200] == []
    assert "r-child" in sqlite["/runs?range=30d"][1]
    assert '"ledger":"ok"' in sqlite["/healthz"][1]


def test_a_console_without_its_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = World(Database("postgresql://ada:secret@127.0.0.1:1/books"), ManualClock(), None)  # type: ignore[arg-type]
    found = pages(nowhere, tmp_path, monkeypatch)
    for path in ("/", "/budgets", "/runs?range=30d", "/charges", "/api/v1/charges"):
        assert found[path][0] == 503, path
        assert "cannot be reached" in found[path][1]
    assert '"ledger":"unreadable"' in found["/healthz"][1]
    assert not any("secret" in text for _, text in found.values())
