"""The kill path: 500 live streams; one killed at a time, then all. From decision to upstream connection closed.

The provider is the mock in C: streams without an end, two chunks a second each; it notes, on the machine's monotonic
clock, when each of its connections is lost. The gateway says when it decided. Detect (order given to order received),
decide (calls found) and act (closed, settled, told) are the gateway's own figures.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.machine import Cores, child_environment, started_on, waited_ms
from bench.measures import Table
from bench.natives import Mock, running_mock

STREAMS: Final = 500
ONE_BY_ONE: Final = 200
CHUNK_MS: Final = 500
ENDLESS: Final = 100_000
OTHERS_MS: Final = 0.05
"""A kill during which the gateway waited longer for its core says what the machine does, not what the gateway does."""
KEY: Final = "sk-outlay-bench-of-the-kill-path"
_CONFIG: Final = """\
org: bench
gateway: {{port: 0}}
providers:
  - {{name: engine, dialect: openai, self_hosted: true, base_url: "http://127.0.0.1:{port}/v1", models: ["*"],
     max_connections: 4096}}
keys:
  - {{name: bench, secret: "{key}", team: bench}}
budgets:
  - {{name: all, limit_usd: 100000}}
prices:
  - {{kind: custom, provider: engine, model: gpt-4o-mini, usd_per_mtok: {{input: 1, output: 10}}}}
"""


def table(tools: Path, cores: Cores) -> Table:
    """See the module. `tools` holds the compiled mock."""
    found = Table(f"kill: {STREAMS} live streams, ms")
    with (
        running_mock(tools, cores.load) as mock,
        tempfile.TemporaryDirectory(prefix="outlay-bench-kill-") as name,
    ):
        mock.pace(chunks=ENDLESS, chunk_ms=CHUNK_MS)
        before = os.sched_getaffinity(0)
        if cores.load is not None:
            os.sched_setaffinity(0, {cores.load})
        try:
            asyncio.run(_Scene(Path(name), cores, mock, found).play())
        finally:
            os.sched_setaffinity(0, before)
    return found


class _Scene:
    def __init__(self, folder: Path, cores: Cores, mock: Mock, table: Table) -> None:
        self._folder, self._cores, self._mock, self._table = folder, cores, mock, table
        self._live: set[str] = set()
        self._clients: list[asyncio.StreamWriter] = []

    async def play(self) -> None:
        config = self._folder / "outlay.yaml"
        config.write_text(_CONFIG.format(port=self._mock.port, key=KEY))
        config.chmod(0o600)
        with started_on(self._cores.subject):
            process = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
                [sys.executable, "-m", "outlay.app.serve", str(config)],
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(),
            )
        self._pid = process.pid
        try:
            assert process.stdout is not None
            self._port = json.loads(await asyncio.to_thread(process.stdout.readline))["port"]
            await self._measure()
        finally:
            process.send_signal(signal.SIGTERM)
            for writer in self._clients:
                writer.close()
            await asyncio.to_thread(process.communicate)
        self._compare()

    async def _measure(self) -> None:
        from outlay.app.control import ControlClient

        control = ControlClient(self._folder / "outlay.db")
        rows: dict[str, list[float]] = {"detect": [], "decide": [], "act": [], "decision to closed": []}
        await self._open([f"one-{index}" for index in range(STREAMS)])
        waits: list[float] = []
        for index in range(ONE_BY_ONE):
            run = f"one-{index}"
            before = waited_ms(self._pid)
            done = await asyncio.to_thread(self._kill, control, {"run": run})
            waits.append(waited_ms(self._pid) - before)
            await self._note(rows, done, {run})
            await self._open([f"again-{index}"])
        for name, values in rows.items():
            self._table.rows[f"one: {name}"] = _quantiles(values)
        slowest = sorted(zip(rows["decision to closed"], waits, strict=True))[-3:]
        alone = [
            took for took, waited in zip(rows["decision to closed"], waits, strict=True) if waited < OTHERS_MS
        ]
        self._table.rows[f"the same, {len(alone)} with the core its own"] = _quantiles(alone or [0.0])
        told = ", ".join(f"{took:.2f} ({waited:.2f})" for took, waited in slowest)
        self._table.notes.append(
            f"the three slowest of {ONE_BY_ONE}, ms (and for how long of it something else had the"
            f" gateway's core): {told}"
        )
        rows = {name: [] for name in rows}
        everything = set(self._live)
        done = await asyncio.to_thread(self._kill, control, {})
        await self._note(rows, done, everything)
        for name, values in rows.items():
            self._table.rows[f"all {len(everything)}: {name}"] = {"last": max(values)}
        control.close()

    @staticmethod
    def _kill(control: Any, scope: dict[str, str]) -> dict[str, Any]:
        return control.order("kill", scope, "bench", "bench", time.time_ns())  # type: ignore[no-any-return]

    async def _note(self, rows: dict[str, list[float]], done: dict[str, Any], runs: set[str]) -> None:
        lost: dict[str, int] = {}
        while not runs <= lost.keys():
            await asyncio.sleep(0.01)
            lost |= await asyncio.to_thread(self._mock.lost)
        self._live -= runs
        for part in ("detect", "decide", "act"):
            rows[part].append(done[f"{part}_ns"] / 1e6)
        rows["decision to closed"] += [(lost[run] - done["decided_at"]) / 1e6 for run in runs]

    async def _open(self, runs: list[str]) -> None:
        for run in runs:
            body = json.dumps(
                {
                    "model": "gpt-4o-mini",
                    "stream": True,
                    "max_tokens": 4000,
                    "user": run,
                    "messages": [{"role": "user", "content": "x"}],
                }
            ).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            head = f"host: x\r\nauthorization: Bearer {KEY}\r\nx-outlay-run: {run}\r\n"
            start = f"POST /v1/chat/completions HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n"
            writer.write(start.encode() + body)
            self._clients.append(writer)
            task = asyncio.create_task(_drain(reader))
            task.add_done_callback(lambda _done: None)
        self._live |= set(runs)
        while (await asyncio.to_thread(self._mock.counts))["open_streams"] < len(self._live):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _compare(self) -> None:
        """What the ledger booked, against what the provider wrote."""
        from outlay.flow.ledger.reader import LedgerReader

        with LedgerReader(self._folder / "outlay.db") as reader:
            totals = reader.totals()
        chunks = self._mock.counts()["chunks"]
        written = chunks * 10_000
        self._table.notes.append(
            f"booked ${totals['spend_nanos'] / 1e9:.6f} in {totals['charges']} charges,"
            f" open holds {totals['open_holds']}; the provider wrote {chunks} chunks >= as many tokens ="
            f" ${written / 1e9:.6f} of output (the rest: input and run-ahead bounds)"
        )
        assert totals["spend_nanos"] >= written
        self._table.notes.append("gateway alone on its core; provider and clients share the other")


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "last": ordered[-1],
    }
