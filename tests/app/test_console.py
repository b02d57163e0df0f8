"""The console as operators meet it: a real gateway process and a real console process, over HTTP with the token."""

import asyncio
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest

from outlay.app.cli.main import main
from outlay.app.console.application import create_application
from outlay.app.console.desk import Desk
from outlay.app.console.main import run_console
from outlay.app.console.metrics import BudgetGauge, MetricsReading, render_metrics
from outlay.app.operations import ConfigSource
from outlay.flow.gateway.metrics import LATENCY_BOUNDS_US, MetricsView
from outlay.kernel.clock import SystemClock
from outlay.kernel.money import usd_to_nanos
from outlay.testing import MockProvider
from outlay.testing.processes import ChildProcess
from tests.harness import MOCK_PRICES

TOKEN = "the-admin-token-of-this-test"
PROVIDER_SECRET = "mock-key-of-the-provider"
CONFIG = """\
org: acme
gateway: {{port: 0}}
console: {{port: 0, admin_token: {token}}}
providers:
  - {{name: openai, api_key: {secret}, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: sk-outlay-of-the-file, team: search}}
budgets:
  - {{name: all, limit_usd: 1}}
  - {{name: each-run, scope: {{run: "*"}}, limit_usd: 0.5, window: lifetime}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> tuple[int, str, str | None]:
        found = self.json["error"]
        assert found.keys() == {"code", "message", "key"}
        return self.status, found["code"], found["key"]


def ask(method: str, url: str, body: Any = None, token: str | None = TOKEN, **headers: str) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **headers}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.read().decode(), dict(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


class Running(NamedTuple):
    """Both processes, and where they are."""

    gateway: ChildProcess
    console: ChildProcess
    url: str
    api: str
    path: Path
    mock: MockProvider

    def call(self, secret: str, **headers: str) -> Answer:
        body = {"model": "gpt-test", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
        return ask("POST", self.url + "/v1/chat/completions", body, secret, **headers)


def written(running: Running, charges: int) -> Any:
    """The audit once so many charges are written: settlements ride with a later commit, a moment after the answer."""
    while (found := ask("GET", running.api + "/api/v1/verify").json)["charges"] < charges:
        pass  # pytest's own time limit ends it
    return found


def write_config(folder: Path, url: str = "http://127.0.0.1:9") -> Path:
    path = folder / "outlay.yaml"
    path.write_text(CONFIG.format(url=url, token=TOKEN, secret=PROVIDER_SECRET))
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with MockProvider(prices=MOCK_PRICES) as mock:
        path = write_config(tmp_path, mock.url)
        with (
            ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway,
            ChildProcess([sys.executable, "-m", "outlay.app.console.main", str(path)]) as console,
        ):
            port = gateway.wait_for_json()["port"]
            said = console.wait_for_json()
            assert said["event"] == "console_listening"
            url, root = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{said['port']}"
            yield Running(gateway, console, url, root, path, mock)
            if console.exit_status is None:
                assert console.end() == 0, console.output
            assert not any(secret in line for line in console.output for secret in (TOKEN, PROVIDER_SECRET))


def parse_exposition(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], str]]:
    """A reader of the Prometheus text format, written from its documentation: strict about order and syntax."""
    found: dict[str, dict[tuple[tuple[str, str], ...], str]] = {}
    family, kind, seen = "", "", set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in seen, f"{family} stands in two places"
            seen.add(family)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and kind in ("counter", "gauge", "histogram")
            assert kind != "counter" or name.endswith("_total")
        else:
            match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (-?\d+(?:\.\d+)?)", line)
            assert match, line
            name, labels, value = match.groups()
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert name in [family + suffix for suffix in suffixes], line
            pairs = re.findall(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)', labels or "")
            assert ",".join(f'{key}="{text}"' for key, text in pairs) == (labels or "")
            samples = found.setdefault(name, {})
            assert tuple(pairs) not in samples, f"{line} is there twice"
            samples[tuple(pairs)] = value
    return found


# -- in this process ----------------------------------------------------------------------------------------------


def test_metrics_text_escapes_labels_and_adds_the_histogram_up() -> None:
    view = MetricsView(
        charges={'open|ai"s\\x\ny|usage': 3},
        spend_nanos={"openai|a|b": 1_500_000_001},
        refusals={"budget_spent": 2},
        sent=6,
        overrun_nanos=0,
        unknown_nanos=7,
        decision_us=[1] * len(LATENCY_BOUNDS_US) + [2],
        decision_us_sum=12_000_034,
    )
    gauges = (
        BudgetGauge("all", "all", usd_to_nanos("1"), 5, 0),
        BudgetGauge("meter", "team=a", None, 0, 1_000_000_000),
    )
    found = parse_exposition(render_metrics(MetricsReading(view, True, gauges)))
    (labels,) = found["outlay_charges_total"]
    assert labels == (("provider", "open"), ("model", 'ai\\"s\\\\x\\ny'), ("basis", "usage"))
    assert found["outlay_spend_usd_total"] == {(("provider", "openai"), ("model", "a|b")): "1.500000001"}
    buckets = {dict(key)["le"]: int(value) for key, value in found["outlay_decision_seconds_bucket"].items()}
    assert (buckets["0.00005"], buckets["10"], buckets["+Inf"]) == (1, 12, 14)
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["outlay_decision_seconds_sum"] == {(): "12.000034"}
    assert found["outlay_decision_seconds_count"] == {(): "14"}
    assert found["outlay_budget_limit_usd"] == {(("budget", "all"), ("scope", "all")): "1.00"}
    assert found["outlay_budget_held_usd"][("budget", "meter"), ("scope", "team=a")] == "1.00"


def test_metrics_of_a_gateway_that_is_down() -> None:
    found = parse_exposition(render_metrics(MetricsReading(None, False, ())))
    assert found == {"outlay_up": {(): "0"}, "outlay_ledger_readable": {(): "0"}}


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer \xff",
    ],
)
def test_without_the_token_nothing_is_read(tmp_path: Path, authorization: str | None) -> None:
    application = create_application(Desk(ConfigSource(write_config(tmp_path), {}), SystemClock()))
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for _ in range(4):
            taken += 1
            yield b"x" * 1000

    async def run() -> None:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            for path in ("/api/v1/keys", "/metrics", "/api/v1/nothing", "/api/v1/config"):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = await client.post("/api/v1/keys", content=body(), headers=headers)
            assert (answer.status_code, taken) == (401, 0)
            # a person is led to the sign-in, with the way back
            for path in ("/", "/budgets?q=x", "/approvals", "/runs/a/b", "/charges", "/docs/"):
                answer = await client.get(path, headers=headers)
                assert answer.status_code == 303
                assert answer.headers["location"] == "/signin?next=" + quote(path, safe="")

    asyncio.run(run())


def test_a_body_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlay.app.console.door.MAX_BODY", 2_000)
    application = create_application(Desk(ConfigSource(write_config(tmp_path), {}), SystemClock()))
    taken = 0

    async def body() -> Any:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b" " * 1000

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            return await client.post("/api/v1/quote", content=body(), headers=headers)

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["error"]["code"], taken) == (413, "body_too_large", 3)


def test_a_changed_token_is_in_force_and_a_removed_one_opens_nothing(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    application = create_application(Desk(ConfigSource(path, {}), SystemClock()))

    async def status(token: str) -> int:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            found = await client.get("/api/v1/config", headers={"authorization": f"Bearer {token}"})
            return found.status_code

    text = path.read_text()
    assert asyncio.run(status(TOKEN)) == 200
    path.write_text(text.replace(TOKEN, "another-token-for-the-admin"))
    assert asyncio.run(status(TOKEN)) == 401
    assert asyncio.run(status("another-token-for-the-admin")) == 200
    path.write_text(text.replace(f", admin_token: {TOKEN}", ""))
    assert asyncio.run(status("")) == 401
    assert asyncio.run(status(TOKEN)) == 401


def test_it_does_not_start_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    path.write_text(path.read_text().replace(f", admin_token: {TOKEN}", ""))
    assert run_console(path) == 2
    assert "console.admin_token" in capsys.readouterr().err


# -- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_key_made_here_works_at_the_gateway_until_it_is_revoked(running: Running) -> None:
    keys = running.api + "/api/v1/keys"
    made = ask("POST", keys, {"name": "ci", "team": "search", "tags": {"feature": "chat"}})
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    secret = made.json["secret"]
    assert running.call(secret).status == 200
    listed = ask("GET", keys)
    assert secret not in listed.text and "sha256" not in listed.text
    found = {item["name"]: item for item in listed.json["keys"]}
    assert (found["ci"]["pins"], found["ci"]["tags"], found["ci"]["origin"]) == (
        {"team": "search"},
        {"feature": "chat"},
        "store",
    )
    assert (found["dev"]["pins"], found["dev"]["place"]) == ({"team": "search"}, "outlay.yaml:7")
    assert ask("POST", keys, {"name": "ci"}).error == (409, "conflict", None)
    assert ask("DELETE", keys + "/ci").status == 200
    assert running.call(secret).status == 401
    assert ask("DELETE", keys + "/ci").error == (404, "not_found", None)


@pytest.mark.slow
def test_an_order_stops_a_scope_until_it_is_lifted(running: Running) -> None:
    orders, keys = running.api + "/api/v1/orders", running.api + "/api/v1/keys"
    secret = ask("POST", keys, {"name": "ci", "team": "search"}).json["secret"]
    asked = {"kind": "kill", "scope": {"team": "search"}, "reason": "it ran away"}
    made = ask("POST", orders, asked)
    assert (made.status, made.json["name"], made.json["cut_calls"]) == (201, "kill:team=search", 0)
    assert running.call(secret).json["error"]["code"] == "killed"
    assert ask("POST", orders, {**asked, "scope": {"teem": "x"}}).error == (422, "config_invalid", "scope")
    assert ask("POST", orders, {**asked, "reason": " "}).error == (422, "config_invalid", "reason")
    assert [order["name"] for order in ask("GET", orders).json["orders"]] == ["kill:team=search"]
    assert ask("DELETE", orders + "/kill:team=search").status == 200
    assert ask("DELETE", orders + "/kill:team=search").error == (404, "not_found", None)
    assert running.call(secret).status == 200


@pytest.mark.slow
def test_policies_are_put_shown_and_deleted_while_the_gateway_runs(running: Running) -> None:
    policies = running.api + "/api/v1/policies"
    assert ask("GET", policies).json == {"policies": []}
    body = {"scope": {"team": "*"}, "requests_per_minute": 1, "usd_per_hour": "5"}
    assert ask("PUT", f"{policies}/pace", body).json == {"kind": "policy", "name": "pace", "version": 1}
    shown = ask("GET", f"{policies}/pace").json
    assert (shown["origin"], shown["version"], shown["body"]) == ("store", 1, {"name": "pace", **body})
    assert [item["name"] for item in ask("GET", policies).json["policies"]] == ["pace"]
    statuses = [running.call("sk-outlay-of-the-file").status for _ in range(2)]
    assert statuses == [200, 429]
    assert ask("PUT", f"{policies}/x", {"usd_per_hour": 2.5}).error == (422, "config_invalid", "usd_per_hour")
    assert ask("PUT", f"{policies}/x", {"colour": "red"}).error == (422, "config_invalid", "colour")
    # the command line reaches the same gateway over its socket
    file = running.path.with_name("policies.yaml")
    file.write_text("policies:\n  - {name: pace, scope: {team: '*'}, requests_per_minute: 9}\n")
    config = ["-c", str(running.path)]
    assert main(["policy", "apply", str(file), "--note", "more", *config]) == 0
    assert ask("GET", f"{policies}/pace").json["version"] == 2
    assert running.call("sk-outlay-of-the-file").status == 200
    assert main(["policy", "plan", str(file), "--detailed-exitcode", *config]) == 0
    assert main(["policy", "simulate", str(file), *config]) == 0
    assert ask("DELETE", f"{policies}/pace").json["version"] == 3
    assert ask("GET", f"{policies}/pace").status == 404
    assert ask("DELETE", f"{policies}/pace").status == 404


def test_budgets_prices_quotes_and_spend(running: Running) -> None:
    api = running.api + "/api/v1"
    file_key = "sk-outlay-of-the-file"
    assert running.call(file_key, **{"x-outlay-run": "r1"}).status == 200
    written(running, 1)
    report = ask("GET", api + "/spend?by=team,model&since=1h").json
    assert report["rows"][0]["group"] == {"team": "search", "model": "gpt-test"}
    assert report["total"]["charges"] == 1 and report["total"]["cost_nanos"] > 0
    charge = ask("GET", api + "/charges").json["charges"][0]
    assert charge["cost_nanos"] == report["total"]["cost_nanos"]
    assert ask("GET", f"{api}/requests/{charge['request_id']}").json["charges"] == [charge]

    request = {"model": "gpt-test", "max_tokens": 50, "messages": []}
    question = {"body": json.dumps(request, indent=1), "key": "dev"}
    quote = ask("POST", api + "/quote", question).json
    assert quote["passes"] and quote["bound"]["output_nanos"] == 50 * 10_000
    assert (
        ask("PUT", api + "/prices/openai/gpt-new", {"usd_per_mtok": {"input": "5", "output": "20"}}).status
        == 200
    )
    question["body"] = json.dumps({**request, "model": "gpt-new"})
    assert ask("POST", api + "/quote", question).json["bound"]["output_nanos"] == 50 * 20_000
    prices = {item["name"]: item for item in ask("GET", api + "/prices").json["prices"]}
    assert prices["openai/gpt-test"]["entry"]["usd_per_mtok"] == {"input": "2.5", "output": "10"}
    assert prices["openai/gpt-new"]["origin"] == "store"
    assert ask("DELETE", api + "/prices/openai/gpt-new").status == 200

    stop = {"limit_usd": "0.000001", "scope": {"team": "search"}, "window": "24h"}
    assert ask("PUT", api + "/budgets/stop", stop).status == 200
    assert running.call(file_key).status == 402
    refused = ask("POST", api + "/quote", {"body": json.dumps(request), "key": "dev"}).json
    assert (refused["passes"], refused["refusal"]["fields"]["budget"]) == (False, "stop")
    budget = ask("GET", api + "/budgets/stop").json
    assert (budget["limit_usd"], budget["limit_nanos"], budget["window"]) == ("0.000001", 1000, "24h")
    shown = {item["name"]: item for item in ask("GET", api + "/budgets").json["budgets"]}
    assert shown["all"]["accounts"][0]["spent_nanos"] == report["total"]["cost_nanos"]
    assert shown["all"]["accounts"][0]["available_nanos"] == usd_to_nanos(1) - report["total"]["cost_nanos"]

    found = parse_exposition(ask("GET", running.api + "/metrics").text)
    assert found["outlay_up"] == {(): "1"}
    assert found["outlay_refusals_total"] == {(("code", "budget_spent"),): "1"}
    spend_key = (("provider", "openai"), ("model", "gpt-test"))
    assert usd_to_nanos(found["outlay_spend_usd_total"][spend_key]) == report["total"]["cost_nanos"]
    # one series for each budget with one account; none for `each-run`, whose runs are without number
    assert set(found["outlay_budget_limit_usd"]) == {
        (("budget", "all"), ("scope", "all")),
        (("budget", "stop"), ("scope", "team=search")),
    }
    assert found["outlay_open_holds"] == {(): "0"}

    assert ask("DELETE", api + "/budgets/stop").status == 200
    assert running.call(file_key).status == 200
    verified = written(running, 2)
    assert (verified["is_right"], verified["charges"], verified["findings"]) == (True, 2, [])
    assert ask("GET", api + "/unknown").json == {"charges": [], "next_before": None}


@pytest.mark.slow
def test_errors_say_what_is_wrong(running: Running) -> None:
    api = running.api + "/api/v1"
    for method, path, body in (
        ("DELETE", "/budgets/all", None),
        ("PUT", "/budgets/all", {"limit_usd": "5"}),
        ("DELETE", "/keys/dev", None),
        ("POST", "/keys", {"name": "dev"}),
        ("DELETE", "/prices/openai/gpt-test", None),
    ):
        found = ask(method, api + path, body)
        assert found.error[:2] == (409, "read_only"), (method, path, found.text)
        assert re.search(r"outlay\.yaml:\d+", found.json["error"]["message"])
    assert ask("PUT", api + "/budgets/b", {"limit_usd": 5.5}).error == (422, "request_invalid", "limit_usd")
    assert ask("PUT", api + "/budgets/b", {"limit_usd": "-1"}).error == (422, "config_invalid", "limit_usd")
    assert ask("PUT", api + "/budgets/b", {"limit_usd": "1", "x": 1}).error == (422, "request_invalid", "x")
    price = {"usd_per_mtok": {"input": 2.5}}
    assert ask("PUT", api + "/prices/a/b", price).error == (422, "config_invalid", "usd_per_mtok.input")
    assert ask("GET", api + "/budgets/none").error == (404, "not_found", None)
    assert ask("GET", api + "/requests/zzz").error == (422, "config_invalid", "request_id")
    assert ask("GET", api + "/requests/req_" + "0" * 32).error == (404, "not_found", None)
    assert ask("GET", api + "/spend?by=colour").error[:2] == (422, "config_invalid")
    assert ask("GET", api + "/spend?since=soon").error == (422, "config_invalid", "since")
    assert ask("GET", api + "/charges?limit=0").error == (422, "request_invalid", "limit")
    nothing = ask("POST", f"{api}/charges/req_{'0' * 32}/resolve", {"cost_usd": "0"})
    assert nothing.error == (404, "not_found", None)
    negative = ask("POST", f"{api}/charges/req_{'0' * 32}/resolve", {"cost_usd": "-1"})
    assert negative.error == (422, "config_invalid", "cost_usd")
    assert ask("GET", api + "/nothing").error == (404, "not_found", None)
    assert ask("PATCH", api + "/keys").error == (405, "method_not_allowed", None)


@pytest.mark.slow
def test_an_unknown_outcome_is_resolved(running: Running) -> None:
    api = running.api + "/api/v1"
    running.mock.behave(failure="cut_headers")
    assert running.call("sk-outlay-of-the-file").status >= 500
    written(running, 1)
    (charge,) = ask("GET", api + "/unknown").json["charges"]
    assert (charge["basis"], charge["cost_nanos"]) == ("outcome_unknown", charge["held_nanos"])
    done = ask("POST", f"{api}/charges/{charge['id']}/resolve", {"cost_usd": "0.0001", "note": "invoice"})
    assert done.json == {
        "id": charge["id"],
        "cost_usd": "0.0001",
        "cost_nanos": 100_000,
        "adjustment_usd": done.json["adjustment_usd"],
        "adjustment_nanos": 100_000 - charge["cost_nanos"],
    }
    while ask("GET", api + "/unknown").json["charges"]:
        pass  # the posting is written a moment later
    assert ask("GET", api + "/spend").json["total"]["cost_nanos"] == 100_000
    spent = parse_exposition(ask("GET", running.api + "/metrics").text)["outlay_budget_spent_usd"]
    assert spent[("budget", "all"), ("scope", "all")] == "0.0001"
    assert ask("GET", api + "/verify").json["is_right"] is True


@pytest.mark.slow
def test_pages_openapi_and_masked_config(running: Running) -> None:
    schema = ask("GET", running.api + "/openapi.json", token=None).json
    assert schema["openapi"].startswith("3.")
    paths = schema["paths"]
    assert {"/api/v1/keys", "/api/v1/spend", "/api/v1/verify", "/healthz", "/metrics"} <= paths.keys()
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)):
        assert reference in schema["components"]["schemas"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    for path, methods in paths.items():
        if path.startswith("/api/"):
            assert all(operation["security"] == [{"HTTPBearer": []}] for operation in methods.values())
    for path in ("/", "/docs"):
        page = ask("GET", running.api + path, token=None)  # without a token `/` leads to the sign-in
        assert page.status == 200
        # nothing is loaded from elsewhere, nothing stands inline
        assert not re.search(r"https?://|<style|style=|<script(?! src=\"/static/)", page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]
    config = ask("GET", running.api + "/api/v1/config")
    values = {value["path"]: value for value in config.json["values"]}
    assert values["providers[0].api_key"]["value"] == "***"
    assert values["console.admin_token"]["value"] == "***"
    assert values["budgets[0].limit_usd"] == {
        "path": "budgets[0].limit_usd",
        "value": "1",
        "origin": "outlay.yaml:9",
    }
    assert TOKEN not in config.text and PROVIDER_SECRET not in config.text
    status = ask("GET", running.api + "/api/v1/status").json
    assert (status["is_running"], status["keys"], status["budgets"]) == (True, 1, 2)


@pytest.mark.slow
def test_many_clients_make_one_name_once(running: Running) -> None:
    answers: list[int] = []

    def make() -> None:
        answers.append(ask("POST", running.api + "/api/v1/keys", {"name": "same"}).status)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [409] * 7


@pytest.mark.slow
def test_without_a_gateway_reports_go_on_and_changes_wait(running: Running) -> None:
    api = running.api + "/api/v1"
    assert running.call("sk-outlay-of-the-file").status == 200
    assert ask("GET", running.api + "/healthz", token=None).json == {
        "status": "ok",
        "gateway": "ok",
        "ledger": "ok",
    }
    assert running.gateway.end() == 0
    for method, path, body in (
        ("GET", "/keys", None),
        ("POST", "/keys", {"name": "late"}),
        ("PUT", "/budgets/b", {"limit_usd": "1"}),
        ("GET", "/status", None),
        ("POST", "/quote", {"body": "{}"}),
    ):
        assert ask(method, api + path, body).error == (503, "gateway_down", None)
    assert ask("GET", api + "/spend").json["total"]["charges"] == 1
    assert ask("GET", api + "/verify").json["is_right"] is True
    metrics = parse_exposition(ask("GET", running.api + "/metrics").text)
    assert (metrics["outlay_up"], metrics["outlay_ledger_readable"]) == ({(): "0"}, {(): "1"})
    spent = metrics["outlay_budget_spent_usd"][("budget", "all"), ("scope", "all")]
    assert usd_to_nanos(spent) == ask("GET", api + "/spend").json["total"]["cost_nanos"] > 0
    health = ask("GET", running.api + "/healthz", token=None).json
    while health["status"] == "ok":  # an answer is remembered for a second
        health = ask("GET", running.api + "/healthz", token=None).json
    assert health == {"status": "degraded", "gateway": "unreachable", "ledger": "ok"}
    # a gateway that is started again is found at once
    with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(running.path)]) as gateway:
        gateway.wait_for_json()
        assert ask("POST", api + "/keys", {"name": "late"}).status == 201


@pytest.mark.slow
def test_a_crash_of_the_console_touches_no_request(running: Running) -> None:
    running.console.kill()
    assert running.call("sk-outlay-of-the-file").status == 200
    assert running.gateway.exit_status is None
    assert os.path.exists(running.path.with_name("outlay.db.sock"))
