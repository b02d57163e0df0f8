"""The alerts' process: follows outlay.yaml, looks at the balances, tells people. Its crash touches no request."""

import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from outlay.app.alerting.watch import EVERY_S, Watch
from outlay.app.control import ControlClient
from outlay.app.operations import ConfigSource
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, OutlayError


def run_alerts(config_path: Path) -> int:
    """Watch until SIGTERM or SIGINT. Returns the exit code: 0, or 2 for a wrong configuration."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    try:
        source = ConfigSource(config_path, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"outlay alerts: {error}\n")
        return 2
    clock, watch, problem = SystemClock(), Watch(), ""
    _log("alerts_watching", rules=len(source.config.declared.alerts.rules))
    while not stopping.wait(EVERY_S):
        config = source.read_if_changed()
        if config is not None:
            source.config = config
        said = ""
        try:
            operations = ControlClient(source.config.local_path, source.config.ledger_place)
            try:
                for alert in watch.look(source.config, operations, clock.now()):
                    _log("alert", id=alert.id, state=alert.state.value, undelivered=len(alert.undelivered))
            finally:
                operations.close()
        except (OutlayError, OSError) as error:
            said = str(error) if isinstance(error, OutlayError) else "the gateway does not answer"
        if said != problem:
            problem = said
            _log("alerts_waiting" if said else "alerts_watching", problem=said)
    _log("alerts_stopped")
    return 0


def _log(event: str, **fields: object) -> None:
    sys.stdout.write(msgspec.json.encode({"event": event, **fields}).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run_alerts(Path(sys.argv[1])))
