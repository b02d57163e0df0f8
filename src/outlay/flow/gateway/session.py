"""Sessions over a WebSocket: what they have in common, and which route begins which."""

from typing import TYPE_CHECKING, Protocol

from outlay.flow.gateway.client import ClientConnection, Request
from outlay.flow.gateway.entries import Memo, known_identity
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.scope import Identity
from outlay.wire.intent import Operation
from outlay.wire.routes import Match

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway


class Session(Protocol):
    """One open socket, as the gateway looks after it."""

    @property
    def identity(self) -> Identity:
        """Who spends; without model and provider where each call names its own."""

    def stop(self, reason: str) -> None:
        """The gateway stops."""

    def cut(self, refusal: Refusal) -> None:
        """An order stops it: say why, settle, close both sides."""

    def overdue(self, now: int) -> None:
        """Time limits; monotonic ns."""


def open_session(  # noqa: PLR0917 - one call site
    gateway: "Gateway", client: ClientConnection, request: Request, memo: Memo, match: Match, rest: bytes
) -> Refusal | None:
    """Accept a WebSocket, or say why not (nothing was written then)."""
    # imported on first use: most gateways never see a WebSocket
    from outlay.flow.gateway.realtime_socket import begin_realtime
    from outlay.flow.gateway.responses_socket import ResponsesSession
    from outlay.flow.gateway.websocket import WebSocket

    if request.header(b"upgrade").lower() != "websocket":
        return Refusal(426, "upgrade_required", "This route is a WebSocket: ask for an upgrade to it.")
    if len(gateway.sessions) >= gateway.settings.max_connections:
        return Refusal(503, "too_many_connections", "The gateway has no room for another session.")
    socket = WebSocket(client.transport, gateway.settings.max_body_bytes, ("realtime",))
    bad = Refusal(400, "bad_websocket", "The WebSocket handshake is not sound.")
    if match.route.operation is Operation.REALTIME:
        # it connects to the provider first: a client that leaves meanwhile must be noticed
        client.answering = socket
        return begin_realtime(gateway, socket, request, memo, rest, bad)
    identity = known_identity(gateway.snapshot, memo.key, memo.caller, "", "")
    if isinstance(identity, Refusal):
        return identity
    session = ResponsesSession(gateway, socket, request, identity)
    if socket.open(request, rest):
        return None
    gateway.sessions.discard(session)
    return bad
