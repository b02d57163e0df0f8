"""Identity against real processes: rotation by command line and API, tokens of an issuer whose keys change, tags."""

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
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from outlay.testing.processes import ChildProcess
from tests.harness import MOCK_PRICES
from tests.tokens import AUDIENCE, ISSUER, KeyServer, jwk, jwks, key_server, rsa_key, token

LIMIT = "0.000012347"
TOKEN = "the-admin-token-of-this-test"
CONFIG = """\
org: acme
gateway: {{port: 0}}
console: {{port: 0, admin_token: {token}}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: staff, secret: sk-outlay-of-the-staff, environment: prod}}
budgets:
  - {{name: all, limit_usd: 1}}
  - {{name: each-user, scope: {{user: "*"}}, limit_usd: 0.5}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
tags:
  - {{name: feature, required: true, allowed: [chat], scope: {{environment: prod}}}}
identity:
  - name: sso
    issuer: {issuer}
    audience: {audience}
    jwks_url: {keys}
    key: staff
    claims: {{user: sub, team: "groups[0]"}}
"""


class Answer(NamedTuple):
    status: int
    body: Any

    @property
    def code(self) -> str:
        return "" if self.status < 300 else str(self.body["error"]["code"])


def http(url: str, body: Any, secret: str, **headers: str) -> Answer:
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {secret}", "content-type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read()))


