"""Twelve bugs, as money is really lost: the simulator has to find each. Each is a context in which it is there."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

import msgspec

from outlay.flow.accounts import Account
from outlay.flow.gateway import stops
from outlay.flow.gateway.server import Gateway
from outlay.flow.ledger import directory, postgres
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.ledger.port import Batch
from outlay.flow.ledger.postgres import PostgresStore
from outlay.kernel.errors import StoreError

Mutation = Callable[[], contextlib.AbstractContextManager[Any]]

_SECOND: Final = 1_000_000_000


def skip_a_hold() -> contextlib.AbstractContextManager[Any]:
    """A call leaves before its hold is durable."""
    place = Books.place

    def hasty(self: Books, *args: Any, **more: Any) -> Hold | None:
        hold = place(self, *args, **more)
        if hold is not None:
            told, hold.on_durable = hold.on_durable, lambda _hold, _error: None
            self._timers.call_soon(lambda: told(hold, None))
        return hold

    return mock.patch.object(Books, "place", hasty)


def settle_twice() -> contextlib.AbstractContextManager[Any]:
    """What a call cost is posted twice."""
    end = Books.end

    def again(self: Books, hold: Hold, ending: Ending) -> None:
        end(self, hold, ending)
        for account in hold.accounts:
            account.post(ending.cost_nanos, self._clock.now())

    return mock.patch.object(Books, "end", again)


def forget_a_void() -> contextlib.AbstractContextManager[Any]:
    """A call that never left keeps its hold."""
    end = Books.end

    def forgetful(self: Books, hold: Hold, ending: Ending) -> None:
        if ending.basis is Basis.VOID:
            hold.is_ended = True
        else:
            end(self, hold, ending)

    return mock.patch.object(Books, "end", forgetful)


def wrong_window() -> contextlib.AbstractContextManager[Any]:
    """Spend of a rolling window is posted to the window before: it leaves too early."""
    post = Account.post

    def early(self: Account, nanos: int, now: int) -> None:
        post(self, nanos, now - 8 * _SECOND)

    return mock.patch.object(Account, "post", early)


def leak() -> contextlib.AbstractContextManager[Any]:
    """What a batch that failed had held stays held."""
    return mock.patch.object(Account, "release", lambda _self, _nanos: None)


def drop_an_overrun() -> contextlib.AbstractContextManager[Any]:
    """Nothing is booked beyond the hold."""
    end = Books.end

    def clipped(self: Books, hold: Hold, ending: Ending) -> None:
        end(self, hold, msgspec.structs.replace(ending, cost_nanos=min(ending.cost_nanos, hold.nanos)))

    return mock.patch.object(Books, "end", clipped)


def grant_twice() -> contextlib.AbstractContextManager[Any]:
    """A reply to COMMIT is lost, and what it granted is granted again under ids of the store's making."""
    settle = PostgresStore._settle_doubt

    def careless(self: PostgresStore, batch: Batch) -> None:
        doubtful = self._doubtful
        settle(self, batch)
        if doubtful is not None:
            batch.holds += [row._replace(id=row.id[::-1]) for row in doubtful.holds]

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(PostgresStore, "_settle_doubt", careless))
    stack.enter_context(mock.patch.object(postgres, "DOUBT_S", -1.0))
    stack.enter_context(mock.patch.object(PostgresStore, "_ask_again", _never_ask))
    return stack


def _never_ask(self: PostgresStore, batch: Batch, problem: StoreError) -> StoreError:
    self._doubtful = batch
    return problem


def free_a_live_stream() -> contextlib.AbstractContextManager[Any]:
    """A hold ends by time-out, though its stream goes on."""
    sweep = Gateway._sweep

    def impatient(self: Gateway) -> None:
        now = self.clock.now()
        for hold in list(self.books._open.values()):
            if now - hold.placed_at > _SECOND // 2 and hold.on_durable is not None:
                self.books.end(hold, Ending(Status.EXPIRED, Basis.VOID, 0, reason="timed out"))
        sweep(self)

    return mock.patch.object(Gateway, "_sweep", impatient)


def stale_balance() -> contextlib.AbstractContextManager[Any]:
    """A process that was fenced writes on, from balances that are another's now."""
    stack = contextlib.ExitStack()
    unfenced = "UPDATE writer SET batch = ? + 0 * ? + 0 * ?, renewed_at = CURRENT_TIMESTAMP WHERE id = 1"
    stack.enter_context(mock.patch.object(postgres, "_MOVE_ON", unfenced))
    stack.enter_context(mock.patch.object(PostgresStore, "_renew", lambda _self: True))
    return stack


def miss_a_kill() -> contextlib.AbstractContextManager[Any]:
    """One call of a killed scope goes on."""
    found = stops._found
    return mock.patch.object(stops, "_found", lambda *args: found(*args)[:-1])


def miss_a_budget() -> contextlib.AbstractContextManager[Any]:
    """One of the budgets that cover a call is left out of its hold."""
    found = directory.budgets_for

    def forgetful(*args: Any) -> Any:
        return tuple(each for each in found(*args) if "team" not in str(each))

    return mock.patch.object(directory, "budgets_for", forgetful)


def book_the_hold() -> contextlib.AbstractContextManager[Any]:
    """What was held is booked, whatever it cost."""
    end = Books.end

    def dear(self: Books, hold: Hold, ending: Ending) -> None:
        end(self, hold, msgspec.structs.replace(ending, cost_nanos=hold.nanos))

    return mock.patch.object(Books, "end", dear)


MUTATIONS: Final[tuple[Mutation, ...]] = (
    miss_a_budget,
    book_the_hold,
    skip_a_hold,
    settle_twice,
    forget_a_void,
    wrong_window,
    leak,
    drop_an_overrun,
    grant_twice,
    free_a_live_stream,
    stale_balance,
    miss_a_kill,
)


def first_found(mutation: Mutation, seeds: Iterator[int], steps: int) -> tuple[int, str] | None:
    """The first seed whose run breaks a promise under a mutation, and what it says; None if none does."""
    from tests.sim.checks import Violation
    from tests.sim.world import World

    for seed in seeds:
        with mutation():
            try:
                World(seed).run(steps)
            except Violation as found:
                return seed, str(found)
    return None
