"""One story of a ledger, told to the books of any store: the same calls, ids and times, whatever store it is.

It has something for every question a reader answers, and text on which databases differ (case, collation, JSON).
"""

import random
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest

from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.ledger.port import RefusalRow
from outlay.flow.raises import Raise
from outlay.flow.runs import RunTerms
from outlay.flow.scope import Identity
from outlay.kernel import ids
from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.lookup.price import ModelPrice, Rates
from outlay.wire.intent import Units, Usage
from tests.store_contract.bench import Bench, budget

SECOND, HOUR, DAY = NANOS_PER_SECOND, 3_600 * NANOS_PER_SECOND, 86_400 * NANOS_PER_SECOND
BUDGETS = [
    budget("all", 1_000_000),
    budget("each-team", 400_000, "month", team="*"),
    budget("Each-team", 300_000, "day", hard=False, team="*"),
    budget("burst", 200_000, "1h", team="*"),
    budget("tiny", 10_000, team="Ads"),
    budget("customers", None, "7d", customer="*"),
]
ADA = Identity(
    org="acme",
    team="search",
    user="ada",
    key="k1",
    agent="planner",
    run="r-parent",
    model="m-1",
    provider="p",
)
CODER = msgspec.structs.replace(ADA, agent="coder", run="r-child", model="m-2")
REVIEWER = msgspec.structs.replace(CODER, agent="Reviewer")
BOB = Identity(
    org="acme",
    team="Ads",
    key="k2",
    customer='émile\'s "shop" 100%?',
    run="r-child",
    model="m-1",
    provider="P2",
    tags=(("cost_center", "r&d"), ("env", "prod")),
)
ODD = Identity(
    org="acme", team="_ops", key="k3", run="r {}':\n?", model="M-1\x00", provider="p", tags=(("env", "Prod"),)
)
OWN = Identity(org="acme", team="ads", key="k4", model="m-1", provider="p", billing="api_equivalent")
TEAMLESS = Identity(org="acme", key="k5", run="r-parent", model="m-3", provider="p")
LATE = Identity(org="acme", team="search", user="Ada", key="k1", run="r-late", model="m-2", provider="p")
EVERYBODY = (ADA, CODER, REVIEWER, BOB, ODD, OWN, TEAMLESS)
PLAIN = Usage(1_000, 200)
FULL = Usage(
    5_000,
    900,
    cache_read_input_tokens=3_000,
    cache_creation_input_tokens=1_000,
    cache_creation_1h_input_tokens=400,
    reasoning_output_tokens=300,
    web_search_requests=2,
    input_audio_tokens=70,
    units=(Units("image", 3),),
)


