"""The local socket between the ledger's owner and everyone else on the machine: one JSON line asks, one answers.

The socket lies beside the ledger with mode 0600: who may write the ledger may operate it. Without a running gateway
`open_operations` opens the ledger itself, so the CLI works either way.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from outlay.app.config import load_config
from outlay.app.opening import open_store
from outlay.app.operations import ConfigSource, Operating, Operations
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.place import LedgerPlace
from outlay.flow.ledger.port import StoreInUse
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, NotFound, OutlayError, ReadOnlyObject, StoreError
from outlay.lookup.feed import load_feed

MAX_LINE = 64 * 1024 * 1024
"""Longest question or answer: a quoted request body is the largest."""
MAX_SOCKET_PATH = 100
"""The kernel takes 107 bytes; a few are kept."""
CALL_TIMEOUT_S = 60
METHODS: Final = (
    "put",
    "put_all",
    "delete",
    "rotate_key",
    "apply_policies",
    "objects",
    "resolve",
    "open_with",
    "quote",
    "accept",
    "order",
    "lift",
    "orders",
    "ask",
    "asks",
    "refused_call",
    "grant",
    "deny",
    "raise_budget",
    "end_raise",
    "raises",
    "alerts",
    "keep_alert",
    "acknowledge",
    "status",
)
_ERRORS: Final[Mapping[str, type[OutlayError]]] = {
    "ConfigError": ConfigError,
    "ReadOnlyObject": ReadOnlyObject,
    "NotFound": NotFound,
    "StoreError": StoreError,
    "OutlayError": OutlayError,
}


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    method: str
    arguments: dict[str, Any] = {}


class _AnswerLine(msgspec.Struct, frozen=True):
    result: Any = None
    error: str | None = None
    message: str = ""
    key: str | None = None
    """Of a ConfigError: the field that is wrong."""


def socket_path(ledger: Path) -> Path:
    """Where the owner of a ledger listens: beside it, or in a folder of the user's own if that path is too long."""
    path = ledger.with_name(ledger.name + ".sock")
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    folder = Path(tempfile.gettempdir()) / f"outlay-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.stat(follow_symlinks=False)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StoreError(f"the folder {folder.name} for sockets belongs to someone else")
    return folder / (blake2b(os.fsencode(ledger), digest_size=12).hexdigest() + ".sock")


