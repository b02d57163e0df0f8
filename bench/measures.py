"""The measurements. Each alternates the subjects round by round and keeps the median, so that a slow minute of the
machine meets all of them; figures of one round are never compared across runs."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.machine import child_environment, cpu_seconds, rss_megabytes
from bench.natives import Load, LoadResult, Mock, Quantiles
from bench.subjects import DIRECT, OUTLAY, RAW, Subject

CONNECTIONS = (1, 16, 64)
STREAM_CHUNKS = 50
STREAM_CONNECTIONS = 16
PACED_FIRST_MS, PACED_CHUNK_MS = 50, 20
HELD_STREAMS = 1000
_SETTLE_SECONDS = 1.0
"""After the last stream opened and before its memory is read."""
Result = TypeVar("Result")
_WEB_FRAMEWORKS = ("fastapi", "starlette", "uvicorn", "pydantic", "jinja2", "aiohttp", "flask", "django")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often."""

    rounds: int
    seconds: float

    @classmethod
    def of(cls, *, quick: bool) -> "Effort":
        return cls(rounds=1, seconds=1.0) if quick else cls(rounds=5, seconds=3.0)


@dataclass(slots=True)
class Table:
    """One measurement: figures by subject, and notes for the reader."""

    title: str
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def throughput(load: Load, subjects: Sequence[Subject], effort: Effort) -> Table:
    """Non-streaming requests/s, closed loop, at 1, 16 and 64 connections."""
    table = Table("throughput: requests/s, not streaming")

    def with_connections(count: int) -> Callable[[Subject], LoadResult]:
        def one(subject: Subject) -> LoadResult:
            return load.run(
                subject.port, subject.headers, connections=count, seconds=effort.seconds, warmup=0.5
            )

        return one

    for count in CONNECTIONS:
        results = _alternated(subjects, effort.rounds, with_connections(count))
        for name, runs in results.items():
            row = table.rows.setdefault(name, {})
            row[f"rps c={count}"] = statistics.median(run.per_second for run in runs)
            if count == CONNECTIONS[-1]:
                row[f"p99 ms c={count}"] = statistics.median(run.latency.p99 for run in runs) / 1e3
            _note_faults(table, name, runs)
    for name in (RAW, OUTLAY):
        if name in table.rows:
            for count in CONNECTIONS:
                key = f"rps c={count}"
                table.rows[name][f"of direct c={count}"] = table.rows[name][key] / table.rows[DIRECT][key]
    if OUTLAY in table.rows:
        for count in CONNECTIONS:
            key = f"rps c={count}"
            table.rows[OUTLAY][f"of raw c={count}"] = table.rows[OUTLAY][key] / table.rows[RAW][key]
    return table


def latency(load: Load, subjects: Sequence[Subject], effort: Effort) -> Table:
    """What a subject adds to one call at a time: its quantile minus the direct one of the same round."""
    table = Table("added latency at 1 connection: through minus direct, microseconds")

    def one(subject: Subject) -> LoadResult:
        return load.run(subject.port, subject.headers, connections=1, seconds=effort.seconds, warmup=0.5)

    results = _alternated(subjects, effort.rounds, one)
    direct = results[DIRECT]
    for name, runs in results.items():
        row = table.rows[name] = {
            "p50 us": statistics.median(run.latency.p50 for run in runs),
            "p99 us": statistics.median(run.latency.p99 for run in runs),
        }
        if name != DIRECT:
            for quantile in ("p50", "p99"):
                row[f"added {quantile} us"] = statistics.median(
                    getattr(run.latency, quantile) - getattr(base.latency, quantile)
                    for run, base in zip(runs, direct, strict=True)
                )
        _note_faults(table, name, runs)
    _ratio(table, OUTLAY, RAW, "added p50 us", "added p50 of raw")
    return table


