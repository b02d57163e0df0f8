"""An event loop on virtual time: nothing waits, and the same seed runs the same callbacks in the same order.

What a node schedules belongs to the node (by context): once the node is dead, none of it runs. An `AccountingBroken`
ends the node that met it, as it ends a process.
"""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from outlay.kernel.clock import NANOS_PER_SECOND, SystemClock, UnixNanos
from outlay.kernel.errors import AccountingBroken

START = 1_790_000_000.0
"""UTC seconds at which every simulation begins."""


class Owner(Protocol):
    """Whoever callbacks belong to."""

    is_alive: bool

    def broke(self, error: AccountingBroken) -> None:
        """Its books contradict themselves: it ends."""


OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)


class Stuck(AssertionError):
    """Nothing is left to happen, and something still waits."""


class _Selector:
    """Passes the time instead of waiting for it."""

    def __init__(self, loop: "SimLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> Sequence[object]:
        self._loop.pass_time(timeout)
        return ()

    def close(self) -> None:
        """Nothing to close."""


class SimLoop(asyncio.BaseEventLoop):
    """See the module. The network (`create_connection`, `create_server`) is set by the world."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _Selector(self)
        self.callbacks = 0
        """Callbacks run so far: two runs of a seed agree in it."""
        self.faults: list[str] = []
        """What a callback raised that nobody caught."""
        self._tasks: list[tuple[Owner | None, Any]] = []
        self.has_dead = False
        """A process has died: its tasks are never ended."""
        self.network: Any = None
        self.set_exception_handler(self._on_exception)

    def time(self) -> float:
        return self._now

    def pass_time(self, timeout: float | None) -> None:
        """As much as the loop would have waited."""
        if timeout is None:
            raise Stuck("nothing is scheduled any more")
        if timeout > 0:
            self._now += timeout

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        context = context or contextvars.copy_context()
        return super().call_soon(self._owned(callback, context), *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        context = context or contextvars.copy_context()
        return super().call_at(when, self._owned(callback, context), *args, context=context)

    call_soon_threadsafe = call_soon

    def create_task(self, coro: Any, **more: Any) -> Any:
        task = super().create_task(coro, **more)
        self._tasks.append((OWNER.get(), coro))
        return task

    def bury(self, owner: Owner) -> None:
        """A process has died: what it meant to begin is never begun."""
        self.has_dead = True
        for who, coro in self._tasks:
            if who is owner and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
                coro.close()
        self._tasks = [(who, coro) for who, coro in self._tasks if who is not owner]

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return await self.network.connect(OWNER.get(), factory, host, port)

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return self.network.listen(OWNER.get(), factory, host, port)

    def _owned(self, callback: Callable[..., object], context: contextvars.Context) -> Callable[..., object]:
        owner = context.get(OWNER)

        def run(*args: Any) -> None:
            self.callbacks += 1
            if owner is None:
                callback(*args)
            elif owner.is_alive:
                try:
                    callback(*args)
                except AccountingBroken as error:
                    owner.broke(error)

        return run

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.has_dead and "was destroyed but it is pending" in str(context.get("message")):
            return  # a task of a process that died: nobody ends it
        self.faults.append(f"{context.get('message')}: {error!r}")

    def _process_events(self, event_list: object) -> None:
        """There are none: the network schedules callbacks."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


class SimClock(SystemClock):
    """A node's clock on the loop's time; its wall clock may be stepped."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._behind = 0
        self._anchor = int(START) * NANOS_PER_SECOND
        self.stepped = 0
        """How far the system's wall clock was stepped, ns."""

    def now(self) -> UnixNanos:
        return UnixNanos(self._anchor + self.monotonic())

    def monotonic(self) -> int:
        return round(self._loop.time() * NANOS_PER_SECOND)

    def drift(self) -> int:
        """See `SystemClock.drift`."""
        return int(START) * NANOS_PER_SECOND + self.stepped + self.monotonic() - self.now()
