"""The official openai SDK's Responses client against the mock: events, stored conversations, background."""

import json
from collections.abc import Iterator

import openai
import pytest

from outlay.testing import MockProvider, Tokens

WEATHER = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PATCH = {"type": "custom", "name": "apply_patch", "description": "a patch"}
HELLO = {"model": "gpt-5-mini", "input": "hello there"}  # 11 bytes: 3 tokens, and 3 for the message


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


def test_a_response_states_what_the_meter_billed(client, provider):
    provider.behave(cached_tokens=2, reasoning_tokens=30)
    answer = client.responses.create(**HELLO)
    assert answer.status == "completed"
    assert len(answer.output_text.split()) == 50
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (6, 80, 86)
    assert usage.input_tokens_details.cached_tokens == 2
    assert usage.output_tokens_details.reasoning_tokens == 30
    [entry] = provider.meter.entries
    # 4 * 250 + 2 * 25 + 80 * 2000
    assert entry.cost_nanos == 161_050
    assert (entry.path, entry.model, entry.service_tier) == ("/v1/responses", "gpt-5-mini", "default")


def test_the_limit_makes_it_incomplete(client):
    answer = client.responses.create(**HELLO, max_output_tokens=5)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == len(answer.output_text.split()) == 5


@pytest.mark.parametrize("limit", [None, 5])
def test_a_stream_tells_the_whole_story_in_order(client, provider, limit):
    provider.behave(output_tokens=10, reasoning_tokens=2, tokens_per_chunk=4)
    whole = client.responses.create(**HELLO, max_output_tokens=limit, include=["reasoning.encrypted_content"])
    events = list(
        client.responses.create(
            **HELLO, max_output_tokens=limit, include=["reasoning.encrypted_content"], stream=True
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = 2 if limit is None else 1
    ending = "completed" if limit is None else "incomplete"
    assert kinds == [
        *("created", "in_progress", "output_item.added", "output_item.done"),  # the reasoning
        *("output_item.added", "content_part.added", *["output_text.delta"] * deltas),
        *("output_text.done", "content_part.done", "output_item.done", ending),
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert text == final.output_text == whole.output_text
    assert final.usage == whole.usage
    assert events[3].item.encrypted_content
    first, second = provider.meter.entries
    assert first.tokens == second.tokens == Tokens(input=6, output=limit or 10, reasoning=2)


@pytest.mark.parametrize(
    "how",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "weather"}},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "use the tool for Oslo"}]}]},
    ],
)
def test_a_function_is_called(client, how):
    request = {
        **HELLO,
        "tools": [PATCH, WEATHER] if isinstance(how.get("tool_choice"), dict) else [WEATHER],
        **how,
    }
    answer = client.responses.create(**request)
    [call] = answer.output
    assert (call.type, call.name) == ("function_call", "weather")
    assert isinstance(json.loads(call.arguments)["city"], str)
    with client.responses.stream(**request) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        streamed = stream.get_final_response().output[0]
    assert streamed.arguments == done[0].arguments == call.arguments
    follow_up = client.responses.create(
        model="gpt-5-mini",
        previous_response_id=answer.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        tools=[WEATHER],
    )
    assert follow_up.output_text


def test_a_custom_tool_gets_plain_text(client, provider):
    provider.behave(tool_call=True, tool_arguments="*** Begin Patch")
    answer = client.responses.create(**HELLO, tools=[PATCH])
    [call] = answer.output
    assert (call.type, call.input) == ("custom_tool_call", "*** Begin Patch")
    events = list(client.responses.create(**HELLO, tools=[PATCH], stream=True))
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == "*** Begin Patch"


def test_a_structured_answer_fits_its_schema(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer", "minimum": 3}},
        "required": ["answer"],
    }
    wanted = {"format": {"type": "json_schema", "name": "a", "schema": schema}}
    assert json.loads(client.responses.create(**HELLO, text=wanted).output_text) == {"answer": 3}


