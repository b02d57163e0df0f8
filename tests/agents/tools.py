"""The coding agents' own command-line tools: installed once from npm at pinned versions, run in a home of their own."""

import os
import platform
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.testing import MockProvider
from tests.harness import RunningGateway

PINNED = {"@anthropic-ai/claude-code": "2.1.197", "@openai/codex": "0.169.0"}
BINARY = {"@anthropic-ai/claude-code": "claude", "@openai/codex": "codex"}
INSTALL_S = 100
RUN_S = 60


def binary(package: str) -> Path:
    """The package's native program, installed on first use; skips the test where npm cannot give it."""
    version = PINNED[package]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outlay-tests"
    folder = cache / f"{BINARY[package]}-{version}"
    found = _program(folder, BINARY[package])
    if found is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not here to install {package}")
    # in a folder of this process first: another run may be installing, too
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    (part / "package.json").write_text('{"private": true}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{package}@{version}"]
    try:
        done = subprocess.run(
            command, cwd=part, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {package} within {INSTALL_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {package}@{version} here: {done.stderr[-300:]}")
    if _program(folder, BINARY[package]) is None:
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    else:
        shutil.rmtree(part)
    found = _program(folder, BINARY[package])
    if found is None:
        pytest.skip(f"{package}@{version} has no program for {platform.machine()}")
    return found


def _program(folder: Path, name: str) -> Path | None:
    """The largest file of that name: beside the program lie small scripts that look for it."""
    found = [path for path in folder.glob(f"node_modules/**/{name}") if path.is_file()]
    largest = max(found, key=lambda path: path.stat().st_size, default=None)
    return largest if largest is not None and largest.stat().st_size > 1_000_000 else None


class Desk(NamedTuple):
    """An empty home and an empty project."""

    home: Path
    project: Path

    @classmethod
    def at(cls, folder: Path) -> "Desk":
        desk = cls(folder / "home", folder / "project")
        desk.home.mkdir()
        desk.project.mkdir()
        return desk

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a tool in the project, with nothing of this process's environment but the path."""
        return subprocess.run(
            command,
            cwd=self.project,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )


def charges(gateway: RunningGateway) -> list[ChargeView]:
    """All charges, oldest first."""
    gateway.call(gateway.books.flush)
    with LedgerReader(gateway.path) as reader:
        return reader.charges()[::-1]


def check_books(gateway: RunningGateway, mock: MockProvider) -> None:
    """Nothing is held, nothing is wrong, and the ledger is the provider's meter to the nano-dollar."""
    mock.wait_for(0)
    gateway.call(gateway.books.flush)
    found = audit(gateway.path)
    assert found.findings == ()
    assert found.open_holds == 0
    assert found.spend_nanos == mock.meter.total_nanos


class Doorway:
    """What stands between a tool and the gateway in many houses: it counts requests, and knows no WebSocket or does."""

    def __init__(self, target: str, *, passes_upgrades: bool = True) -> None:
        address = urlsplit(target)
        self._target = (address.hostname or "", address.port or 0)
        self._passes_upgrades = passes_upgrades
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[str] = []
        """Request lines seen, and `upgrade` behind those that asked for one."""

    def serve(self) -> None:
        """Until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def close(self) -> None:
        """No further connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connection(self, client: socket.socket) -> None:
        """One request a connection: the answer's end is the connection's."""
        with client, socket.create_connection(self._target) as gateway:
            data = b""
            while b"\r\n\r\n" not in data:
                part = client.recv(65536)
                if not part:
                    return
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            is_upgrade = b"upgrade: websocket" in head.lower()
            self.heads.append(lines[0].decode().rpartition(" ")[0] + (" upgrade" if is_upgrade else ""))
            if is_upgrade and not self._passes_upgrades:
                client.sendall(
                    b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                return
            if not is_upgrade:
                lines = [line for line in lines if not line.lower().startswith(b"connection:")]
                lines.append(b"connection: close")
            gateway.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            back = threading.Thread(target=_pipe, args=(gateway, client), daemon=True)
            back.start()
            _pipe(client, gateway)
            back.join(RUN_S)


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def doorway(target: str, *, passes_upgrades: bool = True) -> Iterator[Doorway]:
    """A `Doorway` that serves."""
    door = Doorway(target, passes_upgrades=passes_upgrades)
    thread = threading.Thread(target=door.serve, daemon=True)
    thread.start()
    try:
        yield door
    finally:
        door.close()
        thread.join(10)
