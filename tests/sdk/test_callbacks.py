"""Callbacks of LiteLLM and LangChain: they book what is reported; enforcing ones refuse before the call."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import outlay
from outlay.testing import MockProvider
from tests import world
from tests.sdk.shop import GPT_CALL_NANOS, SAY, Shop

# the frameworks warn about their own dependencies
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(180),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shop]:
    with MockProvider(prices=world.meter_prices(), models=world.MODELS) as mock:
        yield Shop(mock, tmp_path / "sdk.db")


def options(place: Shop, usd: str = "100", *, enforce: bool = False) -> dict[str, Any]:
    return {
        "ledger": place.ledger,
        "book": world.book(),
        "budget": "shared",
        "budget_usd": usd,
        "enforce": enforce,
    }


def test_langchain_observed(place: Shop) -> None:
    from langchain_openai import ChatOpenAI

    handler = outlay.langchain_callback(**options(place, "0.0000001"))
    assert type(handler).__name__ == "OutlayObserver"
    model = ChatOpenAI(model="gpt-test", base_url=place.mock.url + "/v1", api_key="key")
    with outlay.run() as run:
        # it observes: a budget that is spent refuses nothing
        for _ in range(2):
            assert model.invoke("hello", config={"callbacks": [handler]}).content
        assert list(model.stream("hello", config={"callbacks": [handler]}, stream_usage=True))
    books = place.wait_for(3)
    assert books.findings == ()
    assert books.spend_nanos == place.mock.meter.total_nanos
    assert run.calls == 0
    assert {one.reason for one in place.charges()} == {"observed by langchain"}


def test_langchain_enforced(place: Shop) -> None:
    from langchain_openai import ChatOpenAI

    handler = outlay.langchain_callback(**options(place, "0.016", enforce=True))
    model = ChatOpenAI(model="gpt-test", base_url=place.mock.url + "/v1", api_key="key", max_tokens=80)
    made = 0
    with pytest.raises(outlay.BudgetExceeded) as caught:
        for _ in range(40):
            assert model.invoke("hello", config={"callbacks": [handler]}).content
            made += 1
    assert caught.value.budget == "shared"
    assert 0 < made == len(place.mock.calls) < 40
    books = place.wait_for(made)
    assert (books.findings, books.spend_nanos) == ((), place.mock.meter.total_nanos)

    async def later() -> None:
        await model.ainvoke("hello", config={"callbacks": [handler]})

    with pytest.raises(outlay.BudgetExceeded):
        asyncio.run(later())
    assert len(place.mock.calls) == made


def forget(litellm: Any) -> None:
    """LiteLLM copies its callbacks into lists by event when they are first used."""
    for name in ("input_callback", "success_callback", "failure_callback", "service_callback"):
        getattr(litellm, name).clear()
    for name in ("_async_success_callback", "_async_failure_callback", "_async_input_callback"):
        getattr(litellm, name, []).clear()


def test_litellm(place: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # its table of prices is in the package; without this it asks the network for a newer one
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    common: dict[str, Any] = {
        "model": "openai/gpt-test",
        "messages": SAY,
        "api_base": place.mock.url + "/v1",
        "api_key": "key",
        "max_tokens": 80,
        "num_retries": 0,
    }

    async def calls(number: int) -> int:
        made, known = 0, place.audit().charges
        try:
            for _ in range(number):
                await litellm.acompletion(**common)
                made += 1
        finally:
            await settled(known + made)
            # it keeps clients past their loop, and their sockets with them
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()
        return made

    async def settled(charges: int) -> None:
        # LiteLLM reports in tasks of its own
        deadline = time.monotonic() + 20
        while place.audit().charges < charges and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    before = list(litellm.callbacks)
    try:
        litellm.callbacks = [outlay.litellm_callback(**options(place))]
        assert asyncio.run(calls(2)) == 2
        books = place.wait_for(2)
        assert books.spend_nanos == 2 * GPT_CALL_NANOS
        assert {one.reason for one in place.charges()} == {"observed by litellm"}
        forget(litellm)
        limit = f"0.{books.spend_nanos + 8_000_000:09d}"
        litellm.callbacks = [outlay.litellm_callback(**options(place, limit, enforce=True))]
        arrived = len(place.mock.calls)
        with pytest.raises(outlay.BudgetExceeded):
            asyncio.run(calls(40))
        made = len(place.mock.calls) - arrived
        assert 0 < made < 40
        assert place.wait_for(2 + made).findings == ()
    finally:
        forget(litellm)
        litellm.callbacks = before
