"""A replay of the ledger's charges through a file of policies: what `outlay policy simulate` asks, put together.

Reads the ledger beside a running gateway and changes nothing. The replay itself is `flow.simulate`.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

from outlay.app.config import Config, StoredObject, build_snapshot
from outlay.app.config.policy_file import PolicyFile
from outlay.app.control import feed_cache
from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.snapshot import Snapshot
from outlay.flow.ledger.history import HistoryReader
from outlay.flow.past import PastRoute, Simulation, Target
from outlay.flow.policy import PolicySpec, budgets_of
from outlay.flow.simulate import Replay
from outlay.kernel.clock import UnixNanos
from outlay.lookup.feed import load_feed
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Dialect, Operation
from outlay.wire.routes import ROUTES

_FOREVER: Final = 2**63 - 1
Spec = TypeVar("Spec", PolicySpec, BudgetSpec)
_KINDS: Final = ("key", "budget", "policy", "price")


class Rules(NamedTuple):
    """What a replay goes by."""

    policies: tuple[PolicySpec, ...]
    budgets: tuple[BudgetSpec, ...]
    """Declared ones: those of spend velocity come from the policies."""


class Simulated(NamedTuple):
    """A replay's answer, and what the ledger says of the same period."""

    found: Simulation
    ledger_charges: int
    ledger_nanos: int
    rules: Rules

    @property
    def agrees(self) -> bool:
        """Whether the replay took every charge of the ledger, at its cost."""
        total = self.found.total.all
        return (total.charges, total.cost_nanos) == (self.ledger_charges, self.ledger_nanos)


def simulate(config: Config, file: PolicyFile, since: int, until: int, *, replaces: bool) -> Simulated:
    """Replay charges placed in `since <= placed_at < until` (UTC ns) through a file's policies and budgets.

    `replaces`: in the place of those in force; else beside them, where the file's win by name. Raises ConfigError,
    StoreError.
    """
    with HistoryReader(config.ledger_place) as reader, reader.at_rest():
        stored = [
            StoredObject(row.kind, row.name, row.version, row.body)
            for row in reader.objects()
            if row.body and row.kind in _KINDS
        ]
        snapshot = build_snapshot(config, stored, load_feed(feed_cache(config.local_path)), 0)
        rules = rules_of(snapshot, file, replaces=replaces)
        replay = Replay(rules.policies, rules.budgets, reader, Aiming(snapshot))
        replay.seed(reader.spent_before(replay.budgets, since))
        found = replay.run(reader.past(since, until, with_usage=replay.has_ladder))
        charges, nanos = reader.booked(since, until)
    return Simulated(found, charges, nanos, rules)


def rules_of(snapshot: Snapshot, file: PolicyFile, *, replaces: bool) -> Rules:
    """The policies and budgets of a replay."""
    policies, budgets = file.policies(), file.budgets()
    if replaces:
        return Rules(policies, budgets)
    velocity = sum(len(budgets_of(policy)) for policy in snapshot.policies)
    declared = snapshot.budgets[: len(snapshot.budgets) - velocity]
    return Rules(_merged(snapshot.policies, policies), _merged(declared, budgets))


def _merged(old: Iterable[Spec], new: Sequence[Spec]) -> tuple[Spec, ...]:
    named: set[str] = {spec.name for spec in new}
    kept: list[Spec] = [spec for spec in old if spec.name not in named]
    kept.extend(new)
    return tuple(kept)


class Aiming:
    """Where model names lead by the configuration in force; `past.Rerouting`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._dialects: dict[str, Dialect] = {}
        for route in ROUTES:
            self._dialects.setdefault(route.operation.value, route.dialect)

    def target(self, route: PastRoute, model: str, preferred: Sequence[str], at: UnixNanos) -> Target | int:
        """See `past.Rerouting`."""
        dialect = self._dialects.get(route.operation)
        aims = None
        if dialect is not None:
            aims = self._snapshot.aims(dialect, Operation(route.operation), model)
        if aims is None:
            return _FOREVER
        places = {name: place for place, name in enumerate(preferred)}
        until = _FOREVER
        for aim in sorted(aims.targets, key=lambda found: places.get(found.provider.name, len(places))):
            source = aim.provider.prices
            ends = [time for time in self._snapshot.book.boundaries(source, aim.model) if time > at]
            until = min([until, *ends])
            price = self._snapshot.book.find(source, aim.model, at)
            if isinstance(price, ModelPrice):
                return Target(aim.provider.name, aim.model, price, until)
        return until
