"""LiteLLM's real schema in a real PostgreSQL: a client goes on with its old key, and no cap is given twice."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from outlay.app.cli.main import main
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES
from tests.reality.litellm_rows import (
    fresh_database,
    hash_token,
    insert,
    migrations,
    next_month,
    server,
    tomorrow,
)

pytestmark = pytest.mark.slow
OLD = "sk-1a2b3c4d5e6f7g8h9i0jAA"
SPENT = "sk-spent-to-the-last-cent-01"
BLOCKED = "sk-blocked-by-an-admin-0001"
EXPIRED = "sk-expired-last-year-000001"
SHARED = "sk-of-a-team-with-a-cap-001"
CONFIG = """\
model_list:
  - model_name: gpt-test
    litellm_params:
      model: openai/gpt-test
      api_base: {url}/v1
      api_key: os.environ/MOCK_KEY
      rpm: 100
      input_cost_per_token: 0.0000025
      output_cost_per_token: 0.00001
  - model_name: far
    litellm_params: {{model: vertex_ai/gemini-2.5-pro}}
router_settings: {{routing_strategy: simple-shuffle, num_retries: 1}}
litellm_settings: {{callbacks: [langfuse], drop_params: true}}
general_settings: {{master_key: sk-master-0000000000000}}
"""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("pg")) as address:
        yield address


@pytest.fixture
def database(postgres: str, request: pytest.FixtureRequest) -> str:
    address = fresh_database(postgres, f"d{abs(hash(request.node.name))}", migrations())
    fill(address)
    return address


def fill(address: str) -> None:
    """Rows as LiteLLM's management endpoints and spend writer leave them."""
    now = datetime.now(UTC).replace(tzinfo=None)
    long_ago = now - timedelta(days=400)
    insert(
        address,
        "LiteLLM_BudgetTable",
        budget_id="b-org",
        max_budget=500.0,
        budget_duration="30d",
        budget_reset_at=next_month(),
    )
    insert(address, "LiteLLM_BudgetTable", budget_id="b-cust", max_budget=3.0)
    insert(
        address,
        "LiteLLM_OrganizationTable",
        organization_id="o1",
        organization_alias="acme",
        budget_id="b-org",
        spend=12.0,
        models=[],
    )
    insert(
        address,
        "LiteLLM_TeamTable",
        team_id="t1",
        team_alias="search",
        organization_id="o1",
        max_budget=20.0,
        budget_duration="30d",
        budget_reset_at=next_month(),
        spend=11.0,
        models=["gpt-test"],
        admins=[],
        members=[],
        metadata={"owner": "ada"},
        created_at=long_ago,
        tpm_limit=1000,
    )
    insert(
        address,
        "LiteLLM_TeamTable",
        team_id="t2",
        team_alias="capped",
        max_budget=5.0,
        budget_duration="24h",
        budget_reset_at=tomorrow(),
        spend=5.0,
        models=[],
        admins=[],
        members=[],
        created_at=long_ago,
    )
    insert(
        address,
        "LiteLLM_UserTable",
        user_id="u1",
        user_email="ada@example.com",
        max_budget=50.0,
        spend=7.5,
        models=[],
        created_at=long_ago,
    )
    insert(address, "LiteLLM_EndUserTable", user_id="cust-1", budget_id="b-cust", spend=1.25)
    insert(address, "LiteLLM_EndUserTable", user_id="cust-2", blocked=True)
    shared: dict[str, Any] = {"models": [], "created_at": long_ago}
    insert(
        address,
        "LiteLLM_VerificationToken",
        token=hash_token(OLD),
        key_alias="ci",
        team_id="t1",
        user_id="u1",
        max_budget=10.0,
        budget_duration="30d",
        budget_reset_at=next_month(),
        spend=4.0000000001,
        metadata={"tags": ["job:nightly"]},
        rpm_limit=60,
        **shared,
    )
    insert(
        address,
        "LiteLLM_VerificationToken",
        token=hash_token(SPENT),
        key_alias="spent",
        max_budget=2.5,
        spend=2.5,
        **shared,
    )
    insert(
        address,
        "LiteLLM_VerificationToken",
        token=hash_token(BLOCKED),
        key_alias="blocked",
        blocked=True,
        **shared,
    )
    insert(
        address,
        "LiteLLM_VerificationToken",
        token=hash_token(EXPIRED),
        key_alias="expired",
        expires=now - timedelta(days=9),
        **shared,
    )
    # a key without a limit: what it ever spent is not what its team spent today
    insert(
        address, "LiteLLM_VerificationToken", token=hash_token(SHARED), team_id="t2", spend=900.0, **shared
    )
    insert(
        address,
        "LiteLLM_ProxyModelTable",
        model_id="m1",
        model_name="hidden",
        litellm_params={"model": "q" * 75 + "=", "api_key": "z" * 75 + "="},
    )


