"""Alerts of a running gateway: a signed webhook and an apprise service, once each, kept over restarts, tried again."""

import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from outlay.app.alerting.telling import sign
from outlay.app.alerting.watch import Watch
from outlay.app.cli.main import main
from outlay.app.config import load_config
from outlay.app.control import ControlClient
from outlay.kernel.clock import SystemClock
from outlay.testing import ChildProcess, MockProvider
from tests.app.test_approvals import DEV, World
from tests.harness import MOCK_PRICES

SIGNER = "whsec-of-the-alerts-test"
CONFIG = """\
org: acme
gateway: {{port: 0, wait_s: 0}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: {dev}, team: search}}
budgets:
  - {{name: each-team, scope: {{team: "*"}}, limit_usd: 0.01, window: month}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
alerts:
  targets:
    - {{name: hook, webhook: "{sink}/hook", secret: {signer}}}
    - {{name: chat, url: "json://{place}/chat"}}
  rules:
    - {{name: near, percent: [10, 90]}}
  link: http://console.example/budgets
"""


class Sink:
    """Takes what is sent; `status` is what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(sink.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def of(self, path: str) -> list[Any]:
        return [json.loads(body) for at, _, body in self.got if at == path]


@pytest.fixture
def sink() -> Iterator[Sink]:
    found = Sink()
    yield found
    found.close()


@pytest.fixture
def world(tmp_path: Path, sink: Sink) -> Iterator[World]:
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        path.write_text(
            CONFIG.format(url=mock.url, dev=DEV, sink=f"http://{sink.place}", place=sink.place, signer=SIGNER)
        )
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway:
            yield World(path, f"http://127.0.0.1:{gateway.wait_for_json()['port']}", mock)
            assert gateway.end() == 0, gateway.output


def look(world: World) -> list[Any]:
    """One look of the watch, as its process makes it; settlements are on disk a moment after their answer."""
    time.sleep(0.05)
    config = load_config(world.path, {})
    operations = ControlClient(config.local_path)
    try:
        return Watch(pause_s=0.01).look(config, operations, SystemClock().now())
    finally:
        operations.close()


@pytest.mark.slow
def test_told_once_signed_acknowledged_and_resolved(
    world: World, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(world) == []
    while not look(world):
        assert world.call().status == 200
    assert look(world) == []
    (hook,) = sink.of("/hook")
    assert (hook["event"], hook["threshold_percent"], hook["scope"]) == (
        "budget.alert.firing",
        10,
        "team=search",
    )
    assert hook["spent_nanos"] * 100 >= hook["limit_nanos"] * 10
    assert hook["contributors"][0]["name"] == "dev/gpt-test"
    assert hook["link"] == "http://console.example/budgets"
    _, headers, body = next(item for item in sink.got if item[0] == "/hook")
    at = int(headers["x-outlay-signature"].partition(",")[0][2:])
    assert headers["x-outlay-signature"] == sign(SIGNER, at, body)
    expected = hmac.new(SIGNER.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["x-outlay-signature"].endswith(expected)
    (chat,) = sink.of("/chat")
    assert "10 %" in chat["title"] or "%" in chat["title"]
    assert "Most of it: dev/gpt-test" in chat["message"]
    stored = b"".join(
        found.read_bytes() for found in world.path.parent.iterdir() if found.is_file() and "db" in found.name
    )
    assert SIGNER.encode() not in stored

    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json", "-c", str(world.path)])
        return code, json.loads(capsys.readouterr().out)

    code, found = run("alert", "list")
    (alert,) = found["alerts"]
    assert (code, alert["state"], alert["undelivered"]) == (0, "firing", [])
    assert run("alert", "ack", alert["id"], "--note", "on it")[0] == 0
    assert run("alert", "ack", alert["id"])[0] == 2
    assert run("alert", "ack", "no-such")[0] == 3
    assert run("budget", "raise", "each-team", "--scope", "team=search", "--usd", "1")[0] == 0
    (resolved,) = look(world)
    assert resolved.state == "resolved"
    assert sink.of("/hook")[-1]["event"] == "budget.alert.resolved"
    assert run("alert", "list")[1]["alerts"] == []
    assert run("status")[1]["raises"] == 1


@pytest.mark.slow
def test_a_target_that_does_not_answer_is_told_again(
    world: World, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.status = 500
    while not (changed := look(world)):
        assert world.call().status == 200
    assert set(changed[0].undelivered) == {"hook", "chat"}
    tried = len(sink.of("/hook"))
    assert tried == 3
    sink.status = 200
    assert look(world) == []
    assert len(sink.of("/hook")) == tried + 1
    assert look(world) == []
    assert len(sink.of("/hook")) == tried + 1
    assert main(["alert", "test", "hook", "--json", "-c", str(world.path)]) == 0
    assert json.loads(capsys.readouterr().out)["targets"][0]["is_delivered"]
    assert sink.of("/hook")[-1]["event"] == "test"
    assert main(["alert", "test", "nobody", "-c", str(world.path)]) == 3


@pytest.mark.slow
def test_the_process_tells_by_itself(world: World, sink: Sink) -> None:
    with ChildProcess([sys.executable, "-m", "outlay.app.alerting.main", str(world.path)]) as alerts:
        assert alerts.wait_for_json()["event"] == "alerts_watching"
        until = time.monotonic() + 30
        while not sink.of("/hook") and time.monotonic() < until:
            world.call()
            time.sleep(0.2)
        assert sink.of("/hook")
        assert alerts.end() == 0
        assert not any(SIGNER in line or sink.place in line for line in alerts.output)


@pytest.mark.slow
def test_names_that_callers_chose_do_not_silence_alerts(world: World, sink: Sink) -> None:
    """A caller may name its agent anything, also what a scope's text could be taken for."""
    text = world.path.read_text()
    world.path.write_text(
        text.replace('name: each-team, scope: {team: "*"}', 'name: each-agent, scope: {agent: "*"}')
    )
    hooks: list[Any] = []
    while not hooks:
        world.call(x_outlay_agent="a,b=c")
        look(world)
        hooks = [hook for hook in sink.of("/hook") if hook["budget"] == "each-agent"]
    assert hooks[0]["scope"] == 'agent="a,b=c"'
    assert [item["name"] for item in hooks[0]["contributors"]] == ["dev/gpt-test"]
