"""The commands that report and change: against a SQLite ledger that a real gateway has filled, none running now."""

import io
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outlay.app.cli.main import main
from outlay.app.cli.output import money, printable, window_words
from outlay.app.config import build_snapshot, load_config
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.ids import id_text
from outlay.lookup.feed import feed_of
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway

SECRET = "sk-outlay-of-the-search-team"

CONFIG = """\
version: 1
org: acme
gateway: {port: 0}
providers:
  - {name: openai, api_key: mock-key-of-the-provider, base_url: "http://127.0.0.1:9/v1"}
keys:
  - {name: dev, secret: SECRET, team: search, tags: {feature: chat}}
budgets:
  - {name: all, limit_usd: 5}
  - {name: each-team, scope: {team: "*"}, limit_usd: 0.01, window: 24h}
  - {name: tiny, scope: {team: nobody}, limit_usd: 0.000001}
prices:
  - {kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {input: 2.5, output: 10, cache_read: 1.25}}
""".replace("SECRET", SECRET)  # fmt: skip
PROMPT = "the secret recipe of the house"
# 10 input tokens at 2.50 and 20 output tokens at 10 USD per million
CALL_NANOS = 10 * 2_500 + 20 * 10_000


class Shown(NamedTuple):
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Shown]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outlay.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the folder's configuration."""

    def run_one(*arguments: str) -> Shown:
        code = main([*arguments, "-c", str(folder / "outlay.yaml")])
        return Shown(code, *capsys.readouterr())

    return run_one


