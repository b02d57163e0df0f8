"""Raises: asked for by a caller whose call was refused, decided by a person, in force for the next call."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outlay.app.cli.main import main
from outlay.flow.ledger.audit import audit
from outlay.testing import ChildProcess, MockProvider
from tests.harness import MOCK_PRICES, SECRET

OTHER = "sk-outlay-of-another-team"
CONFIG = """\
org: acme
gateway: {{port: 0, wait_s: 0}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: {secret}-padded, team: search}}
  - {{name: other, secret: {other}, team: ads}}
budgets:
  - {{name: company, limit_usd: 0.01, window: lifetime}}
  - {{name: each-team, scope: {{team: "*"}}, limit_usd: 0.002, window: month}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""
DEV = f"{SECRET}-padded"
BODY = {"model": "gpt-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class World(NamedTuple):
    path: Path
    url: str
    mock: MockProvider

    def ask(self, method: str, path: str, body: Any = None, secret: str = DEV, **headers: str) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path, data, {"authorization": f"Bearer {secret}", **named}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, json.loads(answer.read()), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read()), dict(error.headers))

    def call(self, secret: str = DEV, **headers: str) -> Answer:
        return self.ask("POST", "/v1/chat/completions", BODY, secret, **headers)

    def spend_all(self, secret: str = DEV, **headers: str) -> Answer:
        """Call until a refusal says that a budget does not take another call."""
        until = time.monotonic() + 10
        while (found := self.call(secret, **headers)).status != 402 and time.monotonic() < until:
            pass
        assert found.status == 402
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        path.write_text(CONFIG.format(url=mock.url, secret=SECRET, other=OTHER))
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway:
            yield World(path, f"http://127.0.0.1:{gateway.wait_for_json()['port']}", mock)
            assert gateway.end() == 0, gateway.output
        assert audit(tmp_path / "outlay.db").findings == ()


def run(world: World, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json", "-c", str(world.path)])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_caller_asks_and_goes_on_when_somebody_approves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = world.spend_all()
    request_id = refused.headers["x-outlay-request-id"]
    assert refused.body["error"]["budget"] == "each-team"
    asked = world.ask("POST", "/outlay/v1/raises", {"request_id": request_id, "reason": "the release"})
    assert (asked.status, asked.body["state"]) == (201, "open")
    # the amounts of a budget above the caller's own scope stay with those who decide
    assert not any("nanos" in name or "usd" in name for name in asked.body)
    again = world.ask("POST", "/outlay/v1/raises", {"request_id": request_id, "reason": "again"})
    assert again.body["id"] == asked.body["id"]
    code, found = run(world, capsys, "approve", "list")
    assert (code, len(found["asks"])) == (0, 1)
    ask = found["asks"][0]
    assert (ask["requester"], ask["team"], ask["scope"]) == ("key:dev", "search", "team=search")
    assert ask["wanted_nanos"] == ask["spent_nanos"] + ask["needed_nanos"] - ask["limit_nanos"] > 0
    code, done = run(world, capsys, "approve", "grant", ask["id"], "--usd", "0.003", "--hours", "2")
    assert (code, done["state"], done["granted_nanos"]) == (0, "approved", 3_000_000)
    assert world.call().status == 200
    decided = world.ask("GET", f"/outlay/v1/raises/{ask['id']}")
    assert (decided.status, decided.body["state"]) == (200, "approved")
    assert run(world, capsys, "approve", "grant", ask["id"])[0] == 2
    assert world.spend_all().body["error"]["budget"] == "each-team"
    # the raise ends: what was spent under it stays spent, and nothing more fits
    (raised,) = run(world, capsys, "budget", "raises")[1]["raises"]
    assert (raised["scope"], raised["extra_nanos"]) == ("team=search", 3_000_000)
    assert run(world, capsys, "budget", "unraise", raised["id"])[0] == 0
    assert run(world, capsys, "budget", "unraise", raised["id"])[0] == 3
    assert world.call().body["error"]["code"] == "budget_spent"


@pytest.mark.slow
def test_another_teams_account_and_other_budgets_stay_as_they_are(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, raised = run(world, capsys, "budget", "raise", "each-team", "--scope", "team=search", "--usd", "5")
    assert (code, raised["extra_nanos"]) == (0, 5_000_000_000)
    # the company's own limit holds, raise or not
    assert world.spend_all().body["error"]["budget"] == "company"
    assert world.call(OTHER).body["error"]["budget"] == "company"
    assert (
        run(world, capsys, "budget", "raise", "company", "--usd", "1")[0] == 2
    )  # it never resets: for how long?
    assert run(world, capsys, "budget", "raise", "company", "--usd", "1", "--hours", "1")[0] == 0
    assert world.call().status == 200
    assert world.spend_all(OTHER).body["error"]["budget"] == "each-team"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("budget", "raise", "nothing", "--usd", "1"), 3),
        (("budget", "raise", "each-team", "--usd", "1"), 2),
        (("budget", "raise", "each-team", "--scope", "user=x", "--usd", "1"), 2),
        (("budget", "raise", "each-team", "--scope", "team=x", "--usd", "-1"), 2),
        (("budget", "raise", "each-team", "--scope", "team=x", "--usd", "0"), 2),
        (("budget", "raise", "each-team", "--scope", "team=x", "--usd", "1", "--hours", "-1"), 2),
        (("approve", "grant", "ask_x"), 3),
        (("approve", "deny", "ask_x", "--note", "no"), 3),
        (("budget", "request", "each-team", "--scope", "team=x", "--usd", "1"), 2),
    ],
)
def test_what_cannot_be_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int
) -> None:
    path = tmp_path / "outlay.yaml"
    path.write_text(CONFIG.format(url="http://127.0.0.1:9", secret=SECRET, other=OTHER))
    assert main([*arguments, "--json", "-c", str(path)]) == code
    assert json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.slow
