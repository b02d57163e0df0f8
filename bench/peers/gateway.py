"""What every measured gateway can do: start with budgets, name a payer, be killed, and say what is in its books."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import Cores, cpu_seconds, process_tree, rss_megabytes, started_on
from bench.natives import BODY, PATH, Mock

MODEL = "gpt-4o-mini"
INPUT_TOKENS, OUTPUT_TOKENS = 120, 80
"""What the mock provider bills for a whole call; a broken stream: the share of its chunks that were written."""
INPUT_MICROS, OUTPUT_MICROS = 0.15, 0.60
"""Micro-dollars a token, the public price of the model, which every gateway here knows or is told."""
CALL_MICROS = INPUT_TOKENS * INPUT_MICROS + OUTPUT_TOKENS * OUTPUT_MICROS
CALL_TOKENS = INPUT_TOKENS + OUTPUT_TOKENS
STREAM_CHUNKS = 50
START_SECONDS = 300.0
PROBE = "probe"
"""Whose calls show that a gateway is up, and warm it; no budget covers them."""
_END_SECONDS = 15.0
_LOG_CHARS = 300


class NotRunning(Exception):
    """The gateway did not start, or does not answer; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose calls are paid from budgets of their own."""

    name: str
    headers: Mapping[str, str]
    path: str = PATH
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Over the fields of the usual body."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What the provider metered between two looks."""

    requests: int
    input_tokens: float
    output_tokens: float

    @classmethod
    def between(cls, before: Mapping[str, int], after: Mapping[str, int]) -> "Bill":
        """From two counts of the mock: whole answers cost the same, a stream pays for the chunks it wrote."""
        requests, streams, chunks = (after[name] - before[name] for name in ("requests", "streams", "chunks"))
        output = (requests - streams) * OUTPUT_TOKENS + chunks * OUTPUT_TOKENS / STREAM_CHUNKS
        return cls(requests, requests * INPUT_TOKENS, output)

    def calls_worth(self, *, in_tokens: bool) -> float:
        """In whole calls, by money, or by tokens for a gateway that counts those."""
        if in_tokens:
            return (self.input_tokens + self.output_tokens) / CALL_TOKENS
        return (self.input_tokens * INPUT_MICROS + self.output_tokens * OUTPUT_MICROS) / CALL_MICROS


class Gateway(ABC):
    """One gateway in front of the mock, in a folder of its own, pinned to the subject's core with all its helpers."""

    name: str
    setting: str
    """What it runs with, for the reader of the table."""
    has_budgets = False
    counts_tokens = False
    """Its budgets are of tokens, not of money."""

    def __init__(self, folder: Path, mock: Mock, cores: Cores) -> None:
        self.folder, self.mock, self.cores = folder, mock, cores
        folder.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.stores: list[int] = []
        """Root processes of databases beside it, whose time counts as its own."""

    @abstractmethod
    def start(self, calls: int) -> None:
        """Start with budgets worth so many whole calls for each caller. Raises `NotRunning`."""

    @abstractmethod
    def restart(self) -> None:
        """Start again on what the last start left. Raises `NotRunning`."""

    @abstractmethod
    def caller(self, name: str) -> Caller:
        """A payer with nothing spent yet."""

    def booked(self, caller: Caller) -> float | None:
        """What its books say this caller used, in whole calls' worth; None: it keeps none."""
        return None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def cpu_seconds(self) -> float:
        """Processor time so far, that of the databases beside it included."""
        return sum(cpu_seconds(root) for root in (self.pid, *self.stores))

    def rss_megabytes(self) -> float:
        """Resident memory of its own processes, without databases beside it."""
        return rss_megabytes(self.pid)

    def kill(self) -> None:
        """`kill -9` of the gateway with all its processes; not of the database beside it."""
        if self.process is None:
            return
        _signal(process_tree(self.pid), signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it in order, by force if it does not; subclasses end what stands beside it."""
        if self.process is None:
            return
        pids = process_tree(self.pid)
        _signal(pids, signal.SIGCONT)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        _signal([pid for pid in pids if _is_ours(pid, self.pid)], signal.SIGKILL)
        self.process.wait()
        self.process = None

    def outside_seconds(self) -> float:
        """Processor time of a database that is no child of this process, for the share used by others."""
        return 0.0

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stopped, so that its background work does not disturb the one that is measured."""
        pids = [pid for root in (self.pid, *self.stores) for pid in process_tree(root)]
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    def launch(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start the program, its output into `log` of the folder."""
        with started_on(self.cores.subject), self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=env,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def await_answer(self, caller: Caller) -> None:
        """Until it answers this caller with 200. Raises `NotRunning`."""
        assert self.process is not None
        deadline, problem = time.monotonic() + START_SECONDS, ""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotRunning(f"it ended with {self.process.returncode}: {self.log_end()}")
            problem = refusal(self.port, caller)
            if not problem:
                return
            time.sleep(0.2)
        raise NotRunning(f"no answer within {START_SECONDS:g} s: {problem}")

    def log_end(self) -> str:
        return (
            " ".join(self.log.read_text("utf-8", "replace").split())[-_LOG_CHARS:]
            if self.log.exists()
            else ""
        )


def ask(port: int, caller: Caller) -> bytes:
    """One whole call. Raises `OSError`, of which `HTTPError` is one."""
    body = {name: value for name, value in {**BODY, **caller.changes}.items() if value is not None}
    return post(f"http://127.0.0.1:{port}{caller.path}", body, caller.headers)


def refusal(port: int, caller: Caller) -> str:
    """Why a call does not pass just now; "" if it does."""
    try:
        ask(port, caller)
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code}: {error.read(_LOG_CHARS).decode('utf-8', 'replace')}"
    except OSError as error:
        return str(error)
    return ""


def post(url: str, body: object, headers: Mapping[str, str]) -> bytes:
    """JSON to a loopback address. Raises `OSError`."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **headers}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_ours(pid: int, session: int) -> bool:
    """Still of the session that we started: the number was not given to somebody else meanwhile."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False
