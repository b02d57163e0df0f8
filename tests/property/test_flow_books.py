"""Random lives of a ledger, against a model that adds up by itself: never past a limit, debits equal credits."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.store_contract.bench import KINDS, Bench, budget

from outlay.flow.budgets import BudgetSpec
from outlay.flow.ledger.charge import Basis, Hold
from outlay.flow.scope import Identity, match_scope
from outlay.flow.windows import WindowKind, bounds, bucket_leaves_at, bucket_start
from outlay.kernel.clock import NANOS_PER_SECOND

WHO = [
    Identity(org="acme", team="search", user="ada", run="r1", model="m", provider="p"),
    Identity(org="acme", team="search", user="bob", model="m", provider="p"),
    Identity(org="acme", team="ads", user="cy", model="m", provider="p"),
    Identity(org="other", user="dee", model="m", provider="p"),
]
SHAPES = [
    ("all", "lifetime", {"org": "acme"}),
    ("users", "month", {"user": "*"}),
    ("team", "day", {"team": "search"}),
    ("ring", "60s", {"org": "*"}),
    ("hour", "1h", {"team": "*"}),
]
EXAMPLES = int(os.environ.get("OUTLAY_EXAMPLES", "50"))
STEPS = [
    0,
    1,
    NANOS_PER_SECOND,
    7 * NANOS_PER_SECOND,
    61 * NANOS_PER_SECOND,
    3700 * NANOS_PER_SECOND,
    86_400 * NANOS_PER_SECOND,
    31 * 86_400 * NANOS_PER_SECOND,
]


class Posted:
    """One charge as the model remembers it."""

    def __init__(self, who: Identity, nanos: int, placed_at: int, settled_at: int) -> None:
        self.who, self.nanos, self.placed_at, self.settled_at = who, nanos, placed_at, settled_at


class Life(RuleBasedStateMachine):
    """Holds and charges in plain lists; every balance is added up from them."""

    @initialize(kind=st.sampled_from(KINDS), limits=st.lists(st.integers(0, 400), min_size=5, max_size=5))
    def begin(self, kind: str, limits: list[int]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.declared = [
            budget(name, limit, window, **scope)
            for (name, window, scope), limit in zip(SHAPES, limits, strict=True)
        ]
        self.bench = Bench(kind, self.folder, self.declared)
        self.open: list[tuple[Hold, Identity, int]] = []
        self.posted: list[Posted] = []

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.timers.run()
            found = self.bench.audit()
            if found is not None:
                assert found.findings == ()
                assert found.most_over_limit_nanos <= 0
                assert found.spend_nanos == sum(post.nanos for post in self.posted)
            self.bench.books.close()
            shutil.rmtree(self.folder)

    def expected(self, spec: BudgetSpec, who: Identity) -> tuple[int, int]:
        """(spent, held) of a budget's current account, added up from the lists."""
        now = self.bench.clock.now()
        wanted = match_scope(spec.scope, who)
        rolling = spec.window.kind is WindowKind.ROLLING
        start, end = bounds(spec.window, now)
        spent = 0
        for post in self.posted:
            if match_scope(spec.scope, post.who) == wanted:
                if rolling:
                    inside = bucket_leaves_at(spec.window, bucket_start(spec.window, post.settled_at)) > now
                else:
                    inside = start <= post.placed_at < end
                spent += post.nanos if inside else 0
        held = sum(
            hold.nanos
            for hold, owner, placed_at in self.open
            if match_scope(spec.scope, owner) == wanted and (rolling or start <= placed_at < end)
        )
        return spent, held

    @rule(who=st.sampled_from(WHO), nanos=st.integers(0, 150))
    def place(self, who: Identity, nanos: int) -> None:
        room = [
            spec.limit_nanos - sum(self.expected(spec, who))
            for spec in self.declared
            if spec.limit_nanos is not None and spec.hard and match_scope(spec.scope, who) is not None
        ]
        hold = self.bench.place(nanos, who)
        # admitted exactly if it fits everywhere: the last nano is usable, and no more
        assert (hold is not None) == all(nanos <= free for free in room)
        if hold is not None:
            self.open.append((hold, who, self.bench.clock.now()))
            self.bench.timers.run()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), nanos=st.integers(0, 300))
    def settle(self, data: st.DataObject, nanos: int) -> None:
        hold, who, placed_at = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.bench.settle(hold, nanos, Basis.METERED)
        self.posted.append(Posted(who, nanos, placed_at, self.bench.clock.now()))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        hold, _, _ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.bench.void(hold)

    @rule(step=st.sampled_from(STEPS))
    def time_passes(self, step: int) -> None:
        self.bench.clock.advance(step)

    @rule()
    def crash(self) -> None:
        recovered = len(self.open)
        self.bench.crash()
        assert self.bench.books.recovered == recovered
        now = self.bench.clock.now()
        self.posted += [Posted(who, hold.nanos, placed_at, now) for hold, who, placed_at in self.open]
        self.open = []

    @precondition(lambda self: not self.open)
    @rule()
    def stop_and_start(self) -> None:
        self.bench.reopen()
        assert self.bench.books.recovered == 0
        assert self.bench.books.was_clean

    @rule(at=st.integers(0, len(SHAPES) - 1), limit=st.integers(0, 600), hard=st.booleans())
    def change_a_limit(self, at: int, limit: int, hard: bool) -> None:
        name, window, scope = SHAPES[at]
        changed = budget(name, limit, window, hard=hard, **scope)
        self.declared = [changed if spec.name == name else spec for spec in self.declared]
        self.bench.configure(*self.declared)

    @rule(at=st.integers(0, 2))
    def take_away_or_declare_again(self, at: int) -> None:
        # calendar budgets: a ring that is declared again starts without its oldest, partly outside bucket
        name, window, scope = SHAPES[at]
        kept = [spec for spec in self.declared if spec.name != name]
        self.declared = (
            [*kept, budget(name, 300, window, **scope)] if len(kept) == len(self.declared) else kept
        )
        self.bench.budgets = self.declared
        self.bench.configure(*self.declared)

    @invariant()
    def balances_add_up(self) -> None:
        if hasattr(self, "bench"):
            for spec in self.declared:
                for who in WHO:
                    if match_scope(spec.scope, who) is not None:
                        assert self.bench.balance(spec.name, who) == self.expected(spec, who), spec.name
            assert self.bench.books.held_nanos == sum(hold.nanos for hold, _, _ in self.open)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
