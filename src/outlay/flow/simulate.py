"""What policies and budgets would have made of past charges: a replay in the order of their holds. Pure.

Decides with the gateway's own rules (scopes, windows, hours, `cost`), call by call, in its order: model
rules, ladder, hours, ceilings, rates, budgets. A charge that is refused counts in no later balance or rate. Holds are
the charges' own; what the ledger does not know (how a client goes on after a refusal, waiting, clamping) is not
guessed. Everything about an identity, route and price is put together once; amounts are integers in nanos.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

import msgspec

from outlay.flow.bars import Bars, Gate, Pace, ceilings
from outlay.flow.budgets import BudgetSpec, budgets_for
from outlay.flow.past import (
    IMPORTED,
    Amount,
    Cause,
    Names,
    OtherUsage,
    Part,
    PastCharge,
    PastRoute,
    Reroute,
    Rerouting,
    Seed,
    Simulation,
    no_part,
    sum_of,
)
from outlay.flow.policy import (
    Covering,
    PolicyMode,
    PolicySpec,
    Rung,
    budgets_of,
    policies_for,
)
from outlay.flow.purses import Purse, Purses, Step, reached
from outlay.flow.rates import SECOND_NS, WINDOW_S
from outlay.flow.scope import UNATTRIBUTED, Identity, match_scope
from outlay.flow.windows import FOREVER, WindowKind, bounds
from outlay.kernel.clock import UnixNanos
from outlay.lookup.cost import Cost, Request, cost
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Operation, Units, Usage

MAX_ENTRIES: Final = 50_000
"""Identities, routes and prices remembered (about 50 MB); past it all are forgotten and come back on use."""
MAX_PURSES: Final = 200_000
"""Purses in memory: past it those of windows that are over are let go."""
MAX_LIMITS: Final = 100_000
"""Counters of rates remembered, as the gateway does; idle ones are let go at that."""
MAX_OPEN: Final = 1_000_000
"""Calls in flight at once (about 300 MB); past it the first to end is settled early."""
MAX_REFUSED: Final = 100_000
"""Refused requests remembered for their later attempts, the newest."""
PREPRICED: Final = frozenset(
    {Operation.FREE, Operation.PASSTHROUGH, Operation.BATCH, Operation.MESSAGE_BATCH, Operation.FINE_TUNING}
)
"""Operations that are no model call at its price: no ladder and no tokens a minute apply."""
_MANY: Final = frozenset({Operation.BATCH, Operation.MESSAGE_BATCH})
"""Many calls in one charge: what one of them may cost cannot be asked of it, their model's price can."""
_OFF_LADDER: Final = PREPRICED | {Operation.REALTIME}
_FINAL: Final = frozenset({"paused", "outside_hours", "rate_limited", "call_above_rate"})
"""Refusals after which a request makes no other attempt."""


class _Move:
    """Where a rung leads one entry, until the prices there change."""

    __slots__ = ("entry", "price", "sums", "until")

    def __init__(self, entry: "_Entry | None", price: ModelPrice | None, until: int, sums: Reroute) -> None:
        self.entry = entry
        """None: the model is served nowhere, or has no price."""
        self.price = price
        self.until = until
        self.sums = sums


class _Moved(NamedTuple):
    """A charge as it would have been at another model."""

    entry: "_Entry"
    purses: Purses
    sums: Reroute
    held: int
    cost_nanos: int
    is_unpriced: bool