def call(url: str, **changes: Any) -> None:
    body = {
        "model": "gpt-test",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": PROMPT}],
        **changes,
    }
    request = urllib.request.Request(
        url + "/v1/chat/completions", json.dumps(body).encode(), {"authorization": f"Bearer {SECRET}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()


@pytest.fixture
def filled(folder: Path) -> Iterator[None]:
    """A ledger with two good calls and one of unknown outcome."""
    config = load_config(folder / "outlay.yaml", {})
    snapshot = build_snapshot(config, [], feed_of([]), 1)
    with MockProvider(prices=MOCK_PRICES) as mock:
        mock.behave(input_tokens=10, output_tokens=20)
        with RunningGateway(
            folder / "outlay.db",
            mock.url,
            snapshot.budgets,
            keys=snapshot.keys.values(),
            price_book=snapshot.book,
        ) as gateway:
            call(gateway.url)
            call(gateway.url)
            mock.behave(failure="cut_headers")
            call(gateway.url)
            until = time.monotonic() + 10
            while gateway.call(lambda: gateway.books.open_holds) and time.monotonic() < until:
                time.sleep(0.01)
    yield


@pytest.mark.usefixtures("filled")
def test_spend(run: Run) -> None:
    shown = run("spend", "--by", "team,model,tag.feature", "--json")
    assert shown.code == 0
    (row,) = shown.json["rows"]
    assert row["group"] == {"team": "search", "model": "gpt-test", "tag.feature": "chat"}
    assert row["charges"] == 3
    assert row["unknown_nanos"] > 0
    assert row["cost_nanos"] - row["unknown_nanos"] == 2 * CALL_NANOS
    assert shown.json["total"] == {name: value for name, value in row.items() if name != "group"}
    assert set(row) == {
        "group", "cost_usd", "cost_nanos", "unknown_usd", "unknown_nanos", "overrun_usd", "overrun_nanos", "charges",
        "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    }  # fmt: skip
    known = run("spend", "--by", "user,basis", "--since", "today")
    assert known.code == 0
    table = [line.split() for line in known.out.splitlines()]
    assert table[0][:3] == ["USER", "BASIS", "COST"]
    assert ["unattributed", "$0.00045", "2"] in [[line[0], line[2], line[3]] for line in table[1:-1]]
    assert table[-1][0] == "total"


@pytest.mark.usefixtures("filled")
def test_spend_of_other_times_is_nothing(run: Run) -> None:
    shown = run("spend", "--since", "2020-01-01", "--until", "2020-02-01T00:00:00Z", "--json")
    assert (shown.json["since"], shown.json["until"]) == ("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z")
    assert (shown.json["rows"], shown.json["total"]["cost_usd"]) == ([], "0.00")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--since", "soon"), "--since: 'soon' is no time"),
        (("--since", "now", "--until", "7d"), "--until: ends before it begins"),
        (("--by", "team,team"), "--by: names a group twice"),
        (("--by", "teem"), "unknown group 'teem'"),
    ],
)
@pytest.mark.usefixtures("filled")
def test_spend_of_nonsense(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    shown = run("spend", *arguments)
    assert shown.code == 2
    assert expected in shown.err


def test_reports_without_a_ledger(run: Run, folder: Path) -> None:
    for command in (("spend",), ("ledger", "unknown"), ("ledger", "show", "req_" + "0" * 32)):
        shown = run(*command)
        assert shown.code == 5
        assert shown.err == "outlay: there is no ledger at outlay.db yet; `outlay up` makes it\n"
    assert not (folder / "outlay.db").exists()


@pytest.mark.usefixtures("filled")
def test_unknown_and_resolve(run: Run, folder: Path) -> None:
    (charge,) = run("ledger", "unknown", "--json").json["charges"]
    assert (charge["basis"], charge["cost_nanos"]) == ("outcome_unknown", charge["held_nanos"])
    spent = run("budget", "show", "all", "--json").json["accounts"][0]["spent_nanos"]
    assert spent == 2 * CALL_NANOS + charge["held_nanos"]
    shown = run("ledger", "resolve", charge["id"], "--cost", "0.000025", "--note", "invoice line 7", "--json")
    assert shown.code == 0
    assert shown.json == {
        "id": charge["id"],
        **money("cost", 25_000),
        **money("adjustment", 25_000 - spent + 2 * CALL_NANOS),
    }
    assert (
        run("budget", "show", "all", "--json").json["accounts"][0]["spent_nanos"] == 2 * CALL_NANOS + 25_000
    )
    assert run("ledger", "unknown", "--json").json == {"charges": []}
    again = run("ledger", "resolve", charge["id"], "--not-billed")
    assert again.code == 0
    assert run("spend", "--json").json["total"]["cost_nanos"] == 2 * CALL_NANOS
    shown = run("ledger", "verify", "--json")
    assert (shown.code, shown.json["is_right"], shown.json["findings"]) == (0, True, [])
    assert (shown.json["charges"], shown.json["spend_nanos"]) == (3, 2 * CALL_NANOS)


@pytest.mark.usefixtures("filled")
def test_what_is_known_is_not_resolved(run: Run, folder: Path) -> None:
    with LedgerReader(folder / "outlay.db") as reader:
        known = next(charge for charge in reader.charges() if charge.basis != "outcome_unknown")
    request = id_text(bytes.fromhex(known.request_id))
    assert run("ledger", "resolve", request, "--cost", "1").code == 1
    assert run("ledger", "resolve", "req_" + "0" * 32, "--cost", "1").code == 3
    assert run("ledger", "resolve", request, "--cost", "-1").code == 2
    assert run("ledger", "resolve", request, "--cost", "nan").code == 2
    assert run("ledger", "resolve", "nonsense", "--cost", "1").code == 2
    shown = run("ledger", "show", request, "--json")
    (charge,) = shown.json["charges"]
    assert (charge["cost_nanos"], charge["identity"]["team"], charge["status"]) == (
        CALL_NANOS,
        "search",
        known.status,
    )
    assert run("ledger", "show", request).code == 0


@pytest.mark.usefixtures("filled")
def test_verify_finds_a_wrong_balance(run: Run, folder: Path) -> None:
    import apsw

    database = apsw.Connection(str(folder / "outlay.db"))
    database.execute("UPDATE charges SET cost_nanos = cost_nanos + 1")
    database.close()
    shown = run("ledger", "verify", "--json")
    assert (shown.code, shown.json["is_right"]) == (1, False)
    assert shown.json["findings"]


@pytest.mark.usefixtures("filled")
def test_budgets(run: Run) -> None:
    listed = run("budget", "list", "--json").json["budgets"]
    assert [budget["name"] for budget in listed] == ["all", "each-team", "tiny"]
    team = listed[1]
    assert (team["scope"], team["window"], team["hard"], team["place"]) == (
        {"team": "*"},
        "24h",
        True,
        "outlay.yaml:10",
    )
    (account,) = team["accounts"]
    assert (account["scope"], account["limit_usd"], account["held_nanos"]) == ("team=search", "0.01", 0)
    assert account["available_nanos"] == 10_000_000 - account["spent_nanos"]
    assert (
        run("budget", "set", "own", "--limit", "0.5", "--scope", "user=ada", "--scope", "tag.x=*").code == 0
    )
    changed = run("budget", "set", "own", "--window", "7d", "--soft", "--json")
    assert changed.json["body"] == {
        "name": "own", "scope": {"user": "ada", "tag.x": "*"}, "limit_usd": "0.5", "window": "7d", "soft": True,
    }  # fmt: skip
    assert changed.json["version"] == 2
    own = run("budget", "show", "own", "--json").json
    assert (own["hard"], own["origin"], own["version"], own["accounts"]) == (False, "store", 2, [])
    assert "user=ada" in run("budget", "list").out
    assert run("budget", "set", "all", "--limit", "1").code == 4
    assert run("budget", "set", "new").code == 2
    assert run("budget", "set", "new", "--limit", "1", "--scope", "team").code == 2
    assert run("budget", "set", "new", "--limit", "1", "--window", "fortnight").code == 2
    assert run("budget", "delete", "own").code == 0
    assert run("budget", "delete", "own").code == 3
    assert run("budget", "show", "own").code == 3
    assert run("budget", "delete", "all").code == 4


def test_keys(run: Run, folder: Path) -> None:
    made = run(
        "key", "create", "ci", "--team", "search", "--user", "bot", "--tag", "feature=x", "--allow-model", "gpt-*",
        "--expires", "2030-01-01", "--json",
    )  # fmt: skip
    assert made.code == 0
    secret = made.json["secret"]
    assert secret.startswith("sk-outlay-")
    listed = run("key", "list", "--json")
    assert [key["name"] for key in listed.json["keys"]] == ["ci", "dev"]
    assert listed.json["keys"][0] == {
        "name": "ci", "origin": "store", "place": None, "version": 1,
        "pins": {"team": "search", "user": "bot", "tag.feature": "x"},
        "allow_models": ["gpt-*"], "deny_models": [], "expires": "2030-01-01",
        "run_parent": None, "previous": [],
    }  # fmt: skip
    assert listed.json["keys"][1]["place"] == "outlay.yaml:7"
    kept = b"".join(
        path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".yaml"
    )
    assert secret.encode() not in kept
    for shown in (listed, run("key", "list"), run("config", "check"), run("doctor"), run("status")):
        for hidden in (secret, SECRET, "mock-key-of-the-provider"):
            assert hidden not in shown.out + shown.err
    assert run("key", "create", "ci").code == 4
    assert run("key", "create", "dev").code == 4
    assert run("key", "create", "x", "--expires", "tomorrow").code == 2
    assert run("key", "create", "x", "--tag", "a").code == 2
    assert run("key", "revoke", "dev").code == 4
    assert run("key", "revoke", "ci").code == 0
    assert run("key", "revoke", "ci").code == 3


def test_prices(run: Run) -> None:
    assert run("price", "show", "gpt-nobody-knows").code == 3
    put = run(
        "price", "set", "openai/new", "--input", "0.1", "--output", "0.4", "--cache-read", "0.025", "--per-request",
        "0.001", "--context-window", "1000", "--alias", "newest",
    )  # fmt: skip
    assert put.code == 0
    for name in ("new", "newest", "openai/new"):
        (price,) = run("price", "show", name, "--json").json["prices"]
        (rates,) = price["rates"]
        assert rates["usd_per_mtok"] == {"input": "0.10", "output": "0.40", "cache_read": "0.025"}
        assert rates["nanos_per_mtok"] == {
            "input": 100_000_000,
            "output": 400_000_000,
            "cache_read": 25_000_000,
        }
        assert (price["fee_per_request_nanos"], price["context_window"]) == (1_000_000, 1000)
    assert [price["name"] for price in run("price", "list", "--json").json["prices"]] == [
        "openai/gpt-test",
        "openai/new",
    ]
    models = {found["model"] for found in run("price", "diff", "--json").json["differences"]}
    assert models == {"gpt-test", "new", "newest"} or models == {"gpt-test", "new"}
    assert run("price", "set", "new", "--input", "1").code == 2
    assert run("price", "set", "opnai/new", "--input", "1").code == 2
    assert run("price", "set", "openai/new", "--input", "-1").code == 2
    assert run("price", "set", "openai/gpt-test", "--input", "1").code == 4
    assert run("price", "delete", "new", "--provider", "openai").code == 0
    assert run("price", "delete", "openai/new").code == 3
    assert run("price", "show", "new").code == 3
    assert run("price", "check", "--provider", "anthropic").code == 0
    assert run("price", "check", "--provider", "anthropic", "--strict").code == 1


@pytest.fixture
def request_file(folder: Path) -> Path:
    path = folder / "request.json"
    path.write_text(
        json.dumps({"model": "gpt-test", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]})
    )
    return path


def test_quote_passes(run: Run, request_file: Path) -> None:
    shown = run("quote", "--key", "dev", "--file", str(request_file), "--json")
    assert shown.code == 0
    found = shown.json
    assert (found["passes"], found["refusal"]) == (True, None)
    bound = found["bound"]
    assert bound["output_nanos"] == 50 * 10_000
    assert bound["total_nanos"] == bound["input_nanos"] + bound["output_nanos"]
    assert [(budget["name"], budget["scope"], budget["window"]) for budget in found["budgets"]] == [
        ("all", "all", "month"),
        ("each-team", "team=search", "24h"),
    ]
    text = run("quote", "--key", "dev", "--file", str(request_file))
    assert text.out.rstrip().endswith("passes")
    assert PROMPT not in text.out + shown.out


def test_quote_refuses(run: Run, request_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("key", "create", "poor", "--team", "nobody").code == 0
    shown = run("quote", "--key", "poor", "--file", str(request_file), "--json")
    assert (shown.code, shown.json["passes"], shown.json["refusal"]["code"]) == (1, False, "budget_spent")
    assert {"tiny"} <= {budget["name"] for budget in shown.json["budgets"]}
    assert "refused (402 budget_spent)" in run("quote", "--key", "poor", "--file", str(request_file)).out
    body = io.TextIOWrapper(io.BytesIO(b'{"model": "gpt-nobody-knows", "messages": []}'))
    monkeypatch.setattr(sys, "stdin", body)
    unpriced = run("quote", "--json")
    assert (unpriced.code, unpriced.json["bound"], unpriced.json["refusal"]["status"]) == (1, None, 422)
    assert run("quote", "--file", str(request_file), "--key", "nobody").code == 3
    assert run("quote", "--file", "/no/such/file").code == 2
    assert run("quote", "--file", str(request_file), "--path", "/v1/nope").code == 1


def test_status_and_doctor_without_a_gateway(run: Run, folder: Path) -> None:
    shown = run("status", "--json")
    assert (shown.code, shown.json["is_running"], shown.json["budgets"]) == (5, False, 3)
    doctor = run("doctor", "--json")
    assert (doctor.code, doctor.json["is_well"]) == (0, True)
    assert {finding["check"] for finding in doctor.json["findings"]} >= {"config", "gateway", "ledger"}
    assert run("doctor", "--accept-recovery").code == 1


def test_doctor_sees_a_stored_object_that_the_file_hides(run: Run, folder: Path) -> None:
    assert run("budget", "set", "late", "--limit", "3").code == 0
    (folder / "outlay.yaml").write_text(CONFIG.replace("name: tiny", "name: late"))
    details = [finding["detail"] for finding in run("doctor", "--json").json["findings"]]
    assert "the stored budget 'late' is not in force: outlay.yaml:11 declares it" in details


@pytest.mark.usefixtures("filled")
def test_no_prompt_is_ever_printed(run: Run, folder: Path) -> None:
    commands = [
        ("spend",),
        ("ledger", "unknown"),
        ("ledger", "verify"),
        ("budget", "list"),
        ("doctor",),
        ("status",),
    ]
    for command in commands:
        for form in ((), ("--json",)):
            shown = run(*command, *form)
            for hidden in (PROMPT, SECRET, "mock-key-of-the-provider"):
                assert hidden not in shown.out + shown.err


def test_text_that_callers_chose_cannot_move_the_terminal() -> None:
    assert printable("run\x1b[2J\r\n\x00é") == "run?[2J???é"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("86400s", "24h"),
        ("604800s", "7d"),
        ("90s", "90s"),
        ("300s", "5m"),
        ("3600s", "1h"),
        ("month", "month"),
    ],
)
def test_windows_as_people_write_them(text: str, expected: str) -> None:
    assert window_words(text) == expected
