"""The official google-genai SDK against the mock: it parses, it accumulates, and it states what the meter billed."""

import base64
import json
from collections.abc import Iterator

import pytest
from google import genai
from google.genai import errors, types

from outlay.testing import MockProvider, Tokens, media

MODEL = "gemini-2.5-flash"
PRICES = {
    MODEL: {
        "input": 300_000_000,
        "cached": 30_000_000,
        "input_audio": 1_000_000_000,
        "output": 2_500_000_000,
        "output_image": 30_000_000_000,
    },
    f"{MODEL}@flex": {"input": 150_000_000, "output": 1_250_000_000},
    "gemini-embedding-001": {"input": 150_000_000},
}
WEATHER = types.FunctionDeclaration(
    name="weather",
    parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}),
)


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(prices=PRICES, behaviour={"output_tokens": 20}) as running:
        yield running


@pytest.fixture
def client(provider: MockProvider) -> Iterator[genai.Client]:
    made = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=provider.url))
    yield made
    made.close()


def config(**fields: object) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(**fields)


def test_an_answer_states_what_the_meter_billed(client, provider):
    provider.behave(cached_tokens=2, reasoning_tokens=5, tool_prompt_tokens=7)
    answer = client.models.generate_content(
        model=MODEL, contents="hello there", config=config(system_instruction="be terse")
    )
    usage = answer.usage_metadata
    # 3 for the text, 2 for the instruction, 3 for each of the two turns
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (11, 2)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (15, 5)
    assert usage.tool_use_prompt_token_count == 7
    assert usage.total_token_count == 11 + 7 + 20
    assert len(answer.text.split()) == 15
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(input=18, cached=2, output=20, reasoning=5)
    # 16 * 300 + 2 * 30 + 20 * 2500
    assert entry.cost_nanos == 54_860
    assert entry.model == MODEL
    assert entry.path.endswith(f"/models/{MODEL}:generateContent")


def test_a_stream_says_the_same_and_every_chunk_states_the_usage_so_far(client, provider):
    provider.behave(reasoning_tokens=4)
    request = {"model": MODEL, "contents": "hello there", "config": config(max_output_tokens=15)}
    whole = client.models.generate_content(**request)
    chunks = list(client.models.generate_content_stream(**request))
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    counts = [chunk.usage_metadata.candidates_token_count for chunk in chunks]
    assert counts == [4, 8, 11, 11]
    first, second = provider.meter.entries
    assert first.tokens == second.tokens == Tokens(input=6, output=15, reasoning=4)
    assert (first.stream, second.stream) == (False, True)


def test_without_sse_a_stream_is_one_json_array(provider, raw):
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"
    raw.send({"contents": [{"parts": [{"text": "hello there"}]}]}, path=path)
    reply = raw.read_answer()
    rows = reply.json()
    assert reply.headers["content-type"].startswith("application/json")
    assert len(rows) == 6
    assert rows[-1]["usageMetadata"]["candidatesTokenCount"] == 20


def test_candidates_are_billed_each(client, provider):
    answer = client.models.generate_content(model=MODEL, contents="x", config=config(candidate_count=3))
    assert [candidate.index for candidate in answer.candidates] == [0, 1, 2]
    assert answer.usage_metadata.candidates_token_count == provider.meter.entries[0].tokens.output == 60


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_function_is_called(client, is_stream):
    request = {
        "model": MODEL,
        "contents": "use the tool",
        "config": config(tools=[types.Tool(function_declarations=[WEATHER])]),
    }
    if is_stream:
        calls = [
            call
            for chunk in client.models.generate_content_stream(**request)
            for call in chunk.function_calls or ()
        ]
    else:
        calls = client.models.generate_content(**request).function_calls
    [call] = calls
    assert (call.name, call.args) == ("weather", {"city": "ledger"})