@contextmanager
def gateway(path: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "outlay.app.cli.main", "up", "-c", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "MOCK_KEY": "mock"},
    )  # fmt: skip
    assert process.stdout is not None
    with process, process.stdout:
        line = next(line for line in process.stdout if '"listening"' in line)
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def ask(url: str, secret: str) -> str:
    """`ok`, or the status and code of the refusal, through the vendor's SDK as it was before."""
    client = openai.OpenAI(api_key=secret, base_url=url + "/v1", max_retries=0)
    try:
        client.chat.completions.create(
            model="gpt-test", max_tokens=20, messages=[{"role": "user", "content": "hello"}]
        )
    except openai.APIStatusError as error:
        return f"{error.status_code} {error.body['code']}"  # type: ignore[index]
    return "ok"


class Bench:
    """Runs `outlay` with a config file of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "outlay.yaml"
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, Any]:
        self._capsys.readouterr()
        code = main([*arguments, "--json", "-c", str(self.path)])
        return code, json.loads(self._capsys.readouterr().out)

    def free_ports(self) -> None:
        """For tests only: whatever ports are free."""
        text = self.path.read_text("utf-8")
        self.path.write_text(text.replace("port: 4100", "port: 0").replace("port: 4101", "port: 0"))


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("MOCK_KEY", "mock")
    return Bench(tmp_path, capsys)


def spent(bench: Bench, budget: str) -> int:
    code, shown = bench.run("budget", "show", budget)
    assert code == 0
    return sum(account["spent_nanos"] for account in shown["accounts"] if account["is_current"])


def test_an_unchanged_client_goes_on_with_its_old_key(database: str, bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    with MockProvider(prices=MOCK_PRICES) as mock:
        source.write_text(CONFIG.format(url=mock.url))
        arguments = ("import", "litellm", "--database", database, "--config", str(source))

        code, told = bench.run(*arguments, "--dry-run")
        assert (code, told["changes"], told["conflicts"]) == (0, True, [])
        assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".d") == ["config.yaml"]

        code, done = bench.run(*arguments)
        assert (code, done["conflicts"], done["file_is_whole"]) == (0, [], True)
        assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600
        assert "sk-master" not in bench.path.read_text("utf-8")
        assert {(item["kind"], item["name"]) for item in done["made"]} == {
            (item["kind"], item["name"]) for item in told["made"]
        }
        openings = {item["budget"]: item["posted_nanos"] for item in done["openings"]}
        assert openings["key/ci"] == 4_000_000_001, "rounded up: never less than was spent"
        assert openings["team/search"] == 11_000_000_000 - 4_000_000_001
        assert openings["org/acme"] == 1_000_000_000, "only what its teams do not cover"
        assert openings["team/capped"] == 5_000_000_000, "not the 900 that its key ever spent"
        assert spent(bench, "key/ci") == 4_000_000_001
        assert spent(bench, "team/search") == 11_000_000_000
        assert spent(bench, "org/acme") == 12_000_000_000
        assert spent(bench, "customer/cust-1") == 1_250_000_000
        code, audit = bench.run("ledger", "verify")
        assert (code, audit["is_right"]) == (0, True)

        code, again = bench.run(*arguments)
        assert (code, again["changes"], again["made"], again["openings"]) == (0, False, [], [])
        assert spent(bench, "org/acme") == 12_000_000_000

        bench.free_ports()
        with gateway(bench.path) as url:
            assert ask(url, OLD) == "ok"
            assert ask(url, BLOCKED).startswith("401")
            assert ask(url, EXPIRED).startswith("401")
            assert ask(url, SPENT) == "402 budget_spent"
            assert ask(url, SHARED) == "402 budget_spent", "its team's day is spent"
            code, again = bench.run(*arguments)
            assert (code, again["changes"]) == (0, False), "beside a running gateway as well"
            code, told = bench.run(*arguments, "--dry-run")
            assert (code, told["changes"]) == (0, False)
        code, audit = bench.run("ledger", "verify")
        assert (code, audit["is_right"]) == (0, True)
        code, report = bench.run("spend", "--by", "basis", "--since", "2d")
        metered = [row["cost_nanos"] for row in report["rows"] if row["group"]["basis"] == "metered"]
        assert metered == [mock.meter.total_nanos], "what was imported stands apart from what was metered"


def test_what_is_not_carried_over_is_listed(database: str, bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    source.write_text(CONFIG.format(url="http://127.0.0.1:9"))
    code, told = bench.run("import", "litellm", "--database", database, "--config", str(source), "--dry-run")
    assert code == 0
    listed = {item["where"] for item in told["unmapped"]}
    assert {
        "key ci: rpm_limit",
        "team search: tpm_limit",
        "team search: metadata.owner",
        "model_list[0] gpt-test: rpm",
        "model_list[1] far",
        "litellm_settings.callbacks",
        "litellm_settings.drop_params",
        "general_settings.master_key",
        "model hidden (m1): litellm_params",
    } <= listed
    assert all(item["reason"] and item["fix"] for item in told["unmapped"])
    assert "sk-master" not in json.dumps(told)
    assert told["left_out"] == [{"name": "blocked", "reason": "it is blocked"}]


def test_a_change_there_is_a_conflict_here_until_it_is_wanted(database: str, bench: Bench) -> None:
    import psycopg

    arguments = ("import", "litellm", "--database", database)
    assert bench.run(*arguments)[0] == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            'UPDATE "LiteLLM_VerificationToken" SET max_budget = 15 WHERE key_alias = %s', ("ci",)
        )
        connection.execute(
            'UPDATE "LiteLLM_VerificationToken" SET blocked = true WHERE key_alias = %s', ("spent",)
        )
    code, told = bench.run(*arguments)
    assert code == 4
    assert {(item["kind"], item["name"]) for item in told["conflicts"]} == {
        ("budget", "key/ci"),
        ("key", "spent"),
    }
    code, shown = bench.run("budget", "show", "key/ci")
    assert shown["limit_nanos"] == 10_000_000_000
    bench.run(*arguments, "--replace")
    code, shown = bench.run("budget", "show", "key/ci")
    assert shown["limit_nanos"] == 15_000_000_000
    assert spent(bench, "key/ci") == 4_000_000_001


def test_an_outlay_yaml_that_is_there_is_not_touched(database: str, bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "config.yaml"
    source.write_text(CONFIG.format(url="http://127.0.0.1:9"))
    text = "org: acme\nkeys:\n  - {name: ci, secret: another-secret-altogether}\n"
    bench.path.write_text(text)
    code, done = bench.run("import", "litellm", "--database", database, "--config", str(source))
    assert code == 4, "outlay.yaml owns the name ci"
    assert bench.path.read_text("utf-8") == text
    piece = tmp_path / "outlay.imported.yaml"
    assert done["file"] == str(piece)
    assert stat.S_IMODE(piece.stat().st_mode) == 0o600
    bench.path.write_text(text + piece.read_text("utf-8"))
    assert bench.run("config", "check")[0] == 0, "the piece can be pasted as it is"
    piece.unlink()
    code, again = bench.run("import", "litellm", "--database", database, "--config", str(source))
    assert (code, again["changes"], again["file"]) == (4, False, None)


def test_a_database_of_the_first_migration(postgres: str, bench: Bench) -> None:
    old = fresh_database(postgres, "old", migrations()[:1])
    insert(
        old,
        "LiteLLM_VerificationToken",
        token=hash_token(OLD),
        key_alias="ci",
        models=[],
        max_budget=1.0,
        spend=0.5,
    )
    code, done = bench.run("import", "litellm", "--database", old)
    assert (code, done["conflicts"]) == (0, [])
    assert any("LiteLLM_TagTable" in note for note in done["notes"])
    assert spent(bench, "key/ci") == 500_000_000


def test_bad_sources_are_told(
    postgres: str, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["import", "litellm", *arguments, "-c", str(bench.path)])
        return code, capsys.readouterr().err

    code, text = told("--database", postgres)
    assert (code, "no tables of LiteLLM" in text) == (2, True)
    code, text = told("--database", "mysql://x/y")
    assert (code, "postgresql://" in text) == (2, True)
    code, text = told("--database", "postgresql://nobody@127.0.0.1:1/litellm")
    assert (code, "cannot be reached" in text) == (5, True)
    half = fresh_database(postgres, "half", migrations()[:1])
    import psycopg

    with psycopg.connect(half, autocommit=True) as connection:
        connection.execute('DROP TABLE "LiteLLM_TeamTable" CASCADE')
    code, text = told("--database", half)
    assert (code, "LiteLLM_TeamTable is missing" in text) == (2, True)
    bad = tmp_path / "config.yaml"
    bad.write_text("model_list:\n  - {model_name: [\n")
    code, text = told("--config", str(bad))
    assert (code, "config.yaml:" in text) == (2, True)
    bad.write_text("model_list:\n  - {model_name: x}\n")
    code, text = told("--config", str(bad))
    assert (code, "model_list[0]" in text) == (2, True)
    code, text = told()
    assert (code, "--database" in text) == (2, True)
    assert not bench.path.exists()


def test_it_joins_a_gateway_that_runs(database: str, bench: Bench) -> None:
    with MockProvider(prices=MOCK_PRICES) as mock:
        price = "{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {input: 2.5, output: 10}}"
        bench.path.write_text(
            "gateway: {port: 0}\nconsole: {port: 0}\n"
            f'providers:\n  - {{name: openai, api_key: mock, base_url: "{mock.url}/v1"}}\n'
            f"prices:\n  - {price}\n"
        )
        with gateway(bench.path) as url:
            assert ask(url, OLD).startswith("401")
            code, done = bench.run("import", "litellm", "--database", database)
            assert (code, done["conflicts"]) == (0, [])
            assert [ask(url, OLD), ask(url, SPENT)] == ["ok", "402 budget_spent"]
            before = spent(bench, "key/ci")
            assert before > 4_000_000_001, "what was spent there, and the call made here"
            assert bench.run("import", "litellm", "--database", database)[1]["openings"] == []
            assert spent(bench, "key/ci") == before
        assert bench.run("ledger", "verify")[1]["is_right"]
