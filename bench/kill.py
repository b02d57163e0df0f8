"""The kill path: 500 live streams; one killed at a time, then all. From decision to upstream connection closed.

The provider here is an endless stream that notes, on the machine's monotonic clock, when each of its connections is
lost and how many tokens it had written; the gateway says when it decided. Detect (order given to order received),
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

from bench.machine import Cores, child_environment, started_on
from bench.measures import Table

STREAMS: Final = 500
ONE_BY_ONE: Final = 200
CHUNK_S: Final = 0.5
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
  - {{kind: custom, provider: engine, model: m, usd_per_mtok: {{input: 1, output: 10}}}}
"""
_CHUNK: Final = {
    "id": "c",
    "object": "chat.completion.chunk",
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "token "}}],
}
_TOKEN: Final = b"data: %b\n\n" % json.dumps(_CHUNK).encode()


def table(cores: Cores) -> Table:
    """See the module."""
    found = Table(f"kill: {STREAMS} live streams, ms")
    with tempfile.TemporaryDirectory(prefix="outlay-bench-kill-") as name:
        asyncio.run(_Scene(Path(name), cores, found).play())
    return found


class _Engine(asyncio.Protocol):
    """One connection of the endless provider."""

    def __init__(self, scene: "_Scene") -> None:
        self._scene = scene
        self._data = b""
        self.run = ""
        self.tokens = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        if not separator or not body.endswith(b"}"):
            return
        self.run = json.loads(body)["user"]
        self._data = b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head)
        self._tick()

    def _tick(self) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(_TOKEN), _TOKEN))
        self.tokens += 1
        self._scene.tokens += 1
        if self.tokens == 1:
            self._scene.live.add(self.run)
        self._timer = asyncio.get_running_loop().call_later(CHUNK_S, self._tick)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.run:
            self._scene.lost[self.run] = time.monotonic_ns()
            self._scene.live.discard(self.run)


class _Scene:
    def __init__(self, folder: Path, cores: Cores, table: Table) -> None:
        self._folder, self._cores, self._table = folder, cores, table
        self.live: set[str] = set()
        self.lost: dict[str, int] = {}
        self.tokens = 0
        self._clients: list[asyncio.StreamWriter] = []

    async def play(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Engine(self), "127.0.0.1", 0, backlog=1024)
        config = self._folder / "outlay.yaml"
        config.write_text(_CONFIG.format(port=server.sockets[0].getsockname()[1], key=KEY))
        config.chmod(0o600)
        with started_on(self._cores.subject):
            process = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
                [sys.executable, "-m", "outlay.app.serve", str(config)],
                stdout=subprocess.PIPE,
                text=True,
                env=child_environment(),
            )
        try:
            assert process.stdout is not None
            self._port = json.loads(await asyncio.to_thread(process.stdout.readline))["port"]
            await self._measure()
        finally:
            process.send_signal(signal.SIGTERM)
            for writer in self._clients:
                writer.close()
            await asyncio.to_thread(process.communicate)
            server.close()
        self._compare()

    async def _measure(self) -> None:
        from outlay.app.control import ControlClient

        control = ControlClient(self._folder / "outlay.db")
        rows: dict[str, list[float]] = {"detect": [], "decide": [], "act": [], "decision to closed": []}
        await self._open([f"one-{index}" for index in range(STREAMS)])
        for index in range(ONE_BY_ONE):
            run = f"one-{index}"
            done = await asyncio.to_thread(self._kill, control, {"run": run})
            await self._gone({run})
            await self._note(rows, done, [run])
            await self._open([f"again-{index}"])
        for name, values in rows.items():
            self._table.rows[f"one: {name}"] = _quantiles(values)
        rows = {name: [] for name in rows}
        everything = set(self.live)
        done = await asyncio.to_thread(self._kill, control, {})
        await self._gone(everything)
        await self._note(rows, done, sorted(everything))
        for name, values in rows.items():
            self._table.rows[f"all {len(everything)}: {name}"] = {"last": max(values)}
        control.close()

    @staticmethod
    def _kill(control: Any, scope: dict[str, str]) -> dict[str, Any]:
        return control.order("kill", scope, "bench", "bench", time.time_ns())  # type: ignore[no-any-return]

    async def _note(self, rows: dict[str, list[float]], done: dict[str, Any], runs: list[str]) -> None:
        for part in ("detect", "decide", "act"):
            rows[part].append(done[f"{part}_ns"] / 1e6)
        rows["decision to closed"] += [(self.lost[run] - done["decided_at"]) / 1e6 for run in runs]

    async def _open(self, runs: list[str]) -> None:
        for run in runs:
            body = json.dumps(
                {
                    "model": "m",
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
        while not set(runs) <= self.live:  # noqa: ASYNC110 - a state of many connections
            await asyncio.sleep(0.01)

    async def _gone(self, runs: set[str]) -> None:
        while not runs <= self.lost.keys():  # noqa: ASYNC110 - a state of many connections
            await asyncio.sleep(0.005)

    def _compare(self) -> None:
        """What the ledger booked, against what the provider wrote."""
        from outlay.flow.ledger.reader import LedgerReader

        with LedgerReader(self._folder / "outlay.db") as reader:
            totals = reader.totals()
        written = self.tokens * 10_000
        self._table.notes.append(
            f"booked ${totals['spend_nanos'] / 1e9:.6f} in {totals['charges']} charges,"
            f" open holds {totals['open_holds']}; the provider wrote {self.tokens} tokens ="
            f" ${written / 1e9:.6f} of output (the rest: input and run-ahead bounds)"
        )
        assert totals["spend_nanos"] >= written
        self._table.notes.append(
            f"gateway alone on its core; provider and clients share another (pid {os.getpid()})"
        )


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
