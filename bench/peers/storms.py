"""A budget worth a hundred calls against a thousand, two hundred at once: how many reach the provider."""

import asyncio
import time
from dataclasses import dataclass

from bench.natives import Mock
from bench.peers.clients import Kind, storm, warmed
from bench.peers.gateway import PROBE, STREAM_CHUNKS, Bill, Gateway
from bench.peers.report import Storm

ANSWER_MS, CHUNK_MS = 300, 10
_QUIET_SECONDS = 60.0
"""Longest wait for the provider's open streams to end after a storm."""

KINDS = {
    Kind.PLAIN: "whole answers",
    Kind.STREAM: "streams",
    Kind.OPEN: "no max_tokens",
    Kind.LEAVING: "clients leave after 10 of 50 chunks",
}


@dataclass(frozen=True, slots=True)
class Size:
    """Of each storm."""

    budget: int = 100
    calls: int = 1000
    at_once: int = 200


def caller_name(kind: Kind) -> str:
    """Each storm has a payer of its own."""
    return f"storm-{kind.name.lower()}"


def storms(gateway: Gateway, mock: Mock, size: Size) -> list[Storm]:
    """All kinds, one after the other, on a gateway that was started with budgets worth `size.budget` calls."""
    return [_storm(gateway, mock, kind, size) for kind in KINDS]


def _storm(gateway: Gateway, mock: Mock, kind: Kind, size: Size) -> Storm:
    mock.pace(chunks=STREAM_CHUNKS, first_ms=ANSWER_MS, chunk_ms=CHUNK_MS, answer_ms=ANSWER_MS)
    asyncio.run(warmed(gateway.port, gateway.caller(PROBE)))
    caller = gateway.caller(caller_name(kind))
    before = mock.counts()
    answers = asyncio.run(storm(gateway.port, caller, kind, size.calls, size.at_once))
    bill = Bill.between(before, _quiet(mock))
    return Storm(
        kind=KINDS[kind],
        calls=size.calls,
        budget_calls=size.budget,
        through=bill.requests,
        billed_calls=bill.calls_worth(in_tokens=gateway.counts_tokens),
        booked_calls=gateway.booked(caller),
        refused={str(status): count for status, count in sorted(answers.refused.items())},
        broken=answers.broken,
        seconds=answers.seconds,
    )


def _quiet(mock: Mock) -> dict[str, int]:
    """The mock's counts once no stream is open and no call arrives any more."""
    deadline, last = time.monotonic() + _QUIET_SECONDS, mock.counts()
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = mock.counts()
        if now == last and not now["open_streams"]:
            break
        last = now
    return last
