"""What policies and budgets would have made of past charges: a replay in the order of their holds. Pure.

Decides with the gateway's own records (`Account`, `RateLimits`, `Hours`, `cost`), call by call, in its order: model
rules, ladder, hours, ceilings, rates, budgets. A charge that is refused counts in no later balance or rate. Holds are
the charges' own; what the ledger does not know (how a client goes on after a refusal, waiting, clamping) is not
guessed. Everything about an identity, route and price is put together once; amounts are integers in nanos.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

import msgspec

from outlay.flow.accounts import UNLIMITED, Account
from outlay.flow.bars import Bars, Gate, Pace, ceilings
from outlay.flow.budgets import AccessRule, BudgetSpec, budgets_for, model_allowed, pattern_matches
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
from outlay.flow.scope import UNATTRIBUTED, Identity, match_scope
from outlay.flow.windows import FOREVER, NANOS_PER_SECOND, WindowKind, bounds, bucket_nanos
from outlay.kernel.clock import UnixNanos
from outlay.lookup.cost import Cost, Request, cost
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Operation, Units, Usage

MAX_ENTRIES: Final = 50_000
"""Identities, routes and prices remembered (about 50 MB); past it all are forgotten and come back on use."""
MAX_ACCOUNTS: Final = 200_000
"""Accounts in memory: past it those of windows that are over are let go."""
MAX_LIMITS: Final = 100_000
"""Counters of rates remembered, as the gateway does; idle ones are let go at that."""
MAX_OPEN: Final = 1_000_000
"""Calls in flight at once (about 300 MB); past it the first to end is settled early."""
MAX_REFUSED: Final = 100_000
"""Refused requests remembered for their later attempts, the newest."""
PREPRICED: Final = frozenset(
    {Operation.FREE, Operation.PASSTHROUGH, Operation.BATCH, Operation.MESSAGE_BATCH, Operation.FINE_TUNING}
)
"""Operations that are no model call at its price: no ceiling, no ladder and no tokens a minute apply."""
_OFF_LADDER: Final = PREPRICED | {Operation.REALTIME}
_FINAL: Final = frozenset({"paused", "outside_hours", "rate_limited", "call_above_rate"})
"""Refusals after which a request makes no other attempt."""


class _Ring:
    """A rolling account, with the lengths of a bucket and of its stay, in ns."""

    __slots__ = ("account", "buckets", "size", "stay")

    def __init__(self, account: Account) -> None:
        window = account.budget.window
        self.account = account
        self.buckets = account.buckets if account.buckets is not None else deque()
        self.size = bucket_nanos(window)
        self.stay = self.size + window.seconds * NANOS_PER_SECOND

    def leave(self, now: int) -> None:
        """As `Account.leave`."""
        account, before = self.account, now - self.stay
        buckets = self.buckets
        while buckets and buckets[0][0] <= before:
            account.spent -= buckets.popleft()[1]


class _Step:
    """A rung of a ladder at one account."""

    __slots__ = ("account", "from_nanos", "is_shadow", "policy", "rung")

    def __init__(self, account: Account, limit: int, rung: Rung, policy: PolicySpec) -> None:
        self.account, self.rung, self.policy = account, rung, policy
        self.is_shadow = policy.mode is PolicyMode.SHADOW
        self.from_nanos = -(-limit * rung.at_percent // 100)
        """Spent, from which on it is reached."""


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
    sums: Reroute
    held: int
    cost_nanos: int
    is_unpriced: bool


class _Accounts:
    """The accounts of an entry in the windows of a time."""

    __slots__ = ("all", "plain", "rings", "soft")

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.all = tuple(accounts)
        self.plain = tuple(account for account in accounts if account.buckets is None)
        self.rings = tuple(_Ring(account) for account in accounts if account.buckets is not None)
        self.soft = [account for account in accounts if not account.is_hard and account.limit is not None]


class _Entry:
    """One identity at one route and price, and what became of its charges."""

    __slots__ = (
        "accounts",
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
        "request",
        "route",
        "rungs",
        "shadow",
        "steps",
        "valid_until",
    )

    def __init__(self, identity: Identity, route: PastRoute, part: Part) -> None:
        self.identity = identity
        self.route = route
        self.part = part
        self.request = Request()
        """As a cost at another model is asked for."""
        self.is_given = route.operation == IMPORTED
        self.is_prepriced = route.operation in PREPRICED
        self.enforced, self.shadow = Bars(), Bars()
        self.has_bars = False
        self.paces: tuple[Pace, ...] = ()
        self.ending: tuple[Pace, ...] = ()
        """Those of them that want to know when a call ends."""
        self.preferred: tuple[str, ...] = ()
        self.rungs: list[tuple[Rung, PolicySpec]] = []
        """Those that are enforced first, of them the highest."""
        self.marks = False
        self.valid_until = 0
        self.accounts = _Accounts(())
        self.steps: list[_Step] = []
        self.is_stepped = False
        self.moves: dict[Rung, _Move] = {}


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
        self.budgets = (*budgets, *(budget for policy in policies for budget in budgets_of(policy)))
        self._names = names
        self._rerouting = rerouting
        self._entries: dict[tuple[int, int, int], _Entry] = {}
        self._moved: dict[tuple[int, int, str, str, str, str], _Entry] = {}
        self._accounts: dict[tuple[str, tuple[tuple[str, str], ...], int], Account] = {}
        self._next_cleaning = MAX_ACCOUNTS
        self._paces: dict[tuple[str, tuple[tuple[str, str], ...]], Pace] = {}
        self._gates = {
            policy.name: Gate(policy.name, policy.hours) for policy in policies if policy.hours is not None
        }
        self._open: list[tuple[int, int, _Accounts, int, int, tuple[Pace, ...], int]] = []
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
                self._account(item.budget, values, item.at).post(item.nanos, item.at)

    def run(self, rows: Iterable[PastCharge]) -> Simulation:
        """Take every charge, in order; each is counted exactly once."""
        entries, open_ = self._entries, self._open
        for row in rows:
            now, hold_seq, _, _, request, attempt, who, where, price, _, booked, _, _, _ = row
            entry = entries.get((who, where, price))
            if entry is None:
                entry = self._known_entry(who, where, price)
            part = entry.part.all
            part.charges += 1
            part.cost_nanos += booked
            if entry.is_given:
                heappush(open_, (row[3], row[2], self._fresh(entry, now), 0, booked, (), 0))
                continue
            if open_ and (open_[0][0] < hold_seq or len(open_) > MAX_OPEN):
                self._settle(hold_seq)
            is_first = attempt == 1
            if not is_first and request in self._refused:
                cause = self._refused[request]
                if cause.code in _FINAL:
                    self._refuse(entry, cause, booked)
                    continue
                is_first = True
            problem = self._admit(entry, row, is_first)
            if problem is not None:
                self._refuse(entry, problem, booked)
                self._remember(request, problem)
            elif attempt > 1:
                self._refused.pop(request, None)
        self.found.total = sum_of(self.found.parts.values())
        return self.found

    # -- one charge -----------------------------------------------------------------------------------------------

    def _admit(self, entry: _Entry, row: PastCharge, is_first: bool) -> Cause | None:
        """Let a charge through and hold its money; or say why not."""
        now, held, booked = row[0], row[9], row[10]
        if entry.enforced.rules:
            return entry.enforced.rules[0]
        if now >= entry.valid_until:
            self._refresh(entry, now)
        accounts = entry.accounts
        for ring in accounts.rings:
            if ring.buckets and ring.buckets[0][0] + ring.stay <= now:
                ring.leave(now)
        source, new_cost, mark = entry, booked, None
        moved: _Moved | None = None
        if entry.is_stepped and (step := _reached(entry.steps)) is not None:
            if step.is_shadow:
                mark = Cause(step.policy.name, "downgrade" if step.rung.use else "paused")
            else:
                found = self._moved_by(step, entry, row)
                if isinstance(found, Cause):
                    return found
                moved, entry, held, new_cost = found, found.entry, found.held, found.cost_nanos
                accounts = entry.accounts
        tokens = 0 if entry.is_prepriced else (row[11] or 0) + (row[12] or 0)
        if entry.has_bars:
            cause = entry.enforced.barred(held, tokens, now, is_first=is_first)
            if cause is not None:
                return cause
        for account in accounts.all:
            if account.cap - account.spent - account.held < held:
                return _blocking(accounts.all, held)
        if entry.marks or mark is not None:
            self._mark(entry, mark, row, held, tokens, is_first=is_first)
        for account in accounts.all:
            account.held += held
        for pace in entry.paces:
            pace.begin(tokens, now, is_first=is_first)
        if moved is not None:
            for sums in (moved.sums, source.part.rerouted):
                sums.add(booked, new_cost, is_unpriced=moved.is_unpriced)
        heappush(self._open, (row[3], row[2], accounts, held, new_cost, entry.ending, tokens))
        return None

    def _mark(
        self, entry: _Entry, rung: Cause | None, row: PastCharge, held: int, tokens: int, *, is_first: bool
    ) -> None:
        """Note what shadow policies and soft budgets say of a charge that passes."""
        found = set(entry.shadow.all_causes(held, tokens, row[0], is_first=is_first))
        if rung is not None:
            found.add(rung)
        for account in entry.accounts.soft:
            limit = account.limit
            if limit is not None and account.spent + account.held + held > limit:
                found.add(Cause(account.budget.name, "over_soft_limit"))
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
            _, now, accounts, held, cost_nanos, ending, tokens = heappop(open_)
            for account in accounts.plain:
                account.held -= held
                account.spent += cost_nanos
            for ring in accounts.rings:
                # as `Account.post`
                account, start, buckets = ring.account, now - now % ring.size, ring.buckets
                account.held -= held
                account.spent += cost_nanos
                if buckets and buckets[-1][0] >= start:
                    buckets[-1][1] += cost_nanos
                else:
                    buckets.append([start, cost_nanos])
            for pace in ending:
                pace.end(tokens, now)

    # -- what does not change between charges -----------------------------------------------------------------------

    def _known_entry(self, who: int, where: int, price: int) -> _Entry:
        if len(self._entries) >= MAX_ENTRIES:
            self._entries.clear()
        names = self._names
        entry = self._entry(names.identity(who), names.route(where), names.price(price))
        self._entries[who, where, price] = entry
        return entry

    def _entry(self, identity: Identity, route: PastRoute, price: ModelPrice) -> _Entry:
        if len(self._paces) >= MAX_LIMITS:
            self._paces = {name: kept for name, kept in self._paces.items() if not kept.is_idle}
            self._entries.clear()  # they hold what was let go
            self._moved.clear()
        key = (identity.team or UNATTRIBUTED, identity.model or UNATTRIBUTED)
        entry = _Entry(identity, route, self.found.parts.setdefault(key, no_part()))
        if entry.is_given:
            return entry
        for covering in policies_for(self._policies, identity):
            policy = covering.policy
            is_enforced = policy.mode is PolicyMode.ENFORCE
            bars = entry.enforced if is_enforced else entry.shadow
            if not _allows(policy, identity, route.model):
                bars.rules.append(Cause(policy.name, "model_not_allowed"))
            gate = self._gates.get(policy.name)
            if gate is not None:
                bars.gates.append(gate)
            if not entry.is_prepriced:
                bars.ceilings += ceilings(policy, price)
            if policy.has_rates:
                pace = self._pace(covering)
                bars.paces.append(pace)
                entry.paces += (pace,)
            if route.operation not in _OFF_LADDER:
                entry.rungs += [(rung, policy) for rung in policy.ladder if _is_for(rung, identity.model)]
            if is_enforced:
                entry.preferred = entry.preferred or policy.providers
        entry.ending = tuple(pace for pace in entry.paces if pace.ends)
        entry.has_bars = not entry.enforced.is_empty
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

    def _fresh(self, entry: _Entry, now: int) -> _Accounts:
        """The accounts of an entry, up to date: windows that ended, buckets that leave."""
        if now >= entry.valid_until:
            self._refresh(entry, now)
        for ring in entry.accounts.rings:
            if ring.buckets and ring.buckets[0][0] + ring.stay <= now:
                ring.leave(now)
        return entry.accounts

    def _refresh(self, entry: _Entry, now: int) -> None:
        """The accounts of an entry in the windows of `now`."""
        if len(self._accounts) >= self._next_cleaning:
            self._let_go(now)
        accounts = [
            self._account(applied.budget, applied.values, now)
            for applied in budgets_for(self.budgets, entry.identity)
        ]
        entry.accounts = _Accounts(accounts)
        entry.valid_until = min((account.end for account in accounts), default=FOREVER)
        entry.steps = [
            _Step(account, account.limit, rung, policy)
            for rung, policy in entry.rungs
            for account in accounts
            if account.budget.name == rung.budget and account.limit
        ]
        entry.is_stepped = bool(entry.steps)
        entry.marks = bool(entry.accounts.soft or entry.shadow.rules) or not entry.shadow.is_empty

    def _account(self, budget: BudgetSpec, values: tuple[tuple[str, str], ...], now: int) -> Account:
        start, end = (0, FOREVER) if budget.window.kind is WindowKind.ROLLING else bounds(budget.window, now)
        key = (budget.name, values, start)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(len(self._accounts), budget, values, start, end)
        return account

    def _let_go(self, now: int) -> None:
        self._accounts = {
            key: account for key, account in self._accounts.items() if account.end > now or account.held
        }
        self._next_cleaning = max(MAX_ACCOUNTS, 2 * len(self._accounts))

    # -- ladders ----------------------------------------------------------------------------------------------------

    def _moved_by(self, step: _Step, source: _Entry, row: PastCharge) -> _Moved | Cause:
        """A charge at the model of a rung; or why it does not get there."""
        rung, policy, now, held, booked = step.rung, step.policy, row[0], row[9], row[10]
        if not rung.use:
            return Cause(policy.name, "paused")
        move = source.moves.get(rung)
        if move is None or now >= move.until:
            move = self._move(source, row, step, now)
        entry, price = move.entry, move.price
        if entry is None or price is None:
            return Cause(policy.name, "model_not_found")
        if entry.enforced.rules:
            return entry.enforced.rules[0]
        self._fresh(entry, now)
        there = _cost_there(row, source.request, price, now)
        if there is None:
            return _Moved(entry, move.sums, held, booked, True)
        if booked:
            held = -(-held * there // booked)  # the worst case is dearer or cheaper in the same measure
        return _Moved(entry, move.sums, held, there, False)

    def _move(self, entry: _Entry, row: PastCharge, step: _Step, now: int) -> _Move:
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
        entry.moves[rung] = moved
        return moved


def _reached(steps: Sequence[_Step]) -> _Step | None:
    """The first rung that is reached."""
    for step in steps:
        if step.account.spent >= step.from_nanos:
            return step
    return None


def _is_for(rung: Rung, model: str) -> bool:
    if rung.models:
        return any(pattern_matches(pattern.lower(), model.lower()) for pattern in rung.models)
    return model.lower() != rung.use.lower()


def _allows(policy: PolicySpec, identity: Identity, target: str) -> bool:
    if not (policy.allow_models or policy.deny_models):
        return True
    return model_allowed((AccessRule({}, policy.allow_models, policy.deny_models),), identity, target)


def _blocking(accounts: Sequence[Account], held: int) -> Cause:
    """The budget that does not take a hold, by the order of `authorize`: spent, too large, busy."""
    hard = [account for account in accounts if account.cap < UNLIMITED]
    for account in hard:
        if account.spent >= account.cap and held > account.cap - account.spent:
            return Cause(account.budget.name, "budget_spent")
    tight = [account for account in hard if held > account.cap - account.spent]
    if tight:
        narrow = min(tight, key=lambda account: account.cap - account.spent)
        return Cause(narrow.budget.name, "call_too_large")
    busy = next(account for account in hard if account.available < held)
    return Cause(busy.budget.name, "budget_busy")


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