class Running(NamedTuple):
    path: Path
    url: str
    api: str
    keys: KeyServer

    def call(self, secret: str, tags: str = "feature=chat", **headers: str) -> Answer:
        body = {"model": "gpt-test", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        headers = {**headers, **({"x-outlay-tags": tags} if tags else {})}
        return http(self.url + "/v1/chat/completions", body, secret, **headers)

    def until(self, secret: str, code: str) -> None:
        """Ask until that is the answer: pytest's own time limit ends it."""
        while self.call(secret).code != code:
            time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock, key_server(jwks(jwk(rsa_key(), "k1"))) as keys:
        path.write_text(
            CONFIG.format(url=mock.url, token=TOKEN, issuer=ISSUER, audience=AUDIENCE, keys=keys.url)
        )
        with (
            ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway,
            ChildProcess([sys.executable, "-m", "outlay.app.console.main", str(path)]) as console,
        ):
            url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
            api = f"http://127.0.0.1:{console.wait_for_json()['port']}/api/v1"
            yield Running(path, url, api, keys)
            assert gateway.end() == 0, gateway.output
            assert not any("eyJ" in line or "sk-outlay" in line for line in gateway.output)


def test_rotation_by_command_line_and_api(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json", "-c", str(running.path)])
        return code, json.loads(capsys.readouterr().out)

    first = run("key", "create", "ci", "--team", "search")[1]["secret"]
    assert running.call(first).status == 200
    code, made = run("key", "rotate", "ci", "--overlap", "1h")
    assert (code, made["name"], made["version"], len(made["previous"])) == (0, "ci", 2, 1)
    second = made["secret"]
    assert running.call(first).status == running.call(second).status == 200
    shown = next(key for key in run("key", "list")[1]["keys"] if key["name"] == "ci")
    assert (shown["pins"], shown["previous"]) == ({"team": "search"}, made["previous"])
    third = http(running.api + "/keys/ci/rotate", {"overlap_s": 0}, TOKEN)
    assert third.status == 200
    assert running.call(third.body["secret"]).status == 200
    for old in (first, second):
        answer = running.call(old)
        assert (answer.status, answer.code) == (401, "key_rotated")
    assert http(running.api + "/keys/ci/rotate", {"overlap_s": -1}, TOKEN).status == 422
    assert http(running.api + "/keys/nobody/rotate", {}, TOKEN).status == 404
    assert http(running.api + "/keys/staff/rotate", {}, TOKEN).status == 409
    assert run("key", "rotate", "nobody")[0] == 3
    assert run("key", "rotate", "staff")[0] == 4
    assert run("key", "rotate", "ci", "--overlap", "soon")[0] == 2
    with LedgerReader(running.path.with_name("outlay.db")) as reader:
        assert [row.group["key"] for row in reader.spend(["key"])] == ["ci"]
    said = running.path.with_name("outlay.db").read_bytes()
    assert not any(secret.encode() in said for secret in (first, second, third.body["secret"]))


def test_one_bearer_of_a_key_is_told_nothing_of_another(running: Running) -> None:
    ada, bob = token(groups=["search"]), token(sub="bob", groups=["search"])
    running.until(ada, "")
    running.path.write_text(
        running.path.read_text().replace("budgets:\n", f"budgets:\n  - {{name: team, limit_usd: {LIMIT}}}\n")
    )
    running.until(ada, "budget_spent")
    refused = running.call(ada)
    request_id = refused.body["error"]["request_id"]
    asked = {"request_id": request_id, "reason": "more, please"}
    raises = running.url + "/outlay/v1/raises"
    for other in (bob, token(groups=["ads"]), token(sub=None), "sk-outlay-of-nobody"):
        assert http(raises, asked, other).status in (401, 404)
    made = http(raises, asked, ada)
    assert made.status == 201
    mine, theirs = (http(raises, None, secret) for secret in (ada, bob))
    assert [ask["id"] for ask in mine.body["raises"]] == [made.body["id"]]
    assert theirs.body == {"raises": []}
    assert http(f"{raises}/{made.body['id']}", None, ada).status == 200
    assert http(f"{raises}/{made.body['id']}", None, bob).status == 404
    done = running.call(ada, **{"x-outlay-run": "r"})
    # nothing that an answer says holds an amount of the budget above
    for answer in (refused, made, mine, theirs, done):
        text = json.dumps(answer.body)
        assert LIMIT not in text
        assert not any(
            f'"{field}' in text for field in ("limit", "spent", "held", "needed", "wanted", "granted")
        )
    with LedgerReader(running.path.with_name("outlay.db")) as reader:
        (first,) = reader.charges(1)
    requests = f"{running.url}/outlay/v1/requests/req_{first.request_id}"
    assert http(requests, None, ada).status == 200
    assert http(requests, None, bob).status == 404


def test_tokens_of_an_issuer_that_changes_its_keys(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    ada = token(groups=["search"])
    running.until(ada, "")
    assert main(["status", "--json", "-c", str(running.path)]) == 0
    assert json.loads(capsys.readouterr().out)["issuers"] == {"sso": ""}
    # the next keys are fetched in the background, when a token asks for them
    running.keys.body = jwks(jwk(rsa_key("two"), "k2"))
    bob = token(rsa_key("two"), "k2", sub="bob", groups=["ads"])
    assert running.call(bob).code == "token_key_unknown"
    running.until(bob, "")
    # what the withdrawn key signed opens nothing any more
    assert running.call(ada).code == "token_key_unknown"
    assert running.call(token(rsa_key("two"), "k2", exp=int(time.time()) - 60)).code == "token_expired"
    answer = running.call(bob, tags="")
    assert (answer.status, answer.code, answer.body["error"]["tag"]) == (400, "tag_required", "feature")
    answer = running.call(bob, tags="feature=other")
    assert (answer.status, answer.body["error"]["allowed"]) == (400, ["chat"])
    # without issuers a token is a key that nobody knows
    text = running.path.read_text()
    running.path.write_text(text.partition("identity:\n")[0])
    running.until(bob, "key_unknown")
    running.path.write_text(text)
    running.until(bob, "")
    # a settlement is written a moment after the answer
    with LedgerReader(running.path.with_name("outlay.db")) as reader:
        while {row.group["user"] for row in reader.spend(["user"])} != {"ada", "bob"}:
            time.sleep(0.05)
        rows = reader.spend(["user", "team", "key"])
    assert {tuple(row.group.values()) for row in rows} == {
        ("ada", "search", "staff"),
        ("bob", "ads", "staff"),
    }
