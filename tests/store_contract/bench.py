"""A workbench for the books: timers that run on demand, a clock that is moved, a store that can be reopened."""

from collections.abc import Callable
from pathlib import Path

from outlay.flow.accounts import Account
from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.ledger.memory import MemoryStore
from outlay.flow.ledger.place import Database
from outlay.flow.ledger.port import Store
from outlay.flow.ledger.postgres import PostgresStore
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.flow.scope import Identity
from outlay.flow.windows import parse_window
from outlay.kernel.clock import ManualClock
from outlay.kernel.errors import StoreError
from outlay.kernel.ids import IdMaker
from tests.postgres import fresh_ledger

KINDS = ("memory", "sqlite", "postgres")
ADA = Identity(org="acme", team="search", user="ada", key="k1", model="m", provider="p")


class FakeTimers:
    """Collects callbacks; `run` plays them in order until none is left (or a round limit is met)."""

    def __init__(self) -> None:
        self.pending: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.pending.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> None:
        assert delay > 0
        self.pending.append(callback)

    def run(self, rounds: int = 1000) -> None:
        for _ in range(rounds):
            if not self.pending:
                return
            callbacks, self.pending = self.pending, []
            for callback in callbacks:
                callback()

    def once(self) -> None:
        """One round only: a store that fails for long stays failed."""
        self.run(1)


def budget(
    name: str, limit: int | None, window: str = "lifetime", *, hard: bool = True, **scope: str
) -> BudgetSpec:
    """A budget with its limit in nanos; the scope is org acme unless given."""
    return BudgetSpec(name, scope or {"org": "acme"}, limit, parse_window(window), hard)


class Bench:
    """Books over a store of one kind. `reopen` stops cleanly, `crash` loses what is in memory; both load again."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        budgets: list[BudgetSpec],
        url: str = "",
        post: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        self.kind = kind
        self.path = folder / "ledger.db"
        self.clock = ManualClock()
        self.budgets = budgets
        self._memory = MemoryStore()
        self._post = post
        self.url = url or (fresh_ledger() if kind == "postgres" else "")
        self.failures: list[StoreError] = []
        self._open()

    def _open(self) -> None:
        self.timers = FakeTimers()
        self.store = self._opened()
        self.books = Books(self.store, self.clock, self.timers)
        self.ids = IdMaker(self.clock)
        self.books.configure(self.budgets)
        self.timers.run()

    def _opened(self) -> Store:
        match self.kind:
            case "memory":
                return self._memory
            case "postgres":
                # the process that owned it may be this one: nobody waits for its lease to end
                return PostgresStore(self.url, lease_s=0, post=self._post)
            case _:
                return SqliteStore(self.path)

    def reopen(self) -> None:
        """Stop cleanly and start again."""
        self.books.close()
        self._open()

    def crash(self) -> None:
        """What a killed process leaves: nothing of its memory, no clean stop."""
        self.store.abandon()
        self._open()

    def audit(self) -> Audit | None:
        """What the rows say; None of a store without rows on a disk."""
        match self.kind:
            case "memory":
                return None
            case "postgres":
                return audit(Database(self.url))
            case _:
                return audit(self.path)

    def leave(self) -> None:
        """Let go of what a test left open."""
        if isinstance(self.store, PostgresStore):
            self.store.abandon()

    def configure(self, *budgets: BudgetSpec) -> None:
        self.budgets = list(budgets)
        self.books.configure(self.budgets)

    def place(
        self,
        nanos: int,
        identity: Identity = ADA,
        told: Callable[[Hold, StoreError | None], None] | None = None,
    ) -> Hold | None:
        """A hold that is on its way; `timers.run()` makes it durable."""
        chain = self.books.chain(identity)
        directory = self.books.directory
        return self.books.place(
            chain,
            nanos,
            self.ids.make(),
            1,
            directory.routes.number('{"provider":"p","model":"m","served":"m","operation":"chat"}'),
            directory.prices.number('{"price_id":"t"}'),
            told or self._told,
            self.clock.now(),
        )

    def _told(self, _hold: Hold, error: StoreError | None) -> None:
        if error is not None:
            self.failures.append(error)

    def hold(self, nanos: int, identity: Identity = ADA) -> Hold:
        """A durable hold."""
        found = self.place(nanos, identity)
        assert found is not None, "the hold did not fit"
        self.timers.run()
        return found

    def settle(self, hold: Hold, nanos: int, basis: Basis = Basis.METERED) -> None:
        self.books.end(hold, Ending(Status.SETTLED, basis, nanos))
        self.timers.run()

    def void(self, hold: Hold) -> None:
        self.books.end(hold, Ending(Status.VOID, Basis.VOID, 0))
        self.timers.run()

    def spend(self, nanos: int, identity: Identity = ADA) -> bytes:
        """One settled call; returns its charge's id."""
        hold = self.hold(nanos, identity)
        self.settle(hold, nanos)
        return hold.id

    def account(self, name: str, identity: Identity = ADA) -> Account:
        """The current account of a budget for an identity."""
        now = self.clock.now()
        spec = next(found for found in self.books.directory.budgets if found.name == name)
        account = self.books.directory.account_for(spec, identity, now)
        assert account is not None
        account.leave(now)
        return account

    def balance(self, name: str, identity: Identity = ADA) -> tuple[int, int]:
        """(spent, held) of a budget's current account."""
        account = self.account(name, identity)
        return account.spent, account.held

    def stored(self, name: str, identity: Identity = ADA) -> tuple[int, int]:
        """(spent, held) as the store has it."""
        row = self.store.account_by_id(self.account(name, identity).id)
        assert row is not None
        return row.spent, row.held
