"""Runaway agents: from the signatures of a run's calls to ok, warn, or stop. Pure, O(1) a call; keeps hashes, no text.

What an agent does next is written in its request: the tool it called last, and what that gave back. A signature is a
hash of both and a small sketch of the result. A run is runaway when its last calls go round in a circle (of one call,
of two that alternate, of up to `MAX_PERIOD`), when they only revisit what was seen before, when nothing new came back
for long, or when call after call fails. Growth of context and of cost make a run worth a warning, not a stop: honest
work grows, too. Thresholds are data (`Thresholds`): a snapshot that Value may publish anew.
"""

from collections import deque
from enum import IntEnum, StrEnum
from typing import TypeVar

import msgspec

MAX_PERIOD = 16
"""Longest circle looked for, in calls."""
SET_BACK = 3
"""How far one call that is not alike sets a circle back."""
SKETCH = 32
"""Hashes in a sketch: the smallest of all shingles' hashes."""
KEPT = 64
"""Signatures remembered a run."""


class RunawayAction(StrEnum):
    """What follows a stop verdict."""

    OFF = "off"
    WARN = "warn"
    """A header on the answer, a mark in the charge, a counter."""
    PAUSE = "pause"
    """The run is paused: 402 `paused` until somebody lets it go on."""
    CUT = "cut"
    """The run is killed: 403 `killed`, and what it has in flight is cut."""


class Thresholds(msgspec.Struct, frozen=True):
    """When a run is suspicious and when it is stopped."""

    circles_warn: int = 2
    """Full circles after which a warning is given."""
    circles_stop: int = 4
    least_circle_calls: int = 5
    """A circle of one call needs so many repeats at least."""
    revisits_stop: int = 24
    """Calls in a row that only revisit what the run did before."""
    stale_results_stop: int = 24
    """Tool results in a row that were all seen before."""
    errors_warn: int = 4
    errors_stop: int = 12
    """Failed calls, or failed tools, in a row."""
    growth_warn: int = 20
    """Context of a call over that of the run's first, times."""
    acceleration_warn: int = 6
    """Cost of the last ten calls over that of the ten before, times."""
    least_calls: int = 6
    """No verdict before so many calls."""


DEFAULT_THRESHOLDS = Thresholds()


class Signature(msgspec.Struct, frozen=True, gc=False):
    """What a call says of its run. Hashes only."""

    action: int
    """Of the tools called last, by name and arguments; 0: none (a person or a program said something)."""
    result: int
    """Of what came after: tools' results, or text."""
    sketch: tuple[int, ...] = ()
    """The `SKETCH` smallest hashes of the result's shingles, ascending."""
    has_tool_result: bool = False
    is_error: bool = False
    """A tool reported a failure."""
    input_tokens: int = 0
    """Upper bound, of the whole context."""