def test_nobody_asks_for_anothers_call(world: World) -> None:
    request_id = world.spend_all().headers["x-outlay-request-id"]
    for secret, said, status in (
        (OTHER, {"request_id": request_id, "reason": "x"}, 404),
        (DEV, {"request_id": "req_" + "0" * 32, "reason": "x"}, 404),
        (DEV, {"request_id": request_id, "reason": " "}, 422),
        (DEV, {"request_id": request_id, "reason": "x", "usd": "NaN"}, 422),
        (DEV, {"request_id": request_id, "reason": "x", "hours": 1.5}, 422),
        (DEV, {"request_id": request_id, "reason": "x", "scope": {"team": "ads"}}, 422),
        (DEV, {"reason": "x"}, 422),
        (DEV, [], 422),
    ):
        assert world.ask("POST", "/outlay/v1/raises", said, secret).status == status
    made = world.ask("POST", "/outlay/v1/raises", {"request_id": request_id, "reason": "x"})
    assert world.ask("GET", f"/outlay/v1/raises/{made.body['id']}", secret=OTHER).status == 404
    assert world.ask("GET", "/outlay/v1/raises", secret=OTHER).body == {"raises": []}


@pytest.mark.slow
def test_a_paused_run_goes_on_when_approved_and_a_runs_own_limit_is_raised(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"x_outlay_run": "r", "x_outlay_run_budget_usd": "0.0009"}
    refused = world.spend_all(**named)
    assert refused.body["error"]["budget"] == "outlay.run"
    code, asked = run(
        world, capsys, "budget", "request", "outlay.run", "--scope", "run=r", "--scope", "team=search",
        "--usd", "0.0007", "--note", "one more"
    )  # fmt: skip
    assert code == 0
    assert run(world, capsys, "approve", "grant", asked["id"])[0] == 0
    assert world.call(**named).status == 200
    assert world.spend_all(**named).body["error"]["budget"] == "outlay.run"
    assert run(world, capsys, "approve", "deny", asked["id"], "--note", "late")[0] == 2


@pytest.mark.slow
def test_runs_are_listed_split_paused_and_resumed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for team in ("search", "ads"):
        assert (
            run(world, capsys, "budget", "raise", "each-team", "--scope", f"team={team}", "--usd", "1")[0]
            == 0
        )
    for _ in range(2):
        assert world.call(x_outlay_run="parent", x_outlay_run_max_calls="9").status == 200
    assert world.call(x_outlay_run="child", x_outlay_run_parent="parent").status == 200
    assert world.call(OTHER, x_outlay_run="parent").status == 200
    code, found = run(world, capsys, "run", "list")
    rows = {(item["name"], item["team"]): item for item in found["runs"]}
    assert code == 0
    assert rows["parent", "search"]["calls"] == 2
    assert rows["parent", "search"]["tree_nanos"] == (
        rows["parent", "search"]["cost_nanos"] + rows["child", "search"]["cost_nanos"]
    )
    assert rows["child", "search"]["parent"] == "parent"
    assert run(world, capsys, "run", "show", "nothing")[0] == 3
    assert run(world, capsys, "run", "show", "parent")[0] == 1  # of which team?
    code, shown = run(world, capsys, "run", "show", "parent", "--team", "search", "--calls")
    parts = shown["parts"]
    assert code == 0
    assert parts["sub_agents_nanos"] == rows["child", "search"]["cost_nanos"]
    assert parts["total_nanos"] == sum(charge["cost_nanos"] for charge in shown["charges"])
    assert parts["multiplier"]
    assert run(world, capsys, "run", "pause", "parent", "--team", "search", "--reason", "look first")[0] == 0
    assert world.call(x_outlay_run="parent").body["error"]["code"] == "paused"
    assert world.call(OTHER, x_outlay_run="parent").status == 200
    assert run(world, capsys, "run", "show", "parent", "--team", "search")[1]["reason"] == "look first"
    assert run(world, capsys, "run", "resume", "parent")[0] == 0
    assert run(world, capsys, "run", "resume", "parent")[0] == 3
    assert world.call(x_outlay_run="parent").status == 200
