"""Child processes for tests: start one, wait for the JSON line in which it says where it is, end it by its id."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

_END_SECONDS = 10.0
_MAX_OUTPUT_LINES = 10_000
"""Lines of output kept for a failed test's message."""


class ChildProcess:
    """A started child whose output is read in the background, so that it never blocks on a full pipe."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start `command`; `environment` is laid over this process's own."""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.output: list[str] = []
        """Lines of stdout and stderr seen so far."""
        # apart: a library's log in the middle of a line of ours would make it no JSON
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in (self._process.stdout, self._process.stderr)
            if pipe is not None
        ]
        self._open = len(self._readers)
        self._lock = threading.Lock()
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.poll()

    def wait_for_json(self, *, seconds: float = 30.0) -> dict[str, Any]:
        """The next line of output that is a JSON object. Raises `TimeoutError` with the output so far."""
        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                raise TimeoutError(f"no JSON line in {seconds} s; output: {self._tail()}") from None
            if line is None:
                raise ChildProcessError(f"ended with {self._process.wait()}; output: {self._tail()}")
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                return value

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and return the exit status; SIGKILL if it does not end in time."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        for reader in self._readers:
            reader.join()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                if len(self.output) < _MAX_OUTPUT_LINES:
                    self.output.append(line)
                self._lines.put(line)
        with self._lock:
            self._open -= 1
            if not self._open:
                self._lines.put(None)

    def _tail(self) -> str:
        return "\n".join(self.output[-20:])
