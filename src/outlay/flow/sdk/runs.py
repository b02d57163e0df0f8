"""Runs: an agent's work from its first call to its last, with limits of its own, carried by the context.

`with outlay.run(budget_usd=2) as run:` holds for every call of a wrapped client made inside it, also in tasks and in
threads started with the context. A run inside a run is its child: what it holds is held in each run around it, so it
draws from their remainder. Whose child a run is, its first entry says for good: a thread that enters it again, with an
empty context, still draws from the runs above. Which run is current is kept in the context and nowhere else, so one run
may be open in many threads and tasks at once.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar
from uuid import uuid4

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.ledger.direct import RunLimit
from outlay.flow.runs import MAX_DEPTH
from outlay.kernel.clock import Clock
from outlay.kernel.errors import OutlayError
from outlay.kernel.money import format_usd

T = TypeVar("T")


class Till(Protocol):
    """Where a run's money is: an embedded ledger, or a gateway."""

    @property
    def place(self) -> str:
        """Which one, as text."""

    def run_balance(self, run: "Run") -> tuple[int, int, int | None]:
        """(spent, held, limit in force) of a run, nanos; limit None where none is known."""


class Run:
    """See the module. Make one with `outlay.run`; amounts are USD as decimal text, exact."""

    def __init__(
        self,
        clock: Clock,
        *,
        name: str = "",
        limit_nanos: int | None = None,
        max_calls: int | None = None,
        max_seconds: int | None = None,
    ) -> None:
        self.id = name or f"run-{uuid4().hex[:12]}"
        self.limit_nanos = limit_nanos
        self.max_calls = max_calls
        self.max_seconds = max_seconds
        self.parent: Run | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._calls = 0
        self._began_at: int | None = None
        self._till: Till | None = None
        self.told_nanos = 0
        """What a gateway has said last that the run has cost."""
        self.told_limit_nanos: int | None = None
        """The lowest limit that a gateway's refusal has named as the run's."""

    def __enter__(self) -> "Run":
        self._open()
        _entered.set(_Entry(self, _entered.get()))
        return self

    def __exit__(self, *_: object) -> None:
        # no token: what was entered inside and not left yet stays, and a context that never entered has nothing to undo
        _entered.set(_without(_entered.get(), self))

    async def __aenter__(self) -> "Run":
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def bind(self, function: Callable[..., T]) -> Callable[..., T]:
        """`function`, to be called inside this run wherever it is called: in a thread, a pool, a callback.

        A run that was not entered yet becomes the child of the run around this call of `bind`.
        """
        if self._began_at is None:
            self._open()

        def inside(*args: object, **more: object) -> T:
            token = _entered.set(_Entry(self, _entered.get()))
            try:
                return function(*args, **more)
            finally:
                _entered.reset(token)

        return inside

    @property
    def calls(self) -> int:
        """Attempts that were let through in this process, children's included; free routes do not count."""
        return self._calls

    @property
    def cost_usd(self) -> str:
        """Booked so far, children included. Calls still open are not in it."""
        return format_usd(self._balance()[0])

    @property
    def held_usd(self) -> str:
        """What calls in flight may still cost at most."""
        return format_usd(self._balance()[1])

    @property
    def remaining_usd(self) -> str | None:
        """What is left under the tightest limit of this run and those around it; None if none has one.

        A run of this name may have had a lower limit before, which stays in force: it counts from the first call on,
        when the run knows its ledger. At a gateway, what a refusal has said of it counts.
        """
        left = []
        for run in _around(self):
            spent, held, in_force = run._balance()
            left += [limit - spent - held for limit in (run.limit_nanos, in_force) if limit is not None]
        return format_usd(max(0, min(left))) if left else None

    def _open(self) -> None:
        """Take its place under the run of this context, if it has none yet. Raises OutlayError."""
        outer = current_run()
        if any(self is run or self.id == run.id for run in _around(outer)):
            # of two runs of one name, each call would be booked in the same account twice
            raise OutlayError(f"run {self.id!r} is open already")
        with self._lock:
            if self._began_at is None:
                if len(list(_around(outer))) >= MAX_DEPTH:
                    raise OutlayError(f"runs may be nested {MAX_DEPTH} deep")
                self.parent = outer
                self._began_at = self._clock.monotonic()
            elif outer is not None and outer is not self.parent:
                place = "outside of any run" if self.parent is None else f"in run {self.parent.id!r}"
                raise OutlayError(
                    f"run {self.id!r} was first entered {place} and draws from that for good; it cannot be entered in"
                    f" run {outer.id!r} too: open another run there"
                )

    def _balance(self) -> tuple[int, int, int | None]:
        return (0, 0, None) if self._till is None else self._till.run_balance(self)

    # -- what a call asks -------------------------------------------------------------------------------------

    def enter(self, till: Till) -> Refusal | None:
        """Count one attempt in this run and those around it, or say which of their limits stands against it."""
        taken: list[Run] = []
        for run in _around(self):
            refusal = run._take(till)
            if refusal is not None:
                for other in taken:
                    other._give_back()
                return refusal
            taken.append(run)
        return None

    def leave(self) -> None:
        """The attempt was not let through after all."""
        for run in _around(self):
            run._give_back()

    def line(self) -> "tuple[Run, ...]":
        """This run and those around it."""
        return tuple(_around(self))

    def limits(self) -> tuple[RunLimit, ...]:
        """This run and those around it, for a hold."""
        return tuple(RunLimit(run.id, run.limit_nanos) for run in _around(self))

    def headers(self) -> dict[str, str]:
        """What a gateway is told of this run."""
        found = {"x-outlay-run": self.id}
        if self.limit_nanos is not None:
            found["x-outlay-run-budget-usd"] = format_usd(self.limit_nanos)
        if self.max_calls is not None:
            found["x-outlay-run-max-calls"] = str(self.max_calls)
        if self.max_seconds is not None:
            found["x-outlay-run-max-seconds"] = str(self.max_seconds)
        above = [run._said() for run in reversed([*_around(self)][1:])]
        if above:
            # this call may be the first of all: the gateway must know the limits above it
            found["x-outlay-run-above"] = json.dumps(above)
        return found

    def _said(self) -> dict[str, object]:
        """The run as `x-outlay-run-above` has it."""
        found: dict[str, object] = {"run": self.id}
        if self.limit_nanos is not None:
            found["budget_usd"] = format_usd(self.limit_nanos)
        if self.max_calls is not None:
            found["max_calls"] = self.max_calls
        if self.max_seconds is not None:
            found["max_seconds"] = self.max_seconds
        return found

    def _take(self, till: Till) -> Refusal | None:
        fields: dict[str, object] = {"budget": "outlay.run", "scope": f"run={self.id}"}
        with self._lock:
            if self._till is not None and self._till.place != till.place:
                text = f"Run {self.id!r} has its money at {self._till.place}; a call at {till.place} is not under it."
                return Refusal(422, "run_elsewhere", text, fields)
            if self.max_calls is not None and self._calls >= self.max_calls:
                text = f"Run {self.id!r} has made its {self.max_calls} calls."
                return Refusal(402, "run_calls_spent", text, {**fields, "limit": str(self.max_calls)})
            elapsed = self._clock.monotonic() - (self._began_at or 0)
            if self.max_seconds is not None and elapsed >= self.max_seconds * 1_000_000_000:
                text = f"Run {self.id!r} is over: it had {self.max_seconds} seconds."
                return Refusal(402, "run_expired", text, {**fields, "limit": str(self.max_seconds)})
            self._till = till
            self._calls += 1
        return None

    def _give_back(self) -> None:
        with self._lock:
            self._calls -= 1


class _Entry(NamedTuple):
    """A run that a context has entered, and what it was in before."""

    run: Run
    before: "_Entry | None"


_entered: ContextVar[_Entry | None] = ContextVar("outlay_run", default=None)


def current_run() -> Run | None:
    """The run of the context, if there is one."""
    entry = _entered.get()
    return None if entry is None else entry.run


def _without(entry: _Entry | None, run: Run) -> _Entry | None:
    """What a context is in after it has left a run; the runs it entered since stay."""
    if entry is None:
        return None
    return entry.before if entry.run is run else _Entry(entry.run, _without(entry.before, run))


def _around(run: Run | None) -> Iterator[Run]:
    while run is not None:
        yield run
        run = run.parent
