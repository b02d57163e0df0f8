"""Where the generators take their choices from: a seeded `random.Random` (fast), or Hypothesis (shrinks)."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """One choice after another."""

    def of(self, options: Sequence[T]) -> T: ...
    def upto(self, most: int) -> int:
        """0 to `most`."""


class Seeded:
    """Choices by seed."""

    def __init__(self, seed: object) -> None:
        self._random = random.Random(repr(seed))

    def of(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def upto(self, most: int) -> int:
        return int(self._random.random() * (most + 1))


class Drawn:
    """Choices of Hypothesis."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw

    def of(self, options: Sequence[T]) -> T:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def upto(self, most: int) -> int:
        return int(self._draw(st.integers(0, most)))
