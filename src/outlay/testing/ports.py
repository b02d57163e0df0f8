"""Loopback ports for tests."""

import contextlib
import socket
import time

HOST = "127.0.0.1"
_POLL_SECONDS = 0.01


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; prefer binding port 0 where the server can tell its port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_listener(port: int, *, seconds: float = 10.0) -> None:
    """Wait until something accepts connections on the port; raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=seconds):
            return
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"nothing listens on port {port}")