def streaming(load: Load, mock: Mock, subjects: Sequence[Subject], effort: Effort) -> Table:
    """Added time to the first event, lag of each chunk, and the subject's CPU time for a chunk."""
    table = Table(f"streaming: {STREAM_CHUNKS} chunks a stream")

    def at_once(subject: Subject) -> tuple[LoadResult, float]:
        return _with_cpu(
            subject,
            lambda: load.run(
                subject.port,
                subject.headers,
                connections=STREAM_CONNECTIONS,
                seconds=effort.seconds,
                stream=True,
            ),
        )

    def first_event(subject: Subject) -> LoadResult:
        return load.run(
            subject.port, subject.headers, connections=1, seconds=effort.seconds, warmup=0.3, stream=True
        )

    mock.pace(chunks=STREAM_CHUNKS)
    singles = _alternated(subjects, effort.rounds, first_event)
    bursts = _alternated(subjects, effort.rounds, at_once)
    mock.pace(chunks=STREAM_CHUNKS, first_ms=PACED_FIRST_MS, chunk_ms=PACED_CHUNK_MS)
    paced = _alternated(subjects, effort.rounds, at_once)
    for name in singles:
        row = table.rows.setdefault(name, {})
        row["first event us"] = statistics.median(_first(run).p50 for run in singles[name])
        if name != DIRECT:
            row["added us"] = statistics.median(
                _first(run).p50 - _first(base).p50
                for run, base in zip(singles[name], singles[DIRECT], strict=True)
            )
        row["streams/s"] = statistics.median(run.per_second for run, _ in bursts[name])
        row["paced lag p50 us"] = statistics.median(_lag(run).p50 for run, _ in paced[name])
        row["paced lag p99 us"] = statistics.median(_lag(run).p99 for run, _ in paced[name])
        if name != DIRECT:
            row["cpu us/chunk burst"] = statistics.median(
                cpu / _lag(run).count * 1e6 for run, cpu in bursts[name]
            )
            row["cpu us/chunk paced"] = statistics.median(
                cpu / _lag(run).count * 1e6 for run, cpu in paced[name]
            )
        _note_faults(
            table, name, [*singles[name], *(run for run, _ in bursts[name]), *(run for run, _ in paced[name])]
        )
    table.notes.append(
        f"first event: all chunks at once, 1 connection; burst: the same, {STREAM_CONNECTIONS} connections; "
        f"paced: first chunk after {PACED_FIRST_MS} ms, then each {PACED_CHUNK_MS} ms, {STREAM_CONNECTIONS} connections"
    )
    for key in ("cpu us/chunk burst", "cpu us/chunk paced", "added us"):
        _ratio(table, OUTLAY, RAW, key, f"{key} of raw")
    return table


def memory(load: Load, mock: Mock, subjects: Sequence[Subject]) -> Table:
    """Resident memory of the subject's processes, idle and with 1,000 streams open. Run it on fresh subjects."""
    table = Table(f"memory: resident MB of all processes, idle and with {HELD_STREAMS} open streams")
    mock.pace(chunks=100, first_ms=0, chunk_ms=1000)
    for subject in subjects:
        if subject.pid is None:
            continue
        row = table.rows[subject.name] = {"idle MB": rss_megabytes(subject.pid)}
        with load.held_streams(subject.port, subject.headers, connections=HELD_STREAMS) as problem:
            if problem is not None:
                table.notes.append(f"{subject.name}: {HELD_STREAMS} streams could not be opened: {problem}")
                continue
            time.sleep(_SETTLE_SECONDS)
            row[f"MB with {HELD_STREAMS}"] = rss_megabytes(subject.pid)
            row["KB a stream"] = (row[f"MB with {HELD_STREAMS}"] - row["idle MB"]) * 1e3 / HELD_STREAMS
    _ratio(table, OUTLAY, RAW, "idle MB", "idle of raw")
    return table


def startup(effort: Effort) -> Table:
    """Wall time of `outlay --help` beside a bare interpreter, and what `import outlay` drags in."""
    table = Table("start: wall time of a command, milliseconds")
    bare = [sys.executable, "-c", "pass"]
    program = Path(sys.executable).parent / "outlay"
    rounds = max(3, effort.rounds)
    commands = {"python -c pass": bare}
    if _runs([str(program), "--help"]):
        commands["outlay --help"] = [str(program), "--help"]
    else:
        table.notes.append("outlay --help: this build has no such command yet")
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begun = time.perf_counter()
            _runs(command)
            times[name].append((time.perf_counter() - begun) * 1e3)
    for name, values in times.items():
        table.rows[name] = {"ms": statistics.median(values)}
        table.rows[name]["of bare python"] = table.rows[name]["ms"] / table.rows["python -c pass"]["ms"]
    code = (
        f"import json, sys, outlay; print(json.dumps([n for n in {_WEB_FRAMEWORKS!r} if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    dragged = json.loads(done.stdout) if done.returncode == 0 else [done.stderr.strip()]
    table.notes.append(f"import outlay: web frameworks imported: {', '.join(dragged) or 'none'}")
    return table


def _runs(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, env=child_environment(), check=False, timeout=60)
    except OSError:
        return False
    return done.returncode == 0


def _alternated(
    subjects: Sequence[Subject], rounds: int, measure: Callable[[Subject], Result]
) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            results[subject.name].append(measure(subject))
    return results


def _with_cpu(subject: Subject, run: Callable[[], LoadResult]) -> tuple[LoadResult, float]:
    before = 0.0 if subject.pid is None else cpu_seconds(subject.pid)
    result = run()
    return result, 0.0 if subject.pid is None else cpu_seconds(subject.pid) - before


def _first(run: LoadResult) -> Quantiles:
    assert run.first_event is not None
    return run.first_event


def _lag(run: LoadResult) -> Quantiles:
    assert run.chunk_lag is not None
    return run.chunk_lag


def _ratio(table: Table, name: str, baseline: str, key: str, label: str) -> None:
    if name in table.rows and table.rows[baseline].get(key):
        table.rows[name][label] = table.rows[name][key] / table.rows[baseline][key]


def _note_faults(table: Table, name: str, runs: Sequence[LoadResult]) -> None:
    faults = sum(run.faults for run in runs)
    if faults:
        table.notes.append(f"{name}: {faults} answers were not 2xx or broke off: its figures are void")
