"""A replay against a second one written otherwise: no balances kept, everything added up anew for every charge."""

import os
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.flow.budgets import BudgetSpec
from outlay.flow.past import PastCharge, PastRoute, Target
from outlay.flow.policy import Hours, PolicyMode, PolicySpec, Rung
from outlay.flow.scope import Identity
from outlay.flow.simulate import Replay
from outlay.flow.windows import parse_window
from outlay.lookup.operator_models import custom_price
from outlay.lookup.overrides import CustomModel
from outlay.lookup.price import ModelPrice

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
START = 20_000 * DAY + DAY - 100 * SECOND
"""A hundred seconds before a midnight, UTC."""
MTOK = 1_000_000
MODELS = {"large": (3, 15), "small": (1, 2)}
"""USD per 10**6 tokens of input and output."""
TEAMS = ("ads", "search")
KEYS = ("k1", "k2", "k3")
FOREVER = 2**62
EXAMPLES = int(os.environ.get("OUTLAY_EXAMPLES", "50"))


def price(model: str) -> ModelPrice:
    usd = dict(zip(("input", "output"), map(str, MODELS[model]), strict=True))
    return custom_price(CustomModel(provider="engine", model=model, usd_per_mtok=usd))


def nanos_of(model: str, read: int, written: int) -> int:
    """Half-even, once a line."""
    rates = MODELS[model]
    return round(Fraction(read * rates[0] * SECOND, MTOK)) + round(
        Fraction(written * rates[1] * SECOND, MTOK)
    )


class Call(NamedTuple):
    at: int
    ended: int
    team: str
    key: str
    model: str
    read: int
    written: int
    slack: int
    """Held beyond the cost."""
    cost: int
    hold_seq: int = 0
    settle_seq: int = 0
    attempt: int = 1
    request: int = 0


class Names:
    """Identities, routes and prices by number, for the replay."""

    def __init__(self) -> None:
        self.triples = [(team, key, model) for team in TEAMS for key in KEYS for model in MODELS]

    def identity(self, number: int) -> Identity:
        team, key, model = self.triples[number]
        return Identity(org="acme", team=team, key=key, model=model, provider="engine")

    def route(self, number: int) -> PastRoute:
        model = self.triples[number][2]
        return PastRoute("engine", model, model, "chat")

    def price(self, number: int) -> ModelPrice:
        return price(self.triples[number][2])

    def target(self, route: PastRoute, model: str, preferred: object, at: int) -> Target | int:
        return Target("engine", model, price(model), FOREVER) if model in MODELS else FOREVER

    def row(self, call: Call) -> PastCharge:
        number = self.triples.index((call.team, call.key, call.model))
        held = call.cost + call.slack
        request = call.request.to_bytes(16, "big")
        return (
            call.at, call.hold_seq, call.ended, call.settle_seq, request, call.attempt, number, number, number,
            held, call.cost, call.read, call.written, None,
        )  # fmt: skip


class Passed(NamedTuple):
    """A call that went through."""

    call: Call
    model: str
    held: int
    cost: int
    is_first: bool


