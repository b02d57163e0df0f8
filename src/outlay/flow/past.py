"""Past charges as a replay takes them, and what it says of them: records. Decides nothing, reads nothing."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from outlay.flow.budgets import BudgetSpec
from outlay.flow.scope import Identity
from outlay.kernel.clock import UnixNanos
from outlay.lookup.price import ModelPrice

PastCharge = tuple[
    int,  # placed_at, UTC ns
    int,  # hold_seq: number of the hold among all writes of the ledger
    int,  # settled_at, UTC ns
    int,  # settle_seq
    bytes,  # request id
    int,  # attempt
    int,  # identity
    int,  # route
    int,  # price
    int,  # held nanos
    int,  # cost nanos, adjustments included
    int | None,  # input tokens, cached ones included; None: not known
    int | None,  # output tokens, reasoning included
    str | None,  # JSON of `OtherUsage`, where there is any
]
"""A charge as the replay takes it; rows come by (placed_at, hold_seq), rising."""

OtherUsage = tuple[
    int | None,  # tokens read from cache
    int | None,  # tokens written to cache
    int | None,  # of them for an hour
    int | None,  # of them for twelve hours
    int | None,  # uses of hosted tools
    str | None,  # JSON of what else was billed: tokens by modality, units
]
"""What a charge was billed for beside input and output tokens."""

IMPORTED = "import"
"""Operation of what another gateway spent: nobody asked here whether it may be."""


class PastRoute(msgspec.Struct, frozen=True):
    """Where a charge went."""

    provider: str
    model: str
    """Name at the provider."""
    served: str
    operation: str


class Names(Protocol):
    """What the numbers in a row mean."""

    def identity(self, number: int) -> Identity: ...
    def route(self, number: int) -> PastRoute: ...
    def price(self, number: int) -> ModelPrice: ...


class Target(msgspec.Struct, frozen=True):
    """Where a model name leads now, and its price at the time asked for."""

    provider: str
    model: str
    price: ModelPrice
    until: int
    """UTC ns at which that price ends."""


class Rerouting(Protocol):
    """Finds where a model name leads."""

    def target(self, route: PastRoute, model: str, preferred: Sequence[str], at: UnixNanos) -> Target | int:
        """The target; or the UTC ns until which there is none."""


class Cause(msgspec.Struct, frozen=True):
    """Why a charge is refused, or marked in shadow."""

    by: str
    """Name of the policy or budget."""
    code: str
    """As the gateway's refusal."""


class Amount(msgspec.Struct):
    """A sum of charges."""

    charges: int = 0
    cost_nanos: int = 0
    """As booked."""

    def add(self, nanos: int) -> None:
        """One more."""
        self.charges += 1
        self.cost_nanos += nanos


class Reroute(msgspec.Struct):
    """Charges that a ladder would have moved to another model."""

    charges: int = 0
    old_nanos: int = 0
    new_nanos: int = 0
    unpriced: int = 0
    """Of them those whose cost at the other model cannot be known: they count at the old cost."""

    def add(self, old: int, new: int, *, is_unpriced: bool = False) -> None:
        """One more."""
        self.charges += 1
        self.old_nanos += old
        self.new_nanos += new
        self.unpriced += is_unpriced


class Part(msgspec.Struct):
    """What became of the charges of one team and model."""

    all: Amount
    refused: Amount
    rerouted: Reroute

    @property
    def remaining_nanos(self) -> int:
        """Spend that would have been left."""
        moved = self.rerouted.new_nanos - self.rerouted.old_nanos
        return self.all.cost_nanos - self.refused.cost_nanos + moved


class Simulation(msgspec.Struct):
    """The whole answer. Parts sum to the whole."""

    total: Part
    refused: dict[Cause, Amount]
    marked: dict[Cause, Amount]
    """Shadow policies and soft budgets: nothing is refused, the charge would say so."""
    rerouted: dict[tuple[str, str, str], Reroute]
    """By policy, model asked for and model used."""
    parts: dict[tuple[str, str], Part]
    """By team and model asked for."""


class Seed(msgspec.Struct, frozen=True):
    """What was spent before the replay began, in a window that was running then."""

    budget: BudgetSpec
    identity: Identity
    at: int
    """UTC ns: the time that a rolling window counts it by."""
    nanos: int


def no_part() -> Part:
    """A part without charges."""
    return Part(Amount(), Amount(), Reroute())


def sum_of(parts: Iterable[Part]) -> Part:
    """All parts as one."""
    total = no_part()
    for part in parts:
        for sums, one in ((total.all, part.all), (total.refused, part.refused)):
            sums.charges += one.charges
            sums.cost_nanos += one.cost_nanos
        total.rerouted.charges += part.rerouted.charges
        total.rerouted.old_nanos += part.rerouted.old_nanos
        total.rerouted.new_nanos += part.rerouted.new_nanos
        total.rerouted.unpriced += part.rerouted.unpriced
    return total
