"""Anthropic's and Google's own SDKs, wrapped."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types

import outlay
from tests.sdk.shop import SAY, shop

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def no_leavings() -> Iterator[None]:
    """google-genai leaves the connections of a loop that is gone to the garbage collector, whenever that comes: it
    comes here, where its warnings are let be (`pytestmark`), and not in another module's test."""
    yield
    for _ in range(3):
        gc.collect()


def test_anthropic_messages_streams_and_helpers(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.claude()
        assert isinstance(client, anthropic.Anthropic)
        assert client.messages.create(model="claude-test", max_tokens=100, messages=SAY).content
        assert list(client.messages.create(model="claude-test", max_tokens=100, messages=SAY, stream=True))
        with client.messages.stream(model="claude-test", max_tokens=100, messages=SAY) as stream:
            assert stream.get_final_text()
        raw = client.messages.with_raw_response.create(model="claude-test", max_tokens=100, messages=SAY)
        assert raw.headers["x-outlay-cost-usd"]
        assert client.beta.messages.create(model="claude-test", max_tokens=100, messages=SAY).content
        assert client.messages.count_tokens(model="claude-test", messages=SAY).input_tokens
        place.wait_for(6)


def test_anthropic_async_and_batches(tmp_path: Path) -> None:
    async def calls(place: object) -> None:
        async with place.async_claude() as client:  # type: ignore[attr-defined]
            async with client.messages.stream(model="claude-test", max_tokens=100, messages=SAY) as stream:
                assert await stream.get_final_text()
            batch = await client.messages.batches.create(
                requests=[
                    {
                        "custom_id": "a",
                        "params": {"model": "claude-test", "max_tokens": 50, "messages": SAY},
                    }
                ]
            )
            assert place.audit().open_holds == 1  # type: ignore[attr-defined]
            while batch.processing_status != "ended":
                batch = await client.messages.batches.retrieve(batch.id)
            results = [one async for one in await client.messages.batches.results(batch.id)]
            assert results[0].result.type == "succeeded"

    with shop(tmp_path) as place:
        asyncio.run(calls(place))


def test_anthropic_refusals(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.claude(budget_usd="0.00001", budget="small")
        with pytest.raises(outlay.BudgetExceeded) as caught:
            client.messages.create(model="claude-test", max_tokens=100, messages=SAY)
        assert isinstance(caught.value, anthropic.APIStatusError)
        assert caught.value.budget == "small"
        with pytest.raises(outlay.CallRefused) as elsewhere:
            client.beta.files.list()
        assert isinstance(elsewhere.value, anthropic.NotFoundError)
        assert place.mock.calls == []
        place.wait_for(0)


def test_google_content_streams_and_chats(tmp_path: Path) -> None:
    with shop(tmp_path, embed_usage=True) as place:
        client = place.gemini()
        assert isinstance(client, genai.Client)
        assert client.models.generate_content(model="gemini-test", contents="hello").text
        assert list(client.models.generate_content_stream(model="gemini-test", contents="hello"))
        assert client.chats.create(model="gemini-test").send_message("hello").text
        assert client.models.count_tokens(model="gemini-test", contents="hello").total_tokens
        assert client.models.embed_content(model="gemini-embed-test", contents="hello").embeddings
        place.mock.wait_for(1)
        place.wait_for(5)


def test_google_async_in_many_loops(tmp_path: Path) -> None:
    async def calls(client: genai.Client) -> None:
        assert (await client.aio.models.generate_content(model="gemini-test", contents="hello")).text
        stream = await client.aio.models.generate_content_stream(model="gemini-test", contents="hello")
        assert [chunk async for chunk in stream]

    with shop(tmp_path) as place:
        client = place.gemini()
        asyncio.run(calls(client))
        asyncio.run(calls(client))
        place.wait_for(4)
        del client
        place.forget()


def test_google_refusals(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        retrying = google_types.HttpOptions(
            base_url=place.mock.url,
            retry_options=google_types.HttpRetryOptions(attempts=4, initial_delay=0.01),
        )
        client = place.wrap(
            genai.Client(api_key="key", http_options=retrying), "google", budget_usd="0.00001", budget="small"
        )
        with pytest.raises(outlay.BudgetExceeded) as caught:
            client.models.generate_content(model="gemini-test", contents="hello")
        assert isinstance(caught.value, google_errors.ClientError)
        assert (caught.value.code, caught.value.error_code) == (402, "budget_spent")
        with pytest.raises(outlay.CallRefused):
            client.files.list()
        with pytest.raises(outlay.CallRefused):
            client.aio.live.connect(model="gemini-test")
        assert place.mock.calls == []
        place.wait_for(0)


def test_google_refusals_of_async_clients(tmp_path: Path) -> None:
    async def call(client: genai.Client) -> None:
        await client.aio.models.generate_content(model="gemini-test", contents="hello")

    with shop(tmp_path) as place:
        with pytest.raises(outlay.BudgetExceeded):
            asyncio.run(call(place.gemini(budget_usd="0.00001", budget="small")))
        place.wait_for(0)
