"""What steering costs: rate limits, spend velocity and runaway detection on, against the same gateway without; and what
one team's storm on an empty budget does to another team's latency. Both sides alternate, round by round.
"""

import asyncio
import json
import secrets
import statistics
import threading
from pathlib import Path

from bench.machine import Cores, started_on
from bench.measures import Effort, Table
from bench.natives import BODY, Load, LoadResult, Mock
from bench.subjects import Subject, start_outlay

WAITING = 200
"""Calls of the team whose budget is empty that wait at any time."""
POLICIES = """\
policies:
  - {name: pace, scope: {team: bench}, requests_per_minute: 1000000000, tokens_per_minute: 1000000000000,
     parallel: 100000, usd_per_minute: "1000000", usd_per_hour: "1000000"}
  - {name: watch, runaway: warn}
"""


def table(folder: Path, cores: Cores, mock: Mock, load: Load, effort: Effort) -> Table:
    """See the module."""
    found = Table("steering: requests/s at 64 connections, p50/p99 us at 1; and beside a storm")
    url = f"http://127.0.0.1:{mock.port}"
    with started_on(cores.subject):
        plain = _started(folder / "plain", url, "")
        steered = _started(folder / "steered", url, POLICIES)
        busy = _started(folder / "busy", url, "", other_key=secrets.token_hex(16))
    steered.headers["x-outlay-run"] = "nightly"  # type: ignore[index]
    try:
        _compare(found, load, {"plain": plain, "steered": steered}, effort)
        _beside_a_storm(found, load, busy, effort)
    finally:
        for subject in (plain, steered, busy):
            subject.stop()
    return found


def _started(folder: Path, url: str, policies: str, other_key: str = "") -> Subject:
    folder.mkdir()

    def more(text: str) -> str:
        if other_key:
            text = text.replace(
                "keys:\n", f'keys:\n  - {{name: empty, secret: "sk-{other_key}", team: empty}}\n'
            )
            text = text.replace(
                "budgets:\n", 'budgets:\n  - {name: empty, scope: {team: empty}, limit_usd: "0.000001"}\n'
            )
        return text + policies

    subject = start_outlay(folder, url, change=more)
    return Subject(
        subject.name, subject.port, {**subject.headers, "x-other": f"sk-{other_key}"}, subject.process
    )


def _compare(found: Table, load: Load, subjects: dict[str, Subject], effort: Effort) -> None:
    many: dict[str, list[float]] = {name: [] for name in subjects}
    one: dict[str, list[LoadResult]] = {name: [] for name in subjects}
    for _ in range(effort.rounds):
        for name, subject in subjects.items():
            run = _run(load, subject, 64, effort)
            many[name].append(run.per_second)
            one[name].append(_run(load, subject, 1, effort))
    for name in subjects:
        found.rows[name] = {
            "rps c=64": statistics.median(many[name]),
            "p50 us": statistics.median(run.latency.p50 for run in one[name]),
            "p99 us": statistics.median(run.latency.p99 for run in one[name]),
        }
    ratios = [after / before for before, after in zip(many["plain"], many["steered"], strict=True)]
    found.rows["steered"]["of plain"] = statistics.median(ratios)


def _beside_a_storm(found: Table, load: Load, subject: Subject, effort: Effort) -> None:
    quiet, stormy = [], []
    for _ in range(effort.rounds):
        quiet.append(_run(load, subject, 4, effort))
        with _Storm(subject):
            stormy.append(_run(load, subject, 4, effort))
    for name, runs in (("quiet", quiet), ("storm", stormy)):
        found.rows[f"team Y, {name}"] = {
            "p50 us": statistics.median(run.latency.p50 for run in runs),
            "p99 us": statistics.median(run.latency.p99 for run in runs),
        }
    pairs = zip(quiet, stormy, strict=True)
    found.rows["team Y, storm"]["p99 of quiet"] = statistics.median(
        b.latency.p99 / a.latency.p99 for a, b in pairs
    )
    found.notes.append(
        f"storm: {WAITING} connections of a team whose budget is spent, each asking again twice a second"
    )


def _run(load: Load, subject: Subject, connections: int, effort: Effort) -> LoadResult:
    headers = {name: value for name, value in subject.headers.items() if name != "x-other"}
    return load.run(subject.port, headers, connections=connections, seconds=effort.seconds, warmup=0.3)


class _Storm:
    """`WAITING` callers of the empty team, each asking again as soon as it was refused, twice a second."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._play()), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    async def _play(self) -> None:
        body = json.dumps(BODY).encode()
        head = f"host: x\r\nauthorization: Bearer {self._subject.headers['x-other']}\r\ncontent-length: {len(body)}"
        request = f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._subject.port)
            while not self._stopping.is_set():
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(0.5)
            writer.close()

        await asyncio.gather(*(one() for _ in range(WAITING)))
