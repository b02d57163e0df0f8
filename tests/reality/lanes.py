"""Every way a streamed call can go: the client's dialect, the provider's dialect, and what the client was told.

The streams are read here byte by byte, with no vendor's SDK and no reader of ours in between: an end that a lenient
reader would forgive is an end that some client takes for a whole answer.
"""

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from botocore.eventstream import EventStreamBuffer

from outlay.flow.gateway.snapshot import Disclose, ModelRoute, OnClientGone, Provider, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from outlay.testing.meter import MeterEntry
from outlay.wire.intent import Dialect, Operation
from tests import world
from tests.harness import SECRET, RunningGateway, budget
from tests.reality.doors import CLAUDE
from tests.reality.test_broken_calls import settled

SETTINGS = Settings(disclose=Disclose.ALL, drain_timeout_s=10)
LIMIT = 400
"""Output tokens that every call asks for at most."""
HELLO = [{"role": "user", "content": "hello"}]
_PART = 65536


class Server(NamedTuple):
    """A provider that speaks one dialect only."""

    dialect: Dialect
    model: str
    prices: str
    apis: tuple[Operation, ...] = ()


SERVERS: dict[str, Server] = {
    "chat": Server(Dialect.OPENAI, "gpt-test", "openai", (Operation.CHAT,)),
    "completions": Server(Dialect.OPENAI, "instruct-test", "openai", (Operation.COMPLETIONS,)),
    "responses": Server(Dialect.OPENAI, "gpt-test", "openai", (Operation.RESPONSES,)),
    "messages": Server(Dialect.ANTHROPIC, "claude-test", "anthropic"),
    "gemini": Server(Dialect.GOOGLE, "gemini-test", "google"),
    "bedrock": Server(Dialect.BEDROCK, CLAUDE, "bedrock"),
}
_CONVERSE = [{"role": "user", "content": [{"text": "hello"}]}]
FORMS: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    # model -> path and body
    "chat": lambda model: (
        "/v1/chat/completions",
        {"model": model, "messages": HELLO, "max_tokens": LIMIT, "stream": True},
    ),
    "chat with usage": lambda model: (
        "/v1/chat/completions",
        {
            "model": model,
            "messages": HELLO,
            "max_tokens": LIMIT,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    "completions": lambda model: (
        "/v1/completions",
        {"model": model, "prompt": "once", "max_tokens": LIMIT, "stream": True},
    ),
    "responses": lambda model: (
        "/v1/responses",
        {"model": model, "input": "hello", "max_output_tokens": LIMIT, "stream": True},
    ),
    "messages": lambda model: (
        "/v1/messages",
        {"model": model, "messages": HELLO, "max_tokens": LIMIT, "stream": True},
    ),
    "gemini": lambda model: (
        f"/v1beta/models/{model}:streamGenerateContent?alt=sse",
        {
            "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
            "generationConfig": {"maxOutputTokens": LIMIT},
        },
    ),
    "converse": lambda model: (
        f"/model/{model}/converse-stream",
        {"messages": _CONVERSE, "inferenceConfig": {"maxTokens": LIMIT}},
    ),
    "invoke": lambda model: (
        f"/model/{model}/invoke-with-response-stream",
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": LIMIT, "messages": HELLO},
    ),
}
"""Streamed calls, as each vendor spells them."""
_OWN = {"chat with usage": "chat", "converse": "bedrock", "invoke": "bedrock"}
_TRANSLATED = ("chat", "responses", "messages", "gemini")


class Lane(NamedTuple):
    """A client's form and the server behind it."""

    form: str
    server: str

    @property
    def is_translated(self) -> bool:
        """Whether the client and the server speak different dialects."""
        return _OWN.get(self.form, self.form) != self.server

    def __str__(self) -> str:
        return f"{self.form}->{self.server}"


PASSED = [Lane(form, _OWN.get(form, form)) for form in FORMS]
TRANSLATED = [Lane(form, server) for form in _TRANSLATED for server in _TRANSLATED if form != server]
LANES = [*PASSED, *TRANSLATED, Lane("chat with usage", "messages"), Lane("chat with usage", "gemini")]


class End(StrEnum):
    """How a stream ended for its client."""

    WHOLE = "whole"  # with the dialect's end mark
    ERROR = "error"  # with the dialect's error event
    OPEN = "open"  # with neither
    BROKEN = "broken"  # the connection ended before the answer did


class Seen(NamedTuple):
    """What came off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool
    """The transfer ended as HTTP says."""

    def end(self, form: str) -> End:
        """How the stream ended; raises AssertionError if it is not well-formed."""
        if not self.is_complete:
            return End.BROKEN
        events = _frames(self.body) if form in ("converse", "invoke") else _events(self.body)
        return _end(form, events[-1]) if events else End.OPEN


def providers(url: str, prefix: str, **changes: Any) -> tuple[Provider, ...]:
    """One provider for each of `SERVERS`, all of them at `url`."""
    found = []
    for name, server in SERVERS.items():
        shared: dict[str, Any] = {"api_key": "mock-key", "send_request_id": True, **changes}
        if server.dialect is Dialect.BEDROCK:
            shared |= {
                "api_key": "",
                "aws_region": "us-east-1",
                "aws_access_key_id": "AKIDEXAMPLE",
                "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            }
        base = url + "/v1" if server.dialect is Dialect.OPENAI else url
        found.append(
            Provider(
                f"{prefix}-{name}",
                server.dialect,
                base,
                price_source=server.prices,
                apis=server.apis,
                **shared,
            )
        )
    return tuple(found)


def routes(prefix: str) -> tuple[ModelRoute, ...]:
    """A model name for each of those providers: the provider's own."""
    return tuple(
        ModelRoute(f"{prefix}-{name}", f"{prefix}-{name}", server.model) for name, server in SERVERS.items()
    )


class Rig:
    """One mock and one gateway for many cases; each case is checked by itself."""

    def __init__(self, mock: MockProvider, gateway: RunningGateway) -> None:
        self.mock, self.gateway = mock, gateway
        self._last = ""
        """Id of the newest charge that was checked."""

    def behave(self, **changes: Any) -> None:
        """Begin a case. One that failed before it leaves nothing to this one."""
        self._last = max((charge.id for charge in settled(self.gateway, 0)), default="")
        self.mock.service.reset()
        self.mock.behave(**changes)

    def wait_for_a_call(self) -> None:
        """Until the provider has one: still open, or, on a busy machine, already done."""
        until = time.monotonic() + 10
        while not (self.mock.meter.open_requests or self.mock.meter.all.requests):
            assert time.monotonic() < until, "no call came"
            time.sleep(0.002)

    def charges(self, count: int, within_s: float = 10) -> list[ChargeView]:
        """The charges of this case, once there are `count` and nothing is held."""
        until = time.monotonic() + within_s
        while True:
            found = [charge for charge in settled(self.gateway, 0) if charge.id > self._last]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, "not charged"
            time.sleep(0.01)

    def check(self, *bases: str) -> tuple[ChargeView, MeterEntry]:
        """One attempt, one charge, of one of these bases: the provider's own figure, or marked and not below it."""
        (charge,) = self.charges(1)
        (entry,) = self.mock.wait_for(1)
        assert_covered(charge, entry)
        assert charge.basis in bases, (charge.basis, charge.reason)
        self._last = charge.id
        return charge, entry


def assert_covered(charge: ChargeView, entry: MeterEntry) -> None:
    """The charge of an attempt is what its provider billed, or more and marked."""
    assert entry.outlay_request_id == f"req_{charge.request_id}"
    assert entry.priced
    assert charge.cost_nanos <= charge.hold_nanos
    if charge.basis in ("metered", "void"):
        assert charge.cost_nanos == entry.cost_nanos
    else:
        assert charge.basis in ("outcome_unknown", "counted", "ceiling")
        assert charge.cost_nanos >= entry.cost_nanos
        assert charge.cost_nanos > 0


@contextmanager
def rig_of(folder: Path) -> Iterator[Rig]:
    """`hosted-*` providers are drained when a client leaves, `self-*` ones are cancelled and bill what they made."""
    with (
        MockProvider(
            prices=world.meter_prices(), models=world.MODELS, behaviour={"output_tokens": 40}
        ) as mock,
        RunningGateway(
            folder / "l.db",
            mock.url,
            [budget("all", "1000")],
            price_book=world.book(),
            upstreams=(
                *providers(mock.url, "hosted"),
                *providers(mock.url, "self", billing=Billing.SELF_HOSTED, on_client_gone=OnClientGone.CANCEL),
            ),
            models=(*routes("hosted"), *routes("self")),
            settings=SETTINGS,
        ) as gateway,
    ):
        yield Rig(mock, gateway)
        report = audit(gateway.path)
        assert (report.findings, report.open_holds) == ((), 0)


# -- the wire ---------------------------------------------------------------------------------------------------------


def request_bytes(form: str, model: str) -> bytes:
    """A call as it leaves a client that wants the connection closed after it."""
    path, body = FORMS[form](model)
    data = json.dumps(body).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        "host: x",
        f"x-outlay-key: {SECRET}",
        "anthropic-version: 2023-06-01",
        "content-type: application/json",
        "connection: close",
        f"content-length: {len(data)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@contextmanager
def calling(url: str, form: str, model: str) -> Iterator[socket.socket]:
    """A call that has been sent; the connection closes behind it."""
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_bytes(form, model))
        yield connection


