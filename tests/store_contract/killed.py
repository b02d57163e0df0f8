"""A process that ends itself by SIGKILL at its nth write: `python -m tests.store_contract.killed FOLDER N [URL]`.

Counts every statement that reaches SQLite (with a URL: PostgreSQL), so that the kill falls between any two writes, also
within a transaction.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psycopg

from outlay.flow.ledger.charge import Basis
from outlay.flow.ledger.postgres import PostgresStore
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND
from tests.store_contract.bench import ADA, Bench, budget

BUDGETS = [budget("all", 1000), budget("ring", 900, "60s"), budget("users", 500, "day", user="*")]
BOB = Identity(org="acme", team="ads", user="bob", key="k2", model="m", provider="p")


class Dying:
    """A cursor that counts statements and dies before the nth."""

    def __init__(self, cursor: Any, at: int) -> None:
        self._cursor = cursor
        self._left = at

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, *arguments: Any) -> Any:
        self._count()
        return self._cursor.execute(*arguments)

    def executemany(self, sql: str, rows: Any) -> None:
        for row in rows:
            self._count()
            self._cursor.execute(sql, row)


def work(bench: Bench) -> None:
    """A few hundred statements of every kind."""
    for round_number in range(4):
        one, two = bench.place(40), bench.place(30, BOB)
        three = bench.place(20, Identity(org="acme", run=f"r{round_number}", user="ada"))
        bench.timers.run()
        assert one is not None and two is not None and three is not None
        bench.settle(one, 35)
        bench.settle(two, 30, Basis.OUTCOME_UNKNOWN)
        bench.configure(*BUDGETS, budget(f"late{round_number}", 2000))
        bench.void(three)
        bench.books.resolve(two.id, 11, "eve", "")
        bench.clock.advance(20 * NANOS_PER_SECOND)
        bench.hold(5, ADA)


def dying_cursor(at: int) -> type[psycopg.Cursor[Any]]:
    """A class of cursors that die together before their nth statement."""
    left = iter(range(at, -1, -1))

    class Mortal(psycopg.Cursor[Any]):
        def execute(self, *arguments: Any, **more: Any) -> Any:
            _count()
            return super().execute(*arguments, **more)

        def executemany(self, *arguments: Any, **more: Any) -> None:
            _count()
            super().executemany(*arguments, **more)

    def _count() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return Mortal


def main() -> None:
    """See the module."""
    folder, at, url = Path(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:])
    bench = Bench("postgres" if url else "sqlite", folder, BUDGETS, url)
    if isinstance(bench.store, PostgresStore):
        bench.store._writing().cursor_factory = dying_cursor(at)
    else:
        assert isinstance(bench.store, SqliteStore)
        bench.store._cursor = Dying(bench.store._cursor, at)  # type: ignore[assignment]
    work(bench)
    bench.leave()
    print("done")


if __name__ == "__main__":
    main()
