"""Runaway agents: from the signatures of a run's calls to ok, warn, or stop. Pure, O(1) a call; keeps hashes, no text.

What an agent does next is written in its request: the tool it called last, and what that gave back. A signature is a
hash of both, one of the call's shape (what is left of it without its numbers), and a small sketch of the result. A run
is runaway when its last calls go round in a circle (of one call, of two that alternate, of up to `MAX_PERIOD`), when
they only revisit what was seen before, when nothing new came back for long, or when call after call fails. Growth of
context and of cost make a run worth a warning, not a stop: honest work grows, too. Thresholds are data (`Thresholds`):
a snapshot that Value may publish anew.

*Results* that are nearly identical are one result, under whatever call: `_Results` gives them one name. Only long ones
are compared so. Of a short one, a word is more than a tenth, and it says little: `ok` under a new call is work, under
the same call it is not, and under a call of the same shape it counts half (rows that are worked off by number give
`ok`, too).

*Calls* of the same shape with nearly identical long results make a circle as equal calls do, only a longer one: a
number in the arguments may be a counter, or what the work is about. Arguments are not compared by a sketch. They are a
few words long, which is too few for an estimate; and edits of one passage, or fields of one form, have arguments and
results that are much alike. For what varies its words the rule of stale results is left, which asks for more calls.

*Text alone* (no tools) is compared exactly, but for times of day: many honest programs ask one long question after
another that differ in a line.
"""

from array import array
from collections import deque
from enum import IntEnum, StrEnum

import msgspec

MAX_PERIOD = 16
"""Longest circle looked for, in calls."""
SET_BACK = 3
"""How far one call that is not alike sets a circle back."""
SKETCH = 32
"""Hashes in a sketch: the smallest of all shingles' hashes."""
LEAST_SKETCH = 24
"""Hashes in the sketch of a long result: of a shorter one, a word that differs takes more than a tenth."""
ANCHORS = 4
"""A result is looked up by so many of its smallest hashes: if nine tenths of all are shared, so is one of these, but
for one pair in ten thousand."""
KEPT = 64
"""Calls, and results, remembered a run."""


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
    near_circles_warn: int = 4
    """As `circles_warn`, where the calls differ in numbers."""
    near_circles_stop: int = 6
    stale_results_warn: int = 12
    """Tool results in a row that were all seen before, or nearly. Short ones of calls that differ in numbers count
    half, short ones of other calls are new."""
    stale_results_stop: int = 24
    echoes_warn: int = 48
    """Tool results in a row that were all seen before, however short and of whatever call."""
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
    shape: int = 0
    """As `action`, but for numbers in the arguments; 0: not known, the action itself."""


