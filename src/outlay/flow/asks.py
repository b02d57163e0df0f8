"""Asks: somebody whose call was refused asks for more, and somebody else decides. Records only; pure."""

from enum import StrEnum

import msgspec

from outlay.flow.raises import Values
from outlay.flow.scope import Identity


class AskState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"


class RefusedCall(msgspec.Struct, frozen=True, gc=False):
    """A call that was refused for want of money or because it is paused: what a raise can be asked for."""

    request_id: str
    at: int
    """UTC ns."""
    identity: Identity
    code: str
    budget: str = ""
    values: Values = ()
    """Scope values of the account that refused; empty for an order."""
    order: str = ""
    """Name of the order that paused it."""
    limit_nanos: int = 0
    spent_nanos: int = 0
    held_nanos: int = 0
    needed_nanos: int = 0


class Ask(msgspec.Struct, frozen=True):
    """A request for a raise, or to let something paused go on. Amounts in nanos, times in UTC ns."""

    id: str
    state: AskState
    requester: str
    """`key:NAME` of a caller, or the person who typed it."""
    reason: str
    at: int
    wanted_nanos: int
    """More than the limit; 0: only to go on."""
    hours: int
    """For how long; 0: until the window ends."""
    request_id: str = ""
    code: str = ""
    budget: str = ""
    values: Values = ()
    order: str = ""
    org: str = ""
    team: str = ""
    run: str = ""
    """Of the refused call, for who may decide."""
    limit_nanos: int | None = None
    spent_nanos: int | None = None
    held_nanos: int | None = None
    needed_nanos: int | None = None
    decided_by: str = ""
    decided_at: int = 0
    note: str = ""
    raise_id: str = ""
    granted_nanos: int = 0
    until: int = 0
