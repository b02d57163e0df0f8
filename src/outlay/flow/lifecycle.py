"""The life of one attempt as a sans-io state machine: events in, one command out. Pure; the gateway is its shell.

Promise 2 lives here: whatever the order of events, exactly one of SETTLE, VOID or nothing-yet is commanded, and
once an attempt has ended every further event is ignored. Streams' chunks do not pass through it: the shell only
tells when the response begins and how it ends.
"""

from enum import IntEnum, auto


class State(IntEnum):
    HOLDING = auto()
    """The hold is decided and on its way to the store; nothing has left."""
    ABANDONED = auto()
    """The client left (or a kill came) while the hold was on its way: void it when it is durable."""
    SENDING = auto()
    """The hold is durable; a connection is being found. No byte has left."""
    SENT = auto()
    """Bytes have left; no response head yet."""
    ANSWERING = auto()
    """The response has begun."""
    DRAINING = auto()
    """The client is gone; the provider's answer is read to its end, for its usage."""
    ENDED = auto()


class Event(IntEnum):
    HOLD_DURABLE = auto()
    HOLD_FAILED = auto()
    REQUEST_SENT = auto()
    RESPONSE_STARTED = auto()
    RESPONSE_ENDED = auto()
    """Whole answer read: success, error status, or a complete stream."""
    UPSTREAM_FAILED = auto()
    """Connect error, reset, time-out, cut: by state it is not sent, no response or cut."""
    CLIENT_GONE = auto()
    KILL_ORDERED = auto()
    """Kill, shutdown after the drain, a drain that takes too long."""


class Command(IntEnum):
    NONE = auto()
    SEND = auto()
    """Open the upstream and send."""
    VOID = auto()
    """End the hold: nothing was billed."""
    REFUSE = auto()
    """The hold never became durable: answer 503; there is nothing to end."""
    SETTLE_ANSWER = auto()
    """End the hold by what the whole answer says (usage, error status, or the NO_USAGE row)."""
    SETTLE_FAILURE = auto()
    """End the hold by the table's row for where it broke, and close the upstream."""
    DRAIN_OR_CANCEL = auto()
    """The client is gone: by the provider's policy read on, or cancel and report KILL_ORDERED."""


_S, _E, _C = State, Event, Command

TRANSITIONS: dict[tuple[State, Event], tuple[State, Command]] = {
    (_S.HOLDING, _E.HOLD_DURABLE): (_S.SENDING, _C.SEND),
    (_S.HOLDING, _E.HOLD_FAILED): (_S.ENDED, _C.REFUSE),
    (_S.HOLDING, _E.CLIENT_GONE): (_S.ABANDONED, _C.NONE),
    (_S.HOLDING, _E.KILL_ORDERED): (_S.ABANDONED, _C.NONE),
    (_S.ABANDONED, _E.HOLD_DURABLE): (_S.ENDED, _C.VOID),
    (_S.ABANDONED, _E.HOLD_FAILED): (_S.ENDED, _C.NONE),
    (_S.SENDING, _E.REQUEST_SENT): (_S.SENT, _C.NONE),
    (_S.SENDING, _E.UPSTREAM_FAILED): (_S.ENDED, _C.VOID),
    (_S.SENDING, _E.CLIENT_GONE): (_S.ENDED, _C.VOID),
    (_S.SENDING, _E.KILL_ORDERED): (_S.ENDED, _C.VOID),
    (_S.SENT, _E.RESPONSE_STARTED): (_S.ANSWERING, _C.NONE),
    (_S.SENT, _E.UPSTREAM_FAILED): (_S.ENDED, _C.SETTLE_FAILURE),
    (_S.SENT, _E.CLIENT_GONE): (_S.DRAINING, _C.DRAIN_OR_CANCEL),
    (_S.SENT, _E.KILL_ORDERED): (_S.ENDED, _C.SETTLE_FAILURE),
    (_S.ANSWERING, _E.RESPONSE_ENDED): (_S.ENDED, _C.SETTLE_ANSWER),
    (_S.ANSWERING, _E.UPSTREAM_FAILED): (_S.ENDED, _C.SETTLE_FAILURE),
    (_S.ANSWERING, _E.CLIENT_GONE): (_S.DRAINING, _C.DRAIN_OR_CANCEL),
    (_S.ANSWERING, _E.KILL_ORDERED): (_S.ENDED, _C.SETTLE_FAILURE),
    (_S.DRAINING, _E.RESPONSE_STARTED): (_S.DRAINING, _C.NONE),
    (_S.DRAINING, _E.RESPONSE_ENDED): (_S.ENDED, _C.SETTLE_ANSWER),
    (_S.DRAINING, _E.UPSTREAM_FAILED): (_S.ENDED, _C.SETTLE_FAILURE),
    (_S.DRAINING, _E.KILL_ORDERED): (_S.ENDED, _C.SETTLE_FAILURE),
}
"""Every meaningful pair. A pair that is missing leaves the state and commands nothing."""

ENDING = frozenset({_C.VOID, _C.REFUSE, _C.SETTLE_ANSWER, _C.SETTLE_FAILURE})
"""Commands that end the hold (REFUSE: the hold that never was)."""


def step(state: State, event: Event) -> tuple[State, Command]:
    """The next state, and what the shell must do."""
    return TRANSITIONS.get((state, event), (state, Command.NONE))
