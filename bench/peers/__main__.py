"""Existing gateways beside Outlay, in one run, on the loopback: `python -m bench.peers [--quick] [--only PART,...]
[--gateways NAME,...] [--env FOLDER] [--markdown FILE] [--json FILE]`. Parts: speed, storms, kills.

The same mock provider and load generator (C) for all, the gateway on one core, mock and load on the other. What cannot
be had is reported as MISSING.
"""

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import machine
from bench.measures import Effort
from bench.natives import Load, Mock, compile_tools, running_mock
from bench.peers import kills, report, speed, storms
from bench.peers.environment import Environment, NotToBeHad, versions
from bench.peers.gateway import Gateway, NotRunning
from bench.peers.litellm import LiteLLM
from bench.peers.subjects import Outlay, Portkey, TensorZero

PARTS = ("speed", "storms", "kills")
GATEWAYS = ("outlay", "tensorzero", "tensorzero-limits", "portkey", "litellm", "litellm-postgres")
_NEEDS = {
    "tensorzero": ("tensorzero",),
    "tensorzero-limits": ("tensorzero",),
    "portkey": ("portkey",),
    "litellm": ("litellm",),
    "litellm-postgres": ("litellm", "prisma"),
}
_BUSY_SHARE = 0.05
_Measure = Callable[[Gateway, Mock, report.Subject], None]
_PROBLEMS = (NotRunning, NotToBeHad, OSError, subprocess.SubprocessError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, measure, print; write the files that were asked for."""
    options = _options(arguments)
    machine.require_linux()
    machine.raise_file_limit()
    cores = machine.choose_cores()
    effort = Effort.of(quick=options.quick)
    found = report.Report(
        facts={"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **machine.describe(cores)},
        versions=versions(),
        effort=f"Medians of {effort.rounds} alternating rounds of {effort.seconds:g} s.",
    )
    with tempfile.TemporaryDirectory(prefix="outlay-peers-") as name:
        folder = Path(name)
        env = Environment(options.env or folder / "env")
        if set(options.gateways) - {"outlay"}:
            print(f"installing into {env.folder}", flush=True)
            env = Environment.at(env.folder)
        compile_tools(folder)
        bystanders = machine.Bystanders()
        run = _Run(folder, cores, env, options.gateways, found)
        if "speed" in options.only:
            run.speeds(effort)
        if "storms" in options.only:
            run.storms(storms.Size(calls=200, at_once=50, budget=20) if options.quick else storms.Size())
        if "kills" in options.only:
            run.kills(
                kills.Size(after_seconds=(2.0,), rounds=2, round_seconds=2.0)
                if options.quick
                else kills.Size()
            )
        found.others_share = bystanders.share(run.outside_seconds)
    if found.others_share > _BUSY_SHARE:
        found.notes.append("SUSPECT: the machine was busy with other work meanwhile.")
    text = report.markdown(found)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)
    if options.json is not None:
        options.json.write_text(found.as_json())
    return 0


def _ended(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short and small: a check of the harness, no figures"
    )
    parser.add_argument("--only", type=_among(PARTS), default=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--gateways", type=_among(GATEWAYS), default=GATEWAYS, help=f"of {', '.join(GATEWAYS)}"
    )
    parser.add_argument("--env", type=Path, help="where the peers are installed, kept for the next run")
    parser.add_argument("--markdown", type=Path, help="write the tables here, too")
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    return parser.parse_args(arguments)


def _among(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parsed(text: str) -> tuple[str, ...]:
        wanted = [one.strip() for one in text.split(",") if one.strip()]
        unknown = sorted(set(wanted) - set(names))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
        return tuple(name for name in names if name in wanted)

    return parsed


class _Run:
    """One run's gateways, started anew for each part: none inherits the memory or the books of the part before."""

    def __init__(
        self, folder: Path, cores: machine.Cores, env: Environment, names: Sequence[str], found: report.Report
    ) -> None:
        self._folder, self._cores, self._env, self._names, self._found = folder, cores, env, names, found
        self._subjects: dict[str, report.Subject] = {}
        self.outside_seconds = 0.0
        """Processor time of databases that were no children of ours."""

    def speeds(self, effort: Effort) -> None:
        """All of them at the same time, as the rounds alternate."""
        with running_mock(self._folder, self._cores.load) as mock:
            running: list[Gateway] = []
            try:
                for name in self._names:
                    gateway = self._made(name, mock, "speed", ["speed"])
                    if gateway is not None:
                        running.append(gateway)
                        if not self._started(gateway, kills.UNREACHED):
                            running.remove(gateway)
                load = Load(self._folder, self._cores.load)
                print(f"speed: {', '.join(one.name for one in running)}", flush=True)
                for name, figures in speed.speeds(load, mock, running, effort).items():
                    self._subjects[name].speed = figures
                    print(f"  {name}: {figures}", flush=True)
            finally:
                for gateway in running:
                    self._stop(gateway)

    def storms(self, size: storms.Size) -> None:
        """Of those with budgets, one at a time."""
        names = [storms.caller_name(kind) for kind in storms.KINDS]

        def measure(gateway: Gateway, mock: Mock, subject: report.Subject) -> None:
            subject.storms = storms.storms(gateway, mock, size)

        self._each("storms", names, size.budget, measure)

    def kills(self, size: kills.Size) -> None:
        """Of those with budgets, one at a time: the books, then the budget."""

        def books(gateway: Gateway, mock: Mock, subject: report.Subject) -> None:
            subject.kills = kills.kills(gateway, mock, size)

        def budget(gateway: Gateway, mock: Mock, subject: report.Subject) -> None:
            subject.rounds = kills.rounds(gateway, mock, size)

        self._each("kills", size.names, kills.UNREACHED, books)
        self._each("rounds", size.names, size.budget, budget)

    def _each(self, part: str, callers: Sequence[str], calls: int, measure: _Measure) -> None:
        """One gateway's failure is a line of the report, not the end of the run."""
        for name in self._names:
            with running_mock(self._folder, self._cores.load) as mock, machine.started_on(self._cores.load):
                gateway = self._made(name, mock, part, callers)
                if gateway is None or not gateway.has_budgets or not self._started(gateway, calls):
                    continue
                subject = self._subjects[gateway.name]
                try:
                    measure(gateway, mock, subject)
                    print(f"{part}: {gateway.name}", flush=True)
                except _PROBLEMS as problem:
                    self._found.missing[f"{gateway.name}, {part}"] = str(problem)
                finally:
                    self._stop(gateway)

    def _stop(self, gateway: Gateway) -> None:
        self.outside_seconds += gateway.outside_seconds()
        gateway.stop()

    def _made(self, name: str, mock: Mock, part: str, callers: Sequence[str]) -> Gateway | None:
        for need in _NEEDS.get(name, ()):
            if need in self._env.missing:
                self._found.missing[name] = f"{need}: {self._env.missing[need]}"
                return None
        folder = self._folder / part / name
        match name:
            case "outlay":
                gateway: Gateway = Outlay(folder, mock, self._cores, callers)
            case "tensorzero" | "tensorzero-limits":
                gateway = TensorZero(
                    folder, mock, self._cores, self._env, with_limits=name.endswith("limits")
                )
            case "portkey":
                gateway = Portkey(folder, mock, self._cores, self._env)
            case _:
                gateway = LiteLLM(
                    folder, mock, self._cores, self._env, with_database=name.endswith("postgres")
                )
        return gateway

    def _started(self, gateway: Gateway, calls: int) -> bool:
        print(f"starting {gateway.name}", flush=True)
        try:
            gateway.start(calls)
        except _PROBLEMS as problem:
            self._found.missing[gateway.name] = f"it did not start: {problem}"
            self._stop(gateway)
            return False
        if gateway.name not in self._subjects:
            unit = "tokens" if gateway.counts_tokens else "money"
            self._subjects[gateway.name] = report.Subject(gateway.name, gateway.setting, unit)
            self._found.subjects.append(self._subjects[gateway.name])
        return True


if __name__ == "__main__":
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, _ended)  # what was started is ended on every way out
    sys.exit(main())