class _Entry:
    """One identity at one route and price, and what became of its charges."""

    __slots__ = (
        "booked",
        "charges",
        "counts",
        "ending",
        "enforced",
        "has_bars",
        "identity",
        "is_given",
        "is_prepriced",
        "is_stepped",
        "marks",
        "moves",
        "paces",
        "part",
        "preferred",
        "purses",
        "request",
        "route",
        "rungs",
        "shadow",
        "steps",
    )

    def __init__(self, identity: Identity, route: PastRoute, part: Part) -> None:
        self.identity = identity
        self.route = route
        self.part = part
        self.charges = self.booked = 0
        """Not in the part yet."""
        self.request = Request()
        """As a cost at another model is asked for."""
        self.is_given = route.operation == IMPORTED
        self.is_prepriced = route.operation in PREPRICED
        self.enforced, self.shadow = Bars(), Bars()
        self.has_bars = False
        self.counts: tuple[tuple[deque[int], int, Cause], ...] = ()
        """In the place of bars that are nothing but requests a minute: the calls that count, most of them, why not."""
        self.paces: tuple[Pace, ...] = ()
        self.ending: tuple[Pace, ...] = ()
        """Those of them that want to know when a call ends."""
        self.preferred: tuple[str, ...] = ()
        self.rungs: list[tuple[Rung, PolicySpec]] = []
        """Those that are enforced first, of them the highest."""
        self.marks = False
        self.purses: Purses | None = None
        self.steps: list[Step] = []
        self.is_stepped = False
        self.moves: dict[Step, _Move] = {}


