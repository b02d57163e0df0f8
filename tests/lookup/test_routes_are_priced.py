"""Every route with a real model: the request can be held, and what its answer states costs no more than the hold."""

import io
import json
import wave
from typing import NamedTuple

import httpx
import msgspec
import pytest
from price_vector import NOW

from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Cost, Quote, bound, cost
from outlay.lookup.price import ModelPrice
from outlay.wire import (
    anthropic,
    audio,
    bedrock,
    completions,
    gemini,
    images,
    jobs,
    moderation,
    openai,
    openai_responses,
    realtime,
    rerank,
)
from outlay.wire.intent import CallIntent, Modality, Operation, Rejection, Usage

DEFAULT_LIMIT = 1_000
"""Output tokens held where a request states none, as the gateway would fill in."""
PICTURE = "data:image/png;base64," + "A" * 5_000
SAID = [{"role": "user", "content": "hi"}]


class Route(NamedTuple):
    provider: str
    intent: CallIntent | Rejection
    usage: Usage | None


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def recording(model: str) -> tuple[str, bytes]:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000 * 30))
    request = httpx.Request(
        "POST", "http://x/", data={"model": model}, files={"file": ("a.wav", out.getvalue())}
    )
    return request.headers["content-type"], request.read()


def drawn(model: str, **fields: object) -> CallIntent | Rejection:
    return images.parse_image_generation(body(model=model, prompt="a cat", **fields))


def answer(operation: Operation, read: object, **fields: object) -> Usage | None:
    return read(operation, body(**fields)).usage  # type: ignore[operator]


def said(model: str, **fields: object) -> CallIntent | Rejection:
    return openai.parse_chat(body(model=model, messages=SAID, **fields))


def batch_of(intent: CallIntent | Rejection) -> CallIntent | Rejection:
    return msgspec.structs.replace(intent, service_tier="batch") if isinstance(intent, CallIntent) else intent


