"""What must be true after every step of a simulation, and at its end. Trusts the rows and the provider's meter only."""

import sqlite3
from typing import TYPE_CHECKING, Any

from outlay.flow.ledger.audit import replay
from outlay.flow.ledger.charge import Basis
from outlay.kernel.ids import parse_id
from outlay.testing.call import Call
from outlay.testing.service import Service

if TYPE_CHECKING:
    from tests.sim.world import World

OVERBILLED = 9_000
"""Input tokens that the simulated provider bills now and then, beyond every bound."""
KILL_GRACE_S = 0.1
"""Bytes that were on their way when a run was killed arrive so much later at most, times the network's slowness."""


class Violation(AssertionError):
    """A promise was broken."""


class Rows:
    """The rows as the auditor reads them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def has(self, table: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))


class Checks:
    """See the module."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.replays = 0
        self.unheld: list[str] = []
        """Requests that a provider got without a durable hold."""

    def watched(self, service: Service) -> Service:
        """The provider's service; each metered call is looked up in the rows the moment it arrives."""
        decide = Service.decide

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(service, name)

            def decide(_self, call: Call) -> Any:
                self._arrived(call)
                return decide(service, call)

        return Watched()  # type: ignore[return-value]

    def _arrived(self, call: Call) -> None:
        headers = dict(call.headers)
        attempt = parse_id(headers.get(b"x-outlay-request-id", b"").decode())
        if attempt is None:
            self.unheld.append("a request without an id")
            return
        rows = Rows(self._world.database.rows)
        # booked as unknown: its owner was fenced while the request was on its way
        held = (
            "SELECT 1 FROM holds WHERE id = ? UNION ALL"
            " SELECT 1 FROM charges WHERE id = ? AND basis = 'outcome_unknown' AND cost_nanos = hold_nanos"
        )
        if not rows.rows(held, (attempt, attempt)):
            self.unheld.append(f"{attempt.hex()} reached the provider without an open hold in the rows")

    def killed(self, run: str) -> None:
        """A run was killed just now: its owner has no connection to a provider left for it."""
        owner = self._world.owner()
        if owner is None or owner.gateway is None:
            return
        for exchange in owner.gateway.exchanges:
            upstream = exchange._upstream  # type: ignore[attr-defined]
            if exchange.identity.run == run and upstream is not None and upstream.is_open:
                raise Violation(f"a call of the killed run {run} still has its provider's connection")

    def _kills(self) -> None:
        world = self._world
        for client in world.clients:
            at = world.killed.get(client.run)
            if at is None:
                continue
            if client.began_at > at and client.status == 200:
                raise Violation(
                    f"a call of {client.run}, killed at {at:.3f}, was let through at {client.began_at:.3f}"
                )
            late = max(at, client.began_at) + KILL_GRACE_S * world.network.slowest
            if client.status == 200 and client.last_data_at > late:
                raise Violation(
                    f"a call of {client.run}, killed at {at:.3f}, heard more at {client.last_data_at:.3f}"
                )

    def after(self, step: int) -> None:
        """After every step."""
        world = self._world
        if self.unheld:
            raise Violation(self.unheld[0])
        if world.loop.faults:
            raise Violation(f"a fault of ours: {world.loop.faults[0]}")
        self._kills()
        if not Rows(world.database.rows).has("holds"):
            return
        self.replays += 1
        found = replay(Rows(world.database.rows))
        if found.findings:
            raise Violation(f"step {step}: {found.findings[0]}")
        if found.most_over_limit_nanos > 0:
            raise Violation(
                f"step {step}: a hold was admitted {found.most_over_limit_nanos} nanos past a limit"
            )

    def _every_budget(self, rows: Rows) -> None:
        """Each charge was held under each budget of the configuration: all of them cover every call here."""
        names = dict(rows.rows("SELECT id, name FROM accounts"))
        sets = dict(rows.rows("SELECT id, body FROM interned WHERE kind = 'accounts'"))
        wanted = {budget.name for budget in self._world.snapshot().budgets}
        for charge, number in rows.rows("SELECT id, accounts_id FROM charges"):
            found = {names[account] for account in map(int, sets[number].split(","))}
            if not wanted <= found:
                raise Violation(f"{charge.hex()} was not held under {sorted(wanted - found)}")

    def at_rest(self) -> None:
        """When everything has ended."""
        self.after(-1)
        world = self._world
        rows = Rows(world.database.rows)
        owner = world.owner()
        if owner is None or owner.books is None:
            raise Violation("nobody serves, though nothing stands in the way")
        if open_holds := rows.rows("SELECT count(*) FROM holds")[0][0]:
            raise Violation(f"{open_holds} holds are open at rest")
        charges = {
            row[0]: row[1:] for row in rows.rows("SELECT id, hold_nanos, cost_nanos, basis FROM charges")
        }
        self._every_budget(rows)
        seen = {parse_id(entry.outlay_request_id or "") for entry in world.meter.entries}
        for attempt, (_, cost, basis) in charges.items():
            if attempt not in seen and (
                basis not in (Basis.VOID, Basis.OUTCOME_UNKNOWN) or (basis == Basis.VOID and cost)
            ):
                raise Violation(
                    f"{attempt.hex()} is booked at {cost} nanos ({basis}), and no provider has seen it"
                )
        for entry in world.meter.entries:
            attempt = parse_id(entry.outlay_request_id or "")
            held, cost, basis = charges.get(attempt, (0, None, None))
            if cost is None:
                raise Violation(f"{entry.outlay_request_id} was billed and is in no charge")
            if entry.tokens.input >= OVERBILLED and basis == Basis.OUTCOME_UNKNOWN and cost == held:
                continue  # marked: who saw what was billed beyond the bound is dead
            if (basis == Basis.METERED and cost != entry.cost_nanos) or (basis == Basis.VOID and cost):
                raise Violation(
                    f"{entry.outlay_request_id} is booked at {cost} nanos ({basis}), and was billed {entry.cost_nanos}"
                )
            if cost < entry.cost_nanos:
                raise Violation(
                    f"{entry.outlay_request_id} is booked at {cost} of {entry.cost_nanos} nanos ({basis},"
                    f" held {held}, {entry.outcome}, status {entry.status})"
                )