class Verdict(IntEnum):
    OK = 0
    WARN = 1
    STOP = 2


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A verdict and its reason in words."""

    verdict: Verdict
    reason: str = ""


OK = Finding(Verdict.OK)


class RunWatch:
    """What is remembered of one run."""

    __slots__ = (
        "_actions",
        "_calls",
        "_costs",
        "_failed_calls",
        "_failed_tools",
        "_first_tokens",
        "_lags",
        "_recent",
        "_results",
        "_revisits",
        "_seen",
        "_stale",
        "_stuck",
        "awaits_answer",
        "stopped",
    )

    def __init__(self) -> None:
        self._recent: deque[Signature] = deque()
        self._seen: dict[tuple[int, int], int] = {}
        """How often each (action, result) is among the recent."""
        self._actions: dict[int, int] = {}
        """How often each action is."""
        self._lags: list[int] | None = None
        """By period: calls in a row that equal the one a period before; None while there is no circle at all."""
        self._results: deque[int] = deque(maxlen=KEPT)
        self._costs: deque[int] = deque(maxlen=20)
        self._calls = 0
        self._failed_calls = 0
        self._failed_tools = 0
        """Either in a row: a call that is answered, or a tool that works, ends its own."""
        self._revisits = 0
        self._stale = 0
        self._first_tokens = 0
        self._stuck: Finding | None = None
        """What is said while the very same call comes again and again: there is nothing to look at anew."""
        self.awaits_answer = False
        """Nothing was answered since the last call that counted."""
        self.stopped = False
        """A stop was ordered: not ordered again until somebody lets the run go on."""

    def is_retry(self, signature: Signature) -> bool:
        """Whether a call only asks again what was not answered (it was refused, it failed) or is not yet: the agent
        knows nothing new, so it goes round in no circle. Failures have a count of their own."""
        if not (self.awaits_answer and self._recent):
            return False
        last = self._recent[-1]
        return signature.action == last.action and signature.result == last.result

    def see(self, signature: Signature, limits: Thresholds) -> Finding:
        """A call comes; what its run looks like with it."""
        self.awaits_answer = True
        self._calls += 1
        stuck = self._stuck
        if stuck is not None:
            last = self._recent[-1]
            if signature.action == last.action and signature.result == last.result:
                return stuck
            self._stuck = None
        self._first_tokens = self._first_tokens or signature.input_tokens
        is_revisit = (signature.action, signature.result) in self._seen
        self._revisits = self._revisits + 1 if is_revisit else 0
        if is_revisit or self._lags is not None or (signature.sketch and signature.action in self._actions):
            self._compare(signature)
        if signature.has_tool_result:
            self._stale = self._stale + 1 if signature.result in self._results else 0
            self._results.append(signature.result)
            self._failed_tools = self._failed_tools + 1 if signature.is_error else 0
        self._remember(signature)
        found = OK if self._calls < limits.least_calls else self._judge(signature, limits)
        if found.verdict is Verdict.STOP and is_revisit and self._lags is not None and self._lags[1]:
            self._stuck = found
        return found

    def _compare(self, signature: Signature) -> None:
        recent, lags = self._recent, self._lags or [0] * (MAX_PERIOD + 1)
        action, result, sketch = signature.action, signature.result, signature.sketch
        is_any = False
        for period, old in enumerate(reversed(recent), 1):
            if period > MAX_PERIOD:
                break
            lag = lags[period]
            is_same_action = action == old.action
            if is_same_action and (result == old.result or (sketch and _is_alike(sketch, old.sketch))):
                lags[period] = lag + 1
                is_any = True
            elif lag:
                # one that differs more than the others did does not break a circle, it only sets it back
                lags[period] = max(0, lag - SET_BACK)
                is_any = is_any or lags[period] > 0
        self._lags = lags if is_any else None

    def _remember(self, signature: Signature) -> None:
        recent = self._recent
        if len(recent) >= KEPT:
            gone = recent.popleft()
            _less(self._seen, (gone.action, gone.result))
            _less(self._actions, gone.action)
        recent.append(signature)
        key = (signature.action, signature.result)
        self._seen[key] = self._seen.get(key, 0) + 1
        self._actions[signature.action] = self._actions.get(signature.action, 0) + 1

    def ended(self, cost_nanos: int, *, is_error: bool) -> None:
        """A call of the run was booked."""
        self._costs.append(cost_nanos)
        self.awaits_answer = self.awaits_answer and is_error
        self._failed_calls = self._failed_calls + 1 if is_error else 0

    def forgive(self) -> None:
        """Somebody let the run go on: what it did until now counts no more."""
        self._lags = self._stuck = None
        for kept in (self._recent, self._results, self._seen, self._actions):
            kept.clear()
        self._failed_calls = self._failed_tools = self._revisits = self._stale = 0
        self.stopped = False

    def _judge(self, signature: Signature, limits: Thresholds) -> Finding:
        period, circles, calls = self._circles()
        if circles >= limits.circles_stop and calls >= limits.least_circle_calls:
            what = "the same call" if period == 1 else f"the same {period} calls"
            return Finding(Verdict.STOP, f"{what} again and again ({circles} times)")
        if self._revisits >= limits.revisits_stop:
            return Finding(
                Verdict.STOP, f"{self._revisits} calls in a row brought nothing that was not there before"
            )
        if self._stale >= limits.stale_results_stop:
            return Finding(Verdict.STOP, f"{self._stale} tool results in a row had all been seen before")
        failing = self.failing(limits)
        if failing.verdict is Verdict.STOP:
            return failing
        if circles >= limits.circles_warn and calls >= limits.least_circle_calls - 2:
            return Finding(Verdict.WARN, f"the last {period} call(s) repeat ({circles} times)")
        if failing.verdict is Verdict.WARN:
            return failing
        first = self._first_tokens
        if first and signature.input_tokens > limits.growth_warn * max(first, 1_000):
            return Finding(Verdict.WARN, f"its context has grown {signature.input_tokens // first} times")
        # looked at every tenth call: it is a matter of tens
        return self._acceleration(limits) if self._calls % 10 == 0 else OK

    def failing(self, limits: Thresholds) -> Finding:
        """What is to be said of failures in a row alone."""
        errors = max(self._failed_calls, self._failed_tools)
        if errors >= limits.errors_warn:
            verdict = Verdict.STOP if errors >= limits.errors_stop else Verdict.WARN
            return Finding(verdict, f"{errors} failures in a row")
        return OK

    def _circles(self) -> tuple[int, int, int]:
        """(period, full circles, calls) of the circle that goes on for longest."""
        lags = self._lags
        if lags is None:
            return 0, 0, 0
        best_period, best = 0, 0
        for period in range(1, MAX_PERIOD + 1):
            circles = lags[period] // period
            if circles > best:
                best_period, best = period, circles
        return best_period, best, lags[best_period]

    def _acceleration(self, limits: Thresholds) -> Finding:
        costs = self._costs
        if len(costs) == costs.maxlen:
            values = list(costs)
            before, after = sum(values[:10]), sum(values[10:])
            if before and after > limits.acceleration_warn * before:
                return Finding(Verdict.WARN, f"its last ten calls cost {after // before} times those before")
        return OK


Counted = TypeVar("Counted")


def _less(counts: dict[Counted, int], key: Counted) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _is_alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Results whose shingles overlap by nine tenths (Jaccard). A sketch of 32 estimates that within a tenth, so what is
    asked of the estimate is eight tenths."""
    if not other:
        return False
    shared = {*one} & {*other}
    union = sorted({*one, *other})[: max(len(one), len(other))]
    return 10 * sum(value in shared for value in union) >= 8 * len(union)
