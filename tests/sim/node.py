"""A gateway process of a simulation: the product's store, books and gateway, on the simulation's loop and network."""

import contextvars
import random
from collections.abc import Callable
from typing import Final

from outlay.flow.gateway.server import Gateway
from outlay.flow.gateway.snapshot import Snapshot
from outlay.flow.gateway.stops import carry_out
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.port import Batch, Done
from outlay.flow.ledger.postgres import RENEW_S, PostgresStore, end_fenced
from outlay.flow.orders import Order
from outlay.kernel.errors import AccountingBroken, StoreError
from tests.sim.loop import OWNER, SimClock, SimLoop
from tests.sim.network import Network, in_context_of

PORT: Final = 4100
RETRY_S: Final = 0.7
"""A node that finds the ledger in use tries again so much later."""


class Node:
    """A process: starts, tries to own the ledger, serves, dies."""

    def __init__(
        self,
        name: str,
        number: int,
        network: Network,
        rng: random.Random,
        snapshot: Callable[[], Snapshot],
        tell: Callable[[str], None],
    ) -> None:
        self.name, self.number = name, number
        self.loop: SimLoop = network.loop
        self._network, self.rng = network, rng
        self._snapshot, self._tell = snapshot, tell
        self.is_alive = True
        self.gateway: Gateway | None = None
        self.books: Books | None = None
        self.store: PostgresStore | None = None
        self.clock = SimClock(self.loop)
        self.context: contextvars.Context = in_context_of(self)
        self.loop.call_soon(self._begin, context=self.context)

    @property
    def serves(self) -> bool:
        """Whether it owns the ledger, as far as it knows."""
        return self.is_alive and self.gateway is not None

    def do(self, work: Callable[[], object]) -> None:
        """Run something in the process, at the loop's next turn."""
        self.loop.call_soon(work, context=self.context)

    def die(self, why: str) -> None:
        """kill -9."""
        if self.is_alive:
            self.is_alive = False
            self.loop.bury(self)
            self._tell(f"{self.name} dies: {why}")
            self._network.gone(self)

    def broke(self, error: AccountingBroken) -> None:
        """As the process does: exit 70."""
        self.die(f"exit 70: {error}")

    def order(self, order: Order) -> None:
        """A kill, carried out at once."""
        gateway = self.gateway
        if gateway is not None:
            carry_out(gateway, order, (*gateway.snapshot.orders, order))

    def _begin(self) -> None:
        try:
            store = PostgresStore("sim:", post=self._post)
        except StoreError:
            self._again()
            return
        try:
            self.books = Books(store, self.clock, self.loop)
        except StoreError:
            store.abandon()
            self._again()
            return
        self.store = store
        self._tell(f"{self.name} owns the ledger, epoch {store._epoch}, {self.books.recovered} recovered")
        self.gateway = Gateway(self.books, store, self.clock, self._snapshot(), self.loop)  # type: ignore[arg-type]
        self.loop.create_task(self.gateway.listen(self.name, PORT))

    def _again(self) -> None:
        self.loop.call_later(RETRY_S, self._begin, context=self.context)

    def _post(self, callback: Callable[[], object]) -> None:
        self.loop.call_soon(callback)


class Writer:
    """Stands for the store's writing thread: a batch takes its time, and time passes while it is asked again."""

    def __init__(
        self,
        write: Callable[[Batch], StoreError | None],
        renew: Callable[[], bool],
        post: Callable[[Callable[[], object]], object],
    ) -> None:
        self._write, self._renew, self._post = write, renew, post
        node = OWNER.get()
        assert isinstance(node, Node)
        self._loop, self._rng = node.loop, node.rng
        self._queue: list[tuple[Batch, Done]] = []
        self._written: list[tuple[Done, StoreError | None]] = []
        self._is_busy = False
        self._stopped = False

    def start(self) -> None:
        """Signs of life from now on."""
        self._loop.call_later(RENEW_S, self._live)

    def put(self, batch: Batch, done: Done) -> None:
        """See the product's."""
        self._queue.append((batch, done))
        self._work_soon()

    def settle(self) -> None:
        """See the product's."""
        if not self._written and self._queue:
            self._take()
        if self._written:
            self._tell(*self._written.pop(0))

    def stop(self) -> None:
        """See the product's."""
        while self._queue:
            self._take()
        self._stopped = True

    def _work_soon(self) -> None:
        if not self._is_busy and self._queue:
            self._is_busy = True
            self._loop.call_later(self._rng.uniform(0.0002, 0.004), self._work)

    def _work(self) -> None:
        self._is_busy = False
        if self._queue and not self._stopped:
            self._take()
            self._loop.call_later(self._rng.uniform(0.0002, 0.004), self._tell_one)
        self._work_soon()

    def _take(self) -> None:
        batch, done = self._queue.pop(0)
        self._written.append((done, self._write(batch)))

    def _tell_one(self) -> None:
        if self._written:
            self._tell(*self._written.pop(0))

    @staticmethod
    def _tell(done: Done, error: StoreError | None) -> None:
        done(error)

    def _live(self) -> None:
        if not self._stopped:
            if not self._queue and not self._renew():
                end_fenced()
            self._loop.call_later(RENEW_S, self._live)
