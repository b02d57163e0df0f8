"""The command line beside a running `outlay up`: changes are in force for the next call, reports read while it runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlay.app.cli.main import main
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES

pytestmark = pytest.mark.slow

CONFIG = """\
org: acme
gateway: {{port: 0}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
budgets:
  - {{name: all, limit_usd: 1}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""


def ask(url: str, secret: str, **headers: str) -> int:
    body = {"model": "gpt-test", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        url + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {secret}", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def eventually(url: str, secret: str, status: int) -> int:
    """The status, tried again for a second while it is another."""
    until = time.monotonic() + 1
    while (found := ask(url, secret)) != status and time.monotonic() < until:
        time.sleep(0.02)
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The config file and the address of a running gateway."""
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        path.write_text(CONFIG.format(url=mock.url))
        process = subprocess.Popen(
            [sys.executable, "-m", "outlay.app.cli.main", "up", "-c", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            line = next(line for line in process.stdout if '"listening"' in line)
            yield path, f"http://127.0.0.1:{json.loads(line)['port']}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_key_budget_and_reports_while_it_runs(
    running: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = running

    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json", "-c", str(path)])
        return code, json.loads(capsys.readouterr().out)

    code, made = run("key", "create", "ci", "--team", "search")
    assert code == 0
    assert eventually(url, made["secret"], 200) == 200
    code, state = run("status")
    assert (code, state["is_running"], state["keys"]) == (0, True, 1)
    code, found = run("doctor")
    assert (code, found["is_well"]) == (0, True)
    code, report = run("spend", "--by", "team")
    assert (code, [row["group"]["team"] for row in report["rows"]]) == (0, ["search"])
    assert report["total"]["cost_nanos"] > 0
    assert run("budget", "set", "stop", "--scope", "team=search", "--limit", "0.000001")[0] == 0
    assert eventually(url, made["secret"], 402) == 402
    request = path.with_name("request.json")
    request.write_text(json.dumps({"model": "gpt-test", "max_tokens": 50, "messages": []}))
    code, quote = run("quote", "--key", "ci", "--file", str(request))
    assert (code, quote["refusal"]["code"], quote["refusal"]["fields"]["budget"]) == (
        1,
        "budget_spent",
        "stop",
    )
    assert run("budget", "delete", "stop")[0] == 0
    code, killed = run("kill", "team", "search", "--reason", "it ran away")
    assert (code, killed["name"], killed["cut_calls"]) == (0, "kill:team=search", 0)
    assert killed["detect_ns"] > 0
    assert ask(url, made["secret"]) == 403
    assert run("kill", "all", "--reason", " ")[0] == 2
    code, found = run("kill", "list")
    assert [order["reason"] for order in found["orders"]] == ["it ran away"]
    assert run("kill", "lift", "team=search")[0] == 0
    assert run("kill", "lift", "team=search")[0] == 3
    assert ask(url, made["secret"]) == 200
    assert run("quote", "--key", "ci", "--file", str(request))[0] == 0
    assert run("key", "revoke", "ci")[0] == 0
    assert eventually(url, made["secret"], 401) == 401
    assert run("key", "revoke", "ci")[0] == 3
    assert run("budget", "delete", "all")[0] == 4
    assert run("budget", "set", "b", "--limit", "-1")[0] == 2
    code, audit = run("ledger", "verify")
    assert (code, audit["is_right"], audit["open_holds"]) == (0, True, 0)
    assert run("doctor", "--accept-clock") == (1, {"code": "clock_jumped", "accepted": False})


def test_a_ledger_whose_owner_does_not_answer(
    running: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = running
    os.unlink(path.with_name("outlay.db.sock"))
    assert main(["key", "create", "x", "-c", str(path)]) == 5
    assert re.search(r"outlay: the ledger outlay\.db is in use", capsys.readouterr().err)


def test_a_quote_is_refused_as_the_call_would_be(
    running: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = running
    request, policies = path.with_name("request.json"), path.with_name("policies.yaml")
    request.write_text(json.dumps({"model": "gpt-test", "max_tokens": 50, "messages": []}))
    code = main(["key", "create", "ci", "--team", "search", "--json", "-c", str(path)])
    secret = json.loads(capsys.readouterr().out)["secret"]
    assert code == 0

    def enforce(policy: str) -> None:
        policies.write_text(f"policies: [{policy}]\n")
        assert main(["policy", "apply", str(policies), "-c", str(path)]) == 0
        capsys.readouterr()

    def quote(*more: str) -> tuple[int, str]:
        code = main(["quote", "--key", "ci", "--file", str(request), *more, "-c", str(path)])
        return code, capsys.readouterr().out

    enforce("{name: one, requests_per_minute: 1}")
    assert quote()[0] == quote()[0] == 0
    assert eventually(url, secret, 200) == 200
    assert ask(url, secret) == 429
    code, text = quote()
    assert (code, "refused (429 rate_limited): Policy 'one'" in text) == (1, True)
    code, text = quote("--json")
    assert (code, json.loads(text)["refusal"]["code"]) == (1, "rate_limited")
    put = ["price", "set", "openai/gpt-mini", "--input", "1", "--output", "2", "-c", str(path)]
    assert main(put) == 0
    assert main(["budget", "set", "each", "--scope", "team=search", "--limit", "0.01", "-c", str(path)]) == 0
    enforce("{name: one, ladder: [{at_percent: 1, budget: each, use: gpt-mini, models: [gpt-test]}]}")
    assert ask(url, secret) == 200
    code, text = quote()
    assert (code, text.splitlines()[-1]) == (0, "passes, moved from gpt-test to gpt-mini")
    code, text = quote("--json")
    bound = json.loads(text)["bound"]
    assert (code, bound["model"], bound["downgraded_from"]) == (0, "gpt-mini", "gpt-test")
    enforce("{name: one, ladder: [{at_percent: 1, budget: each, pause: true}]}")
    assert ask(url, secret) == 402
    code, text = quote()
    assert (code, "refused (402 paused): Policy 'one' pauses calls" in text) == (1, True)


def test_a_run_is_stopped_in_every_team_or_in_one_and_that_is_said(
    running: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = running

    def run(*arguments: str) -> str:
        assert main([*arguments, "-c", str(path)]) == 0
        return capsys.readouterr().out

    secrets = {}
    for team in ("search", "ads"):
        secrets[team] = json.loads(run("key", "create", f"of-{team}", "--team", team, "--json"))["secret"]

    def statuses() -> list[int]:
        return [ask(url, secrets[team], **{"x-outlay-run": "r1"}) for team in ("search", "ads")]

    assert statuses() == [200, 200]
    assert "stopped run=r1,team=search;" in run(
        "kill", "run", "r1", "--reason", "x", "--scope", "team=search"
    )
    assert statuses() == [403, 200]
    assert "stopped run=r1 of every team;" in run("kill", "run", "r1", "--reason", "x")
    assert statuses() == [403, 403]
    run("run", "resume", "r1")
    assert "paused r1 of every team:" in run("run", "pause", "r1", "--reason", "x")
    assert statuses() == [402, 402]
    run("run", "resume", "r1")
    assert "paused r1:" in run("run", "pause", "r1", "--reason", "x", "--team", "ads")
    assert statuses() == [200, 402]
    with pytest.raises(SystemExit):
        main(["kill", "run", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "of every team" in told and "--scope team=TEAM" in told
