"""Pictures, sound, old completions, moderations, Azure's paths and Cohere's rerank, each by the vendor's own SDK."""

import base64
import json
from collections.abc import Iterator

import cohere
import httpx
import openai
import pytest
from cohere.errors import TooManyRequestsError

from outlay.testing import MockProvider, Tokens, media

PRICES = {
    "gpt-image-1": {
        "input": 5_000_000_000,
        "input_image": 10_000_000_000,
        "output": 1,
        "output_image": 40_000_000_000,
    },
    "dall-e-3": {"image_nanos": 40_000_000, "image/hd/1024x1792": 120_000_000},
    "tts-1": {"character": 15_000_000_000},
    "gpt-4o-mini-tts": {"input": 600_000_000, "output": 1, "output_audio": 12_000_000_000},
    "whisper-1": {"audio_second_nanos": 100_000},
    "gpt-4o-transcribe": {"input": 2_500_000_000, "input_audio": 6_000_000_000, "output": 10_000_000_000},
    "gpt-audio": {
        "input": 2_500_000_000,
        "input_audio": 32_000_000_000,
        "output": 10_000_000_000,
        "output_audio": 64_000_000_000,
    },
    "gpt-3.5-turbo-instruct": {"input": 1_500_000_000, "output": 2_000_000_000},
    "my-deployment": {"input": 150_000_000, "output": 600_000_000},
    "rerank-v3.5": {"search_unit_nanos": 2_000_000},
}
HELLO = [{"role": "user", "content": "hello there"}]
RECORDING = media.wav(2500)


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(prices=PRICES, behaviour={"output_tokens": 20}) as running:
        yield running


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


def test_a_picture_by_tokens(client, provider):
    answer = client.images.generate(
        model="gpt-image-1", prompt="hello there", n=2, quality="low", size="1024x1536"
    )
    assert [base64.b64decode(row.b64_json)[:4] for row in answer.data] == [b"\x89PNG"] * 2
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 816, 819)
    assert (usage.input_tokens_details.text_tokens, usage.input_tokens_details.image_tokens) == (3, 0)
    assert (answer.quality, answer.size) == ("low", "1024x1536")
    # 3 * 5000 + 816 * 40000
    assert provider.meter.total_nanos == 32_655_000


def test_an_edit_reads_the_pictures_it_is_given(client, provider):
    provider.behave(image_output_tokens=50)
    answer = client.images.edit(
        model="gpt-image-1", prompt="hello there", image=[("a.png", media.png()), ("b.png", media.png(1))]
    )
    assert answer.usage.input_tokens_details.image_tokens == 170
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(input=173, input_image=170, output=50, output_image=50)
    # 3 * 5000 + 170 * 10000 + 50 * 40000
    assert entry.cost_nanos == 3_715_000


@pytest.mark.parametrize("kind", ["generate", "edit"])
def test_a_streamed_picture_costs_its_partial_ones_too(client, provider, kind):
    provider.behave(image_output_tokens=50)
    request = {"model": "gpt-image-1", "prompt": "x", "stream": True, "partial_images": 2}
    if kind == "edit":
        events = list(client.images.edit(**request, image=("a.png", media.png())))
    else:
        events = list(client.images.generate(**request))
    name = {"generate": "image_generation", "edit": "image_edit"}[kind]
    assert [event.type for event in events] == [f"{name}.partial_image"] * 2 + [f"{name}.completed"]
    assert events[-1].usage.output_tokens == provider.meter.entries[0].tokens.output == 250
    provider.queue({"failure": "cut", "after_chunks": 1})
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        list(client.images.generate(**request))
    assert provider.wait_for(2)[1].tokens.output == 100


def test_a_picture_by_the_piece(client, provider):
    answer = client.images.generate(model="dall-e-3", prompt="x", quality="hd", size="1024x1792")
    assert answer.usage is None
    assert answer.data[0].url
    client.images.generate(model="dall-e-3", prompt="x", n=2, response_format="b64_json")
    assert [entry.cost_nanos for entry in provider.meter.entries] == [120_000_000, 80_000_000]
    assert provider.meter.all.images == 3


def test_speech_by_the_character(client, provider):
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="héllo wörld")
    assert len(answer.content) == 20 * 32
    assert answer.response.headers["content-type"] == "audio/mpeg"
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(characters=11)
    assert entry.cost_nanos == 165_000


