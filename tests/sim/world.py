"""A simulated installation: two gateway processes, a database, a provider with a meter, clients, and faults by seed.

`World(seed).run(steps)` plays it and checks after every step; a `Violation` names the step. Everything random comes
from the seed.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

from outlay.flow.gateway.snapshot import Disclose, Provider, Settings, Snapshot
from outlay.flow.ledger import postgres
from outlay.flow.orders import Order, OrderKind
from outlay.testing.behaviour import Behaviour
from outlay.testing.connection import Connection
from outlay.testing.meter import Meter
from outlay.testing.service import Service
from outlay.wire.intent import Dialect
from tests.harness import MOCK_PRICES, SECRET, book, budget, key
from tests.sim.checks import OVERBILLED, Checks, Violation
from tests.sim.client import Client
from tests.sim.database import Database
from tests.sim.loop import OWNER, SimLoop
from tests.sim.network import Network
from tests.sim.node import PORT, Node, Writer

FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"failure": "cut", "after_chunks": 2},
    {"failure": "cut_headers"},
    {"failure": "early_end"},
    {"failure": "stream_error"},
    {"failure": "cut_json"},
    {"failure": "hang", "hang_ms": 4_000},
    {"failure": "close_after"},
    {"status": 500},
    {"status": 429},
    {"usage": "omit"},
    {"output_tokens": 400},
    {"input_tokens": OVERBILLED},
)
RUNS: Final = ("r1", "r2", "r3", "r4")


class World:
    """See the module."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.log: list[str] = []
        self.loop = SimLoop()
        self.network = Network(self.loop, random.Random(seed + 1))
        self.loop.network = self.network
        self.database = Database(self.loop, random.Random(seed + 2))
        self.nodes: list[Node] = []
        self.clients: list[Client] = []
        self.killed: dict[str, float] = {}
        self.meter = Meter(MOCK_PRICES, keep_entries=True, file=None)
        self.service = Service(
            self.meter,
            Behaviour(input_tokens=30, output_tokens=40),
            models=["gpt-test"],
            api_keys=None,
            keep_calls=0,
        )
        self.limit = self.rng.choice(("0.002", "0.01", "0.05", "0.5"))
        self.team_limit = self.rng.choice(("0.004", "0.02", "1"))
        self.ring_limit = self.rng.choice(("0.004", "0.03", "0.8"))
        self.same_machine = self.rng.random() < 0.5
        self.checks = Checks(self)
        self._calls: set[asyncio.Task[None]] = set()
        self._started = 0

    def snapshot(self) -> Snapshot:
        """The configuration in force."""
        settings = Settings(
            disclose=Disclose.ALL,
            default_max_output_tokens=200,
            wait_s=1,
            drain_timeout_s=3,
            shutdown_timeout_s=3,
        )
        provider = Provider(
            name="openai", dialect=Dialect.OPENAI, base_url="http://provider:80/v1", models=("*",), api_key="k",
            send_request_id=True,
        )  # fmt: skip
        budgets = (
            budget("all", self.limit),
            budget("team", self.team_limit, {"team": "*"}, "month"),
            budget("ring", self.ring_limit, {"key": "*"}, "10s"),
            budget("run", "0.3", {"run": "*"}),
        )
        orders = tuple(Order(OrderKind.KILL, {"run": run}, "sim", "sim", 0) for run in sorted(self.killed))
        return Snapshot(
            settings=settings, providers=(provider,), models=(), keys=(key(),), budgets=budgets, rules=(), book=book(),
            orders=orders,
        )  # fmt: skip

    def tell(self, text: str) -> None:
        """A line of the story."""
        self.log.append(f"{self.loop.time():9.4f} {text}")

    def totals(self) -> dict[str, int]:
        """What was played."""
        return {
            "callbacks": self.loop.callbacks,
            "calls": len(self.clients),
            "billed": sum(entry.cost_nanos > 0 for entry in self.meter.entries),
            "commits": self.database.commits,
            "lost replies": self.database.lost_replies,
            "audits": self.checks.replays,
        }

    # -- the story --------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Play so many steps, then let everything come to rest. Raises Violation."""
        with self._patched():
            asyncio.set_event_loop(None)
            try:
                self.loop.run_until_complete(self._play(steps))
            except Violation:
                raise
            except AssertionError as error:
                raise Violation(f"{type(error).__name__}: {error}") from error
            finally:
                self._close()

    async def _play(self, steps: int) -> None:
        connections: set[Connection] = set()
        self.network.listen(
            None, lambda: Connection(self.checks.watched(self.service), connections), "provider", 80
        )
        for name in ("a", "b"):
            self._start(name)
        for step in range(steps):
            self.rng.choices(*zip(*self._actions(), strict=True))[0]()
            await asyncio.sleep(self.rng.choice((0.001, 0.01, 0.05, 0.3, 1.5)))
            self.checks.after(step)
        await self._rest()

    def _actions(self) -> list[tuple[Callable[[], object], int]]:
        return [
            (self._call, 12),
            (self._burst, 6),
            (self._provider_fault, 6),
            (self._kill_node, 3),
            (self._fence, 1),
            (self._restart, 4),
            (self._database_fault, 4),
            (self._database_calm, 3),
            (self._database_stop, 1),
            (self._kill_run, 2),
            (self._change_limits, 3),
            (self._slow_network, 1),
        ]

    def _start(self, name: str) -> None:
        self._started += 1
        rng = random.Random(self.seed * 1000 + self._started)
        node = Node(name, self._started, self.network, rng, self.snapshot, self.tell)
        self.nodes.append(node)

    def _call(self) -> None:
        rng = self.rng
        body: dict[str, Any] = {
            "model": "gpt-test",
            "messages": [{"role": "user", "content": "x" * rng.choice((5, 400))}],
        }
        body["stream"] = rng.random() < 0.6
        if rng.random() < 0.6:
            body["max_tokens"] = rng.choice((20, 100, 600))
        leaves = rng.choice((0, 300, 900)) if rng.random() < 0.2 else None
        run = rng.choice(RUNS)
        where = rng.choice(("a", "b"))
        task = self.loop.create_task(self._connect(where, Client(SECRET, body, run, leaves)))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _connect(self, where: str, client: Client) -> None:
        for host in (where, "b" if where == "a" else "a"):
            try:
                await self.loop.create_connection(lambda: client, host, PORT)
            except OSError:
                continue
            self.clients.append(client)
            return

    def _burst(self) -> None:
        for _ in range(self.rng.choice((3, 8, 20))):
            self._call()

    def _provider_fault(self) -> None:
        fault = self.rng.choice(FAULTS)
        self.service.change(
            {"first_byte_ms": self.rng.choice((0, 5, 60)), "chunk_ms": self.rng.choice((0, 2, 40))}
        )
        self.service.enqueue(fault)
        self.tell(f"provider: {fault}")

    def _kill_node(self) -> None:
        alive = [node for node in self.nodes if node.is_alive]
        if alive:
            self.rng.choice(alive).die("killed")

    def _fence(self) -> None:
        """A process stands still (a paused machine) until another has taken its place, and wakes up again."""
        owner = self.owner()
        if owner is None or owner.store is None:
            return
        self.tell(f"{owner.name} is taken for dead")
        self.database.rows.execute("UPDATE writer SET renewed_at = renewed_at - 600000")

    def _restart(self) -> None:
        for name in ("a", "b"):
            if not any(node.is_alive and node.name == name for node in self.nodes):
                self._start(name)

    def _database_fault(self) -> None:
        database, rng = self.database, self.rng
        database.p_given_up = rng.choice((0, 0.3))
        database.p_lost_before = rng.choice((0, 0.1, 0.4))
        database.p_lost_after = rng.choice((0, 0.1, 0.4))
        self.tell(
            f"database: given up {database.p_given_up}, lost {database.p_lost_before} {database.p_lost_after}"
        )

    def _database_calm(self) -> None:
        database = self.database
        database.p_given_up = database.p_lost_before = database.p_lost_after = 0

    def _database_stop(self) -> None:
        seconds = self.rng.choice((0.2, 1.0, 7.0))
        self.tell(f"database: down for {seconds} s")
        self.database.stop(seconds)

    def _kill_run(self) -> None:
        run = self.rng.choice(RUNS)
        owner = self.owner()
        if owner is None or run in self.killed:
            return
        order = Order(OrderKind.KILL, {"run": run}, "sim", "sim", 0)

        def carry_out() -> None:
            self.killed[run] = self.loop.time()
            self.tell(f"kill {run}")
            owner.order(order)
            self.checks.killed(run)

        owner.do(carry_out)

    def _change_limits(self) -> None:
        self.limit = self.rng.choice(("0.002", "0.01", "0.05", "0.5"))
        self.tell(f"limit {self.limit}")
        owner = self.owner()
        if owner is not None and owner.gateway is not None:
            gateway = owner.gateway
            owner.do(lambda: gateway.swap(self.snapshot()))

    def _slow_network(self) -> None:
        self.network.slow = self.rng.choice((1.0, 1.0, 30.0))
        self.network.slowest = max(self.network.slowest, self.network.slow)

    def owner(self) -> Node | None:
        """The process that serves, if there is one; the newest if one does not know yet that it is fenced."""
        serving = [node for node in self.nodes if node.serves]
        return max(serving, key=lambda node: node.store._epoch) if serving else None  # type: ignore[union-attr]

    async def _rest(self) -> None:
        """Faults end, processes come back, everything in flight ends; then the books must be right to the nano."""
        self.tell("rest")
        self._database_calm()
        self.network.slow = 1.0
        self.service.queued.clear()
        await asyncio.sleep(10)
        self._restart()
        # the longest: a provider that hangs, a client that left, a lease to wait for
        for _ in range(120):
            await asyncio.sleep(1)
            self._restart()
            owner = self.owner()
            if (
                owner is not None
                and owner.books is not None
                and not owner.books.open_holds
                and not self.meter.open_requests
            ):
                break
        await asyncio.sleep(1)
        self.checks.at_rest()

    # -- what stands for the system ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _patched(self) -> Iterator[None]:
        """The store's ways to the outside lead into this world."""
        slept = 0.0

        def sleep(seconds: float) -> None:
            nonlocal slept
            slept += seconds

        time = mock.Mock(sleep=sleep, monotonic=lambda: self.loop.time() + slept)

        def this_process() -> str:
            node = OWNER.get()
            assert isinstance(node, Node)
            return str(node.number)

        def is_proven_dead(holder: str) -> bool:
            return self.same_machine and not any(
                node.is_alive for node in self.nodes if str(node.number) == holder
            )

        patches = {
            "_connect": lambda _url, **_: self.database.connect(),
            "_Writer": Writer,
            "time": time,
            "this_process": this_process,
            "is_proven_dead": is_proven_dead,
            "boot_id": lambda: "sim",
        }
        with mock.patch.multiple(postgres, **patches):
            yield

    def _close(self) -> None:
        for node in self.nodes:
            node.is_alive = False
            self.loop.bury(node)
        for task in asyncio.all_tasks(self.loop):
            # of processes that died: nobody will ever run them
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.loop.close()
        self.database.rows.close()