def seeded(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """From here on ids come from a seed."""
    source = random.Random(seed)
    monkeypatch.setattr(ids, "os", SimpleNamespace(urandom=source.randbytes))


def tell(bench: Bench) -> Iterator[None]:
    """The story; pauses wherever somebody may look. Ends with holds open, and a gateway that still runs."""
    bench.clock.advance(HOUR)
    teller = _Teller(bench)
    teller.books.configure(bench.budgets)
    for number, identity in enumerate(EVERYBODY):
        teller.call(identity, 3_000 + number, 2_000 + number, usage=(PLAIN, FULL)[number % 2])
    yield
    teller.runs()
    yield
    bench.clock.advance(40 * 60 * SECOND)
    teller.endings()
    yield
    teller.objects()
    bench.clock.advance(2 * DAY)
    for identity in EVERYBODY[::2]:
        teller.call(identity, 900, 800)
    yield
    teller.limits()
    bench.clock.advance(10 * 60 * SECOND)
    yield
    teller.corrections()
    yield
    teller.hold(LATE, 700)
    teller.grow(teller.hold(OWN, 40))
    bench.crash()
    teller = _Teller(bench)
    bench.clock.advance(20 * SECOND)
    yield
    teller.call(LATE, 4_000, 3_999, usage=FULL)
    teller.grow(teller.hold(LATE, 1_500))
    teller.hold(ODD, 60)


class _Teller:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.books = bench.books

    def numbers(self, identity: Identity, served: str = "", operation: str = "chat") -> tuple[int, int]:
        directory = self.books.directory
        route = {
            "provider": identity.provider,
            "model": identity.model,
            "served": served or identity.model,
            "operation": operation,
        }
        price = ModelPrice(
            price_id=f"price-of-{identity.model}",  # type: ignore[arg-type]
            provider=identity.provider,
            model=identity.model,
            source="story",
            rates=Rates(2_500, 10_000, cache_read=250),
        )
        return (
            directory.routes.number(msgspec.json.encode(route).decode()),
            directory.prices.number(msgspec.json.encode(price).decode()),
        )

    def hold(self, identity: Identity, nanos: int, attempt: int = 1, request: bytes = b"") -> Hold:
        bench = self.bench
        route, price = self.numbers(identity, operation="embeddings" if identity is OWN else "chat")
        own = bench.ids.make()
        found = self.books.place(
            self.books.chain(identity),
            nanos,
            request or own,
            attempt,
            route,
            price,
            lambda _hold, error: None,
            bench.clock.now(),
            own,
        )
        assert found is not None, "the story's holds fit"
        bench.timers.run()
        bench.clock.advance(SECOND)
        return found

    def grow(self, hold: Hold) -> None:
        assert self.books.extend(hold, 25, lambda error: None)
        self.bench.timers.run()

    def end(self, hold: Hold, ending: Ending) -> None:
        self.bench.clock.advance(SECOND // 3)
        self.books.end(hold, ending)
        self.bench.timers.run()

    def call(self, identity: Identity, held: int, cost: int, usage: Usage | None = PLAIN) -> Hold:
        hold = self.hold(identity, held)
        now = self.bench.clock.now()
        self.end(hold, Ending(Status.SETTLED, Basis.METERED, cost, usage, first_byte_at=now, http_status=200))
        return hold

    def runs(self) -> None:
        self.books.open_run(ADA, RunTerms(cap_nanos=50_000, max_calls=40, max_seconds=9_000))
        self.books.open_run(CODER, RunTerms(parent="r-parent", cap_nanos=9_000))
        for identity in (ADA, CODER, REVIEWER):
            self.books.count_call(self.books.chain(identity))
            self.call(identity, 500, 450)

    def endings(self) -> None:
        """Every kind of end: a retry, overruns, void, unknown, counted, marks of shadow mode."""
        first = self.hold(CODER, 600)
        self.end(first, Ending(Status.VOID, Basis.VOID, 0, http_status=503, reason="upstream_failed"))
        again = self.hold(CODER, 600, attempt=2, request=first.request_id)
        self.end(again, Ending(Status.SETTLED, Basis.COUNTED, 900, PLAIN, http_status=200))
        for identity, reason in (
            (ADA, "shadow: budget_spent: all (all)"),
            (BOB, "shadow: rate; more"),
            (TEAMLESS, "SHADOW: nobody's"),
        ):
            hold = self.hold(identity, 20)
            route, price = self.numbers(identity, served="another")
            self.end(hold, Ending(Status.SETTLED, Basis.FULL, 30, None, route, price, reason=reason))
        for identity in (ADA, BOB, ODD):
            hold = self.hold(identity, 15)
            self.end(hold, Ending(Status.SETTLED, Basis.OUTCOME_UNKNOWN, 15, reason="cut"))

    def objects(self) -> None:
        store, now = self.bench.store, self.bench.clock.now()
        for body, actor in (('{"a":1}', "ada"), ('{"a":2}', "bob"), ("", "ada")):
            store.put_object("key", "zoe", body, now, actor)
        store.put_objects([("policy", "b", "{}"), ("policy", "B", "{}"), ("key", "é", "{}")], now, "file")
        store.put_object("policy", "b", '{"x":"?%s"}', now + 5, "ada")
        minute = now // (60 * SECOND)
        self.books.count_refusals(
            [
                RefusalRow(minute, "budget_spent", "each-team", "acme", "search", "k1", 4),
                RefusalRow(minute, "budget_spent", "Each-team", "acme", "search", "k1", 1),
                RefusalRow(minute + 1, "budget_spent", "each-team", "acme", "search", "k1", 2),
                RefusalRow(minute + 90, "key_unknown", "", "", "", "", 8),
            ]
        )
        self.books.flush()

    def limits(self) -> None:
        """Limits that change, a raise, an account past every limit it had, a run past its cap."""
        bench = self.bench
        now = bench.clock.now()
        raised = Raise("raise-1", "each-team", (("team", "search"),), 9_000, now + DAY, "ada", now)
        for limit in (600_000, 500_000):
            bench.budgets = [budget("all", limit), *BUDGETS[1:]]
            self.books.configure(bench.budgets, (raised,))
            bench.clock.advance(SECOND)
        for identity, cost in ((BOB, 40_000), (CODER, 60_000)):
            hold = self.hold(identity, 1)
            self.end(hold, Ending(Status.SETTLED, Basis.METERED, cost, PLAIN))
        bench.configure(*bench.budgets, budget("late", 1_000_000, "day", team="search"))

    def corrections(self) -> None:
        unknown = [
            row[0]
            for row in self.bench.store._all(  # type: ignore[attr-defined]
                "SELECT id FROM charges WHERE basis = 'outcome_unknown' ORDER BY id", ()
            )
        ]
        self.books.resolve(unknown[0], 11, "ada", "invoice")
        self.books.resolve(unknown[0], 4, "ada", "invoice again")
        self.books.resolve(unknown[1], 0, "bob", "")
        # two runs that end in the same moment
        for hold in [
            self.hold(msgspec.structs.replace(LATE, run=run), 10) for run in ("tie-b", "tie-a", "tie-c")
        ]:
            self.books.end(hold, Ending(Status.SETTLED, Basis.METERED, 9, PLAIN))
        self.bench.timers.run()
        at = self.bench.clock.now() - DAY
        self.books.open_with("all", BOB, 200_000, at, actor="import", note="from elsewhere")
        self.bench.timers.run()
