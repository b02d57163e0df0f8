"""OpenAI's own SDK, wrapped: its features work, and the ledger is the provider's meter."""

import asyncio
import gc
import json
import time
from pathlib import Path

import httpx
import openai
import pydantic
import pytest

import outlay
from tests.sdk.shop import GPT_CALL_NANOS, SAY, shop


class Colour(pydantic.BaseModel):
    name: str


def test_a_wrapped_client_keeps_its_type_and_costs_what_the_meter_says(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        raw = openai.OpenAI(base_url=place.mock.url + "/v1", api_key="key")
        client = place.wrap(raw, "openai")
        assert isinstance(client, openai.OpenAI)
        answer = client.chat.completions.create(model="gpt-test", messages=SAY)
        assert answer.usage is not None and answer.usage.completion_tokens == 80
        assert place.audit().spend_nanos == GPT_CALL_NANOS
        # the given client is as it was
        assert type(raw) is openai.OpenAI
        assert type(raw._client).__module__ == type(client._client).__module__
        assert raw._client is not client._client


def test_streams_are_whole_and_the_injected_usage_is_not_seen(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        plain = list(client.chat.completions.create(model="gpt-test", messages=SAY, stream=True))
        assert all(chunk.usage is None for chunk in plain)
        asked = list(
            client.chat.completions.create(
                model="gpt-test", messages=SAY, stream=True, stream_options={"include_usage": True}
            )
        )
        assert asked[-1].usage is not None
        place.wait_for(2)


def test_stream_helpers_parse_and_raw_responses(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with client.chat.completions.stream(model="gpt-test", messages=SAY) as stream:
            for _ in stream:
                pass
            assert stream.get_final_completion().choices[0].message.content
        with client.responses.stream(model="gpt-test", input="hello") as events:
            for _ in events:
                pass
            assert events.get_final_response().output_text
        parsed = client.chat.completions.parse(model="gpt-test", messages=SAY, response_format=Colour)
        assert isinstance(parsed.choices[0].message.parsed, Colour)
        replied = client.responses.parse(model="gpt-test", input="hello", text_format=Colour)
        assert isinstance(replied.output_parsed, Colour)
        raw = client.chat.completions.with_raw_response.create(model="gpt-test", messages=SAY)
        assert raw.headers["x-outlay-output-limit"] == "4096 (default)"
        assert raw.parse().choices
        cost = raw.headers["x-outlay-cost-usd"]
        assert cost.startswith("0.000")
        with client.chat.completions.with_streaming_response.create(model="gpt-test", messages=SAY) as answer:
            body = b"".join(answer.iter_bytes())
            assert json.loads(body)["object"] == "chat.completion"
        place.wait_for(6)


def test_what_else_the_api_has(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        assert client.embeddings.create(model="embed-test", input="hello").data
        assert client.images.generate(model="dall-e-test", prompt="a house").data
        assert client.moderations.create(model="omni-moderation-latest", input="hello").results
        assert client.audio.speech.create(model="tts-test", input="hello", voice="alloy").content
        said = client.audio.transcriptions.create(model="whisper-test", file=("a.wav", b"RIFF" + bytes(60)))
        assert said.text
        assert client.completions.create(model="instruct-test", prompt="hello", max_tokens=20).choices
        assert client.models.list().data
        place.wait_for(6)


def test_async_clients(tmp_path: Path) -> None:
    async def calls(place: object) -> None:
        client = place.async_gpt()  # type: ignore[attr-defined]
        async with client:
            assert (await client.chat.completions.create(model="gpt-test", messages=SAY)).choices
            stream = await client.chat.completions.create(model="gpt-test", messages=SAY, stream=True)
            assert [chunk async for chunk in stream]
            async with client.responses.stream(model="gpt-test", input="hello") as events:
                async for _ in events:
                    pass
            said = await client.audio.transcriptions.create(
                model="whisper-test", file=("a.wav", b"RIFF" + bytes(60))
            )
            assert said.text
            async with client.chat.completions.with_streaming_response.create(
                model="gpt-test", messages=SAY
            ) as answer:
                assert json.loads(await answer.read())["choices"]

    with shop(tmp_path) as place:
        asyncio.run(calls(place))
        place.wait_for(5)


def test_aiohttp_and_the_older_httpx_are_metered_too(tmp_path: Path) -> None:
    async def call(place: object) -> None:
        raw = openai.AsyncOpenAI(
            base_url=place.mock.url + "/v1",  # type: ignore[attr-defined]
            api_key="key",
            http_client=openai.DefaultAioHttpClient(),
        )
        client = place.wrap(raw, "openai")  # type: ignore[attr-defined]
        assert (await client.chat.completions.create(model="gpt-test", messages=SAY)).choices
        await client.close()
        await raw.close()

    with shop(tmp_path) as place:
        asyncio.run(call(place))
        with httpx.Client() as http:
            raw = openai.OpenAI(base_url=place.mock.url + "/v1", api_key="key", http_client=http)
            assert place.wrap(raw, "openai").chat.completions.create(model="gpt-test", messages=SAY).choices
        place.wait_for(2)


def test_every_retry_is_an_attempt_of_one_request(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        place.mock.queue({"status": 500}, {"status": 429, "retry_after": "0.01"})
        place.gpt().chat.completions.create(model="gpt-test", messages=SAY)
        newest = place.charges()
        assert [(one.attempt, one.status) for one in newest] == [(3, "settled"), (2, "void"), (1, "void")]
        assert len({one.request_id for one in newest}) == 1


def test_copies_of_a_wrapped_client_stay_wrapped(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client, own, other = place.gpt(), openai.DefaultHttpxClient(), httpx.Client()
        first = client._client
        copies = [
            client.with_options(timeout=10),
            client.copy(max_retries=0),
            client.with_options(http_client=own),
            type(client)(base_url=place.mock.url + "/v1", api_key="key"),
        ]
        for number, made in enumerate(copies, 1):
            made.chat.completions.create(model="gpt-test", messages=SAY)
            assert place.audit().charges == number
        client._client = other
        client.chat.completions.create(model="gpt-test", messages=SAY)
        place.wait_for(5)
        for http in (first, own, other, copies[3]):
            http.close()


def test_a_refusal_is_both_errors_and_is_not_retried(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt(budget_usd="0.00001", budget="small")
        with pytest.raises(outlay.BudgetExceeded) as caught:
            client.with_options(max_retries=5).chat.completions.create(
                model="gpt-test", messages=SAY, max_tokens=100
            )
        error = caught.value
        assert isinstance(error, openai.APIStatusError)
        assert (error.status_code, error.code, error.error_code) == (402, "budget_spent", "budget_spent")
        assert (error.budget, error.scope, error.limit, error.spent) == (
            "small",
            "key=small",
            "0.00001",
            "0.00",
        )
        assert error.needed is not None and error.held == "0.00" and error.resets_at is None
        assert place.mock.calls == []
        assert place.audit().charges == 0


def test_what_cannot_be_metered_is_refused(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with pytest.raises(openai.UnprocessableEntityError) as unpriced:
            client.chat.completions.create(model="gpt-nobody-knows", messages=SAY)
        assert isinstance(unpriced.value, outlay.CallRefused)
        assert not isinstance(unpriced.value, outlay.BudgetExceeded)
        assert unpriced.value.error_code == "model_unpriced"
        with pytest.raises(openai.NotFoundError):
            client.vector_stores.list()
        with pytest.raises(outlay.CallRefused):
            client.with_options(base_url="http://127.0.0.1:9/v1").models.list()
        for connect in (client.realtime.connect, client.responses.connect, client.beta.realtime.connect):
            with pytest.raises(outlay.CallRefused):
                connect(model="gpt-test")  # type: ignore[operator]
        assert place.mock.calls == []
        place.wait_for(0)


def test_an_abandoned_stream_is_booked_at_what_it_may_have_cost(tmp_path: Path) -> None:
    with shop(tmp_path, is_exact=False) as place:
        client = place.gpt()
        with client.chat.completions.create(
            model="gpt-test", messages=SAY, stream=True, max_tokens=500
        ) as closed:
            next(closed)
        place.wait_for(1)
        stream = client.chat.completions.create(model="gpt-test", messages=SAY, stream=True, max_tokens=500)
        next(stream)
        del stream
        gc.collect()
        place.wait_for(2)
        # together with its client
        last = place.gpt().chat.completions.create(
            model="gpt-test", messages=SAY, stream=True, max_tokens=500
        )
        next(last)
        del last
        gc.collect()
        place.wait_for(3)
        assert {one.basis for one in place.charges()} == {"outcome_unknown"}


def arrived(place: object) -> None:
    while not place.mock.calls:  # type: ignore[attr-defined]
        time.sleep(0.01)


def test_a_cancelled_task_and_a_broken_answer_are_booked(tmp_path: Path) -> None:
    async def cancel(place: object) -> None:
        client = place.async_gpt()  # type: ignore[attr-defined]
        call = asyncio.create_task(client.chat.completions.create(model="gpt-test", messages=SAY))
        await asyncio.to_thread(arrived, place)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.close()

    with shop(tmp_path, is_exact=False) as place:
        place.mock.behave(failure="hang_headers")
        asyncio.run(cancel(place))
        assert place.wait_for(1).unknown_nanos > 0
        place.mock.behave(failure="cut")
        with pytest.raises(openai.APIConnectionError):
            place.gpt().with_options(max_retries=0).chat.completions.create(model="gpt-test", messages=SAY)
        place.wait_for(2)
        place.mock.behave(failure="none")
        nobody = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="key", max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            place.wrap(nobody, "openai").chat.completions.create(model="gpt-test", messages=SAY)
        assert place.charges()[0].status == "void"


def test_batches_are_held_when_submitted_and_settled_by_a_look(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        line = {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-test", "messages": SAY, "max_tokens": 50},
        }
        file = client.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert place.audit().open_holds == 1
        # another process's client of the same ledger finds the job again
        other = place.gpt()
        while batch.status != "completed":
            batch = other.batches.retrieve(batch.id)
        found = place.audit()
        assert found.open_holds == 0
        assert found.spend_nanos > 0
        assert batch.output_file_id is not None
        assert b'"custom_id"' in other.files.content(batch.output_file_id).content


def test_background_responses_are_settled_by_a_look(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        answer = client.responses.create(model="gpt-test", input="hello", background=True)
        assert place.audit().open_holds == 1
        while answer.status != "completed":
            answer = client.responses.retrieve(answer.id)
        assert place.audit().open_holds == 0
