"""The official anthropic SDK against the mock, without Outlay in between: the mock speaks Anthropic's language."""

import asyncio
from collections.abc import Iterator

import anthropic
import pytest
from pydantic import BaseModel

from outlay.testing import MockProvider

HELLO = [{"role": "user", "content": "hello there"}]  # 11 bytes: 3 tokens, and 3 for the message
HAIKU = {"model": "claude-haiku-4-5", "max_tokens": 200}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def client(provider: MockProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.url, api_key="sk-ant-any", max_retries=0) as made:
        yield made


def test_a_message_states_what_the_meter_billed(client, provider):
    raw = client.messages.with_raw_response.create(messages=HELLO, **HAIKU)
    message = raw.parse()
    assert (message.usage.input_tokens, message.usage.output_tokens) == (6, 80)
    assert message.stop_reason == "end_turn"
    assert len(message.content[0].text.split()) == 80
    assert message.usage.service_tier == "standard"
    assert raw.headers["anthropic-ratelimit-requests-remaining"].isdecimal()
    [entry] = provider.meter.entries
    assert entry.request_id == raw.headers["request-id"] == message._request_id
    # 6 * 1000 + 80 * 5000 nanos
    assert entry.cost_nanos == 406_000


def test_the_limit_really_truncates(client):
    message = client.messages.create(messages=HELLO, model="claude-haiku-4-5", max_tokens=7)
    assert message.stop_reason == "max_tokens"
    assert len(message.content[0].text.split()) == message.usage.output_tokens == 7


def test_a_stream_says_the_same_as_the_whole_message(client):
    whole = client.messages.create(messages=HELLO, **HAIKU)
    with client.messages.stream(messages=HELLO, **HAIKU) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.usage == whole.usage
    assert final.stop_reason == "end_turn"


def test_cached_and_cache_writing_tokens_are_stated_apart(client, provider):
    provider.behave(input_tokens=1000, cached_tokens=600, cache_write_tokens=300, cache_write_long_tokens=100)
    usage = client.messages.create(messages=HELLO, system="You are brief.", **HAIKU).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        100,
        600,
        300,
    )
    assert usage.cache_creation.ephemeral_5m_input_tokens == 200
    assert usage.cache_creation.ephemeral_1h_input_tokens == 100
    # 100 * 1000 + 600 * 100 + 200 * 1250 + 100 * 2000 + 80 * 5000
    assert provider.meter.total_nanos == 1_010_000
    with client.messages.stream(messages=HELLO, **HAIKU) as stream:
        streamed = stream.get_final_message().usage
    assert streamed == usage


def test_the_system_prompt_is_counted(client):
    plain = client.messages.count_tokens(messages=HELLO, model="claude-haiku-4-5").input_tokens
    text = client.messages.count_tokens(
        messages=HELLO, model="claude-haiku-4-5", system="a" * 40
    ).input_tokens
    blocks = client.messages.count_tokens(
        messages=HELLO, model="claude-haiku-4-5", system=[{"type": "text", "text": "a" * 40}]
    ).input_tokens
    assert (plain, text, blocks) == (6, 16, 16)


def test_counting_is_metered_and_free(client, provider):
    client.messages.count_tokens(messages=HELLO, model="claude-haiku-4-5")
    [entry] = provider.meter.entries
    assert entry.path == "/v1/messages/count_tokens"
    assert entry.outcome == "complete"
    assert entry.cost_nanos == entry.tokens.input == 0


@pytest.mark.parametrize(
    "how",
    [
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "tool", "name": "weather"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "use the tool"}]}]},
    ],
)
def test_a_tool_is_used_when_demanded_or_when_the_prompt_says_so(client, how):
    request = {"messages": HELLO, "tools": [WEATHER], **HAIKU, **how}
    message = client.messages.create(**request)
    assert message.stop_reason == "tool_use"
    assert message.content[0].name == "weather"
    assert isinstance(message.content[0].input["city"], str)
    with client.messages.stream(**request) as stream:
        assert stream.get_final_message().content[0].input == message.content[0].input


class Trip(BaseModel):
    city: str
    days: int


def test_parse_gives_an_object_of_the_schema(client):
    trip = client.messages.parse(messages=HELLO, output_format=Trip, **HAIKU).parsed_output
    assert isinstance(trip, Trip)