HEARD = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
TUNED = jobs.parse_fine_tuning(body(model="gpt-4.1-mini", training_file="f"))
ROUTES: dict[str, Route] = {
    "chat with a picture": Route(
        "openai",
        openai.parse_chat(
            body(
                model="gpt-4o-mini",
                messages=[
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}
                ],
            )
        ),
        Usage(48_169 + 20, 50),
    ),
    "chat that is heard and speaks": Route(
        "openai",
        openai.parse_chat(
            body(
                model="gpt-audio",
                modalities=["text", "audio"],
                audio={"voice": "alloy", "format": "wav"},
                messages=[{"role": "user", "content": [HEARD]}],
            )
        ),
        Usage(128_000, 900, input_audio_tokens=127_000, output_audio_tokens=800),
    ),
    "legacy completion": Route(
        "openai",
        completions.parse_completion(body(model="gpt-3.5-turbo-instruct", prompt=["a", "b"], n=2)),
        Usage(10, 64),
    ),
    "response that goes on": Route(
        "openai",
        openai_responses.parse_responses(
            body(
                model="gpt-5-mini",
                input="x",
                previous_response_id="r",
                tools=[{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}],
                max_tool_calls=3,
            )
        ),
        Usage(272_000, 900, web_search_requests=3, code_execution_requests=1),
    ),
    "batch line of a response": Route(
        "openai",
        batch_of(openai_responses.parse_responses(body(model="gpt-5-mini", input="x"))),
        Usage(12, 900, service_tier="default"),
    ),
    "images by token": Route(
        "openai",
        drawn("gpt-image-2", n=2, quality="high", size="1024x1024"),
        Usage(9, 2 * 7_024, output_image_tokens=2 * 7_024),
    ),
    "images by the piece": Route(
        "openai",
        drawn("dall-e-3", quality="hd", n=1),
        answer(Operation.IMAGES, images.read_answer, created=1, data=[{"url": "x"}]),
    ),
    "speech by the character": Route(
        "openai",
        audio.parse_speech(body(model="tts-1", input="Grüße", voice="alloy")),
        Usage(0, 0, units=audio.parse_speech(body(model="tts-1", input="Grüße")).units),  # type: ignore[union-attr]
    ),
    "speech by the token": Route(
        "openai",
        audio.parse_speech(body(model="gpt-4o-mini-tts", input="word " * 800, voice="alloy")),
        # measured by others: six audio tokens for each token of text
        Usage(800, 4_800, output_audio_tokens=4_800),
    ),
    "transcription by time": Route(
        "openai",
        audio.parse_transcription(*recording("whisper-1")),
        answer(
            Operation.TRANSCRIPTION, audio.read_answer, text="x", usage={"type": "duration", "seconds": 30}
        ),
    ),
    "transcription by token": Route(
        "openai",
        audio.parse_transcription(*recording("gpt-4o-transcribe")),
        Usage(300, 150, input_audio_tokens=300),
    ),
    "moderation": Route(
        "openai",
        moderation.parse_moderation(body(input="x")),
        answer(Operation.MODERATION, moderation.read_answer, results=[]),
    ),
    "fine-tuning": Route(
        "openai",
        jobs.fine_tuning_intent(TUNED, 10_000) if isinstance(TUNED, jobs.FineTuningRequest) else TUNED,
        jobs.FineTuningState("j", "m", "succeeded", True, 10_000, 4).usage,
    ),
    "realtime response": Route(
        "openai",
        realtime.response_intent("gpt-realtime", 900),
        Usage(30_000, 900, input_audio_tokens=29_000, output_audio_tokens=900),
    ),
    "realtime transcript": Route(
        "openai",
        realtime.transcription_intent("gpt-4o-transcribe", 2_000),
        Usage(20, 9, input_audio_tokens=20),
    ),
    "embeddings in a batch": Route(
        "openai",
        batch_of(openai.parse_embeddings(body(model="text-embedding-3-small", input="some words"))),
        Usage(3, 0),
    ),
    "message with a picture": Route(
        "anthropic",
        anthropic.parse_messages(
            body(
                model="claude-sonnet-5-5",
                max_tokens=900,
                messages=[
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}],
                    }
                ],
            )
        ),
        Usage(4_784 + 15, 900, service_tier="standard"),
    ),
    "gemini that hears": Route(
        "google",
        gemini.parse_generate(
            body(contents=[{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "AA"}}]}]),
            model="gemini-2.5-flash",
            stream=True,
        ),
        Usage(1_000_000, 900, input_audio_tokens=999_000),
    ),
    "gemini that searches": Route(
        "google",
        gemini.parse_generate(
            body(contents=[{"parts": [{"text": "x"}]}], tools=[{"googleSearch": {}}, {"googleMaps": {}}]),
            model="gemini-2.5-pro",
            stream=False,
        ),
        Usage(5_000, 900, web_search_requests=1),
    ),
    "gemini that draws": Route(
        "google",
        gemini.parse_generate(
            body(
                contents=[{"parts": [{"text": "x"}]}],
                generationConfig={"responseModalities": ["TEXT", "IMAGE"], "maxOutputTokens": 2_000},
            ),
            model="gemini-2.5-flash-image",
            stream=False,
        ),
        Usage(5, 1_300, output_image_tokens=1_290),
    ),
    "gemini embedding": Route(
        "google",
        gemini.parse_embed_content(body(content={"parts": [{"text": "x"}]}), model="gemini-embedding-001"),
        Usage(3, 0),
    ),
    "rerank": Route(
        "cohere",
        rerank.parse_rerank(body(model="rerank-v3.5", query="x", documents=["a"] * 250)),
        answer(Operation.RERANK, rerank.read_answer, results=[], meta={"billed_units": {"search_units": 3}}),
    ),
    "rerank by token": Route(
        "cohere",
        rerank.parse_rerank(body(model="rerank-v5.0-pro", query="x", documents=["a"] * 3)),
        Usage(30, 0),
    ),
    "converse": Route(
        "aws",
        bedrock.parse_converse(
            body(messages=[{"role": "user", "content": [{"text": "x"}]}]),
            model="us.anthropic.claude-sonnet-5-5",
            stream=True,
        ),
        Usage(8, 900, service_tier="default"),
    ),
    "invoke": Route(
        "aws",
        bedrock.parse_invoke(body(inputText="x"), model="amazon.titan-embed-text-v2:0", stream=False),
        Usage(3, 0),
    ),
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_is_held_and_costs_no_more(book: PriceBook, name: str) -> None:
    route = ROUTES[name]
    intent = route.intent
    assert isinstance(intent, CallIntent), intent
    price = book.find(route.provider, intent.model, NOW)
    assert isinstance(price, ModelPrice), price
    limit = DEFAULT_LIMIT if intent.max_output_tokens is None else intent.max_output_tokens
    quote = bound(price, intent, limit, NOW)
    assert isinstance(quote, Quote), quote
    assert route.usage is not None
    priced = cost(price, route.usage, NOW, intent)
    assert isinstance(priced, Cost), priced
    assert priced.total_nanos <= quote.total_nanos
    assert (priced.total_nanos > 0) == (name != "moderation")


def test_the_kinds_of_content_are_what_the_parsers_say() -> None:
    heard = ROUTES["chat that is heard and speaks"].intent
    assert isinstance(heard, CallIntent)
    assert (heard.input_modalities, heard.output_modalities) == ((Modality.AUDIO,), (Modality.AUDIO,))