def test_a_conversation_is_read_again_and_billed(client, provider):
    provider.behave(output_tokens=10, reasoning_tokens=4)
    first = client.responses.create(**HELLO, instructions="four")
    second = client.responses.create(**HELLO, previous_response_id=first.id)
    third = client.responses.create(**HELLO, previous_response_id=second.id)
    # instructions (1 token) are not carried over, hidden reasoning is not read again
    assert [entry.tokens.input for entry in provider.meter.entries] == [7, 6 + 6 + 6, 6 + 12 + 12]
    assert third.usage.input_tokens == 30
    assert third.previous_response_id == second.id
    rows = client.responses.input_items.list(third.id)
    assert rows.data[0].content[0].text == "hello there"


def test_what_was_not_stored_or_was_deleted_is_not_found(client, provider):
    unstored = client.responses.create(**HELLO, store=False)
    stored = client.responses.create(**HELLO)
    assert client.responses.retrieve(stored.id).output_text == stored.output_text
    client.responses.delete(stored.id)
    for response_id in (unstored.id, stored.id):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response_id)
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**HELLO, previous_response_id=response_id)
        assert refused.value.code == "previous_response_not_found"
    assert provider.meter.all.billed_requests == 2


def test_a_background_response_is_billed_when_it_is_done(client, provider):
    provider.behave(polls=3)
    started = client.responses.create(
        **HELLO, background=True, extra_headers={"x-outlay-request-id": "req_background"}
    )
    assert (started.status, started.usage) == ("queued", None)
    assert provider.meter.total_nanos == 0
    states = [client.responses.retrieve(started.id).status for _ in range(2)]
    assert states == ["queued", "in_progress"]
    assert provider.meter.total_nanos == 0
    done = client.responses.retrieve(started.id)
    assert (done.status, done.usage.output_tokens) == ("completed", 80)
    client.responses.retrieve(started.id)
    begun, billed = provider.meter.entries
    assert (begun.cost_nanos, begun.job) == (0, started.id)
    # 6 * 250 + 80 * 2000, once
    assert (billed.cost_nanos, billed.job, billed.outlay_request_id) == (
        161_500,
        started.id,
        "req_background",
    )
    assert provider.meter.open_requests == 0


def test_a_background_response_that_is_cancelled_or_fails_is_not_billed(client, provider):
    cancelled = client.responses.create(**HELLO, background=True)
    assert client.responses.cancel(cancelled.id).status == "cancelled"
    assert client.responses.retrieve(cancelled.id).status == "cancelled"
    provider.behave(job_end="failed", polls=1)
    failed = client.responses.create(**HELLO, background=True)
    answer = client.responses.retrieve(failed.id)
    assert (answer.status, answer.error.code) == ("failed", "server_error")
    assert provider.meter.total_nanos == 0


def test_a_broken_stream_fails_by_event_and_bills_what_was_sent(client, provider):
    provider.queue({"failure": "stream_error", "after_chunks": 2, "tokens_per_chunk": 5})
    events = list(client.responses.create(**HELLO, stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "server_error"
    [entry] = provider.meter.entries
    assert (entry.outcome, entry.tokens.output) == ("cut", 10)


def test_errors_and_directives(client, provider):
    with pytest.raises(openai.RateLimitError) as limited:
        client.responses.create(model="gpt-5-mini@mock:status=429;retry_after=3", input="x")
    assert limited.value.response.headers["retry-after"] == "3"
    answer = client.responses.create(model="gpt-5-mini", input="x", metadata={"mock": "output_tokens=3"})
    assert answer.usage.output_tokens == 3
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="gpt-5-mini", input="x", max_output_tokens=0)
    provider.behave_model("GET /v1/responses/{response_id}", status=503)
    with pytest.raises(openai.InternalServerError):
        client.responses.retrieve(answer.id)
