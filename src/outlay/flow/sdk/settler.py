"""Ends holds without ever standing in a caller's way: at once where the ledger is free, else in a thread behind.

An answer that was paid for goes to its caller whatever the ledger says; until a hold is ended the ledger shows it
held, which is never less than it cost. Streams that nobody closes end here too, when they are collected as garbage.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from outlay.flow.ledger.charge import Ending, Hold
from outlay.flow.ledger.direct import DirectLedger
from outlay.kernel.errors import AccountingBroken, StoreError

WAIT_S: Final = 5.0
"""Longest wait of the thread behind for the file, per try."""
TRIES: Final = 12
"""A minute of a ledger that cannot be written; then the end is given up and the hold expires with the process."""
_log: Final = logging.getLogger("outlay")


class Finish:
    """How one hold ends; `job` instead keeps it open for a provider's job."""

    __slots__ = ("ending", "hold", "pid", "price", "route")

    def __init__(self, hold: Hold, ending: Ending, route: str | None, price: str | None) -> None:
        self.hold = hold
        self.ending = ending
        self.route = route
        self.price = price
        self.pid = os.getpid()


_Queue = SimpleQueue[Finish | Callable[[], Finish | None] | None]


class Settler:
    """See the module. Safe for threads, and for use by finalizers."""

    def __init__(self, ledger: DirectLedger) -> None:
        self.ledger = ledger
        self._queue: _Queue = SimpleQueue()
        self._open: dict[bytes, Settler] = {}
        """Holds that are open. The thread keeps it, and so this settler, until the last of them has ended: a stream
        that is collected together with its client still finds somebody to end it."""
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._start_lock = threading.Lock()
        self._closing = weakref.finalize(self, _close, ledger, self._queue)

    def opened(self, hold: Hold) -> None:
        """A hold was placed."""
        self._open[hold.id] = self

    def kept(self, hold: Hold) -> None:
        """A hold stays open for a job; nobody here ends it."""
        self._open.pop(hold.id, None)

    def finish(self, finish: Finish, wait_s: float) -> None:
        """End a hold now if the file's turn comes within `wait_s`, else soon. Never raises for the ledger's sake."""
        try:
            _end(self.ledger, finish, wait_s)
            self._open.pop(finish.hold.id, None)
        except StoreError:
            self.later(finish)

    def later(self, finish: Finish | Callable[[], Finish | None]) -> None:
        """End a hold in the thread behind; a finalizer may call this wherever it runs."""
        self._queue.put(finish)

    def prepare(self) -> None:
        """Have the thread behind run; called before a hold is placed, never by a finalizer."""
        if self._thread is not None and self._pid == os.getpid():
            return
        with self._start_lock:
            if self._pid != os.getpid():
                # what is queued is the parent's to end
                self._queue, self._open, self._pid, self._thread = SimpleQueue(), {}, os.getpid(), None
                self._closing.detach()
                self._closing = weakref.finalize(self, _close, self.ledger, self._queue)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_run,
                    args=(self.ledger, self._queue, self._open),
                    name="outlay-settle",
                    daemon=True,
                )
                self._thread.start()

    def settle_pending(self) -> None:
        """End what is queued, here and now, as far as the ledger lets it."""
        _drain(self.ledger, self._queue)

    def close(self) -> None:
        """End what is queued and close the ledger."""
        self._closing()


def _end(ledger: DirectLedger, finish: Finish, wait_s: float) -> None:
    if finish.pid == os.getpid():
        ledger.end(finish.hold, finish.ending, finish.route, finish.price, wait_s)


def _run(ledger: DirectLedger, queue: _Queue, opened: dict[bytes, Settler]) -> None:
    while (item := queue.get()) is not None:
        finish = _settle(ledger, item)
        if finish is not None:
            # the last one lets the settler go, whose finalizer closes the ledger and ends this thread
            opened.pop(finish.hold.id, None)
        del item, finish


def _settle(ledger: DirectLedger, item: Finish | Callable[[], Finish | None]) -> Finish | None:
    finish = item if isinstance(item, Finish) else item()
    if finish is None:
        return None
    for _ in range(TRIES):
        try:
            _end(ledger, finish, WAIT_S)
        except AccountingBroken:
            raise
        except StoreError as error:
            _log.warning("a hold could not be ended yet: %s", error)
        else:
            return finish
    _log.error("a hold could not be ended; it stays held until this process is gone")
    return finish


def _drain(ledger: DirectLedger, queue: _Queue) -> None:
    while True:
        try:
            item = queue.get_nowait()
        except Empty:
            return
        if item is None:
            queue.put(None)
            return
        _settle(ledger, item)


def _close(ledger: DirectLedger, queue: _Queue) -> None:
    _drain(ledger, queue)
    queue.put(None)
    ledger.close()
