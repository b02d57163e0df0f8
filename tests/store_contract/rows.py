"""Rows with something wrong: in an order that nobody asked for, or lost after so many statements."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from outlay.flow.ledger.rows import Rows, Values
from outlay.kernel.errors import StoreError


class _Around:
    def __init__(self, rows: Rows) -> None:
        self._inner = rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Shuffled(_Around):
    """What a database may do: any order that is not asked for, and text in the order of a language."""

    _source = random.Random(11)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        found = self._inner.rows(sql, values)
        if "ORDER BY" not in sql or "ORDER BY name" in sql:
            self._source.shuffle(found)
        return found

    def batches(self, sql: str, values: Sequence[Any], size: int) -> Iterator[list[Values]]:
        if "ORDER BY" in sql:
            yield from self._inner.batches(sql, values, size)
        else:
            found = self.rows(sql, values)
            yield from (found[start : start + size] for start in range(0, len(found), size))


class Failing(_Around):
    """Lost after so many statements."""

    def __init__(self, rows: Rows, after: int) -> None:
        super().__init__(rows)
        self._left = after

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Values]:
        if not self._left:
            raise StoreError("lost")
        self._left -= 1
        return self._inner.rows(sql, values)
