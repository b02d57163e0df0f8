"""What steering costs: spend velocity and runaway detection on, then rate limits too, against the same gateway without,
under the same calls of a run; and what one team's storm on an empty budget does to another team's latency. All sides
alternate, round by round; the processor time of a request is steadier than its rate on a machine that others share.
"""

import secrets
import statistics
from contextlib import nullcontext
from pathlib import Path

from bench.machine import Cores, cpu_seconds, started_on
from bench.measures import Effort, Table
from bench.natives import Load, LoadResult, Mock
from bench.storm import storm
from bench.subjects import Subject, start_outlay

CALLERS = 200
VELOCITY = """\
policies:
  - {name: velocity, scope: {team: bench}, usd_per_minute: "1000000", usd_per_hour: "1000000"}
  - {name: watch, runaway: warn}
"""
RATES = """\
  - {name: pace, scope: {team: bench}, requests_per_minute: 1000000000, tokens_per_minute: 1000000000000,
     parallel: 100000}
"""
WARMUP_SECONDS = 0.3
RUN = {"x-outlay-run": "nightly"}
"""On all sides: detection watches runs, and a run of its own has its price."""


def table(folder: Path, cores: Cores, mock: Mock, load: Load, effort: Effort) -> Table:
    """See the module."""
    found = Table("steering: requests/s at 64 connections, p50/p99 us at 1; and beside a storm")
    url = f"http://127.0.0.1:{mock.port}"
    with started_on(cores.subject):
        plain = _started(folder / "plain", url, "")
        steered = _started(folder / "steered", url, VELOCITY)
        all_of_it = _started(folder / "all", url, VELOCITY + RATES)
        busy = _started(folder / "busy", url, "")
    try:
        subjects = {"plain": plain, "velocity, runaway": steered, "and rates": all_of_it}
        _compare(found, load, subjects, effort)
        _beside_a_storm(found, load, busy, cores, effort)
    finally:
        for subject in (plain, steered, all_of_it, busy):
            subject.stop()
    return found


def _started(folder: Path, url: str, policies: str) -> Subject:
    """The gateway of the other benches, with `policies`, and with two more teams: one whose budget is spent."""
    folder.mkdir()
    secrets_of = {name: f"sk-{secrets.token_hex(16)}" for name in ("rich", "poor")}
    keys = "".join(
        f'  - {{name: {name}, secret: "{value}", team: {name}}}\n' for name, value in secrets_of.items()
    )
    poor = '  - {name: empty, scope: {team: poor}, limit_usd: "0.000001"}\n'

    def more(text: str) -> str:
        return text.replace("keys:\n", "keys:\n" + keys).replace("budgets:\n", "budgets:\n" + poor) + policies

    subject = start_outlay(folder, url, change=more)
    others = {f"x-{name}": value for name, value in secrets_of.items()}
    return Subject(subject.name, subject.port, {**subject.headers, **others}, subject.process)


def _compare(found: Table, load: Load, subjects: dict[str, Subject], effort: Effort) -> None:
    many: dict[str, list[float]] = {name: [] for name in subjects}
    one: dict[str, list[LoadResult]] = {name: [] for name in subjects}
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(2 * effort.rounds):
        for name, subject in subjects.items():
            before = cpu_seconds(subject.process.pid)
            run = _run(load, subject, 64, effort, **RUN)
            # all requests of the run, those of its warm-up included
            cpu[name].append(
                (cpu_seconds(subject.process.pid) - before) / (run.per_second * _seconds(effort))
            )
            many[name].append(run.per_second)
            one[name].append(_run(load, subject, 1, effort, **RUN))
    for name in subjects:
        found.rows[name] = {
            "rps c=64": statistics.median(many[name]),
            "of plain": statistics.median(a / b for a, b in zip(many[name], many["plain"], strict=True)),
            "cpu us": statistics.median(cpu[name]) * 1e6,
            "of plain's": statistics.median(a / b for a, b in zip(cpu[name], cpu["plain"], strict=True)),
            "p50 us": statistics.median(run.latency.p50 for run in one[name]),
            "p99 us": statistics.median(run.latency.p99 for run in one[name]),
        }


def _beside_a_storm(found: Table, load: Load, subject: Subject, cores: Cores, effort: Effort) -> None:
    """Quiet, beside a storm whose calls pass, and beside one whose budget is spent."""
    keys = {"quiet": "", "storm that passes": "x-rich", "storm that is refused": "x-poor"}
    runs: dict[str, list[LoadResult]] = {name: [] for name in keys}
    for _ in range(2 * effort.rounds):
        for name, header in keys.items():
            with storm(subject.port, subject.headers[header], cores, CALLERS) if header else nullcontext():
                runs[name].append(_run(load, subject, 4, effort))
    for name, found_runs in runs.items():
        found.rows[f"team Y, {name}"] = {
            "p50 us": statistics.median(run.latency.p50 for run in found_runs),
            "p99 us": statistics.median(run.latency.p99 for run in found_runs),
            "p99 of quiet": statistics.median(
                run.latency.p99 / quiet.latency.p99
                for run, quiet in zip(found_runs, runs["quiet"], strict=True)
            ),
        }
    found.notes.append(
        f"storm: {CALLERS} callers of another team, each asking again half a second after its answer"
    )


def _run(load: Load, subject: Subject, connections: int, effort: Effort, **more: str) -> LoadResult:
    headers = {
        name: value for name, value in subject.headers.items() if name not in ("x-rich", "x-poor")
    } | more
    return load.run(
        subject.port, headers, connections=connections, seconds=effort.seconds, warmup=WARMUP_SECONDS
    )


def _seconds(effort: Effort) -> float:
    return effort.seconds + WARMUP_SECONDS
