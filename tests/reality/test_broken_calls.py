"""Calls that break, at every point, on either side: never $0 when the provider billed, never left held.

Every case is compared with the provider's own meter: `exact` means ledger = meter, `at_least` means ledger >= meter
and the difference is marked as unknown or counted.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, OnClientGone, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget

FAST = Settings(disclose=Disclose.ALL, default_max_output_tokens=200, drain_timeout_s=5)
OPENAI = "/v1/chat/completions"
ANTHROPIC = "/v1/messages"


def request_bytes(path: str, **changes: Any) -> bytes:
    model = "gpt-test" if path == OPENAI else "claude-test"
    data = json.dumps(
        {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}], **changes}
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\nanthropic-version: 2023-06-01\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


Connect = Callable[[RunningGateway], socket.socket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens connections to a gateway and closes what a test left open."""
    with ExitStack() as stack:

        def open_one(gateway: RunningGateway) -> socket.socket:
            port = int(gateway.url.rsplit(":", 1)[1])
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))

        yield open_one


def settled(gateway: RunningGateway, count: int = 1, within_s: float = 10) -> list[ChargeView]:
    """The charges, once there are `count` and nothing is held."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            charges = reader.charges()
            if len(charges) >= count and not reader.totals()["open_holds"]:
                return charges
        time.sleep(0.02)
    raise AssertionError("still held, or not charged")


def assert_exact(gateway: RunningGateway, mock: MockProvider, charge: ChargeView) -> None:
    mock.wait_for(1)
    assert charge.cost_nanos == mock.meter.total_nanos
    assert audit(gateway.path).findings == ()


def assert_at_least(gateway: RunningGateway, mock: MockProvider, charge: ChargeView, basis: str) -> None:
    mock.wait_for(1)
    assert charge.basis == basis
    assert charge.hold_nanos >= charge.cost_nanos >= mock.meter.total_nanos
    assert charge.cost_nanos > 0
    assert audit(gateway.path).findings == ()


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        part = connection.recv(65536)
        if not part:
            raise AssertionError(f"closed before {wanted!r}: {data!r}")
        data += part
    return data


# how far the client reads before it leaves; None: it leaves before the first byte
LEAVING = {
    "before the first byte": None,
    "after the head": b"\r\n\r\n",
    "after one chunk": b"data: ",
    "mid-stream": None,
    "at the end": b"[DONE]",
}


@pytest.mark.parametrize("when", LEAVING)
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_client_leaves_a_stream_that_is_drained(
    connect: Connect, tmp_path: Path, path: str, when: str
) -> None:
    behaviour = {"first_byte_ms": 100, "chunk_ms": 10, "on_client_gone": "full"}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], settings=FAST) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(path, stream=True))
        if when == "mid-stream":
            for _ in range(4):
                read_until(connection, b"data: ")
        elif when == "at the end":
            read_until(connection, b"[DONE]" if path == OPENAI else b"message_stop")
        elif (wanted := LEAVING[when]) is not None:
            read_until(connection, wanted)
        else:
            mock.wait_for_open(1)
        connection.close()
        charge = settled(gateway)[0]
        assert charge.basis == "metered"
        assert_exact(gateway, mock, charge)


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("stream", [False, True])
def test_client_resets_before_the_answer(connect: Connect, tmp_path: Path, path: str, stream: bool) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"first_byte_ms": 200}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], settings=FAST) as gateway,
    ):
        connection = connect(gateway)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.sendall(request_bytes(path, stream=stream))
        mock.wait_for_open(1)
        connection.close()
        assert_exact(gateway, mock, settled(gateway)[0])


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_client_leaves_a_self_hosted_stream_that_is_cancelled(
    connect: Connect, tmp_path: Path, path: str
) -> None:
    behaviour = {"chunk_ms": 20, "on_client_gone": "sent", "output_tokens": 90, "tokens_per_chunk": 2}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "1")],
            settings=FAST,
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
        ) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(path, stream=True))
        for _ in range(4):
            read_until(connection, b"data: ")
        connection.close()
        charge = settled(gateway)[0]
        assert_at_least(gateway, mock, charge, "counted")
        assert charge.cost_nanos < charge.hold_nanos


def test_drain_takes_too_long(connect: Connect, tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, drain_timeout_s=1)
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"failure": "hang", "on_client_gone": "full"}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], settings=settings) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(OPENAI, stream=True))
        read_until(connection, b"data: ")
        connection.close()
        assert_at_least(gateway, mock, settled(gateway)[0], "outcome_unknown")


UPSTREAM_CASES = [
    # behaviour, stream, client sees, basis, exact
    ({"status": 429, "retry_after": "7"}, False, 429, "void", True),
    ({"status": 429}, True, 429, "void", True),
    ({"status": 500}, False, 500, "void", True),
    ({"status": 503}, True, 503, "void", True),
    ({"status": 400}, False, 400, "void", True),
    ({"status": 502}, False, 502, "outcome_unknown", False),
    ({"status": 504, "bill": "full"}, False, 504, "outcome_unknown", False),
    ({"failure": "cut_headers"}, False, 502, "outcome_unknown", False),
    ({"failure": "cut_in_headers", "bill": "full"}, False, 502, "outcome_unknown", False),
    ({"failure": "cut", "bill": "full"}, False, 502, "outcome_unknown", False),
    ({"failure": "cut", "after_chunks": 0}, True, 200, "outcome_unknown", False),
    ({"failure": "cut", "after_chunks": 5, "bill": "full"}, True, 200, "outcome_unknown", False),
    (
        {"failure": "cut", "after_chunks": 5, "reset": True, "bill": "ahead"},
        True,
        200,
        "outcome_unknown",
        False,
    ),
    ({"failure": "cut_json", "after_chunks": 3, "bill": "full"}, True, 200, "outcome_unknown", False),
    ({"failure": "early_end", "after_chunks": 3, "bill": "full"}, True, 200, "outcome_unknown", False),
    ({"failure": "stream_error", "after_chunks": 3, "bill": "full"}, True, 200, "outcome_unknown", False),
    ({"failure": "garbage"}, False, 200, "outcome_unknown", False),
    ({"failure": "truncated_json"}, False, 200, "outcome_unknown", False),
    ({"usage": "omit"}, False, 200, "counted", False),
    ({"usage": "null"}, False, 200, "counted", False),
    ({"usage": "omit"}, True, 200, "counted", False),
    ({"usage": "zero"}, False, 200, "metered", True),
    ({"usage": "zero"}, True, 200, "metered", True),
    ({"framing": "until_close"}, False, 200, "metered", True),
    ({"framing": "until_close"}, True, 200, "metered", True),
    ({"framing": "chunked", "split_bytes": 7}, False, 200, "metered", True),
    ({"split_bytes": 3, "split_seed": 5}, True, 200, "metered", True),
    ({"failure": "close_after"}, False, 200, "metered", True),
]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(("behaviour", "stream", "status", "basis", "exact"), UPSTREAM_CASES)
def test_upstream_breaks(
    connect: Connect,
    tmp_path: Path,
    path: str,
    behaviour: dict[str, Any],
    stream: bool,
    status: int,
    basis: str,
    exact: bool,
) -> None:
    if path == ANTHROPIC and stream and behaviour.get("usage") == "omit":
        pytest.skip("an Anthropic stream always states its usage")
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], settings=FAST) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(path, stream=stream))
        head = read_until(connection, b"\r\n\r\n")
        assert int(head.split()[1]) == status
        charge = settled(gateway)[0]
        connection.close()
        if exact:
            assert charge.basis == basis
            assert_exact(gateway, mock, charge)
        else:
            assert_at_least(gateway, mock, charge, basis)


def test_provider_does_not_listen(connect: Connect, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"http://127.0.0.1:{server.getsockname()[1]}"
    with RunningGateway(tmp_path / "l.db", dead, [budget("all", "1")]) as gateway:
        connection = connect(gateway)
        connection.sendall(request_bytes(OPENAI))
        answer = read_until(connection, b"upstream_unreachable")
        assert answer.startswith(b"HTTP/1.1 502")
        charge = settled(gateway)[0]
        assert (charge.status, charge.cost_nanos) == ("void", 0)


def test_provider_hangs(connect: Connect, tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"failure": "hang_headers"}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], first_byte_timeout_s=1) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(OPENAI))
        answer = read_until(connection, b"upstream_timeout")
        assert answer.startswith(b"HTTP/1.1 504")
        assert_at_least(gateway, mock, settled(gateway)[0], "outcome_unknown")


def test_a_cut_stream_ends_with_the_vendors_error_event(connect: Connect, tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"failure": "cut", "after_chunks": 3}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")]) as gateway,
    ):
        connection = connect(gateway)
        connection.sendall(request_bytes(OPENAI, stream=True))
        assert b'"code":"upstream_failed"' in read_until(connection, b"0\r\n\r\n")


def test_the_gateway_stops_while_streams_are_open(connect: Connect, tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.ALL, shutdown_timeout_s=1)
    with MockProvider(prices=MOCK_PRICES, behaviour={"failure": "hang", "on_client_gone": "full"}) as mock:
        with RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")], settings=settings) as gateway:
            connection = connect(gateway)
            connection.sendall(request_bytes(OPENAI, stream=True))
            read_until(connection, b"data: ")
        with LedgerReader(tmp_path / "l.db") as reader:
            assert reader.totals()["open_holds"] == 0
            assert reader.charges()[0].basis == "outcome_unknown"
        assert audit(tmp_path / "l.db").findings == ()