class Naive:
    """The second replay."""

    def __init__(self, policies: list[PolicySpec], budgets: list[BudgetSpec]) -> None:
        self.policies = policies
        self.budgets = list(budgets)
        for policy in policies:
            if policy.nanos_per_minute is not None:
                window = parse_window("60s")
                is_hard = policy.mode is PolicyMode.ENFORCE
                name = f"{policy.name}/usd-per-minute"
                self.budgets.append(BudgetSpec(name, policy.scope, policy.nanos_per_minute, window, is_hard))
        self.passed: list[Passed] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self.refused_nanos = 0
        self.marked: Counter[tuple[str, str]] = Counter()
        self.rerouted = [0, 0, 0]
        self.gone: dict[int, tuple[str, str]] = {}

    def run(self, calls: Iterable[Call]) -> None:
        for call in sorted(calls, key=lambda found: (found.at, found.hold_seq)):
            is_first = call.attempt == 1
            earlier = self.gone.get(call.request) if not is_first else None
            if earlier and earlier[1] in ("paused", "outside_hours", "rate_limited", "call_above_rate"):
                self.refuse(call, *earlier)
                continue
            is_first = is_first or earlier is not None
            reason = self.decide(call, is_first)
            if reason is not None:
                self.refuse(call, *reason)
                self.gone[call.request] = reason

    def refuse(self, call: Call, by: str, code: str) -> None:
        self.refused[by, code] += 1
        self.refused_nanos += call.cost

    def decide(self, call: Call, is_first: bool) -> tuple[str, str] | None:
        mine = [policy for policy in self.policies if covers(policy.scope, call, call.model)]
        enforced = [policy for policy in mine if policy.mode is PolicyMode.ENFORCE]
        shadow = [policy for policy in mine if policy.mode is PolicyMode.SHADOW]
        for policy in enforced:
            if call.model in policy.deny_models:
                return policy.name, "model_not_allowed"
        model, held, cost = call.model, call.cost + call.slack, call.cost
        marks = set()
        found = self.rung(call, enforced)
        if found is not None:
            policy, rung = found
            if not rung.use:
                return policy.name, "paused"
            if rung.use not in MODELS:
                return policy.name, "model_not_found"
            for other in enforced:
                if rung.use in other.deny_models:
                    return other.name, "model_not_allowed"
            model = rung.use
            cost = nanos_of(model, call.read, call.written)
            if call.cost:
                held = -(-held * cost // call.cost)
        elif (found := self.rung(call, shadow)) is not None:
            marks.add((found[0].name, "downgrade" if found[1].use else "paused"))
        for group, is_real in ((enforced, True), (shadow, False)):
            reasons = list(self.bars(call, model, held, group, is_first))
            if not is_real:
                marks |= {(p.name, "model_not_allowed") for p in group if model in p.deny_models}
                marks |= set(reasons)
            elif reasons:
                return reasons[0]
        tight = []
        for budget in self.budgets:
            if budget.limit_nanos is None or not covers(budget.scope, call, model):
                continue
            spent, open_ = self.balance(budget, call, model)
            if not budget.hard:
                if spent + open_ + held > budget.limit_nanos:
                    marks.add((budget.name, "over_soft_limit"))
            elif spent + open_ + held > budget.limit_nanos:
                tight.append((budget, spent))
        blocked = self.blamed(tight, held)
        if blocked is not None:
            return blocked
        self.marked.update(marks)
        if model != call.model:
            self.rerouted = [self.rerouted[0] + 1, self.rerouted[1] + call.cost, self.rerouted[2] + cost]
        self.passed.append(Passed(call, model, held, cost, is_first))
        return None

    @staticmethod
    def blamed(tight: list[tuple[BudgetSpec, int]], held: int) -> tuple[str, str] | None:
        if not tight:
            return None
        for budget, spent in tight:
            assert budget.limit_nanos is not None
            if spent >= budget.limit_nanos and spent + held > budget.limit_nanos:
                return budget.name, "budget_spent"
        rooms = [(budget.limit_nanos or 0) - spent for budget, spent in tight]
        over = [(room, place) for place, room in enumerate(rooms) if held > room]
        if over:
            return tight[min(over)[1]][0].name, "call_too_large"
        return tight[0][0].name, "budget_busy"

    def rung(self, call: Call, policies: list[PolicySpec]) -> tuple[PolicySpec, Rung] | None:
        best: tuple[PolicySpec, Rung] | None = None
        for policy in policies:
            for rung in policy.ladder:
                if (rung.models and call.model not in rung.models) or (
                    not rung.models and call.model == rung.use
                ):
                    continue
                for budget in self.budgets:
                    if budget.name != rung.budget or not covers(budget.scope, call, call.model):
                        continue
                    spent = self.balance(budget, call, call.model)[0]
                    is_reached = budget.limit_nanos and Fraction(spent, budget.limit_nanos) >= Fraction(
                        rung.at_percent, 100
                    )
                    if is_reached and (best is None or rung.at_percent > best[1].at_percent):
                        best = policy, rung
        return best

    def bars(self, call: Call, model: str, held: int, policies: list[PolicySpec], is_first: bool) -> Any:
        seconds_of_day = call.at % DAY // SECOND
        for policy in policies:
            hours = policy.hours
            if hours is not None and is_first:
                minute = seconds_of_day // 60
                inside = (
                    hours.start_minute <= minute < hours.end_minute
                    if hours.start_minute < hours.end_minute
                    else minute >= hours.start_minute or minute < hours.end_minute
                )
                if not inside:
                    yield policy.name, "outside_hours"
        for policy in policies:
            if policy.max_nanos_per_call is not None and held > policy.max_nanos_per_call:
                yield policy.name, "call_above_policy"
            ceiling = policy.max_output_nanos_per_mtok
            if ceiling is not None and MODELS[model][1] * SECOND > ceiling:
                yield policy.name, "price_above_ceiling"
        for policy in policies:
            reason = self.pace(call, policy, is_first)
            if reason is not None:
                yield policy.name, reason

    def pace(self, call: Call, policy: PolicySpec, is_first: bool) -> str | None:
        same = [
            passed
            for passed in self.passed
            if covers(policy.scope, passed.call, passed.model)
            and account(policy.scope, passed.call) == account(policy.scope, call)
        ]
        now = call.at // SECOND
        running = [passed for passed in same if passed.call.settle_seq > call.hold_seq]
        done = [passed for passed in same if passed.call.settle_seq < call.hold_seq]
        if policy.parallel is not None and len(running) >= policy.parallel:
            return "rate_limited"
        recent = [passed for passed in same if passed.is_first and passed.call.at // SECOND + 60 >= now]
        if policy.requests_per_minute is not None and is_first and len(recent) >= policy.requests_per_minute:
            return "rate_limited"
        limit = policy.tokens_per_minute
        if limit is not None:
            tokens = sum(passed.call.read + passed.call.written for passed in running)
            for passed in done:
                if passed.call.ended // SECOND + 60 >= now:
                    tokens += passed.call.read + passed.call.written
            own = call.read + call.written
            if tokens + own > limit:
                return "call_above_rate" if own > limit else "rate_limited"
        return None

    def balance(self, budget: BudgetSpec, call: Call, model: str) -> tuple[int, int]:
        spent = open_ = 0
        for passed in self.passed:
            other = passed.call
            if not covers(budget.scope, other, passed.model) or account(budget.scope, other) != account(
                budget.scope, call
            ):
                continue
            rolls = budget.window.text().endswith("s")
            is_here = rolls or budget.window.text() == "lifetime" or other.at // DAY == call.at // DAY
            if other.settle_seq > call.hold_seq:
                open_ += passed.held if is_here else 0
            elif rolls:
                length = budget.window.seconds * SECOND
                size = length // 60
                spent += passed.cost if other.ended // size * size + size + length > call.at else 0
            else:
                spent += passed.cost if is_here else 0
        return spent, open_


def covers(scope: Any, call: Call, model: str) -> bool:
    said = {"team": call.team, "key": call.key, "model": model, "org": "acme"}
    return all(value in ("*", said[name]) for name, value in scope.items())


def account(scope: Any, call: Call) -> tuple[str, ...]:
    return tuple(getattr(call, name) for name in sorted(scope) if name in ("team", "key"))


amounts = st.integers(0, 40_000_000)
scopes = st.sampled_from([{}, {"team": "ads"}, {"team": "*"}, {"key": "*"}, {"team": "search", "key": "*"}])
budgets = st.lists(
    st.builds(
        lambda scope, limit, window, hard: (scope, limit, window, hard),
        scopes,
        st.one_of(st.none(), amounts),
        st.sampled_from(["day", "lifetime", "60s", "120s"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
).map(
    lambda found: [
        BudgetSpec(f"b{index}", scope, limit, parse_window(window), hard)
        for index, (scope, limit, window, hard) in enumerate(found)
    ]
)
rungs = st.builds(
    Rung,
    at_percent=st.integers(1, 100),
    budget=st.sampled_from(["b0", "b1"]),
    use=st.sampled_from(["", "small", "nowhere"]),
    models=st.sampled_from([(), ("large",)]),
)
ALL_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
optional = st.none() | st.none()
policies = st.lists(
    st.fixed_dictionaries(
        {
            "scope": scopes,
            "mode": st.sampled_from(PolicyMode),
            "deny_models": st.sampled_from([(), (), ("large",), ("small",)]),
            "max_output_nanos_per_mtok": st.sampled_from([None, None, 10 * SECOND]),
            "max_nanos_per_call": optional | amounts,
            "requests_per_minute": optional | st.integers(1, 4),
            "tokens_per_minute": optional | st.integers(1, 4000),
            "parallel": optional | st.integers(1, 3),
            "nanos_per_minute": optional | amounts,
            "ladder": st.lists(rungs, max_size=2).map(tuple),
            "hours": optional | st.sampled_from([Hours(ALL_DAYS, 0, 1439), Hours(ALL_DAYS, 1439, 1)]),
        }
    ),
    max_size=3,
).map(lambda found: [PolicySpec(name=f"p{index}", **fields) for index, fields in enumerate(found)])


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 200 * SECOND),
                st.integers(1, 90 * SECOND),
                st.sampled_from(TEAMS),
                st.sampled_from(KEYS),
                st.sampled_from(sorted(MODELS)),
                st.integers(0, 2000),
                st.integers(0, 1000),
                st.integers(0, 10_000_000),
                st.booleans(),
            ),
            max_size=25,
        )
    )
    calls = []
    for number, (offset, length, team, key, model, read, written, slack, is_second) in enumerate(
        sorted(drawn)
    ):
        at = START + offset
        cost = nanos_of(model, read, written)
        is_retry = is_second and number > 0 and calls[-1].attempt == 1
        request = calls[-1].request if is_retry else number
        calls.append(
            Call(at, at + length, team, key, model, read, written, slack, cost, 0, 0, 1 + is_retry, request)
        )
    events = [(call.at, 0, place) for place, call in enumerate(calls)]
    events += [(call.ended, 1, place) for place, call in enumerate(calls)]
    for seq, (_, is_end, place) in enumerate(sorted(events)):
        calls[place] = calls[place]._replace(**{"settle_seq" if is_end else "hold_seq": seq})
    return calls


@settings(max_examples=6 * EXAMPLES, deadline=None)
@given(histories(), policies, budgets)
def test_both_replays_say_the_same(
    calls: list[Call], policies: list[PolicySpec], budgets: list[BudgetSpec]
) -> None:
    naive = Naive(policies, budgets)
    naive.run(calls)
    names = Names()
    replay = Replay(policies, budgets, names, names)
    found = replay.run(names.row(call) for call in sorted(calls, key=lambda call: (call.at, call.hold_seq)))

    def counted(causes: Any) -> dict[tuple[str, str], int]:
        return {(cause.by, cause.code): amount.charges for cause, amount in causes.items()}

    total = found.total
    assert (total.all.charges, total.all.cost_nanos) == (len(calls), sum(call.cost for call in calls))
    assert counted(found.refused) == dict(naive.refused)
    assert counted(found.marked) == dict(naive.marked)
    assert (total.refused.charges, total.refused.cost_nanos) == (naive.refused.total(), naive.refused_nanos)
    moved = total.rerouted
    assert [moved.charges, moved.old_nanos, moved.new_nanos] == naive.rerouted
    assert total.remaining_nanos == sum(passed.cost for passed in naive.passed)
    # parts sum to the whole
    assert sum(part.all.charges for part in found.parts.values()) == len(calls)
    assert sum(part.remaining_nanos for part in found.parts.values()) == total.remaining_nanos
    assert sum(sums.charges for sums in found.rerouted.values()) == moved.charges


def test_a_rerouted_call_holds_in_the_measure_of_its_cost() -> None:
    limit = BudgetSpec("b0", {}, 10_000_000, parse_window("lifetime"))
    ladder = PolicySpec(name="p0", ladder=(Rung(10, "b0", "small"),))
    small = Call(START, START + 1, "ads", "k1", "small", 1_000, 0, 0, nanos_of("small", 1_000, 0), 1, 2, 1, 1)
    # it held 15 of 9 that are left, and would hold 5 at a third of the price
    large = Call(START + 9, START + 10, "ads", "k1", "large", 1_000, 0, 12_000_000, 3_000_000, 3, 4, 1, 2)
    names = Names()
    found = Replay([ladder], [limit], names, names).run([names.row(small), names.row(large)])
    assert found.refused == {}
    assert (found.total.rerouted.old_nanos, found.total.rerouted.new_nanos) == (3_000_000, 1_000_000)
    # without the ladder it does not fit
    found = Replay([], [limit], names, names).run([names.row(small), names.row(large)])
    assert [(cause.code, amount.charges) for cause, amount in found.refused.items()] == [
        ("call_too_large", 1)
    ]
