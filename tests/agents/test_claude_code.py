"""Claude Code's own command-line tool through the gateway: a tool-using session, the cap, a subscription's login."""

import json
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import ClientAuth, Provider
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from outlay.wire.intent import Dialect
from tests import world
from tests.agents.tools import Desk, binary, charges, check_books, doorway
from tests.harness import SECRET, RunningGateway, budget
from tests.reality.doors import house

PACKAGE = "@anthropic-ai/claude-code"
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}


@pytest.fixture(scope="module")
def claude() -> str:
    return str(binary(PACKAGE))


def ask(claude: str, desk: Desk, url: str, **environment: str) -> dict[str, Any]:
    """One prompt; what the tool prints."""
    done = desk.run(
        [
            *(claude, "-p", "make hello.txt", "--model", "claude-test"),
            *("--output-format", "json", "--allowedTools", "Write"),
        ],
        **{**QUIET, "ANTHROPIC_BASE_URL": url, **environment},
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def script(mock: MockProvider, desk: Desk) -> Path:
    """The model writes a file with the tool, then says so."""
    path = desk.project / "hello.txt"
    arguments = json.dumps({"file_path": str(path), "content": "made by the tool\n"})
    mock.queue(
        {"tool_call": True, "tool_name": "Write", "tool_arguments": arguments},
        {"say": "The file is written."},
    )
    return path


def test_a_session_with_a_tool(claude: str, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path)
    with house(tmp_path) as (mock, gateway):
        made = script(mock, desk)
        told = ask(claude, desk, gateway.url, ANTHROPIC_API_KEY=SECRET)
        assert (told["is_error"], told["result"]) == (False, "The file is written.")
        assert made.read_text() == "made by the tool\n"
        booked = charges(gateway)
        assert [charge.basis for charge in booked] == ["metered", "metered"]
        assert {charge.identity["run"] for charge in booked} == {told["session_id"]}
        # its own estimate is from the same usage, at the price it knows for an unknown model
        assert sum(charge.tokens["output_tokens"] or 0 for charge in booked) == told["usage"]["output_tokens"]
        check_books(gateway, mock)


def test_at_the_cap_it_says_why_and_stops(claude: str, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path)
    # the first call may cost 0.77 at most and costs 0.06: the second finds too little
    with house(tmp_path, "0.80") as (mock, gateway), doorway(gateway.url) as door:
        made = script(mock, desk)
        told = ask(claude, desk, door.url, ANTHROPIC_API_KEY=SECRET)
        assert told["is_error"] is True
        assert told["api_error_status"] == 402
        assert "Budget 'all' (org=acme)" in told["result"] and "of $0.80" in told["result"]
        assert made.exists()
        asked = [head for head in door.heads if head.startswith("POST /v1/messages")]
        assert len(asked) <= 3, asked
        assert len(mock.meter.entries) == 1
        check_books(gateway, mock)


def test_its_own_login_is_forwarded_and_booked_apart(claude: str, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path)
    with MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock:
        own = Provider(
            name="anthropic",
            dialect=Dialect.ANTHROPIC,
            base_url=mock.url,
            models=("*",),
            api_key="the company's key",
            client_auth=ClientAuth.OWN,
            send_request_id=True,
        )
        billed = budget("billed", "0.01")
        equivalent = budget("equivalent", "100", {"org": "acme", "billing": "api_equivalent"})
        with RunningGateway(
            tmp_path / "l.db", "", [billed, equivalent], price_book=world.book(), upstreams=(own,)
        ) as gateway:
            made = script(mock, desk)
            told = ask(
                claude,
                desk,
                gateway.url,
                ANTHROPIC_AUTH_TOKEN="sk-ant-oat-of-a-person",
                ANTHROPIC_CUSTOM_HEADERS=f"x-outlay-key: {SECRET}",
            )
            assert told["result"] == "The file is written."
            assert made.exists()
            for call in mock.calls:
                assert call.header(b"authorization") == "Bearer sk-ant-oat-of-a-person"
                assert call.header(b"x-outlay-key") is None
                assert b"the company's key" not in b"".join(value for _, value in call.headers)
            booked = charges(gateway)
            assert len(booked) == 2
            assert {charge.identity["billing"] for charge in booked} == {"api_equivalent"}
            check_books(gateway, mock)
            with LedgerReader(gateway.path) as reader:
                spent = {account.budget: account.spent_nanos for account in reader.accounts(0)}
            assert spent.get("billed", 0) == 0
            assert spent["equivalent"] == mock.meter.total_nanos > 0
