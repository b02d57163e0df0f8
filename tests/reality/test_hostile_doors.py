"""What a hostile reviewer found at the doors: each test is an attack that once worked."""

import base64
import os
import socket
import struct
import time
from pathlib import Path

from outlay.flow.ledger.audit import audit
from tests.harness import SECRET, RunningGateway
from tests.reality.doors import house
from tests.reality.sdk import charges


def handshake(gateway: RunningGateway, model: str = "talk-test") -> socket.socket:
    """A connection on which a realtime session was asked for and no answer was read."""
    host, port = gateway.url.removeprefix("http://").split(":")
    lines = (
        f"GET /v1/realtime?model={model} HTTP/1.1",
        f"host: {host}",
        f"authorization: Bearer {SECRET}",
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
    )
    connection = socket.create_connection((host, int(port)))
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return connection


def until_nothing_is_held(gateway: RunningGateway) -> None:
    """Wait for every hold and session to end."""
    deadline = time.monotonic() + 10
    while gateway.call(lambda: gateway.books.open_holds or len(gateway.gateway.sessions)):
        assert time.monotonic() < deadline, "a hold or a session is left over"
        time.sleep(0.02)


def test_a_client_that_leaves_during_a_realtime_handshake_leaves_no_hold(tmp_path: Path) -> None:
    """Each such connection held a response's worst case for ever, and broke the gateway's orderly stop."""
    with house(tmp_path, "10") as (mock, gateway):
        for _ in range(5):
            connection = handshake(gateway)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        time.sleep(0.3)
        until_nothing_is_held(gateway)
        assert sum(charge.cost_nanos for charge in charges(gateway)) == mock.meter.total_nanos == 0
    assert audit(tmp_path / "l.db").open_holds == 0
