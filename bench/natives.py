"""The two C programs: compiled once a run, started on the load's core, their answers as records."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.machine import started_on

SOURCES = Path(__file__).resolve().parent / "native"
_GRACE_SECONDS = 60.0
"""How much longer than asked a load run may take before it counts as hung."""
_HOLD_SECONDS = "20"
"""Time for all streams to open (the load adds 30 s of patience), and for the caller to look."""

PROMPT = "Say something short about ledgers. " * 8
PATH = "/v1/chat/completions"
NOTHING: Mapping[str, Any] = MappingProxyType({})
BODY = {"model": "gpt-4o-mini", "max_tokens": 80, "messages": [{"role": "user", "content": PROMPT}]}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Microseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One run of the load generator."""

    requests: int
    per_second: float
    faults: int
    """Answers that were not 2xx, broke off or never came."""
    latency: Quantiles
    first_event: Quantiles | None
    chunk_lag: Quantiles | None


def compile_tools(folder: Path) -> None:
    """Put `mock` and `load` into the folder. Raises `SystemExit` if there is no C compiler or it refuses."""
    for name in ("mock", "load"):
        command = ["cc", "-O2", "-o", str(folder / name), str(SOURCES / f"{name}.c")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise SystemExit("bench: no C compiler (cc); on Debian: apt-get install gcc libc6-dev") from None
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(command)}\n{done.stderr}")


@dataclass(frozen=True, slots=True)
class Mock:
    """A running mock upstream."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pace(self, *, chunks: int, first_ms: float = 0, chunk_ms: float = 0, answer_ms: float = 0) -> None:
        """How the streams that start from now on come, and when a whole answer does."""
        self._get(f"/_set?chunks={chunks}&first_ms={first_ms}&chunk_ms={chunk_ms}&answer_ms={answer_ms}")

    def counts(self) -> dict[str, int]:
        """`requests`, `streams`, `open_streams`, `chunks` since its start."""
        found: dict[str, int] = self._get("/_count")
        return found

    def lost(self) -> dict[str, int]:
        """Streams that broke off since this was last asked: the body's `user`, and when, in monotonic ns."""
        return {row["user"]: row["at_ns"] for row in self._get("/_lost")}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def running_mock(folder: Path, core: int | None) -> Iterator[Mock]:
    """The mock, on the load's core, ended at the end."""
    with started_on(core):
        process = subprocess.Popen([folder / "mock"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Mock(json.loads(process.stdout.readline())["port"])
    finally:
        process.kill()
        process.communicate()


def request_bytes(
    headers: Mapping[str, str], *, stream: bool, path: str = PATH, changes: Mapping[str, Any] = NOTHING
) -> bytes:
    """One whole HTTP request for a short chat completion; `changes` go over the body's fields, None takes one out."""
    fields = {**BODY, **changes, **({"stream": True} if stream else {})}
    body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Load:
    """Runs the load generator against a port."""

    def __init__(self, folder: Path, core: int | None) -> None:
        self._folder = folder
        self._core = core

    def run(
        self,
        port: int,
        headers: Mapping[str, str],
        *,
        connections: int,
        seconds: float,
        warmup: float = 0,
        stream: bool = False,
        path: str = PATH,
        changes: Mapping[str, Any] = NOTHING,
    ) -> LoadResult:
        """One closed-loop run; `path` and `changes`: see `request_bytes`."""
        request = request_bytes(headers, stream=stream, path=path, changes=changes)
        command = [*self._command(port, request, connections, stream=stream), "--seconds", str(seconds)]
        command += ["--warmup", str(warmup)]
        with started_on(self._core):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=seconds + warmup + _GRACE_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise RuntimeError(f"the load generator ended with {process.returncode}")
        return _parse(output)

    @contextmanager
    def held_streams(
        self, port: int, headers: Mapping[str, str], *, connections: int
    ) -> Iterator[str | None]:
        """Hold so many streams open, each past its first event, while the caller looks; yields what went wrong."""
        command = [
            *self._command(port, request_bytes(headers, stream=True), connections, stream=True),
            "--hold",
            "--seconds",
            _HOLD_SECONDS,
        ]
        with started_on(self._core):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            row = json.loads(process.stdout.readline())
            if row.get("open") == connections:
                yield None
            else:
                faults = {name: row[name] for name in ("not_ok", "broken", "unanswered")}
                yield f"{row['first_event_us']['count']} of {connections} had a first event; faults: {faults}"
        finally:
            process.kill()
            process.communicate()

    def _command(self, port: int, request: bytes, connections: int, *, stream: bool) -> list[str]:
        file = self._folder / ("stream.request" if stream else "plain.request")
        file.write_bytes(request)
        command = [str(self._folder / "load"), "--port", str(port), "--request", str(file)]
        command += ["--connections", str(connections)]
        return [*command, "--stream"] if stream else command


def _parse(output: str) -> LoadResult:
    row: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return LoadResult(
        requests=row["requests"],
        per_second=row["per_second"],
        faults=row["not_ok"] + row["broken"] + row["unanswered"],
        latency=Quantiles(**row["latency_us"]),
        first_event=Quantiles(**row["first_event_us"]) if "first_event_us" in row else None,
        chunk_lag=Quantiles(**row["chunk_lag_us"]) if "chunk_lag_us" in row else None,
    )
