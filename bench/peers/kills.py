"""`kill -9` under load: what the books of a gateway hold after it is back, and whether its budget still binds."""

import asyncio
import time
from dataclasses import dataclass

from bench.natives import Mock
from bench.peers.clients import steady, warmed
from bench.peers.gateway import PROBE, STREAM_CHUNKS, Caller, Gateway
from bench.peers.report import Kill, Rounds
from bench.peers.storms import ANSWER_MS

UNREACHED = 1_000_000
"""Calls that no run here makes."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of the load, and when it is cut."""

    callers: int = 50
    after_seconds: tuple[float, ...] = (5.0, 17.0)
    rounds: int = 3
    round_seconds: float = 6.0
    budget: int = 100

    @property
    def names(self) -> list[str]:
        """The payers: one for each kill, one for the rounds."""
        return [*(_name(seconds) for seconds in self.after_seconds), "rounds"]


def kills(gateway: Gateway, mock: Mock, size: Size) -> list[Kill]:
    """On a gateway that was started with budgets that are not reached."""
    found = []
    for seconds in size.after_seconds:
        caller = gateway.caller(_name(seconds))
        answered, reached = _killed(gateway, mock, caller, size.callers, seconds)
        gateway.restart()
        found.append(Kill(seconds, answered, reached, gateway.booked(caller)))
    return found


def rounds(gateway: Gateway, mock: Mock, size: Size) -> Rounds:
    """On a gateway that was started with budgets worth `size.budget` calls."""
    caller = gateway.caller("rounds")
    through = []
    for _ in range(size.rounds):
        through.append(_killed(gateway, mock, caller, size.callers, size.round_seconds)[1])
        gateway.restart()
    return Rounds(size.budget, through, gateway.booked(caller))


def _name(seconds: float) -> str:
    return f"kill-{seconds:g}".replace(".", "-")


def _killed(gateway: Gateway, mock: Mock, caller: Caller, callers: int, seconds: float) -> tuple[int, int]:
    """Calls answered before the kill, and calls that reached the provider."""
    mock.pace(chunks=STREAM_CHUNKS, first_ms=ANSWER_MS, answer_ms=ANSWER_MS)
    asyncio.run(warmed(gateway.port, gateway.caller(PROBE)))
    before = mock.counts()["requests"]
    answers = asyncio.run(steady(gateway.port, caller, callers, seconds, gateway.kill))
    time.sleep(0.5)
    return answers.answered, mock.counts()["requests"] - before
