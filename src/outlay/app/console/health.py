"""`/healthz`: a bounded look at gateway and ledger that anyone may ask for. Tells no names and no amounts."""

import asyncio
from typing import Final, Literal

from pydantic import BaseModel

from outlay.app.console.desk import Desk, GatewayDown
from outlay.kernel.errors import OutlayError

REMEMBERED_S: Final = 1.0
"""Answers are shared for so long: callers without a token must not keep the gateway busy."""
PATIENCE_S: Final = 2.0
"""A gateway that does not answer by then counts as unreachable."""


class HealthView(BaseModel):
    """What is reachable from the console."""

    status: Literal["ok", "degraded"]
    gateway: Literal["ok", "unreachable", "blocked"]
    ledger: Literal["ok", "unreadable"]


class Health:
    """One look at a time, whatever the number of callers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._look: asyncio.Task[HealthView] | None = None
        self._looked_at = float("-inf")

    async def view(self) -> HealthView:
        """The newest look, at most REMEMBERED_S old."""
        now = asyncio.get_running_loop().time()
        if self._look is None or (self._look.done() and now - self._looked_at > REMEMBERED_S):
            self._looked_at = now
            self._look = asyncio.create_task(asyncio.to_thread(self._seen))
        # a look that hangs is left alone, not cancelled: the next caller waits for the same one
        done, _ = await asyncio.wait({self._look}, timeout=PATIENCE_S)
        if not done:
            return HealthView(status="degraded", gateway="unreachable", ledger=self._ledger())
        return self._look.result()

    def _seen(self) -> HealthView:
        try:
            with self._desk.operating() as operations:
                metrics = operations.status().get("metrics") or {}
            is_blocked = metrics.get("blocked") or metrics.get("is_store_down")
            gateway: Literal["ok", "unreachable", "blocked"] = "blocked" if is_blocked else "ok"
        except GatewayDown:
            gateway = "unreachable"
        ledger = self._ledger()
        is_well = (gateway, ledger) == ("ok", "ok")
        return HealthView(status="ok" if is_well else "degraded", gateway=gateway, ledger=ledger)

    def _ledger(self) -> Literal["ok", "unreadable"]:
        try:
            with self._desk.reading():
                return "ok"
        except OutlayError:
            return "unreadable"