class Verdict(IntEnum):
    OK = 0
    WARN = 1
    STOP = 2


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A verdict and its reason in words."""

    verdict: Verdict
    reason: str = ""


OK = Finding(Verdict.OK)


class _Step(msgspec.Struct, frozen=True, gc=False):
    """A call, as it is remembered."""

    action: int
    result: int
    key: int
    """Equal for calls that go round in a circle: of shape and result if that is long, else of action and result."""
    like: int
    """Of shape and result."""


class RunWatch:
    """What is remembered of one run."""

    __slots__ = (
        "_calls",
        "_costs",
        "_echoes",
        "_failed_calls",
        "_failed_tools",
        "_first_tokens",
        "_lags",
        "_recent",
        "_results",
        "_revisits",
        "_seen",
        "_stale_halves",
        "_stuck",
        "awaits_answer",
        "stopped",
    )

    def __init__(self) -> None:
        self._recent: deque[_Step] = deque()
        self._seen: dict[int, int] = {}
        """How often each `key`, and each `like` that is not the key, is among the recent."""
        self._results = _Results()
        self._lags: list[int] | None = None
        """By period: calls in a row that equal the one a period before; None while there is no circle at all."""
        self._costs: deque[int] = deque(maxlen=20)
        self._calls = 0
        self._failed_calls = 0
        self._failed_tools = 0
        """Either in a row: a call that is answered, or a tool that works, ends its own."""
        self._revisits = 0
        self._stale_halves = 0
        """Stale results in a row, times two."""
        self._echoes = 0
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
        return self.awaits_answer and self._is_last(signature)

    def see(self, signature: Signature, limits: Thresholds) -> Finding:
        """A call comes; what its run looks like with it."""
        self.awaits_answer = True
        self._calls += 1
        if self._stuck is not None:
            if self._is_last(signature):
                return self._stuck
            self._stuck = None
        self._first_tokens = self._first_tokens or signature.input_tokens
        action, shape, is_long = signature.action, signature.shape, len(signature.sketch) >= LEAST_SKETCH
        kind, is_new = self._results.meet(signature.result, signature.sketch if is_long else ())
        like = (shape or action) << 32 | kind
        step = _Step(action, signature.result, like if is_long else action << 32 | kind, like)
        is_revisit = step.key in self._seen
        self._revisits = self._revisits + 1 if is_revisit else 0
        if is_revisit or self._lags is not None:
            self._compare(step)
        if signature.has_tool_result:
            self._echoes = 0 if is_new else self._echoes + 1
            if not is_new and (is_long or is_revisit):
                self._stale_halves += 2
            else:
                self._stale_halves = self._stale_halves + 1 if not is_new and like in self._seen else 0
            self._failed_tools = self._failed_tools + 1 if signature.is_error else 0
        self._remember(step)
        found = OK if self._calls < limits.least_calls else self._judge(signature, limits)
        if found.verdict is Verdict.STOP and is_revisit and self._lags is not None and self._lags[1]:
            self._stuck = found
        return found

    def _is_last(self, signature: Signature) -> bool:
        if not self._recent:
            return False
        last = self._recent[-1]
        return signature.action == last.action and signature.result == last.result

    def _compare(self, step: _Step) -> None:
        lags = self._lags or [0] * (MAX_PERIOD + 1)
        key, like = step.key, step.like
        is_any = False
        for period, old in enumerate(reversed(self._recent), 1):
            if period > MAX_PERIOD:
                break
            lag = lags[period]
            if key == old.key:
                lags[period] = lag + 1
                is_any = True
            elif lag:
                # one that differs more than the others did does not break a circle, it only sets it back; nor does one
                # that is too short to tell
                lags[period] = lag if like == old.like else max(0, lag - SET_BACK)
                is_any = is_any or lags[period] > 0
        self._lags = lags if is_any else None

    def _remember(self, step: _Step) -> None:
        recent, seen = self._recent, self._seen
        if len(recent) >= KEPT:
            gone = recent.popleft()
            _less(seen, gone.key)
            if gone.like != gone.key:
                _less(seen, gone.like)
        recent.append(step)
        seen[step.key] = seen.get(step.key, 0) + 1
        if step.like != step.key:
            seen[step.like] = seen.get(step.like, 0) + 1

    def ended(self, cost_nanos: int, *, is_error: bool) -> None:
        """A call of the run was booked."""
        self._costs.append(cost_nanos)
        self.awaits_answer = self.awaits_answer and is_error
        self._failed_calls = self._failed_calls + 1 if is_error else 0

    def forgive(self) -> None:
        """Somebody let the run go on: what it did until now counts no more."""
        self._lags = self._stuck = None
        self._recent.clear()
        self._seen.clear()
        self._results = _Results()
        self._failed_calls = self._failed_tools = self._revisits = self._stale_halves = self._echoes = 0
        self.stopped = False

    def _judge(self, signature: Signature, limits: Thresholds) -> Finding:
        period, circles, calls = self._circles()
        is_near = circles >= limits.circles_warn and self._is_near(period)
        circles_warn = limits.near_circles_warn if is_near else limits.circles_warn
        circles_stop = limits.near_circles_stop if is_near else limits.circles_stop
        if circles >= circles_stop and calls >= limits.least_circle_calls:
            what = "the same call" if period == 1 else f"the same {period} calls"
            but = " but for numbers," if is_near else ""
            return Finding(Verdict.STOP, f"{what}{but} again and again ({circles} times)")
        if self._revisits >= limits.revisits_stop:
            return Finding(
                Verdict.STOP, f"{self._revisits} calls in a row brought nothing that was not there before"
            )
        stale = self._stale_halves // 2
        if stale >= limits.stale_results_stop:
            return Finding(Verdict.STOP, f"{stale} tool results in a row had all been seen before, or nearly")
        failing = self.failing(limits)
        if failing.verdict is Verdict.STOP:
            return failing
        if circles >= circles_warn and calls >= limits.least_circle_calls - 2:
            return Finding(Verdict.WARN, f"the last {period} call(s) repeat ({circles} times)")
        if failing.verdict is Verdict.WARN:
            return failing
        if stale >= limits.stale_results_warn or self._echoes >= limits.echoes_warn:
            many = max(stale, self._echoes)
            return Finding(Verdict.WARN, f"{many} tool results in a row had been seen before, or nearly")
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

    def _is_near(self, period: int) -> bool:
        """Whether calls of the circle's last round differ from those a round before."""
        recent = self._recent
        rounds = range(1, min(period, len(recent) - period) + 1)
        return any(recent[-back].action != recent[-back - period].action for back in rounds)

    def _acceleration(self, limits: Thresholds) -> Finding:
        costs = self._costs
        if len(costs) == costs.maxlen:
            values = list(costs)
            before, after = sum(values[:10]), sum(values[10:])
            if before and after > limits.acceleration_warn * before:
                return Finding(Verdict.WARN, f"its last ten calls cost {after // before} times those before")
        return OK