def test_json_that_fits_a_schema(client):
    for schema in (
        {"response_schema": types.Schema(type="OBJECT", properties={"n": types.Schema(type="INTEGER")})},
        {"response_json_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    ):
        answer = client.models.generate_content(
            model=MODEL, contents="x", config=config(response_mime_type="application/json", **schema)
        )
        assert json.loads(answer.text) == {"n": 7}


def test_sound_and_pictures_are_stated_and_billed_apart(client, provider):
    sound = types.Part.from_bytes(data=media.wav(2500), mime_type="audio/wav")
    picture = types.Part.from_bytes(data=media.png(), mime_type="image/png")
    answer = client.models.generate_content(model=MODEL, contents=["hear this", sound, picture])
    by_modality = {row.modality.name: row.token_count for row in answer.usage_metadata.prompt_tokens_details}
    assert by_modality == {"TEXT": 3 + 3, "AUDIO": 80, "IMAGE": 258}
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(input=344, input_audio=80, input_image=258, output=20)
    # 264 * 300 + 80 * 1000 + 20 * 2500
    assert entry.cost_nanos == 209_200


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_generated_picture_has_its_own_rate(client, provider, is_stream):
    request = {"model": MODEL, "contents": "x", "config": config(response_modalities=["TEXT", "IMAGE"])}
    if is_stream:
        answers = list(client.models.generate_content_stream(**request))
    else:
        answers = [client.models.generate_content(**request)]
    parts = [part for answer in answers for part in answer.candidates[0].content.parts]
    assert [part.inline_data.data[:4] for part in parts if part.inline_data] == [b"\x89PNG"]
    usage = answers[-1].usage_metadata
    assert usage.candidates_token_count == 1310
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(input=4, output=1310, output_image=1290)
    # 4 * 300 + 20 * 2500 + 1290 * 30000
    assert entry.cost_nanos == 38_751_200


def test_a_tier_is_served_and_billed(provider, raw):
    body = {"contents": [{"parts": [{"text": "hello there"}]}], "serviceTier": "FLEX"}
    raw.send(body, path=f"/v1beta/models/{MODEL}:generateContent")
    assert raw.read_answer().headers["x-gemini-service-tier"] == "flex"
    # 6 * 150 + 20 * 1250
    assert provider.meter.total_nanos == 25_900


def test_counting_is_free_and_agrees_with_the_bill(client, provider):
    counted = client.models.count_tokens(model=MODEL, contents="hello there")
    client.models.generate_content(model=MODEL, contents="hello there")
    free, billed = provider.meter.entries
    assert free.cost_nanos == 0
    assert counted.total_tokens == billed.tokens.input == 6


def test_embeddings_are_billed_and_state_usage_only_if_told_to(client, provider):
    request = {"model": "gemini-embedding-001", "contents": ["one", "two twos"]}
    answer = client.models.embed_content(**request, config={"output_dimensionality": 8})
    assert [len(row.values) for row in answer.embeddings] == [8, 8]
    assert answer.usage_metadata is None
    # (1 + 3) + (2 + 3) tokens at 150
    assert provider.meter.total_nanos == 9 * 150
    provider.behave(embed_usage=True)
    assert client.models.embed_content(**request).usage_metadata.prompt_token_count == 9


def test_a_single_embedding(provider, raw):
    raw.send(
        {"content": {"parts": [{"text": "one"}]}}, path="/v1beta/models/gemini-embedding-001:embedContent"
    )
    assert len(raw.read_answer().json()["embedding"]["values"]) == 16
    assert provider.meter.total_nanos == 4 * 150


def test_errors_are_googles(client, provider):
    with pytest.raises(errors.ClientError) as limited:
        client.models.generate_content(model=f"{MODEL}@mock:status=429;retry_after=7", contents="x")
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert limited.value.details["error"]["details"][0]["retryDelay"] == "7s"
    with pytest.raises(errors.ServerError) as overloaded:
        client.models.generate_content(model=f"{MODEL}@mock:status=503", contents="x")
    assert overloaded.value.status == "UNAVAILABLE"
    with pytest.raises(errors.ClientError):
        client.models.generate_content(model=MODEL, contents="x", config=config(max_output_tokens=0))
    assert provider.meter.total_nanos == 0


def test_a_cut_stream_bills_what_was_sent(client, provider):
    provider.queue({"failure": "early_end", "after_chunks": 2})
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="x"))
    assert chunks[-1].candidates[0].finish_reason is None
    assert provider.meter.entries[0].tokens.output == 8


@pytest.mark.parametrize("how", ["header", "query"])
def test_the_key_is_checked_wherever_it_comes(dial, how):
    with MockProvider(api_keys=["right"]) as provider:
        for key, status in (("right", 200), ("wrong", 401)):
            path = f"/v1beta/models/{MODEL}:generateContent"
            headers = {"x-goog-api-key": key} if how == "header" else {}
            client = dial(provider.port)
            client.send(
                {"contents": [{"parts": [{"text": base64.b64encode(b"x").decode()}]}]},
                path=path if headers else f"{path}?key={key}",
                headers=headers,
            )
            assert client.read_answer().status == status