class Replay:
    """See the module. `seed` what was spent before, `run` over the rows once, then read `found`."""

    def __init__(
        self,
        policies: Sequence[PolicySpec],
        budgets: Sequence[BudgetSpec],
        names: Names,
        rerouting: Rerouting,
    ) -> None:
        """`budgets` are the declared ones; those that policies' spend velocity means are added here."""
        self._policies = tuple(policies)
        every = (*budgets, *(budget for policy in policies for budget in budgets_of(policy)))
        self.budgets = tuple(budget for budget in every if budget.limit_nanos is not None)
        """Those with a limit: what only meters changes nothing."""
        self._names = names
        self._rerouting = rerouting
        self._entries: dict[tuple[int, int, int], _Entry] = {}
        self._moved: dict[tuple[int, int, str, str, str, str], _Entry] = {}
        self._purses: dict[tuple[str, tuple[tuple[str, str], ...], int], Purse] = {}
        self._next_cleaning = MAX_PURSES
        self._paces: dict[tuple[str, tuple[tuple[str, str], ...]], Pace] = {}
        self._gates = {
            policy.name: Gate(policy.name, policy.hours) for policy in policies if policy.hours is not None
        }
        self._open: list[tuple[int, int, Purses, int, int, tuple[Pace, ...], int]] = []
        self._refused: OrderedDict[bytes, Cause] = OrderedDict()
        self.found = Simulation(no_part(), {}, {}, {}, {})

    @property
    def has_ladder(self) -> bool:
        """Whether charges may have to be priced again, so that their rows need all of their usage."""
        return any(policy.ladder for policy in self._policies)

    def seed(self, spent: Iterable[Seed]) -> None:
        """Begin the windows that are running with what was spent in them; rolling ones oldest first."""
        for item in spent:
            values = match_scope(item.budget.scope, item.identity)
            if values is not None:
                self._purse(item.budget, values, item.at).post(item.nanos, item.at)

    def run(self, rows: Iterable[PastCharge]) -> Simulation:
        """Take every charge, in order; each is counted exactly once."""
        entries, open_, refused = self._entries, self._open, self._refused
        for row in rows:
            (
                now,
                hold_seq,
                settled_at,
                settle_seq,
                request,
                attempt,
                who,
                where,
                price,
                held,
                booked,
                _,
                _,
                _,
            ) = row
            entry = entries.get((who, where, price))
            if entry is None:
                entry = self._known_entry(who, where, price)
            entry.charges += 1
            entry.booked += booked
            if entry.is_given:
                heappush(open_, (settle_seq, settled_at, self._fresh(entry, now), 0, booked, (), 0))
                continue
            if open_ and (open_[0][0] < hold_seq or len(open_) > MAX_OPEN):
                self._settle(hold_seq)
            is_first = attempt == 1
            if not is_first and request in refused:
                cause = refused[request]
                if cause.code in _FINAL:
                    self._refuse(entry, cause, booked)
                    continue
                is_first = True
            problem = self._admit(entry, row, now, held, booked, is_first)
            if problem is not None:
                self._refuse(entry, problem, booked)
                self._remember(request, problem)
            elif attempt > 1:
                refused.pop(request, None)
        self._add_up()
        self.found.total = sum_of(self.found.parts.values())
        return self.found

    # -- one charge -----------------------------------------------------------------------------------------------

    def _admit(  # noqa: PLR0917 - the hot path: a record of these would cost more than the call
        self, entry: _Entry, row: PastCharge, now: int, held: int, booked: int, is_first: bool
    ) -> Cause | None:
        """Let a charge through and hold its money; or say why not."""
        if entry.enforced.rules:
            return entry.enforced.rules[0]
        purses = entry.purses
        if purses is None or now >= purses.end:
            purses = self._refresh(entry, now)
        for ring in purses.rings:
            if ring.buckets and ring.buckets[0][0] + ring.stay <= now:
                ring.leave(now)
        source, new_cost, mark = entry, booked, None
        moved: _Moved | None = None
        if entry.is_stepped and (step := reached(entry.steps)) is not None:
            if step.is_shadow:
                mark = Cause(step.policy.name, "downgrade" if step.rung.use else "paused")
            else:
                found = self._moved_by(step, entry, row)
                if isinstance(found, Cause):
                    return found
                moved, entry, purses, held, new_cost = (
                    found,
                    found.entry,
                    found.purses,
                    found.held,
                    found.cost_nanos,
                )
        tokens = 0 if entry.is_prepriced else (row[11] or 0) + (row[12] or 0)
        if entry.has_bars:
            cause = entry.enforced.barred(held, tokens, now, is_first=is_first)
            if cause is not None:
                return cause
        second = now // SECOND_NS
        if is_first and entry.counts:
            # as `Pace.refuses`, without its calls
            before = second - WINDOW_S
            for requests, most, cause in entry.counts:
                while requests and requests[0] < before:
                    requests.popleft()
                if len(requests) >= most:
                    return cause
        for purse in purses.hard:
            if purse.room < held:
                return purses.blocking(held)
        if entry.marks or mark is not None:
            self._mark(entry, mark, row, held, tokens, is_first=is_first)
        for purse in purses.all:
            purse.room -= held
        if is_first:
            for requests, _, _ in entry.counts:
                requests.append(second)
        for pace in entry.paces:
            pace.begin(tokens, now, is_first=is_first)
        if moved is not None:
            for sums in (moved.sums, source.part.rerouted):
                sums.add(booked, new_cost, is_unpriced=moved.is_unpriced)
        heappush(self._open, (row[3], row[2], purses, held, new_cost, entry.ending, tokens))
        return None

    def _mark(
        self, entry: _Entry, rung: Cause | None, row: PastCharge, held: int, tokens: int, *, is_first: bool
    ) -> None:
        """Note what shadow policies and soft budgets say of a charge that passes."""
        found = set(entry.shadow.all_causes(held, tokens, row[0], is_first=is_first))
        if rung is not None:
            found.add(rung)
        if entry.purses is not None:
            for purse in entry.purses.soft:
                if purse.room < held:
                    found.add(Cause(purse.budget.name, "over_soft_limit"))
        for cause in found:
            self.found.marked.setdefault(cause, Amount()).add(row[10])

    def _refuse(self, entry: _Entry, cause: Cause, booked: int) -> None:
        self.found.refused.setdefault(cause, Amount()).add(booked)
        entry.part.refused.add(booked)

    def _remember(self, request: bytes, cause: Cause) -> None:
        if len(self._refused) >= MAX_REFUSED:
            self._refused.popitem(last=False)
        self._refused[request] = cause

    def _settle(self, before: int) -> None:
        """End the calls in flight that were settled before a write of the ledger, or are too many to remember."""
        open_ = self._open
        while open_ and (open_[0][0] < before or len(open_) > MAX_OPEN):
            _, now, purses, held, cost_nanos, ending, tokens = heappop(open_)
            freed = held - cost_nanos
            for purse in purses.all:
                purse.room += freed
                purse.spent += cost_nanos
            for ring in purses.rings:
                # as `Purse.fill`
                start, buckets = now - now % ring.size, ring.buckets
                if buckets and buckets[-1][0] >= start:
                    buckets[-1][1] += cost_nanos
                else:
                    buckets.append([start, cost_nanos])
            for pace in ending:
                pace.end(tokens, now)

    # -- what does not change between charges -----------------------------------------------------------------------

    def _known_entry(self, who: int, where: int, price: int) -> _Entry:
        if len(self._entries) >= MAX_ENTRIES:
            self._forget()
        names = self._names
        entry = self._entry(names.identity(who), names.route(where), names.price(price))
        self._entries[who, where, price] = entry
        return entry

    def _entry(self, identity: Identity, route: PastRoute, price: ModelPrice) -> _Entry:
        if len(self._paces) >= MAX_LIMITS:
            self._paces = {name: kept for name, kept in self._paces.items() if not kept.is_idle}
            self._forget()  # they hold what was let go
            self._moved.clear()
        key = (identity.team or UNATTRIBUTED, identity.model or UNATTRIBUTED)
        entry = _Entry(identity, route, self.found.parts.setdefault(key, no_part()))
        if entry.is_given:
            return entry
        for covering in policies_for(self._policies, identity):
            policy = covering.policy
            is_enforced = policy.mode is PolicyMode.ENFORCE
            bars = entry.enforced if is_enforced else entry.shadow
            if not policy.allows(identity, route.model):
                bars.rules.append(Cause(policy.name, "model_not_allowed"))
            gate = self._gates.get(policy.name)
            if gate is not None:
                bars.gates.append(gate)
            if route.operation in _MANY:
                bars.ceilings += (found for found in ceilings(policy, price) if found[0] < 0)
            elif not entry.is_prepriced or route.operation == Operation.FINE_TUNING:
                bars.ceilings += ceilings(policy, price)
            if policy.has_rates:
                pace = self._pace(covering)
                bars.paces.append(pace)
                entry.paces += (pace,)
            names = (identity.model, *identity.model_names)
            if route.operation not in _OFF_LADDER:
                entry.rungs += [(rung, policy) for rung in policy.ladder if rung.is_for(*names)]
            if is_enforced:
                entry.preferred = entry.preferred or policy.providers
        entry.ending = tuple(pace for pace in entry.paces if pace.ends)
        bars = entry.enforced
        if not (bars.gates or bars.ceilings) and all(pace.is_plain for pace in bars.paces):
            entry.counts = tuple((pace.requests, pace.most_requests or 0, pace.slow) for pace in bars.paces)
            entry.paces = tuple(pace for pace in entry.paces if pace not in bars.paces)
        else:
            entry.has_bars = True
        if entry.rungs:
            entry.request = Request(Operation(route.operation))
        # those that are enforced first: a shadow ladder keeps nobody from being moved
        entry.rungs.sort(key=lambda found: (found[1].mode is PolicyMode.SHADOW, -found[0].at_percent))
        return entry

    def _pace(self, covering: Covering) -> Pace:
        key = (covering.policy.name, covering.values)
        found = self._paces.get(key)
        if found is None:
            found = self._paces[key] = Pace(covering.policy)
        return found

    def _forget(self) -> None:
        self._add_up()
        self._entries.clear()

    def _add_up(self) -> None:
        """Bring what entries have counted into their parts."""
        for entry in self._entries.values():
            entry.part.all.charges += entry.charges
            entry.part.all.cost_nanos += entry.booked
            entry.charges = entry.booked = 0

    def _fresh(self, entry: _Entry, now: int) -> Purses:
        """The purses of an entry, up to date: windows that ended, buckets that leave."""
        purses = entry.purses
        if purses is None or now >= purses.end:
            purses = self._refresh(entry, now)
        for ring in purses.rings:
            ring.leave(now)
        return purses

    def _refresh(self, entry: _Entry, now: int) -> Purses:
        """The purses of an entry in the windows of `now`."""
        if len(self._purses) >= self._next_cleaning:
            self._let_go(now)
        found = [
            self._purse(applied.budget, applied.values, now)
            for applied in budgets_for(self.budgets, entry.identity)
        ]
        entry.purses = purses = Purses(found)
        entry.steps = [
            Step(purse, rung, policy)
            for rung, policy in entry.rungs
            for purse in found
            if purse.budget.name == rung.budget and purse.limit
        ]
        entry.is_stepped = bool(entry.steps)
        entry.moves.clear()
        entry.marks = bool(purses.soft or entry.shadow.rules) or not entry.shadow.is_empty
        return purses

    def _purse(self, budget: BudgetSpec, values: tuple[tuple[str, str], ...], now: int) -> Purse:
        start, end = (0, FOREVER) if budget.window.kind is WindowKind.ROLLING else bounds(budget.window, now)
        key = (budget.name, values, start)
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = Purse(budget, budget.limit_nanos or 0, end)
        return purse

    def _let_go(self, now: int) -> None:
        self._purses = {key: purse for key, purse in self._purses.items() if purse.end > now or purse.held}
        self._next_cleaning = max(MAX_PURSES, 2 * len(self._purses))

    # -- ladders ----------------------------------------------------------------------------------------------------

    def _moved_by(self, step: Step, source: _Entry, row: PastCharge) -> _Moved | Cause:
        """A charge at the model of a rung; or why it does not get there."""
        rung, policy, now, held, booked = step.rung, step.policy, row[0], row[9], row[10]
        if not rung.use:
            return Cause(policy.name, "paused")
        move = source.moves.get(step)
        if move is None or now >= move.until:
            move = self._move(source, row, step, now)
        entry, price = move.entry, move.price
        if entry is None or price is None:
            return Cause(policy.name, "model_not_found")
        if entry.enforced.rules:
            return entry.enforced.rules[0]
        purses = self._fresh(entry, now)
        there = _cost_there(row, source.request, price, now)
        if there is None:
            return _Moved(entry, purses, move.sums, held, booked, True)
        if booked:
            held = -(-held * there // booked)  # the worst case is dearer or cheaper in the same measure
        return _Moved(entry, purses, move.sums, held, there, False)

    def _move(self, entry: _Entry, row: PastCharge, step: Step, now: int) -> _Move:
        """Where a rung leads a caller from."""
        rung, names = step.rung, (step.policy.name, entry.identity.model, step.rung.use)
        sums = self.found.rerouted.setdefault(names, Reroute())
        target = self._rerouting.target(entry.route, rung.use, entry.preferred, UnixNanos(now))
        if isinstance(target, int):
            moved = _Move(None, None, target, sums)
        else:
            key = (row[6], row[7], rung.use, target.provider, target.model, target.price.price_id)
            found = self._moved.get(key)
            if found is None:
                if len(self._moved) >= MAX_ENTRIES:
                    self._moved.clear()
                identity = msgspec.structs.replace(entry.identity, model=rung.use, provider=target.provider)
                route = PastRoute(target.provider, target.model, target.model, entry.route.operation)
                found = self._moved[key] = self._entry(identity, route, target.price)
            moved = _Move(found, target.price, target.until, sums)
        entry.moves[step] = moved
        return moved


def _cost_there(row: PastCharge, requested: Request, price: ModelPrice, now: int) -> int | None:
    """Cost of the same usage at another price; None where the ledger does not hold what is needed."""
    read, output = row[11], row[12]
    if row[10] == 0:
        return 0  # not billed: a broken call
    if read is None or output is None:
        return None
    usage = Usage(read, output)
    if row[13] is not None:
        cached, written, hour, half_day, tools, other = msgspec.json.decode(row[13], type=OtherUsage)
        if tools:
            return None  # which of them, the ledger does not say
        usage = Usage(read, output, cached or 0, written or 0, hour or 0, half_day or 0)
        if other is not None:
            usage = _with_other(usage, msgspec.json.decode(other, type=dict[str, int]))
    found = cost(price, usage, UnixNanos(now), requested)
    return found.total_nanos if isinstance(found, Cost) else None


def _with_other(usage: Usage, other: Mapping[str, int]) -> Usage:
    tokens = {name: count for name, count in other.items() if name in Usage.__struct_fields__}
    units = tuple(Units(name, count) for name, count in other.items() if name not in tokens)
    return msgspec.structs.replace(usage, **tokens, units=units)