def test_speech_by_tokens_tells_its_usage_only_in_events(client, provider):
    request = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "hello there"}
    assert client.audio.speech.create(**request, instructions="slow").content
    with client.audio.speech.with_streaming_response.create(**request, stream_format="sse") as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 3, "output_tokens": 20, "total_tokens": 23},
    }
    assert sum(len(base64.b64decode(event.get("audio", ""))) for event in events) == 20 * 32
    # (3 + 1) * 600 + 20 * 12000, then 3 * 600 + 20 * 12000
    assert [entry.cost_nanos for entry in provider.meter.entries] == [242_400, 241_800]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK deprecates translations
@pytest.mark.parametrize("route", ["transcriptions", "translations"])
def test_whisper_is_billed_by_the_time_that_the_file_says(client, provider, route):
    create = getattr(client.audio, route).create
    answer = create(model="whisper-1", file=("a.wav", RECORDING))
    assert answer.usage.seconds == 2.5 if route == "transcriptions" else answer.text
    verbose = create(model="whisper-1", file=("a.wav", RECORDING), response_format="verbose_json")
    assert float(verbose.duration) == 2.5
    for plain, beginning in (
        ("text", " The"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500"),
        ("vtt", "WEBVTT"),
    ):
        assert create(model="whisper-1", file=("a.wav", RECORDING), response_format=plain).startswith(
            beginning
        )
    provider.behave(audio_ms=61_001)
    create(model="whisper-1", file=("a.mp3", b"not a wav"))
    assert [entry.cost_nanos for entry in provider.meter.entries] == [250_000] * 5 + [6_100_100]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_transcription_by_tokens(client, provider, is_stream):
    request = {"model": "gpt-4o-transcribe", "file": ("a.wav", RECORDING), "prompt": "hello there"}
    if is_stream:
        events = list(client.audio.transcriptions.create(**request, stream=True))
        answer = events[-1]
        assert "".join(event.delta for event in events[:-1]) == answer.text
    else:
        answer = client.audio.transcriptions.create(**request)
    usage = answer.usage
    assert (usage.type, usage.input_tokens, usage.output_tokens, usage.total_tokens) == ("tokens", 28, 20, 48)
    assert (usage.input_token_details.text_tokens, usage.input_token_details.audio_tokens) == (3, 25)
    # 3 * 2500 + 25 * 6000 + 20 * 10000
    assert provider.meter.total_nanos == 357_500


def test_a_chat_hears_sees_and_speaks(client, provider):
    parts = [
        {"type": "text", "text": "hello there"},
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(RECORDING).decode(), "format": "wav"},
        },
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + media.png_base64()}},
    ]
    request = {
        "model": "gpt-audio",
        "messages": [{"role": "user", "content": parts}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "pcm16"},
    }
    answer = client.chat.completions.create(**request)
    said = answer.choices[0].message.audio
    assert len(said.transcript.split()) == 20
    assert base64.b64decode(said.data)
    usage = answer.usage
    # 3 of text, 25 of sound, 85 of the picture, 3 of the message
    assert (usage.prompt_tokens, usage.prompt_tokens_details.audio_tokens) == (116, 25)
    assert (usage.completion_tokens, usage.completion_tokens_details.audio_tokens) == (20, 15)
    events = list(
        client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    )
    pieces = [event.choices[0].delta.audio for event in events if event.choices]
    assert "".join(piece.transcript or "" for piece in pieces if piece) == said.transcript
    assert [piece.expires_at for piece in pieces if piece][-1] > said.expires_at - 60
    assert events[-1].usage == usage
    # 91 * 2500 + 25 * 32000 + 5 * 10000 + 15 * 64000
    assert [entry.cost_nanos for entry in provider.meter.entries] == [2_037_500] * 2


def test_completions_bill_every_attempt(client, provider):
    answer = client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=["hello there", "x"], n=2, best_of=3, max_tokens=5
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 30)
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x").usage.completion_tokens == 16
    # 4 * 1500 + 30 * 2000, then 1500 + 16 * 2000
    assert [entry.cost_nanos for entry in provider.meter.entries] == [66_000, 33_500]


