"""What a WebSocket room of the mock and the session that plays it hand to each other.

Holds no vendor's format and no framing.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from outlay.testing.answer import Answer, Identity
from outlay.testing.behaviour import Behaviour
from outlay.testing.call import Ask, Call
from outlay.testing.meter import Tokens


class Beat(NamedTuple):
    """Events that leave together."""

    events: list[str]
    """JSON texts."""
    tokens: int
    """Output tokens generated with them."""


class Turn(msgspec.Struct, gc=False):
    """One answer of a talk, to be played beat by beat; booked before its last beat leaves."""

    answer: Answer
    """Model, ids and tokens for the meter; it has no pieces."""
    behaviour: Behaviour | None
    sequence: int
    beats: list[Beat]
    error_events: list[str] = []
    """What is sent in mid-turn when the failure is `stream_error`."""
    cancelled: Callable[[Tokens], list[str]] | None = None
    """Makes the events of a turn that the client cancels, from what is billed for it."""
    is_done: Callable[[], None] | None = None
    """Called when the turn was played whole."""
    ended: Callable[[], None] | None = None
    """Called when it is over, however it went."""


class Cancel(NamedTuple):
    """The client wants the turn that is being played to end."""

    refused: list[str]
    """Events to send if none is."""


BeginTurn = Callable[[Call], Identity]
"""Begins a turn in the meter, under the call that opened the connection; every turn so begun must be ended."""

Said = list[str] | Turn | Cancel
"""Events to send after what is queued, a turn to play after it, or a cancellation at once."""


class Talk(Protocol):
    """A vendor's side of one WebSocket connection."""

    def opening(self) -> list[str]:
        """Events that greet the client."""
        ...

    def receive(self, message: str) -> list[Said]:
        """What a message of the client leads to."""
        ...


MakeTalk = Callable[[Ask, BeginTurn], Talk]
