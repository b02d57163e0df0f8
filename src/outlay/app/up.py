"""`outlay up`: starts the gateway and the console as processes of their own, restarts what dies, stops both together.

The supervisor does no work of its own: a crash of the console never touches a request, and a gateway that died is
started again and recovers its holds.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from outlay.app.config import Config, load_config

MAX_RESTARTS = 5
RESTART_WINDOW_S = 60
"""More than `MAX_RESTARTS` deaths within this time end the supervisor: something is wrong that restarts do not mend."""
FINAL_EXITS = frozenset({2})
"""Exit codes that a restart cannot change: the configuration is wrong."""
STOP_TIMEOUT_S = 60
POLL_S = 0.1


class _Child:
    """One supervised process."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self._arguments = arguments
        self._deaths: list[float] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *self._arguments])

    def restart(self) -> bool:
        """Start again, unless it died too often."""
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < RESTART_WINDOW_S] + [now]
        if len(self._deaths) > MAX_RESTARTS:
            return False
        self.process = self._start()
        return True


def run_up(config_path: Path, on_event: Callable[[str], None] = lambda _text: None) -> int:
    """Supervise until SIGTERM or SIGINT. Returns the exit code for the shell.

    Raises ConfigError before anything is started if the configuration is wrong.
    """
    config = load_config(config_path, os.environ)
    path = str(config_path)
    children = [_Child("gateway", ["-m", "outlay.app.serve", path])]
    if console_problem(config) is None:
        children.append(_Child("console", ["-m", "outlay.app.console.main", path]))
    else:
        on_event(f"no console: {console_problem(config)}")
    if config.declared.alerts.rules:
        children.append(_Child("alerts", ["-m", "outlay.app.alerting.main", path]))
    is_stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = 0
    while not is_stopping:
        time.sleep(POLL_S)
        for child in list(children):
            found = child.process.poll()
            if found is None or is_stopping:
                continue
            on_event(f"the {child.name} ended with code {found}")
            if found in FINAL_EXITS or not child.restart():
                if child.name == "gateway":
                    code, is_stopping = (found if found > 0 else 1), True
                else:
                    children.remove(child)
    for child in children:
        _stop(child.process)
    return code


def console_problem(config: Config) -> str | None:
    """Why the console cannot start, None if it can."""
    if not config.console.admin_token:
        return "console.admin_token is not set"
    if importlib.util.find_spec("fastapi") is None:
        return "install outlay[console] for it"
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
