"""Runs under watch: each call's signature before it is held, each charge after; a verdict becomes a mark or an order.

Keeps hashes, for the runs that called last only. What a run did before the gateway started counts anew.
"""

from typing import TYPE_CHECKING, Final

from outlay.flow.orders import Order, OrderKind, run_of, run_scope
from outlay.flow.runaway import Finding, RunawayAction, RunWatch, Signature, Verdict
from outlay.flow.scope import Identity
from outlay.wire.intent import CallIntent
from outlay.wire.tail import read_tail

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

MAX_WATCHED: Final = 20_000
"""Runs under watch: 3 KiB each after a call, 60 KiB after a hundred with long results."""
ACTOR: Final = "outlay:runaway"


class Watching:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._watches: dict[tuple[str, str, str], RunWatch] = {}

    def see(
        self, identity: Identity, intent: CallIntent, body: bytes, action: RunawayAction
    ) -> Finding | None:
        """A call of a run comes: what is to be said about it, None if nothing. Orders a stop if `action` says so."""
        tail = read_tail(intent.operation, body)
        if tail is None:
            return None
        key = (identity.org, identity.team, identity.run)
        # taken out and put in again: the first is the one that has not called for longest
        watch = self._watches.pop(key, None)
        if watch is None:
            if len(self._watches) >= MAX_WATCHED:
                del self._watches[next(iter(self._watches))]
            watch = RunWatch()
        self._watches[key] = watch
        signature = Signature(
            tail.action,
            tail.result,
            tail.sketch,
            tail.has_tool_result,
            tail.is_error,
            intent.input_tokens_bound,
            tail.shape,
        )
        limits = self._gateway.snapshot.thresholds
        finding = watch.failing(limits) if watch.is_retry(signature) else watch.see(signature, limits)
        if finding.verdict is Verdict.OK:
            return None
        if finding.verdict is Verdict.STOP and not watch.stopped and action not in _SAYING:
            watch.stopped = True
            self._stop(identity, finding, OrderKind.KILL if action is RunawayAction.CUT else OrderKind.PAUSE)
        return finding

    def ended(self, identity: Identity, cost_nanos: int, *, is_error: bool) -> None:
        """A call of a run was booked."""
        watch = self._watches.get((identity.org, identity.team, identity.run))
        if watch is not None:
            watch.ended(cost_nanos, is_error=is_error)

    def lifted(self, order: Order) -> None:
        """Somebody let a run go on: what it did until now counts no more. Whoever gave the order: a person's may have
        taken the place of the rule's, and a run that was stopped once must not be deaf to the next stop."""
        org, team, run = run_of(order.scope)
        for key in [(org, team, run)] if org else [key for key in self._watches if key[1:] == (team, run)]:
            watch = self._watches.get(key)
            if watch is not None:
                watch.forgive()

    def _stop(self, identity: Identity, finding: Finding, kind: OrderKind) -> None:
        gateway = self._gateway
        scope = run_scope(identity.org, identity.team, identity.run)
        now = gateway.clock.now()
        reason = f"it looks like a runaway: {finding.reason}"
        order = Order(kind, scope, reason, ACTOR, now)
        gateway.metrics.refused("runaway_stopped")
        gateway.on_order(order, now)


_SAYING: Final = frozenset({RunawayAction.OFF, RunawayAction.WARN})
