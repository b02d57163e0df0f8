"""The Responses API over a WebSocket, through the vendor's SDK: each response is held, booked, and cut at the cap."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.testing import MockProvider
from tests import world
from tests.harness import SECRET, RunningGateway, budget


class Stage:
    """The mock, the gateway, and the SDK's client."""

    def __init__(self, mock: MockProvider, gateway: RunningGateway) -> None:
        self.mock, self.gateway = mock, gateway
        self.client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0)

    def charges(self) -> list[ChargeView]:
        """All charges, oldest first."""
        self.gateway.call(self.gateway.books.flush)
        with LedgerReader(self.gateway.path) as reader:
            return reader.charges()[::-1]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "1")],
            price_book=world.book(),
            upstreams=world.providers(mock.url),
        ) as gateway,
    ):
        yield Stage(mock, gateway)
        mock.wait_for(0)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert found.spend_nanos == mock.meter.total_nanos


def ask(connection: Any, **fields: Any) -> Any:
    """One response; its last event."""
    connection.send({"type": "response.create", "model": "gpt-test", **fields})
    for event in connection:
        if event.type in ("response.completed", "response.failed", "response.incomplete", "error"):
            return event
    raise AssertionError("the socket ended before the response")


def test_turns_are_calls(stage: Stage) -> None:
    with stage.client.responses.connect() as connection:
        first = ask(connection, input="hello")
        assert first.type == "response.completed"
        second = ask(connection, input="again", previous_response_id=first.response.id)
        assert second.type == "response.completed"
    charges = stage.charges()
    assert [charge.basis for charge in charges] == ["metered", "metered"]
    assert [charge.operation for charge in charges] == ["responses", "responses"]


def test_a_conversation_that_nobody_stores(stage: Stage) -> None:
    with stage.client.responses.connect() as connection:
        first = ask(connection, input="hello", store=False)
        second = ask(connection, input="and then", store=False, previous_response_id=first.response.id)
        assert second.type == "response.completed"
    last = stage.mock.calls[-1]
    assert b"previous_response_id" not in last.body
    assert b"hello" in last.body and b"and then" in last.body
    assert first.response.output[0].content[0].text.encode()[:20] in last.body


def test_what_is_only_prepared_costs_nothing(stage: Stage) -> None:
    """`generate: false`, as Codex begins: no call reaches the provider, and the next response builds on it."""
    with stage.client.responses.connect() as connection:
        ready = ask(connection, input="the rules", store=False, generate=False)
        assert (ready.type, ready.response.output) == ("response.completed", [])
        assert ready.response.usage.total_tokens == 0
        assert not stage.mock.calls
        first = ask(connection, input="hello", store=False, previous_response_id=ready.response.id)
        assert first.type == "response.completed"
        second = ask(connection, input="and then", store=False, previous_response_id=first.response.id)
        assert second.type == "response.completed"
    assert all(text in stage.mock.calls[-1].body for text in (b"the rules", b"hello", b"and then"))
    assert b"generate" not in stage.mock.calls[-1].body
    assert len(stage.charges()) == len(stage.mock.calls) == 2


def test_what_is_prepared_goes_on_from_what_the_provider_keeps(stage: Stage) -> None:
    with stage.client.responses.connect() as connection:
        stored = ask(connection, input="hello")
        ready = ask(
            connection,
            input="the rules",
            previous_response_id=stored.response.id,
            generate=False,
        )
        last = ask(connection, input="and then", previous_response_id=ready.response.id)
        assert last.type == "response.completed"
    body = stage.mock.calls[-1].body
    assert b"the rules" in body and b"and then" in body and stored.response.id.encode() in body
    assert b"hello" not in body
    assert len(stage.charges()) == 2


def test_a_model_of_another_vendor(stage: Stage) -> None:
    with stage.client.responses.connect() as connection:
        event = ask(connection, model="claude-test", input="hello")
        assert event.type == "response.completed"
        assert event.response.usage.output_tokens == 80
    assert stage.charges()[0].provider == "anthropic"


def test_the_cap_is_an_event_and_the_socket_stays(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "0.0001")],
            price_book=world.book(),
            upstreams=world.providers(mock.url),
        ) as gateway,
    ):
        client = openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0)
        with client.responses.connect() as connection:
            for _ in range(2):
                event = ask(connection, input="hello", max_output_tokens=500)
                assert event.type == "error"
                assert event.code in ("budget_spent", "call_too_large")
        assert not mock.calls


def test_what_is_no_response_is_refused(stage: Stage) -> None:
    with stage.client.responses.connect() as connection:
        connection.send({"type": "session.update", "session": {}})  # type: ignore[arg-type]
        event = next(iter(connection))
        assert (event.type, event.code) == ("error", "unsupported_event")


def test_a_wrong_key_opens_no_socket(stage: Stage) -> None:
    client = openai.OpenAI(base_url=stage.gateway.url + "/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(Exception, match="401"), client.responses.connect() as connection:
        ask(connection, input="hello")
