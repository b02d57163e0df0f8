"""The console process: `python -m outlay.app.console.main CONFIG`. Binds, serves until SIGTERM or SIGINT."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import uvicorn

from outlay.app.console.application import create_application
from outlay.app.console.desk import Desk
from outlay.app.operations import ConfigSource
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, OutlayError

BACKLOG: Final = 128
MAX_CONCURRENCY: Final = 200
"""Connections and calls at once; above it uvicorn answers 503. People and a metrics scraper need few."""
SHUTDOWN_TIMEOUT_S: Final = 5
KEEPALIVE_S: Final = 30
WARM_PAUSE_S: Final = 0.02
"""Between looks into the ledger at the start: requests go first."""


def run_console(config_path: Path) -> int:
    """Serve until a signal; prints one JSON line with its address on stdout when it listens.

    Returns the exit code: 0 after a stop, 2 for a wrong configuration, 5 if the address cannot be had.
    """
    try:
        source = ConfigSource(config_path, os.environ)
        section = source.config.console
        if not section.admin_token:
            raise ConfigError("is not set; the console needs one", key="console.admin_token")
    except ConfigError as error:
        sys.stderr.write(f"outlay: {error}\n")
        return 2
    try:
        listener = _listen(section.host, section.port)
    except OSError as error:
        sys.stderr.write(f"outlay: the console cannot listen on {section.host}:{section.port}: {error}\n")
        return 5
    desk = Desk(source, SystemClock())
    threading.Thread(target=_warm, args=(desk,), daemon=True).start()
    server = uvicorn.Server(
        uvicorn.Config(
            create_application(desk),
            # no access log: it would hold query strings; errors go to stderr by Python's last-resort handler
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            limit_concurrency=MAX_CONCURRENCY,
            timeout_keep_alive=KEEPALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after its own clean stop: with these handlers that ends in exit code 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    line = {
        "event": "console_listening",
        "host": section.host,
        "port": listener.getsockname()[1],
        "pid": os.getpid(),
    }
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()
    with listener, contextlib.closing(desk):
        server.run(sockets=[listener])
    return 0


def _warm(desk: Desk) -> None:
    """Add up the ledger before somebody looks far back; a request meanwhile reads what it needs itself."""
    with contextlib.suppress(OutlayError):  # no ledger yet: there is nothing to add up
        while desk.rollup.step():
            time.sleep(WARM_PAUSE_S)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


if __name__ == "__main__":
    sys.exit(run_console(Path(sys.argv[1])))
