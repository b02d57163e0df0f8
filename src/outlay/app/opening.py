"""Opens the ledger that a configuration names, to write it: a SQLite file, or a PostgreSQL database."""

import asyncio
import contextlib
import math
from collections.abc import Callable

from outlay.app.config import Config
from outlay.flow.ledger.books import Books, Timers
from outlay.flow.ledger.place import Database, needs_driver
from outlay.flow.ledger.port import Store, StoreBusy, StoreInUse, StoreUnreachable
from outlay.kernel.clock import Clock

STANDBY_S = 0.3
"""How often a gateway that waits for the ledger asks for it."""

Post = Callable[[Callable[[], object]], object]


def open_store(config: Config, post: Post | None = None, *, is_guest: bool = False) -> Store:
    """The store of the ledger, not loaded yet. Raises StoreError.

    `post` runs a callback on the loop of the books, from any thread: a database is written beside it. `is_guest`: it is
    opened for one command, so that a gateway which is only silent keeps its place.
    """
    place = config.ledger_place
    if not isinstance(place, Database):
        # imported here, as PostgreSQL's is: one of them is needed
        from outlay.flow.ledger.sqlite import SqliteStore

        return SqliteStore(place, full=config.gateway.sync == "full")
    try:
        from outlay.flow.ledger.postgres import LEASE_S, PostgresStore
    except ImportError as error:
        raise needs_driver(place) from error
    return PostgresStore(place.url, post=post, lease_s=math.inf if is_guest else LEASE_S)


async def stand_by(
    config: Config,
    clock: Clock,
    timers: Timers,
    post: Post,
    *,
    log: Callable[..., None],
    stopping: asyncio.Event,
) -> tuple[Store, Books] | None:
    """Store and books, as soon as the ledger can be had; None if told to stop before.

    A file is had at once or not at all. A database may be another gateway's for now, or not answer: this one stands by,
    and takes its place when it can. Raises StoreError for what waiting does not mend.
    """
    said = ""
    store: Store | None = None
    while not stopping.is_set():
        try:
            store = store or open_store(config, post)
            return store, Books(store, clock, timers)
        except (StoreInUse, StoreUnreachable, StoreBusy) as error:
            if store is not None and not isinstance(error, StoreInUse):
                # it may own the ledger by now, and be alive to everybody who asks: this process, too
                store.abandon()
                store = None
            if not isinstance(config.ledger_place, Database):
                raise
            kind = type(error).__name__
            if kind != said:
                said = kind
                log("standby", message=str(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), STANDBY_S)
    if store is not None:
        store.abandon()
    return None
