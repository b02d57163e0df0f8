"""The gateway process: owns the ledger, serves the data plane, answers operations, follows outlay.yaml."""

import asyncio
import contextlib
import fcntl
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from outlay.app.config import Config
from outlay.app.control import feed_cache, serve_control, socket_path
from outlay.app.mark import Mark
from outlay.app.opening import stand_by
from outlay.app.operations import ConfigSource, Operations
from outlay.flow.gateway.server import Gateway
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import AccountingBroken, ConfigError, OutlayError
from outlay.lookup.feed import load_feed

WATCH_S = 0.2
"""How often outlay.yaml is looked at: an edit is in force well within a second."""
FILES = 32_768
"""Files that the kernel's table has room for from the start: a client and a provider for each of some 16,000 calls."""
GC_THRESHOLDS = (1_000, 4, 200)
"""Small and seldom. The request path frees what it makes without the collector, so that its count grows only with what
stays: one pass over 50,000 young objects of 500 live streams took 23 ms, one over 1,000 takes 0.2 ms."""


def run_gateway(config_path: Path) -> int:
    """Serve until SIGTERM or SIGINT; prints one JSON line with its address on stdout when it listens.

    Returns the exit code: 0 after a clean stop, 2 for a wrong configuration, 5 if the ledger or the address cannot
    be had, 70 if the books contradicted themselves.
    """
    try:
        return uvloop.run(_serve(config_path))
    except ConfigError as error:
        sys.stderr.write(f"outlay: {error}\n")
        return 2
    except (OutlayError, OSError) as error:
        sys.stderr.write(f"outlay: {error}\n")
        return 5


async def _serve(config_path: Path) -> int:
    _raise_file_limit()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    broken: list[AccountingBroken] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    def on_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, AccountingBroken):
            broken.append(error)
            stopping.set()
        _log("unhandled", message=str(context.get("message")), error=type(error).__name__)

    loop.set_exception_handler(on_exception)
    source = ConfigSource(config_path, os.environ)
    config = source.config
    clock = SystemClock()
    ledger = config.local_path
    feed = load_feed(feed_cache(ledger))
    opened = await stand_by(config, clock, loop, loop.call_soon_threadsafe, log=_log, stopping=stopping)
    if opened is None:
        _log("stopped")
        return 0
    store, books = opened
    operations = Operations(source, store, books, clock, feed, config.ledger_place)
    gateway = Gateway(books, store, clock, operations.snapshot, loop)
    operations.gateway = gateway
    operations.on_change = gateway.swap
    mark = Mark(ledger)
    # after a crash of the host as well: what an operator does about either is the same
    gateway.blocked = mark.missing(store) or gateway.blocked
    if gateway.blocked is not None:
        _log("blocked", code=gateway.blocked.code)
    gateway.approving = operations
    gateway.order_taker = operations.take_order
    control = await serve_control(operations, socket_path(ledger))
    port = await gateway.listen(config.gateway.host, config.gateway.port)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    _log("listening", host=config.gateway.host, port=port, pid=os.getpid(), recovered_holds=books.recovered)
    follower = _Follower(operations, clock)
    follower.follow(config)
    watcher = loop.create_task(_watch(operations, follower, lambda: mark.keep(books, gateway.blocked)))
    await stopping.wait()
    for task in (watcher, follower.task):
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    control.close()
    # whose ledger is another's lets nobody finish: what it streams is booked already
    await gateway.drain(0 if broken else None)
    if broken:
        # what is in memory contradicts itself: write nothing more, let recovery rebuild from the rows
        _log("accounting_broken", message=str(broken[0]))
        return 70
    books.close()
    mark.keep(books, gateway.blocked)
    with contextlib.suppress(OSError):
        socket_path(ledger).unlink()
    _log("stopped")
    return 0


def _raise_file_limit() -> None:
    """A connection is a file: take all the system allows, since the usual soft limit is 1,024.

    The kernel's table of them is made large now: to grow it while threads run, at the 1,024th file and at each power
    of two after it, stops the loop for 5 to 30 ms (it waits for every processor).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    highest = FILES if soft == resource.RLIM_INFINITY else min(FILES, soft)
    with contextlib.suppress(OSError), open(os.devnull, "rb") as some:
        os.close(fcntl.fcntl(some, fcntl.F_DUPFD_CLOEXEC, highest - 1))


class _Follower:
    """Follows the issuers of tokens that outlay.yaml declares; imports nothing of them until it declares one."""

    def __init__(self, operations: Operations, clock: SystemClock) -> None:
        self.task: asyncio.Task[None] | None = None
        self._operations = operations
        self._clock = clock
        self._configure: Callable[[Config], None] | None = None

    def follow(self, config: Config) -> None:
        """Put the issuers of a configuration in force."""
        if self._configure is None:
            if not config.declared.identity:
                return
            from outlay.app.identity import Keeper

            keeper = Keeper(self._clock, self._operations.take_tokens, _log)
            self._operations.issuers = keeper.view
            self._configure = lambda found: keeper.configure(found.declared.identity, found.folder)
            self.task = asyncio.get_running_loop().create_task(keeper.run())
        self._configure(config)


async def _watch(operations: Operations, follower: _Follower, keep_mark: Callable[[], None]) -> None:
    problem: str | None = None
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(WATCH_S)
        await loop.run_in_executor(None, keep_mark)
        # parsing a large file takes longer than a request may wait: it happens in a thread
        config = await loop.run_in_executor(None, operations.source.read_if_changed)
        if config is not None and operations.take(config):
            follower.follow(config)
            _log("config_reloaded", version=operations.snapshot.version)
        if operations.source.problem != problem:
            problem = operations.source.problem
            if problem is not None:
                _log("config_rejected", message=problem)


def _log(event: str, **fields: object) -> None:
    """One JSON line on stdout; never a secret, never prompt text."""
    import msgspec

    sys.stdout.write(msgspec.json.encode({"event": event, **fields}).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run_gateway(Path(sys.argv[1])))
