"""The neutral events of a streamed answer, and the part of reading a stream that every dialect shares.

A stream is Started once, then deltas, then Finished or Failed once. The deltas of one tool call follow its start
without another call's between them, as all four vendors send them; a stream that mixes calls fails.
"""

from typing import Protocol

import msgspec

from outlay.wire.translate.conversation import Seal, Stop, Tokens, ToolCall, id_core
from outlay.wire.translate.errors import VendorError


class Started(msgspec.Struct, frozen=True):
    """The answer begins; `id` is the core of all ids."""

    id: str
    created: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True):
    """More of a refusal."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More reasoning."""

    text: str


class Sealed(msgspec.Struct, frozen=True):
    """The seal of the reasoning before it, or of what comes next."""

    seal: Seal


class CallStarted(msgspec.Struct, frozen=True):
    """A tool call begins."""

    id: str
    name: str
    is_custom: bool = False


class CallDelta(msgspec.Struct, frozen=True):
    """More arguments of the call begun last."""

    arguments: str


class CallEnded(msgspec.Struct, frozen=True):
    """The call begun last is whole."""


class Finished(msgspec.Struct, frozen=True):
    """The answer is whole."""

    stop: Stop
    stop_sequence: str | None = None
    tokens: Tokens | None = None


class Failed(msgspec.Struct, frozen=True):
    """The provider says that it cannot go on, or what it sent cannot be read."""

    status: int
    error: VendorError


Event = (
    Started
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | Sealed
    | CallStarted
    | CallDelta
    | CallEnded
    | Finished
    | Failed
)


class Encoder(Protocol):
    """Writes neutral events as one client's server-sent events."""

    def write(self, event: Event) -> bytes:
        """The bytes for one event; may be empty."""


class Decoder:
    """Reads one vendor's events; a dialect says what one event's data means (`read`)."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_started = False
        self.core = "0"
        self.calls = 0
        self._open_call: CallStarted | None = None
        self._has_arguments = False
        self._has_refusal = False

    def read(self, data: bytes) -> None:
        """Take one event's data. Raises msgspec's errors for what cannot be read."""
        raise AssertionError("a dialect defines this")

    def close(self) -> None:
        """The upstream closed. Only a dialect without an end mark finishes here."""

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def start(self, answer_id: str, created: int = 0) -> None:
        """The answer's id is known; only the first counts."""
        if not self._is_started:
            self._is_started = True
            self.core = id_core(answer_id)
            self._events.append(Started(self.core, created))

    def add(self, event: TextDelta | RefusalDelta | ReasoningDelta | Sealed) -> None:
        """Content that is no tool call; it ends an open one."""
        self.end_call()
        if isinstance(event, RefusalDelta):
            self._has_refusal = True
        self._events.append(event)

    def begin_call(self, call_id: str, name: str, *, is_custom: bool = False) -> None:
        """A tool call; it ends an open one."""
        self.end_call()
        self._open_call = CallStarted(call_id, name, is_custom)
        self._has_arguments = False
        self.calls += 1
        self._events.append(self._open_call)

    def add_arguments(self, arguments: str) -> None:
        """More arguments of the open call."""
        if not arguments:
            return
        if self._open_call is None:
            self.fail(VendorError("the provider sent arguments of a tool call that is not open"), 502)
            return
        self._has_arguments = True
        self._events.append(CallDelta(arguments))

    def end_call(self) -> None:
        """The open call, if any, is whole. Without arguments it has an empty object: clients parse them."""
        if self._open_call is None:
            return
        if not self._has_arguments and not self._open_call.is_custom:
            self._events.append(CallDelta("{}"))
        self._open_call = None
        self._events.append(CallEnded())

    def finish(self, stop: Stop, tokens: Tokens | None, stop_sequence: str | None = None) -> None:
        """The answer is whole."""
        self.end_call()
        if stop is Stop.END:
            if self.calls:
                stop = Stop.TOOL_CALLS
            elif self._has_refusal:
                stop = Stop.REFUSAL
        self.start("")
        self._events.append(Finished(stop, stop_sequence, tokens))

    def fail(self, error: VendorError, status: int) -> None:
        """The answer will not be whole."""
        self._events.append(Failed(status, error))

    @property
    def has_open_call(self) -> bool:
        """Whether arguments may follow."""
        return self._open_call is not None

    @property
    def has_arguments(self) -> bool:
        """Whether the open call has any yet."""
        return self._has_arguments


def named_call(started: CallStarted, arguments: str) -> ToolCall:
    """A whole call."""
    return ToolCall(started.id, started.name, arguments, started.is_custom)