def _less(counts: dict[int, int], key: int) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


class _Results:
    """The last `KEPT` different results, each by the hash of the first of those that are nearly identical.

    They are compared with that first one, not with the one before: what changes a little each time is new in the end.
    """

    __slots__ = ("_anchors", "_sketches")

    def __init__(self) -> None:
        self._sketches: dict[int, array[int]] = {}
        """The one that was met last is at the end."""
        self._anchors: dict[int, int] = {}
        """By each of a sketch's `ANCHORS` smallest hashes: the newest result that has it there, or (for every second)
        the oldest. Results that begin alike share anchors, and two that alternate are to be found both."""

    def meet(self, result: int, sketch: tuple[int, ...]) -> tuple[int, bool]:
        """(hash of the first that is alike, whether there was none). An empty sketch: compared exactly."""
        kind = self._find(result, sketch)
        known = self._sketches.pop(kind, None)
        if known is not None:
            self._sketches[kind] = known
            return kind, False
        sketches, anchors = self._sketches, self._anchors
        if len(sketches) >= KEPT:
            gone = next(iter(sketches))
            for anchor in sketches.pop(gone)[:ANCHORS]:
                if anchors.get(anchor) == gone:
                    del anchors[anchor]
        sketches[kind] = array("I", sketch)
        for anchor in sketch[:ANCHORS:2]:
            anchors[anchor] = kind
        for anchor in sketch[1:ANCHORS:2]:
            anchors.setdefault(anchor, kind)
        return kind, True

    def _find(self, result: int, sketch: tuple[int, ...]) -> int:
        if result in self._sketches:
            return result
        asked: list[int] = []
        for anchor in sketch[:ANCHORS]:
            kind = self._anchors.get(anchor)
            if kind is not None and kind not in asked:
                if _is_alike(sketch, self._sketches[kind]):
                    return kind
                asked.append(kind)
        return result


def _is_alike(one: tuple[int, ...], other: "array[int]") -> bool:
    """Results whose shingles overlap by nine tenths (Jaccard). A sketch of 32 estimates that within a tenth, so what is
    asked of the estimate is eight tenths."""
    mine, others = {*one}, {*other}
    shared, size = mine & others, max(len(one), len(other))
    if 10 * len(shared) < 8 * size:
        return False
    return 10 * sum(value in shared for value in sorted(mine | others)[:size]) >= 8 * size
