"""The official openai SDK against the mock, without Outlay in between: the mock speaks OpenAI's language."""

import asyncio
import json
from collections.abc import Iterator

import openai
import pytest
from pydantic import BaseModel

from outlay.testing import MockProvider

HELLO = [{"role": "user", "content": "hello there"}]  # 11 bytes: 3 tokens, and 3 for the message
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
        },
    },
}


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


def test_a_chat_answer_states_what_the_meter_billed(client, provider):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=HELLO)
    answer = raw.parse()
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        6,
        80,
        86,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.content.split()) == 80
    assert answer.id.startswith("chatcmpl-")
    assert answer.service_tier == "default"
    [entry] = provider.meter.entries
    assert entry.request_id == raw.headers["x-request-id"]
    assert raw.headers["openai-processing-ms"].isdecimal()
    # 6 * 150 + 80 * 600 nanos
    assert entry.cost_nanos == provider.meter.total_nanos == 48_900


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_limit_really_truncates(client, field):
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, **{field: 5})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert len(answer.choices[0].message.content.split()) == 5


def test_each_choice_is_billed(client, provider):
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, n=3, max_tokens=10)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 30
    assert provider.meter.entries[0].tokens.input == 6


def test_reasoning_is_generated_first_and_counts_against_the_limit(client, provider):
    provider.behave(output_tokens=50, reasoning_tokens=30)
    whole = client.chat.completions.create(model="gpt-5-mini", messages=HELLO)
    assert whole.usage.completion_tokens_details.reasoning_tokens == 30
    assert len(whole.choices[0].message.content.split()) == 20
    short = client.chat.completions.create(model="gpt-5-mini", messages=HELLO, max_completion_tokens=25)
    assert short.usage.completion_tokens == short.usage.completion_tokens_details.reasoning_tokens == 25
    assert short.choices[0].message.content == ""
    assert short.choices[0].finish_reason == "length"


@pytest.mark.parametrize("choices", [1, 2])
def test_a_stream_says_the_same_as_the_whole_answer(client, choices):
    whole = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, n=choices)
    texts = [""] * choices
    usage = None
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, n=choices, stream=True, stream_options=options
    )
    for event in stream:
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage


def test_a_stream_without_the_option_says_nothing_about_usage(client, provider):
    events = list(client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True))
    assert all(event.usage is None for event in events)
    assert events[-1].choices[0].finish_reason == "stop"
    assert provider.meter.entries[0].tokens.output == 80


@pytest.mark.parametrize(
    "how",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"messages": [{"role": "user", "content": "Please use the tool for Oslo"}]},
    ],
)
def test_a_tool_is_called_when_demanded_or_when_the_prompt_says_so(client, how):
    request = {"model": "gpt-4o-mini", "messages": HELLO, "tools": [WEATHER], **how}
    answer = client.chat.completions.create(**request)
    [call] = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str)
    assert arguments["days"] >= 2
    with client.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert json.loads(streamed.function.arguments) == arguments


def test_a_tool_that_is_not_asked_for_is_not_called(client):
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER])
    assert answer.choices[0].message.tool_calls is None


class Leg(BaseModel):
    city: str
    days: int


class Trip(BaseModel):
    legs: list[Leg]
    is_paid: bool


def test_parse_gives_an_object_of_the_schema(client):
    answer = client.chat.completions.parse(model="gpt-4o-mini", messages=HELLO, response_format=Trip)
    trip = answer.choices[0].message.parsed
    assert isinstance(trip, Trip)
    assert trip.legs


def test_a_truncated_json_answer_is_the_sdks_length_error(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="gpt-4o-mini", messages=HELLO, response_format=Trip, max_tokens=3)


def test_embeddings_in_both_encodings_agree(client, provider):
    # the SDK asks for base64 by itself; encoding_format="float" asks for numbers
    packed = client.embeddings.create(model="text-embedding-3-small", input=["alpha", "beta!"], dimensions=8)
    plain = client.embeddings.create(
        model="text-embedding-3-small", input=["alpha", "beta!"], dimensions=8, encoding_format="float"
    )
    assert [row.embedding for row in packed.data] == [row.embedding for row in plain.data]
    assert len(packed.data[0].embedding) == 8
    assert packed.data[0].embedding != packed.data[1].embedding
    assert packed.usage.prompt_tokens == 4  # two inputs of five bytes
    assert provider.meter.entries[0].cost_nanos == 80


def test_models_are_listed_and_an_unknown_one_is_not_found(client):
    assert "gpt-4o-mini" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-5-mini").id == "gpt-5-mini"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-none")


def test_bad_requests_are_refused_in_openais_words(client, provider):
    with pytest.raises(openai.BadRequestError, match="messages") as refused:
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert refused.value.param == "messages"
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=0)
    assert [entry.outcome for entry in provider.meter.entries] == ["refused", "refused"]
    assert provider.meter.total_nanos == 0


def test_a_wrong_key_is_refused():
    with (
        MockProvider(api_keys=["sk-right"]) as provider,
        openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-right", max_retries=0) as client,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
        with pytest.raises(openai.AuthenticationError) as refused:
            client.with_options(api_key="sk-wrong-key").chat.completions.create(
                model="gpt-4o-mini", messages=HELLO
            )
        assert refused.value.code == "invalid_api_key"
        assert "sk-wrong-key" not in str(refused.value)


def test_the_sdk_retries_what_the_queue_fails(client, provider):
    provider.queue({"status": 429, "retry_after": "0"}, {"status": 503})
    answer = client.with_options(max_retries=2).chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert answer.usage.completion_tokens == 80
    assert [entry.status for entry in provider.meter.entries] == [429, 503, 200]
    assert provider.meter.total_nanos == 48_900


def test_a_rate_limit_carries_its_wait(client, provider):
    provider.behave(status=429, retry_after="7")
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.code == "rate_limit_exceeded"


def test_a_custom_tool_gets_plain_text(client, provider):
    provider.behave(tool_arguments="*** Begin Patch")
    custom = {"type": "custom", "custom": {"name": "apply_patch"}}
    request = {"model": "gpt-4o-mini", "messages": HELLO, "tools": [WEATHER, custom]}
    choice = {"type": "custom", "custom": {"name": "apply_patch"}}
    [call] = client.chat.completions.create(**request, tool_choice=choice).choices[0].message.tool_calls
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "apply_patch", "*** Begin Patch")
    events = client.chat.completions.create(**request, tool_choice=choice, stream=True)
    deltas = [call for event in events for call in event.choices[0].delta.tool_calls or ()]
    assert "".join(delta.model_extra["custom"]["input"] for delta in deltas) == "*** Begin Patch"


def test_the_async_client_streams_and_waits():
    async def talk() -> tuple[int, str]:
        async with (
            MockProvider() as provider,
            openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="x", max_retries=0) as client,
        ):
            answers = await asyncio.gather(
                *[client.chat.completions.create(model="gpt-4o-mini", messages=HELLO) for _ in range(20)]
            )
            stream = await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)
            text = ""
            async for event in stream:
                text += event.choices[0].delta.content or ""
            assert len(provider.meter.entries) == 21
            return sum(answer.usage.completion_tokens for answer in answers), text

    total, text = asyncio.run(talk())
    assert total == 1600
    assert len(text.split()) == 80