async def serve_control(operations: Operations, path: Path) -> asyncio.Server:
    """Listen for operations; the caller owns the ledger's lock, so a left-over socket file is nobody's."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(_answered(operations, line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    old = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(answer, path, limit=MAX_LINE)
    finally:
        os.umask(old)


def _answered(operations: Operations, line: bytes) -> _AnswerLine:
    try:
        question = msgspec.json.decode(line, type=_Question)
        if question.method not in METHODS:
            raise ConfigError(f"unknown operation {question.method!r}")
        method: Callable[..., Any] = getattr(operations, question.method)
        return _AnswerLine(result=method(**question.arguments))
    except OutlayError as error:
        name = next(
            (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS), "OutlayError"
        )
        if isinstance(error, ConfigError):
            return _AnswerLine(error=name, message=error.problem, key=error.key)
        return _AnswerLine(error=name, message=str(error))
    except (msgspec.DecodeError, TypeError) as error:
        return _AnswerLine(error="ConfigError", message=f"not an operation: {error}")


class ControlClient:
    """The operations of a running gateway, over its socket. Raises the errors the operation raised there."""

    def __init__(self, ledger: Path, place: LedgerPlace | None = None) -> None:
        """Call the owner of a ledger, whose rows are at `place` if they are not in that file.

        Raises OSError if nobody listens.
        """
        path = socket_path(ledger)
        self._place = ledger if place is None else place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CALL_TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rwb")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def put(self, kind: str, name: str, body: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Operations.put`."""
        return self._call("put", kind=kind, name=name, body=dict(body), actor=actor)  # type: ignore[no-any-return]

    def put_all(self, objects: Sequence[Mapping[str, Any]], actor: str) -> list[dict[str, Any]]:
        """See `Operations.put_all`."""
        return self._call("put_all", objects=[dict(item) for item in objects], actor=actor)  # type: ignore[no-any-return]

    def delete(self, kind: str, name: str, actor: str) -> dict[str, Any]:
        """See `Operations.delete`."""
        return self._call("delete", kind=kind, name=name, actor=actor)  # type: ignore[no-any-return]

    def rotate_key(self, name: str, secret_sha256: str, overlap_s: int, actor: str) -> dict[str, Any]:
        """See `Operations.rotate_key`."""
        return self._call(  # type: ignore[no-any-return]
            "rotate_key", name=name, secret_sha256=secret_sha256, overlap_s=overlap_s, actor=actor
        )

    def apply_policies(
        self,
        objects: Sequence[Mapping[str, Any]],
        actor: str,
        note: str = "",
        prune: Sequence[str] = (),
        *,
        is_plan: bool = False,
    ) -> dict[str, Any]:
        """See `Operations.apply_policies`."""
        return self._call(  # type: ignore[no-any-return]
            "apply_policies",
            objects=[dict(item) for item in objects],
            actor=actor,
            note=note,
            prune=list(prune),
            is_plan=is_plan,
        )

    def objects(self) -> list[dict[str, Any]]:
        """See `Operations.objects`."""
        return self._call("objects")  # type: ignore[no-any-return]

    def resolve(self, charge: str, cost_nanos: int, actor: str, note: str) -> dict[str, Any]:
        """See `Operations.resolve`."""
        return self._call("resolve", charge=charge, cost_nanos=cost_nanos, actor=actor, note=note)  # type: ignore[no-any-return]

    def open_with(self, opening: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Operations.open_with`."""
        return self._call("open_with", opening=dict(opening), actor=actor)  # type: ignore[no-any-return]

    def quote(self, path: str, body: str, key: str | None) -> dict[str, Any]:
        """See `Operations.quote`."""
        return self._call("quote", path=path, body=body, key=key)  # type: ignore[no-any-return]

    def accept(self, code: str) -> bool:
        """See `Operations.accept`."""
        return bool(self._call("accept", code=code))

    def order(
        self, kind: str, scope: Mapping[str, str], reason: str, actor: str, asked_at: int = 0
    ) -> dict[str, Any]:
        """See `Operations.order`."""
        return self._call(  # type: ignore[no-any-return]
            "order", kind=kind, scope=dict(scope), reason=reason, actor=actor, asked_at=asked_at
        )

    def lift(self, name: str, actor: str) -> dict[str, Any]:
        """See `Operations.lift`."""
        return self._call("lift", name=name, actor=actor)  # type: ignore[no-any-return]

    def orders(self) -> list[dict[str, Any]]:
        """See `Operations.orders`."""
        return self._call("orders")  # type: ignore[no-any-return]

    def ask(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Approvals.ask`."""
        return self._call("ask", said=dict(said), actor=actor)  # type: ignore[no-any-return]

    def asks(self, state: str | None = None) -> list[dict[str, Any]]:
        """See `Approvals.asks`."""
        return self._call("asks", state=state)  # type: ignore[no-any-return]

    def refused_call(self, request_id: str) -> dict[str, Any]:
        """See `Approvals.refused_call`."""
        return self._call("refused_call", request_id=request_id)  # type: ignore[no-any-return]

    def grant(self, ask_id: str, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Approvals.grant`."""
        return self._call("grant", ask_id=ask_id, said=dict(said), actor=actor)  # type: ignore[no-any-return]

    def deny(self, ask_id: str, note: str, actor: str) -> dict[str, Any]:
        """See `Approvals.deny`."""
        return self._call("deny", ask_id=ask_id, note=note, actor=actor)  # type: ignore[no-any-return]

    def raise_budget(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Approvals.raise_budget`."""
        return self._call("raise_budget", said=dict(said), actor=actor)  # type: ignore[no-any-return]

    def end_raise(self, raise_id: str, actor: str) -> dict[str, Any]:
        """See `Approvals.end_raise`."""
        return self._call("end_raise", raise_id=raise_id, actor=actor)  # type: ignore[no-any-return]

    def raises(self) -> list[dict[str, Any]]:
        """See `Approvals.raises`."""
        return self._call("raises")  # type: ignore[no-any-return]

    def alerts(self) -> list[dict[str, Any]]:
        """See `Operations.alerts`."""
        return self._call("alerts")  # type: ignore[no-any-return]

    def keep_alert(self, alert: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """See `Operations.keep_alert`."""
        return self._call("keep_alert", alert=dict(alert), actor=actor)  # type: ignore[no-any-return]

    def acknowledge(self, alert_id: str, note: str, actor: str) -> dict[str, Any]:
        """See `Operations.acknowledge`."""
        return self._call("acknowledge", alert_id=alert_id, note=note, actor=actor)  # type: ignore[no-any-return]

    def status(self) -> dict[str, Any]:
        """See `Operations.status`."""
        return self._call("status")  # type: ignore[no-any-return]

    def verify(self) -> dict[str, Any]:
        """See `Operations.verify`; here, from the rows, so that the gateway's loop does not wait for it."""
        return msgspec.to_builtins(audit(self._place))  # type: ignore[no-any-return]

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            self._file.write(msgspec.json.encode(_Question(method, arguments)) + b"\n")
            self._file.flush()
            line = self._file.readline(MAX_LINE)
        except OSError as error:
            raise StoreError(f"the gateway did not answer: {type(error).__name__}") from error
        if not line:
            raise StoreError("the gateway hung up")
        answer = msgspec.json.decode(line, type=_AnswerLine)
        if answer.error is not None:
            kind = _ERRORS.get(answer.error, OutlayError)
            raise (
                kind(answer.message, key=answer.key)
                if issubclass(kind, ConfigError)
                else kind(answer.message)
            )
        return answer.result


class _NoTimers:
    """Books without an event loop: every operation flushes itself."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        return None

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        return None


@contextlib.contextmanager
def open_operations(config_path: Path, environ: Mapping[str, str] | None = None) -> Iterator[Operating]:
    """The running gateway's operations, or the ledger's own if none runs.

    Raises ConfigError for a bad file, StoreError if the ledger is owned by a process that does not answer.
    """
    environment = os.environ if environ is None else environ
    config = load_config(config_path, environment)
    ledger = config.local_path
    try:
        client = ControlClient(ledger, config.ledger_place)
    except OSError:
        client = None
    if client is not None:
        try:
            yield client
        finally:
            client.close()
        return
    clock = SystemClock()
    store = open_store(config, is_guest=True)
    try:
        books = Books(store, clock, _NoTimers())
    except StoreError as error:
        store.abandon()
        if not isinstance(error, StoreInUse):
            raise
        raise StoreInUse(
            f"{error}; give this command where the gateway runs that owns it, or start one here"
        ) from error
    try:
        feed = load_feed(feed_cache(ledger))
        operations = Operations(
            ConfigSource(config_path, environment), store, books, clock, feed, config.ledger_place
        )
        books.configure(operations.snapshot.budgets, operations.snapshot.raises)
        yield operations
    finally:
        books.close()


def feed_cache(ledger: Path) -> Path:
    """Where the compiled price feed is kept: beside the ledger."""
    return ledger.with_name(ledger.name + ".prices")
