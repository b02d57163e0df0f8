"""Realtime sessions through the vendor's SDK: held before a response can begin, settled by it, cut at the cap."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.resources.realtime.realtime import RealtimeConnection

from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView
from outlay.testing import MockProvider
from tests.harness import SECRET, RunningGateway
from tests.reality.doors import house
from tests.reality.sdk import charges

WORST = 32_000 * 32_000 + 4_096 * 64_000
"""Nanos of one response at most: a window of audio in, the longest answer of audio out."""


@contextmanager
def session(gateway: RunningGateway, secret: str = SECRET) -> Iterator[RealtimeConnection]:
    with (
        openai.OpenAI(base_url=gateway.url + "/v1", api_key=secret, max_retries=0) as client,
        client.realtime.connect(model="talk-test") as connection,
    ):
        yield connection


def wait_for(connection: RealtimeConnection, *kinds: str) -> Any:
    """The next event of these kinds."""
    for event in connection:
        if event.type in kinds:
            return event
    raise AssertionError("the session ended")


def say(connection: RealtimeConnection, text: str) -> Any:
    """One turn of text; its `response.done`, or the error."""
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )
    connection.response.create()
    return wait_for(connection, "response.done", "error")


def settled(gateway: RunningGateway, mock: MockProvider) -> list[ChargeView]:
    """All charges once nothing is held."""
    deadline = time.monotonic() + 10
    while gateway.call(lambda: gateway.books.open_holds):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    mock.wait_for(0)
    found = audit(gateway.path)
    assert found.findings == ()
    return charges(gateway)[::-1]


def test_each_response_is_a_charge(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        with session(gateway) as connection:
            assert wait_for(connection, "session.created")
            assert gateway.call(lambda: gateway.books.held_nanos) == WORST
            for text in ("hello", "and again"):
                assert say(connection, text).response.status == "completed"
        booked = settled(gateway, mock)
        assert [charge.basis for charge in booked if charge.cost_nanos] == ["metered", "metered"]
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0
        assert len({charge.request_id for charge in booked}) == 1


def test_sound(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        with session(gateway) as connection:
            connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4800)).decode())
            connection.input_audio_buffer.commit()
            connection.response.create()
            assert wait_for(connection, "response.done").response.status == "completed"
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0


def test_no_money_no_session(tmp_path: Path) -> None:
    with house(tmp_path, "1") as (mock, gateway):  # a response may need 1.28
        with pytest.raises(Exception, match="402"), session(gateway) as connection:
            say(connection, "hello")
        assert charges(gateway) == []
        assert not mock.calls


def test_the_session_is_cut_at_the_cap(tmp_path: Path) -> None:
    with house(tmp_path, "1.32") as (mock, gateway):
        mock.behave(input_tokens=400, output_tokens=600)
        done = 0
        with session(gateway) as connection:
            for _ in range(50):
                event = say(connection, "go on")
                if event.type == "error":
                    break
                done += 1
        assert event.type == "error"
        assert event.error.code in ("budget_spent", "call_too_large")
        assert "all" in event.error.message
        assert 0 < done < 50
        booked = settled(gateway, mock)
        spent = sum(charge.cost_nanos for charge in booked)
        assert mock.meter.total_nanos == spent <= 1_320_000_000
        assert audit(gateway.path).most_over_limit_nanos <= 0


def test_two_responses_asked_at_once_need_two_holds(tmp_path: Path) -> None:
    with house(tmp_path, "1.4") as (mock, gateway):
        with session(gateway) as connection:
            connection.response.create()
            connection.response.create()
            wait_for(connection, "response.done", "error")
            held = gateway.call(lambda: gateway.books.held_nanos)
            assert held <= 1_400_000_000
            # the second was sent on when the first was settled, and not before
            wait_for(connection, "response.done", "error")
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos
        assert audit(gateway.path).most_over_limit_nanos <= 0


def test_a_client_that_leaves_pays_for_what_ran(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        mock.behave(output_tokens=60, chunk_ms=20)
        with session(gateway) as connection:
            connection.response.create()
            wait_for(connection, "response.created")
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) >= mock.meter.total_nanos > 0


def test_what_is_billed_apart_is_refused(tmp_path: Path) -> None:
    with house(tmp_path) as (_, gateway), session(gateway) as connection:
        connection.send(
            {
                "type": "session.update",
                "session": {
                    "type": "realtime",
                    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
                },
            }
        )
        event = wait_for(connection, "error", "session.updated")
        assert (event.type, event.error.code) == ("error", "unsupported_field")


def test_a_wrong_key_opens_no_session(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        with pytest.raises(Exception, match="401"), session(gateway, "sk-wrong") as connection:
            say(connection, "hello")
        assert not mock.calls