def test_thinking_tokens_are_part_of_the_output(client, provider):
    provider.behave(output_tokens=50, reasoning_tokens=30)
    usage = client.messages.create(messages=HELLO, **HAIKU).usage
    assert usage.output_tokens == 50
    assert usage.output_tokens_details.thinking_tokens == 30
    assert provider.meter.entries[0].tokens.reasoning == 30


def test_models_are_listed(client):
    assert "claude-haiku-4-5" in [model.id for model in client.models.list()]
    assert client.models.retrieve("claude-haiku-4-5").type == "model"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-none")


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, anthropic.RateLimitError), (500, anthropic.InternalServerError), (529, anthropic.OverloadedError)],
)
def test_errors_come_in_anthropics_words(client, provider, status, error):
    provider.behave(status=status)
    with pytest.raises(error) as refused:
        client.messages.create(messages=HELLO, **HAIKU)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["request_id"] == refused.value.request_id
    assert provider.meter.total_nanos == 0


def test_a_missing_limit_and_a_missing_version_are_refused(provider, raw):
    raw.send(
        {"model": "claude-haiku-4-5", "messages": HELLO}, "/v1/messages", {"anthropic-version": "2023-06-01"}
    )
    reply = raw.read_answer()
    assert reply.status == 400
    assert reply.json()["error"]["message"] == "max_tokens: Field required"
    raw.send({"messages": HELLO, **HAIKU}, "/v1/messages")
    assert "anthropic-version" in raw.read_answer().json()["error"]["message"]
    assert [entry.outcome for entry in provider.meter.entries] == ["refused", "refused"]


def test_the_async_client_streams(provider):
    async def talk() -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=provider.url, api_key="x", max_retries=0) as client,
            client.messages.stream(messages=HELLO, **HAIKU) as stream,
        ):
            return "".join([text async for text in stream.text_stream])

    assert len(asyncio.run(talk()).split()) == 80


def test_searches_and_fast_speed_are_stated_and_billed():
    prices = {
        "claude-haiku-4-5": {"input": 1_000_000, "output": 2_000_000, "web_search_nanos": 10_000_000},
        "claude-haiku-4-5@fast": {"input": 6_000_000, "output": 12_000_000},
    }
    with (
        MockProvider(prices=prices, behaviour={"web_searches": 3, "output_tokens": 10}) as provider,
        anthropic.Anthropic(base_url=provider.url, api_key="x", max_retries=0) as client,
    ):
        plain = client.messages.create(messages=HELLO, **HAIKU).usage
        assert plain.server_tool_use.web_search_requests == 3
        assert plain.speed is None
        with client.messages.stream(messages=HELLO, **HAIKU) as stream:
            assert stream.get_final_message().usage.server_tool_use.web_search_requests == 3
        fast = client.messages.create(
            messages=HELLO, extra_body={"speed": "fast", "inference_geo": "us"}, **HAIKU
        )
        assert (fast.usage.speed, fast.usage.inference_geo) == ("fast", "us")
        # 6 * 1 + 10 * 2 + 3 searches, twice; 6 * 6 + 10 * 12
        assert [entry.cost_nanos for entry in provider.meter.entries] == [30_000_026, 30_000_026, 156]


def test_thinking_is_shown_when_it_is_asked_for(client, provider):
    provider.behave(output_tokens=20, reasoning_tokens=8)
    request = {"model": "claude-haiku-4-5", "max_tokens": 2000, "messages": HELLO}
    asked = {**request, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    hidden, shown = client.messages.create(**request), client.messages.create(**asked)
    assert [block.type for block in hidden.content] == ["text"]
    assert [block.type for block in shown.content] == ["thinking", "text"]
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0] == shown.content[0]
    assert streamed.content[1].text == shown.content[1].text
    assert streamed.usage.output_tokens == shown.usage.output_tokens == 20
    assert len({entry.cost_nanos for entry in provider.meter.entries}) == 1


def test_pictures_and_documents_count_flat_wherever_they_are(client, provider):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    document = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
    }
    messages = [
        {"role": "user", "content": [picture, document, {"type": "text", "text": "hello there"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [picture]}]},
    ]
    answer = client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=messages)
    # three pictures or pages of 85, 3 for the text, 3 for each message
    assert answer.usage.input_tokens == provider.meter.entries[0].tokens.input == 3 * 85 + 3 + 3 * 3