def test_a_completion_streams(client, provider):
    request = {"model": "gpt-3.5-turbo-instruct", "prompt": "hello there", "max_tokens": 7, "echo": True}
    whole = client.completions.create(**request)
    events = list(client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    assert "".join(event.choices[0].text for event in events if event.choices) == whole.choices[0].text
    assert events[-1].usage == whole.usage
    assert whole.choices[0].finish_reason == "length"
    assert len({entry.cost_nanos for entry in provider.meter.entries}) == 1


def test_moderations_are_free(client, provider):
    answer = client.moderations.create(input=["a", "b"])
    assert [row.flagged for row in answer.results] == [False, False]
    assert answer.results[0].categories.self_harm is False
    [entry] = provider.meter.entries
    assert (entry.cost_nanos, entry.priced) == (0, True)


@pytest.fixture
def azure(provider: MockProvider) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=provider.url, api_key="azure-key", api_version="2025-03-01-preview", max_retries=0
    ) as made:
        yield made


def test_azure_serves_the_deployment(azure, provider):
    answer = azure.chat.completions.create(model="my-deployment", messages=HELLO)
    assert (answer.model, answer.usage.total_tokens) == ("my-deployment", 26)
    first, *events = azure.chat.completions.create(model="my-deployment", messages=HELLO, stream=True)
    assert first.choices == []
    assert (
        "".join(event.choices[0].delta.content or "" for event in events) == answer.choices[0].message.content
    )
    azure.embeddings.create(model="my-deployment", input="hello there")
    azure.responses.create(model="my-deployment", input="hello there")
    paths = [entry.path.removeprefix("/openai") for entry in provider.meter.entries]
    assert paths == [
        *["/deployments/my-deployment/chat/completions"] * 2,
        "/deployments/my-deployment/embeddings",
        "/responses",
    ]
    # 6 * 150 + 20 * 600 thrice, 3 * 150 once
    assert provider.meter.total_nanos == 3 * 12_900 + 450
    assert provider.calls[0].header(b"api-key") == "azure-key"


def test_azures_new_paths_need_no_version_and_the_old_ones_do(provider, raw):
    body = {"model": "my-deployment", "messages": HELLO}
    for path, status in (
        ("/openai/v1/chat/completions", 200),
        ("/openai/deployments/other/chat/completions?api-version=2024-10-21", 200),
        ("/openai/deployments/other/chat/completions", 404),
    ):
        raw.send(body, path=path)
        assert raw.read_answer().status == status
    assert [entry.model for entry in provider.meter.entries] == ["my-deployment", "other", ""]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as made:
        yield made


@pytest.mark.parametrize("maker", [cohere.ClientV2, cohere.Client])
def test_rerank_is_billed_by_started_hundreds_of_documents(provider, http, maker):
    client = maker(api_key="any", base_url=provider.url, httpx_client=http)
    documents = ["a cat"] * 99 + ["a dog", "a bird and a dog"]
    answer = client.rerank(model="rerank-v3.5", query="bird dog", documents=documents, top_n=2)
    assert [row.index for row in answer.results] == [100, 99]
    assert answer.results[0].relevance_score > answer.results[1].relevance_score
    assert answer.meta.billed_units.search_units == 2
    client.rerank(model="rerank-v3.5", query="bird dog", documents=documents[:100])
    assert [entry.cost_nanos for entry in provider.meter.entries] == [4_000_000, 2_000_000]


def test_rerank_refuses_in_coheres_words(provider, http):
    client = cohere.ClientV2(api_key="any", base_url=provider.url, httpx_client=http)
    with pytest.raises(TooManyRequestsError) as refused:
        client.rerank(
            model="rerank-v3.5@mock:status=429",
            query="x",
            documents=["y"],
            request_options={"max_retries": 0},
        )
    assert "limited" in refused.value.body["message"]
    assert provider.meter.total_nanos == 0


def test_directives_and_refusals_work_on_forms_too(client, provider):
    with pytest.raises(openai.RateLimitError):
        client.audio.transcriptions.create(model="whisper-1@mock:status=429", file=("a.wav", RECORDING))
    with pytest.raises(openai.BadRequestError):
        client.post("/audio/transcriptions", body={"model": "whisper-1"}, cast_to=object)
    with pytest.raises(openai.BadRequestError):
        client.images.generate(model="gpt-image-1", prompt="x", n=11)
    assert provider.meter.total_nanos == 0
