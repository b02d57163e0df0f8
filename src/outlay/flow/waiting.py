"""Fair, bounded waiting for money that others hold. Waiters hold nothing and queue on the one budget that blocks.

A later, smaller call may pass an older, larger one until the older has waited `PASSING_NS`; from then on nobody
passes it. No I/O: the owner gives the time and calls `pump` when money came free.
"""

from collections import deque
from collections.abc import Callable

from outlay.flow.accounts import Account

PASSING_NS = 1_000_000_000
"""How long small calls may pass an older large one: long enough to keep the budget busy, short enough to be fair."""
MAX_TRIES = 64
"""Waiters tried per pump and account, so that one release costs a bounded time."""


class Waiter:
    """One call that waits. `retry` decides again: None when the call was admitted or refused, else the account
    that blocks it now and the nanos it needs there."""

    __slots__ = ("account", "deadline", "is_gone", "needed", "on_timeout", "retry", "since", "size")

    def __init__(
        self,
        retry: Callable[[], tuple[Account, int] | None],
        on_timeout: Callable[[], None],
        size: int,
        since: int,
        deadline: int,
    ) -> None:
        self.retry = retry
        self.on_timeout = on_timeout
        self.size = size
        self.since = since
        self.deadline = deadline
        self.account: Account | None = None
        self.needed = 0
        self.is_gone = False


class WaitingRoom:
    """Queues by account. Times are monotonic ns."""

    def __init__(self, max_waiters: int, max_bytes: int) -> None:
        self._max_waiters = max_waiters
        self._max_bytes = max_bytes
        self._queues: dict[Account, deque[Waiter]] = {}
        self.count = 0
        self.bytes = 0

    def join(self, waiter: Waiter, account: Account, needed: int, *, is_first: bool = False) -> bool:
        """Queue on the account that blocks; False if the room is full. `is_first`: before all who wait already (a
        stream that has begun goes before calls that have not)."""
        if self.count >= self._max_waiters or self.bytes + waiter.size > self._max_bytes:
            return False
        waiter.needed = needed
        waiter.account = account
        queue = self._queues.setdefault(account, deque())
        if is_first:
            queue.appendleft(waiter)
        else:
            queue.append(waiter)
        account.waiting += 1
        self.count += 1
        self.bytes += waiter.size
        return True

    def leave(self, waiter: Waiter) -> None:
        """The call is over (client gone, admitted, refused); the queue forgets it when it comes by."""
        if waiter.is_gone:
            return
        waiter.is_gone = True
        self.count -= 1
        self.bytes -= waiter.size
        if waiter.account is not None:
            waiter.account.waiting -= 1

    def must_queue(self, account: Account, needed: int, now: int) -> bool:
        """Whether a new call has to stand behind those who wait on the account already."""
        queue = self._queues.get(account)
        if not queue:
            return False
        for waiter in queue:
            if not waiter.is_gone:
                return waiter.needed <= needed or now - waiter.since >= PASSING_NS
        return False

    def pump(self, account: Account, now: int) -> None:
        """Money came free in `account`: let those who fit go, oldest first."""
        queue = self._queues.get(account)
        if queue is None:
            return
        kept: list[Waiter] = []
        smallest_refused = None
        tries = 0
        while queue and tries < MAX_TRIES:
            waiter = queue.popleft()
            if waiter.is_gone:
                continue
            if smallest_refused is not None and waiter.needed >= smallest_refused:
                kept.append(waiter)
                continue
            tries += 1
            blocked = waiter.retry()
            if blocked is None:
                self.leave(waiter)
                continue
            other, waiter.needed = blocked
            if other is not account:
                self._move(waiter, other)
                continue
            kept.append(waiter)
            if smallest_refused is None or waiter.needed < smallest_refused:
                smallest_refused = waiter.needed
            if now - waiter.since >= PASSING_NS:
                break
        queue.extendleft(reversed(kept))
        if not queue:
            del self._queues[account]

    def expire(self, now: int) -> None:
        """Tell those who have waited long enough; called a few times a second."""
        for account in list(self._queues):
            for waiter in list(self._queues.get(account, ())):
                if not waiter.is_gone and now >= waiter.deadline:
                    self.leave(waiter)
                    waiter.on_timeout()

    def accounts(self) -> list[Account]:
        """Accounts that someone waits on."""
        return list(self._queues)

    def _move(self, waiter: Waiter, account: Account) -> None:
        if waiter.account is not None:
            waiter.account.waiting -= 1
        waiter.account = account
        account.waiting += 1
        self._queues.setdefault(account, deque()).append(waiter)
