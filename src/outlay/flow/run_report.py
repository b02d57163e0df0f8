"""What a run's money went into: its first call, context sent again, reasoning, retries, sub-agents, and new work.

Pure. The parts add up to the run's charges to the nano-dollar: each charge is in one part, or is split by what its
tokens cost at its own stored price, the rest being new work. Context counts as sent again as far as a call's input is
no longer than the input and output of the call before it.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from outlay.flow.orders import Order, OrderKind
from outlay.kernel.money import line_cost


class RunCharge(msgspec.Struct, frozen=True, gc=False):
    """One charge of a run or of a run below it. Amounts in nanos, rates in nanos per 10**6 tokens, times in UTC ns."""

    id: str
    request_id: str
    attempt: int
    run: str
    agent: str
    model: str
    placed_at: int
    first_byte_at: int | None
    settled_at: int
    status: str
    basis: str
    cost_nanos: int
    hold_nanos: int
    input_tokens: int | None
    cache_read_tokens: int
    output_tokens: int
    reasoning_tokens: int
    input_rate: int
    cache_read_rate: int
    output_rate: int
    http_status: int | None = None
    reason: str | None = None


class RunParts(msgspec.Struct, frozen=True):
    """The split, in nanos; the other fields add up to `total`."""

    total: int
    first_call: int
    new_work: int
    resent_context: int
    reasoning: int
    retries: int
    sub_agents: int
    unknown: int
    """Booked at the held amount, or counted: nobody said what it was spent on."""

    @property
    def multiplier_tenths(self) -> int | None:
        """Total over the first call, in tenths; None if the first call cost nothing."""
        return None if not self.first_call else self.total * 10 // self.first_call


class RunLimits(Protocol):
    """What a run was opened with, and spent. Amounts in nanos, times in UTC ns."""

    @property
    def cap_nanos(self) -> int | None: ...
    @property
    def max_calls(self) -> int | None: ...
    @property
    def deadline(self) -> int | None: ...
    @property
    def tree_nanos(self) -> int:
        """Cost of it and of the runs below it."""


def run_state(run: RunLimits, calls: int, stop: Order | None, now: int) -> tuple[str, str]:
    """(`killed`, `paused`, `over` or `open`; the same in words): why a run's next call would not begin."""
    if stop is not None:
        kind = "killed" if stop.kind is OrderKind.KILL else "paused"
        return kind, f"{kind}: {stop.reason}"
    if run.deadline is not None and now >= run.deadline:
        return "over", "expired"
    if run.max_calls is not None and calls >= run.max_calls:
        return "over", "calls spent"
    if run.cap_nanos is not None and run.tree_nanos >= run.cap_nanos:
        return "over", "cap spent"
    return "open", "open"


def split_run(run: str, charges: Sequence[RunCharge]) -> RunParts:
    """Split the charges of a run and of the runs below it."""
    ordered = sorted(charges, key=lambda charge: (charge.placed_at, charge.id))
    last_attempts: dict[str, int] = {}
    for charge in ordered:
        last_attempts[charge.request_id] = max(last_attempts.get(charge.request_id, 0), charge.attempt)
    parts = dict.fromkeys(
        ("first_call", "new_work", "resent_context", "reasoning", "retries", "sub_agents", "unknown"), 0
    )
    first_request = next((charge.request_id for charge in ordered if charge.run == run), "")
    before: dict[str, int] = {}
    for charge in ordered:
        cost = charge.cost_nanos
        if charge.run != run:
            parts["sub_agents"] += cost
        elif charge.attempt < last_attempts[charge.request_id]:
            parts["retries"] += cost
        elif charge.request_id == first_request:
            parts["first_call"] += cost
            _remember(before, charge)
        elif charge.input_tokens is None:
            parts["unknown"] += cost
        else:
            resent, reasoning = _split(charge, before.get(charge.agent, 0))
            parts["resent_context"] += resent
            parts["reasoning"] += reasoning
            parts["new_work"] += cost - resent - reasoning
            _remember(before, charge)
    return RunParts(sum(charge.cost_nanos for charge in ordered), **parts)


def _remember(before: dict[str, int], charge: RunCharge) -> None:
    if charge.input_tokens is not None:
        said = max(0, charge.output_tokens - charge.reasoning_tokens)
        before[charge.agent] = charge.input_tokens + said


def _split(charge: RunCharge, sent_before: int) -> tuple[int, int]:
    """(nanos of context sent again, nanos of reasoning) of one charge; never more than it cost."""
    resent = min(charge.input_tokens or 0, sent_before)
    cached = min(charge.cache_read_tokens, resent)
    nanos = line_cost(cached, charge.cache_read_rate) + line_cost(resent - cached, charge.input_rate)
    nanos = min(nanos, charge.cost_nanos)
    reasoning = min(line_cost(charge.reasoning_tokens, charge.output_rate), charge.cost_nanos - nanos)
    return nanos, reasoning
