"""The demo's two runs in one output, and its exit code."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from outlay.app.demo.screen import Screen


class InvariantBroken(Exception):
    """Something that Outlay promises did not hold; the message says what."""


def run_demo(argv: Sequence[str]) -> int:
    """Run the demo; 0 if every invariant held, 1 if one did not, 2 for wrong arguments.

    Without the packages of `outlay[demo]` the real-model half says what to install and is skipped; asked for alone
    (`--only model`) that is exit code 1.
    """
    parser = argparse.ArgumentParser(prog="outlay demo", description=__doc__)
    parser.add_argument("--only", choices=("firewall", "model"), help="one of the two runs")
    parser.add_argument(
        "--seconds", type=int, default=20, help="length of the workload (default 20, at most 90)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, progress on stderr")
    options = parser.parse_args(argv)
    if not 3 <= options.seconds <= 90:
        parser.error("--seconds takes 3 to 90")
    screen = Screen(sys.stderr if options.json else sys.stdout)
    started = time.monotonic()
    results: dict[str, object] = {}
    code = 0
    # a polite kill unwinds like Ctrl-C, so that no process and no folder stays behind
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="outlay-demo-") as folder:
        try:
            if options.only != "model":
                from outlay.app.demo.firewall import run_firewall

                results["firewall"] = run_firewall(Path(folder), options.seconds, screen)
            if options.only != "firewall":
                code = _run_model(Path(folder), screen, results, is_asked=options.only == "model")
        except InvariantBroken as broken:
            screen.line("")
            screen.line(f"INVARIANT BROKEN: {broken}")
            results["broken"] = str(broken)
            code = 1
        except KeyboardInterrupt:
            screen.line("")
            screen.line("interrupted; everything it started has been stopped")
            return 130
    results["seconds"] = round(time.monotonic() - started)
    if code == 0:
        screen.line("")
        screen.line(f"every invariant held; {results['seconds']} s")
    if options.json:
        sys.stdout.write(json.dumps(results, indent=2) + "\n")
    return code


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run_model(folder: Path, screen: Screen, results: dict[str, object], *, is_asked: bool) -> int:
    from outlay.app.demo.model import missing_packages, run_model

    missing = missing_packages()
    if missing:
        screen.line("")
        screen.line(
            f"(b) real model: skipped, {', '.join(missing)} not installed; pip install 'outlay[demo]'"
        )
        results["model"] = {"skipped": missing}
        return 1 if is_asked else 0
    results["model"] = run_model(folder, screen)
    return 0
