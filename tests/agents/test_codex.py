"""Codex's own command-line tool through the gateway: over HTTP, over a WebSocket, where none passes, and at the cap."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from outlay.testing import MockProvider
from tests.agents.tools import Desk, binary, charges, check_books, doorway
from tests.harness import SECRET
from tests.reality.doors import house

CONFIG = """
model = "gpt-test"
model_provider = "outlay"
web_search = "disabled"

[model_providers.outlay]
name = "Outlay"
base_url = "{url}/v1"
env_key = "OUTLAY_KEY"
wire_api = "responses"
supports_websockets = {websockets}
"""


class Told(NamedTuple):
    """What the tool printed, as events."""

    status: int
    thread: str
    said: list[str]
    errors: list[str]


@pytest.fixture(scope="module")
def codex() -> str:
    return str(binary("@openai/codex"))


def ask(codex: str, desk: Desk, url: str, *, websockets: bool) -> Told:
    """One prompt."""
    folder = desk.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG.format(url=url, websockets=str(websockets).lower()))
    done = desk.run(
        [
            *(codex, "exec", "--json", "--skip-git-repo-check"),
            # the test's machine may not allow the sandbox; the scripted command writes into the project
            *("--dangerously-bypass-approvals-and-sandbox", "make hello.txt"),
        ],
        OUTLAY_KEY=SECRET,
    )
    thread, said, errors = "", [], []
    for line in done.stdout.splitlines():
        event = json.loads(line)
        match event["type"], event.get("item", {}).get("type"):
            case "thread.started", _:
                thread = event["thread_id"]
            case "item.completed", "agent_message":
                said.append(event["item"]["text"])
            case "error", _:
                errors.append(event["message"])
    assert thread, done.stderr
    return Told(done.returncode, thread, said, errors)


def script(mock: MockProvider, desk: Desk) -> Path:
    """The model runs a command, then says so."""
    arguments = json.dumps({"cmd": "printf 'made by the tool' > hello.txt"})
    mock.queue(
        {"tool_call": True, "tool_name": "exec_command", "tool_arguments": arguments},
        {"say": "The file is written."},
    )
    return desk.project / "hello.txt"


@pytest.mark.parametrize(
    ("websockets", "passes", "seen"),
    [
        pytest.param(False, True, ["POST /v1/responses"] * 2, id="http"),
        pytest.param(True, True, ["GET /v1/responses upgrade"], id="websocket"),
        pytest.param(
            True,
            False,
            ["GET /v1/responses upgrade", *["POST /v1/responses"] * 2],
            id="a house that passes no websocket",
        ),
    ],
)
def test_a_session_with_a_tool(
    codex: str, tmp_path: Path, websockets: bool, passes: bool, seen: list[str]
) -> None:
    desk = Desk.at(tmp_path)
    with house(tmp_path) as (mock, gateway), doorway(gateway.url, passes_upgrades=passes) as door:
        made = script(mock, desk)
        told = ask(codex, desk, door.url, websockets=websockets)
        assert (told.status, told.said, told.errors) == (0, ["The file is written."], [])
        assert made.read_text() == "made by the tool"
        assert [head for head in door.heads if "/responses" in head] == seen
        booked = charges(gateway)
        assert [charge.basis for charge in booked] == ["metered", "metered"]
        assert {charge.identity["run"] for charge in booked} == {told.thread}
        check_books(gateway, mock)


@pytest.mark.parametrize("websockets", [False, True])
def test_at_the_cap_it_says_why_and_stops(codex: str, tmp_path: Path, websockets: bool) -> None:
    desk = Desk.at(tmp_path)
    # the first call is let in, costs 0.02, and the second finds too little
    with house(tmp_path, "0.11") as (mock, gateway), doorway(gateway.url) as door:
        made = script(mock, desk)
        told = ask(codex, desk, door.url, websockets=websockets)
        assert told.status != 0
        assert any("Budget 'all' (org=acme)" in error and "of $0.11" in error for error in told.errors)
        assert made.exists()
        asked = [head for head in door.heads if "/responses" in head]
        assert len(asked) <= 3, asked
        refused = gateway.call(lambda: gateway.gateway.metrics.view().refusals)
        assert sum(refused.values()) == 1, refused
        assert len(mock.meter.entries) == 1
        check_books(gateway, mock)
