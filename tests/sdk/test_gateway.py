"""Wrapped clients against a gateway: address, key and run are set, refusals are the same errors."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as google_errors

import outlay
from outlay.kernel.errors import ConfigError
from outlay.testing import MockProvider
from tests import world
from tests.harness import SECRET, RunningGateway, budget
from tests.sdk.shop import SAY


def through(gateway: RunningGateway, client: Any) -> Any:
    return outlay.wrap(client, gateway=gateway.url, key=SECRET)


def running(path: Path, mock: MockProvider, *budgets: Any) -> RunningGateway:
    upstreams = tuple(provider for provider in world.providers(mock.url) if provider.name != "bedrock")
    return RunningGateway(path / "l.db", mock.url, budgets, price_book=world.book(), upstreams=upstreams)


def test_all_three_vendors_and_the_run_of_the_context(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="not-a-real-one"))
        claude = through(gateway, anthropic.Anthropic(api_key="not-a-real-one"))
        gemini = through(gateway, genai.Client(api_key="not-a-real-one"))
        assert isinstance(gpt, openai.OpenAI)
        with outlay.run(name="nightly") as run:
            assert gpt.chat.completions.create(model="gpt-test", messages=SAY).choices
            assert claude.messages.create(model="claude-test", max_tokens=90, messages=SAY).content
            assert gemini.models.generate_content(model="gemini-test", contents="hello").text
            assert list(gpt.chat.completions.create(model="gpt-test", messages=SAY, stream=True))
        assert run.calls == 4
        assert run.cost_usd > "0.002"
        mock.wait_for(4)
        accounts = gateway.call(lambda: [one.scope for one in gateway.books.directory.accounts()])
        assert "org=acme,run=nightly,team=search" in accounts
        gpt.close()
        claude.close()
        gemini.close()


def test_refusals_of_a_gateway_are_the_same_errors(tmp_path: Path) -> None:
    async def call(client: Any) -> None:
        async with client:
            await client.messages.create(model="claude-test", max_tokens=90, messages=SAY)

    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("small", "0.00001")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x", max_retries=3))
        with pytest.raises(outlay.BudgetExceeded) as caught:
            gpt.chat.completions.create(model="gpt-test", messages=SAY)
        assert isinstance(caught.value, openai.APIStatusError)
        assert (caught.value.budget, caught.value.limit, caught.value.code) == (
            "small",
            "0.00001",
            "budget_spent",
        )
        with pytest.raises(outlay.BudgetExceeded) as other:
            asyncio.run(call(through(gateway, anthropic.AsyncAnthropic(api_key="x"))))
        assert isinstance(other.value, anthropic.APIStatusError)
        gemini = through(gateway, genai.Client(api_key="x"))
        with pytest.raises(outlay.BudgetExceeded) as third:
            gemini.models.generate_content(model="gemini-test", contents="hello")
        assert isinstance(third.value, google_errors.ClientError)
        assert (third.value.budget, third.value.error_code) == ("small", "budget_spent")
        assert mock.calls == []
        gpt.close()
        gemini.close()


def test_a_provider_s_own_error_stays_as_it_is(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x", max_retries=0))
        mock.queue({"status": 400})
        with pytest.raises(openai.BadRequestError) as caught:
            gpt.chat.completions.create(model="gpt-test", messages=SAY)
        assert not isinstance(caught.value, outlay.CallRefused)
        gpt.close()


def test_nothing_goes_past_the_gateway(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x"))
        with pytest.raises(outlay.CallRefused) as caught:
            gpt.with_options(base_url=mock.url + "/v1").models.list()
        assert caught.value.error_code == "not_the_gateway"
        assert mock.calls == []
        gpt.close()
    with pytest.raises(ConfigError):
        outlay.wrap(openai.OpenAI(api_key="x"), gateway="http://127.0.0.1:4100", key="k", budget_usd=5)
    with pytest.raises(ConfigError):
        outlay.wrap(openai.OpenAI(api_key="x"), gateway="http://127.0.0.1:4100")


def test_nested_runs_spend_from_the_outermost_at_the_gateway(tmp_path: Path) -> None:
    with (
        MockProvider(
            prices=world.meter_prices(), models=world.MODELS, behaviour={"output_tokens": 90}
        ) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x"))
        served = 0
        with (
            outlay.run(budget_usd="0.0035", name="outer-\u00fc"),
            pytest.raises(outlay.BudgetExceeded) as caught,
        ):
            for _ in range(9):
                with outlay.run(budget_usd=5):
                    gpt.chat.completions.create(model="gpt-test", max_tokens=90, messages=SAY)
                served += 1
        assert 1 <= served <= 4
        assert caught.value.budget == "outlay.run"
        assert "run=outer" in str(caught.value.scope)
        gateway.call(gateway.books.flush)
        assert mock.meter.total_nanos <= 3_500_000
        gpt.close()


def test_a_child_entered_again_in_a_thread_still_draws_from_its_parent(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x"))
        parent, child = outlay.run(budget_usd="0.002", name="parent"), outlay.run(budget_usd=10, name="child")

        def again() -> None:
            with child:
                gpt.chat.completions.create(model="gpt-test", max_tokens=80, messages=SAY)

        with parent, child:
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(outlay.BudgetExceeded) as caught:
            for _ in range(9):
                pool.submit(again).result(20)
        assert "run=parent" in str(caught.value.scope)
        assert (parent.calls, child.calls) == (1, 1)
        gpt.close()


def test_a_refused_call_takes_no_place_in_the_run(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x", max_retries=0))
        claude = through(gateway, anthropic.Anthropic(api_key="x", max_retries=0))
        gemini = through(gateway, genai.Client(api_key="x"))

        def refused(run: Any, much: int) -> list[str]:
            codes = []
            for call in (
                lambda: gpt.chat.completions.create(model="gpt-test", max_tokens=much, messages=SAY),
                lambda: gpt.chat.completions.create(model="nobody-s", messages=SAY),
                lambda: claude.messages.create(model="claude-test", max_tokens=much, messages=SAY),
                lambda: list(
                    claude.messages.create(model="claude-test", max_tokens=much, messages=SAY, stream=True)
                ),
                lambda: gemini.models.generate_content(
                    model="gemini-test", contents="hello", config={"max_output_tokens": much}
                ),
            ):
                with pytest.raises(outlay.CallRefused) as caught:
                    call()
                codes.append(caught.value.error_code)
                assert run.calls == 0
            return codes

        with outlay.run(budget_usd="0.002", max_calls=3, name="small") as run:
            assert set(refused(run, 1000)) == {"call_too_large", "model_unpriced"}
            # what was let through counts, also where the provider has refused it
            mock.queue({"status": 400})
            with pytest.raises(openai.BadRequestError):
                gpt.chat.completions.create(model="gpt-test", max_tokens=80, messages=SAY)
            assert run.calls == 1
            mock.queue({"failure": "cut_headers"})
            with pytest.raises(openai.InternalServerError):
                gpt.chat.completions.create(model="gpt-test", max_tokens=10, messages=SAY)
            assert run.calls == 2
        gpt.close()
        claude.close()
        gemini.close()


def test_what_is_left_is_what_a_refusal_has_said(tmp_path: Path) -> None:
    with (
        MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock,
        running(tmp_path, mock, budget("all", "1000")) as gateway,
    ):
        gpt = through(gateway, openai.OpenAI(api_key="x"))
        with outlay.run(budget_usd="0.002", name="nightly"):
            gpt.chat.completions.create(model="gpt-test", max_tokens=80, messages=SAY)
        for more in ({"budget_usd": 10}, {}):
            with outlay.run(name="nightly", **more) as run:
                with pytest.raises(outlay.BudgetExceeded):
                    gpt.chat.completions.create(model="gpt-test", max_tokens=80, messages=SAY)
                assert (run.cost_usd, run.remaining_usd) == ("0.0008125", "0.0011875")
        gpt.close()
