"""What one caller, one provider or one text could stop or fill: sockets that are not read, absurd usage, odd names."""

import asyncio
import json
import select
import socket
from pathlib import Path

import pytest

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.kernel.errors import StoreError
from outlay.testing import MockProvider
from tests.fuzz.raw_upstream import GOOD, RawUpstream
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget
from tests.reality.doors import house
from tests.reality.load import post
from tests.reality.test_hostile_doors import handshake, masked, until_nothing_is_held

REQUEST = {"model": "gpt-test", "max_tokens": 80, "messages": [{"role": "user", "content": "hi"}]}


def charges_of(gateway: RunningGateway) -> list[ChargeView]:
    gateway.call(gateway.books.flush)
    assert audit(gateway.path).findings == ()
    with LedgerReader(gateway.path) as reader:
        return reader.charges()


def opened(gateway: RunningGateway, path: str = "/v1/realtime") -> socket.socket:
    connection = handshake(gateway, path=path)
    connection.settimeout(20)
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def test_who_pings_and_does_not_read_is_let_go(tmp_path: Path) -> None:
    """Each ping had its answer buffered, for as long as the client went on."""
    pings = (bytes([0x89, 0x80 | 125]) + bytes(4) + b"x" * 125) * 1_000
    with house(tmp_path) as (_, gateway), opened(gateway) as connection, pytest.raises(ConnectionError):
        for _ in range(500):
            connection.sendall(pings)


def test_a_message_of_empty_frames_has_a_size(tmp_path: Path) -> None:
    small = Settings(disclose=Disclose.ALL, max_body_bytes=100_000)
    with house(tmp_path, settings=small) as (_, gateway), opened(gateway) as connection:
        connection.sendall(bytes([0x01, 0x80]) + bytes(4))
        connection.sendall((bytes([0x00, 0x80]) + bytes(4)) * 5_000)
        seen = b""
        while bytes([0x03, 0xF1]) not in seen:  # 1009, too big
            part = connection.recv(100_000)
            assert part, seen
            seen += part


def test_a_response_that_nobody_reads_ends(tmp_path: Path) -> None:
    """Its hold stayed open for as long as the client kept the socket."""
    short = Settings(disclose=Disclose.ALL, client_stall_s=1, drain_timeout_s=1)
    with house(tmp_path, settings=short) as (mock, gateway):
        mock.behave(output_tokens=100_000, tokens_per_chunk=1)
        with opened(gateway, "/v1/responses") as connection:
            asked = {
                "type": "response.create",
                "model": "gpt-test",
                "input": "x",
                "max_output_tokens": 100_000,
            }
            body = json.dumps(asked).encode()
            assert len(body) < 126
            connection.sendall(masked(body))
            select.select([connection], [], [], 20)
            until_nothing_is_held(gateway)


def test_a_usage_beyond_belief_is_marked_and_stops_nothing(tmp_path: Path) -> None:
    """A few of them did not fit the ledger's columns: nothing was written any more, and every call waited."""
    absurd = GOOD.replace(b'"completion_tokens": 1', b'"completion_tokens": %d' % (2**40))
    assert absurd != GOOD
    answers = [absurd, absurd, GOOD]

    def answer() -> bytes:
        body = answers.pop(0)
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )

    with (
        RawUpstream() as upstream,
        RunningGateway(tmp_path / "l.db", upstream.url, [budget("soft", "1", hard=False)]) as gateway,
    ):
        upstream.answer = answer
        for _ in range(3):
            assert asyncio.run(post(gateway.url, REQUEST)).status == 200
        last, *odd = charges_of(gateway)
        assert last.basis == "metered"
        assert [(each.basis, each.cost_nanos) for each in odd] == [("outcome_unknown", odd[0].hold_nanos)] * 2
        assert "not believed" in str(odd[0].reason) or "million" in str(odd[0].reason)


def test_a_name_that_no_provider_gives_is_nobodys(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        body = {"model": "gpt-test", "input": "x", "max_output_tokens": 20, "previous_response_id": "a\0b"}
        reply = asyncio.run(post(gateway.url, body, "/v1/responses", SECRET))
        assert (reply.status, reply.error["code"]) == (404, "resource_not_found")
        assert not mock.calls


def test_what_a_call_cost_is_booked_though_the_store_cannot_name_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The served model had no number yet, and the store that should give one was down: the overrun was lost."""

    def is_gone(*_: object) -> int:
        raise StoreError("the ledger's database is gone")

    behaviour = {"served_model": "gpt-test-0613", "input_tokens": 9_000}
    prices = {**MOCK_PRICES, "gpt-test-0613": MOCK_PRICES["gpt-test"]}
    with (
        MockProvider(prices=prices, behaviour=behaviour) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")]) as gateway,
    ):
        assert asyncio.run(post(gateway.url, {**REQUEST, "model": "gpt-test"})).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(gateway.gateway, "route_id", is_gone)
            assert asyncio.run(post(gateway.url, REQUEST)).status == 200
        one, other = charges_of(gateway)
        assert one.cost_nanos == other.cost_nanos == mock.meter.total_nanos // 2 > one.hold_nanos
        assert "could not be asked" in str(one.reason)
