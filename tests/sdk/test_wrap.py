"""What `outlay.wrap` takes: budgets, a config file, prices, identity; and what it refuses to guess."""

import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

import outlay
from outlay.app.embed import default_ledger
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.errors import ConfigError
from outlay.lookup.overrides import CustomModel
from outlay.testing import MockProvider
from tests import world
from tests.sdk.shop import GPT_CALL_NANOS, SAY, shop

CONFIG = """
org: acme
providers:
  - {name: openai, base_url: URL/v1, api_key: unused}
prices:
  - {kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {input: 2.5, output: 10}, context_window: 128000}
budgets:
  - {name: search-team, scope: {team: search}, limit_usd: 0.002, window: month}
"""


def test_importing_outlay_is_cheap() -> None:
    code = "import sys, outlay; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(said.stdout.split()).isdisjoint({"openai", "httpx", "httpx2", "apsw", "msgspec", "asyncio"})
    assert callable(outlay.wrap) and callable(outlay.run)


def test_a_config_file_gives_prices_and_budgets(tmp_path: Path) -> None:
    with MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock:
        (tmp_path / "outlay.yaml").write_text(CONFIG.replace("URL", mock.url))
        raw = openai.OpenAI(base_url=mock.url + "/v1", api_key="key")
        client = outlay.wrap(raw, config=tmp_path / "outlay.yaml", ledger=tmp_path / "sdk.db", team="search")
        client.chat.completions.create(model="gpt-test", messages=SAY)
        with pytest.raises(outlay.BudgetExceeded) as caught:
            for _ in range(5):
                client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
        assert caught.value.budget == "search-team"
        assert caught.value.resets_at is not None
        with LedgerReader(tmp_path / "sdk.db") as reader:
            spent = reader.spend(("org", "team", "model"))
        assert spent[0].group == {"org": "acme", "team": "search", "model": "gpt-test"}
        client.close()


def test_budgets_of_many_kinds_and_a_new_one_starts_from_what_was_spent(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        place.gpt(user="ada", tags={"app": "chat"}).chat.completions.create(model="gpt-test", messages=SAY)
        hour = outlay.budget("hour", "0.002", window="1h", scope={"user": "*"})
        tag = outlay.budget("app", None, scope={"tag.app": "chat"})
        client = place.gpt(user="ada", tags={"app": "chat"}, budgets=[hour, tag])
        client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=10)
        with pytest.raises(outlay.BudgetExceeded) as caught:
            client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
        assert (caught.value.budget, caught.value.scope) == ("hour", "user=ada")
        assert caught.value.spent is not None and caught.value.spent > "0.00081"
        # another user has another account
        place.gpt(user="bob", budgets=[hour]).chat.completions.create(
            model="gpt-test", messages=SAY, max_tokens=20
        )
        with LedgerReader(place.ledger) as reader:
            views = {(one.budget, one.scope): one.spent_nanos for one in reader.accounts(2**62 - 1)}
        assert views[("app", "tag.app=chat")] > GPT_CALL_NANOS


def test_a_budget_s_newest_limit_is_in_force_for_all(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        first = place.gpt(budget="shared", budget_usd=1)
        first.chat.completions.create(model="gpt-test", messages=SAY)
        place.gpt(budget="shared", budget_usd="0.0005")
        with pytest.raises(outlay.BudgetExceeded):
            first.chat.completions.create(model="gpt-test", messages=SAY)
        place.gpt(budget="shared", budget_usd=1)
        first.chat.completions.create(model="gpt-test", messages=SAY)


def test_unnamed_budgets_are_each_wrap_s_own(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        for _ in range(3):
            client = place.gpt(budget="", budget_usd="0.0014")
            client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)


def test_what_it_does_not_guess(tmp_path: Path) -> None:
    somewhere = openai.OpenAI(base_url="http://10.0.0.1:8000/v1", api_key="key")
    with pytest.raises(ConfigError, match="whose prices"):
        outlay.wrap(somewhere, ledger=tmp_path / "sdk.db", book=world.book())
    with pytest.raises(ConfigError, match="no client that Outlay can wrap"):
        outlay.wrap(httpx, ledger=tmp_path / "sdk.db")
    with pytest.raises(ConfigError, match="unknown argument"):
        outlay.wrap(somewhere, provider="openai", ledger=tmp_path / "sdk.db", book=world.book(), colour="red")
    with pytest.raises(ConfigError):
        outlay.budget("x", "-1")

    class Sending(httpx.Client):
        def send(self, *args: object, **more: object) -> httpx.Response:
            return httpx.Response(200)

    with Sending() as own:
        raw = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="key", http_client=own)
        with pytest.raises(ConfigError, match="of its own"):
            outlay.wrap(raw, provider="openai", ledger=tmp_path / "sdk.db", book=world.book())


def test_a_wrapped_client_is_not_wrapped_again(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        for again in (client, client.with_options(timeout=3), place.claude(), place.gemini()):
            for more in ({"ledger": tmp_path / "sdk.db"}, {"gateway": "http://127.0.0.1:9", "key": "k"}):
                with pytest.raises(ValueError, match="wrapped already"):
                    outlay.wrap(again, **more)
        # as it was
        client.chat.completions.create(model="gpt-test", messages=SAY)


def test_prices_of_one_s_own_and_the_feed(tmp_path: Path) -> None:
    own = CustomModel(
        provider="openai",
        model="gpt-test",
        usd_per_mtok={"input": "2.5", "output": "10"},
        context_window=128_000,
    )
    with shop(tmp_path) as place:
        client = place.gpt(book=None, prices=[own])
        client.chat.completions.create(model="gpt-test", messages=SAY)
        assert place.charges()[0].cost_nanos == GPT_CALL_NANOS


def test_the_default_ledger_is_in_the_user_s_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_ledger() == tmp_path / "outlay" / "sdk.db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_ledger() == tmp_path / ".local" / "state" / "outlay" / "sdk.db"