def call(url: str, form: str, model: str) -> Seen:
    """A call read to its end."""
    with calling(url, form, model) as connection:
        return seen(_read_all(connection))


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(_PART):
            parts.append(part)
    except ConnectionResetError:
        pass  # what came before it stays
    return b"".join(parts)


def seen(raw: bytes) -> Seen:
    """An answer off the wire, however far it got."""
    head, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        return Seen(0, {}, b"", False)
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if headers.get("transfer-encoding") != "chunked":
        return Seen(status, headers, rest, len(rest) == int(headers["content-length"]))
    body, is_complete = b"", False
    while rest and not is_complete:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        is_complete = length == 0 and rest == b"\r\n"
        rest = rest[length + 2 :]
    return Seen(status, headers, body, is_complete)


def _events(body: bytes) -> list[Any]:
    """The data of every event; a body that does not end on an event's border is not well-formed."""
    text = body.decode().replace("\r\n", "\n")
    assert not text or text.endswith("\n\n"), f"ends within an event: {text[-200:]!r}"
    found: list[Any] = []
    for event in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        data = fields["data"]
        found.append(data if data == "[DONE]" else json.loads(data))
        if "event" in fields:
            assert fields["event"] == found[-1]["type"]
    return found


def _frames(body: bytes) -> list[Any]:
    """The events of AWS's binary stream, by AWS's own reader, as (`:message-type`, type, payload)."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    found: list[Any] = []
    size = 0
    for message in buffer:
        size += message.prelude.total_length
        kind = message.headers.get(":event-type") or message.headers.get(":exception-type")
        found.append((message.headers[":message-type"], kind, json.loads(message.payload)))
    assert size == len(body), "ends within a frame"
    return found


_RESPONSE_ENDS = {
    "response.completed": End.WHOLE,
    "response.incomplete": End.WHOLE,
    "response.failed": End.ERROR,
    "error": End.ERROR,
}
_MESSAGE_ENDS = {"message_stop": End.WHOLE, "error": End.ERROR}


def _end(form: str, last: Any) -> End:
    """What the last event says."""
    match form:
        case "converse" | "invoke":
            message, kind, payload = last
            if message == "exception":
                assert kind.endswith("Exception")
                assert payload["message"]
                return End.ERROR
            if form == "invoke":
                inner = json.loads(base64.b64decode(payload["bytes"]))
                return _MESSAGE_ENDS.get(inner["type"], End.OPEN)
            return End.WHOLE if kind == "metadata" else End.OPEN
        case "responses":
            return _RESPONSE_ENDS.get(last["type"], End.OPEN)
        case "messages":
            return _MESSAGE_ENDS.get(last["type"], End.OPEN)
    if last == "[DONE]":
        return End.WHOLE
    if "error" in last:
        assert last["error"]["message"]
        return End.ERROR
    if form == "gemini" and last["candidates"][0].get("finishReason"):
        return End.WHOLE
    return End.OPEN
