"""Downgrade ladders on the request path: the rung that a call has reached, at whatever door it comes in.

A call for one model goes down the ladder to the model of its rung, and from there on by that one's; what cannot change
its model (a batch, a realtime session) is asked for pauses only.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from outlay.flow.gateway.asking import pause_at_rung
from outlay.flow.gateway.entries import Entries, Entry
from outlay.flow.gateway.guard import Guard, Step
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.ledger.directory import Chain
from outlay.flow.policy import PolicyMode

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway


def rung_of(guard: Guard | None, chain: Chain) -> Step | None:
    """The highest rung that a caller has reached at a target, by any name of its model."""
    if guard is None or not guard.has_ladder:
        return None
    identity = chain.identity
    return guard.step((identity.model, *identity.model_names), chain.accounts)


def highest(steps: Iterable[Step | None]) -> Step | None:
    """The highest rung over all targets of a call: which of them will serve is not known yet."""
    best: Step | None = None
    for found in steps:
        if found is None:
            continue
        if (
            best is None
            or (best.policy.mode is PolicyMode.SHADOW and found.policy.mode is PolicyMode.ENFORCE)
            or (best.policy.mode is found.policy.mode and found.rung.at_percent > best.rung.at_percent)
        ):
            best = found
    return best


def ladder_step(entries: Entries, now: int) -> Step | None:
    """The highest rung that a call has reached."""
    return highest(rung_of(entry.guard, entry.current(now)) for entry in entries.targets)


def ladder_pause(gateway: "Gateway", entry: Entry, request_id: bytes, now: int) -> Refusal | None:
    """Why work that keeps its model may not begin now: a ladder pauses it."""
    step = rung_of(entry.guard, entry.current(now))
    if step is None or step.rung.use or step.policy.mode is PolicyMode.SHADOW or gateway.is_shadow:
        return None
    return pause_at_rung(gateway, request_id, now, entry.chain.identity, step)
