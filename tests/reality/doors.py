"""Every metered door through its vendor's SDK: what a test calls, and the gateway and mock it is called at."""

import io
import struct
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import boto3
import botocore.config
import cohere
import httpx
import openai
from google import genai

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.testing import MockProvider
from tests import world
from tests.harness import SECRET, RunningGateway, budget

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HELLO = [{"role": "user", "content": "hello"}]
SIGHT = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        ],
    }
]


def sound(milliseconds: int = 1500) -> bytes:
    """A WAV of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<h", 0) * (8 * milliseconds))
    return target.getvalue()


class Clients(NamedTuple):
    """Every vendor's SDK, pointed at one gateway."""

    openai: openai.OpenAI
    azure: openai.AzureOpenAI
    anthropic: anthropic.Anthropic
    google: genai.Client
    cohere: cohere.ClientV2
    bedrock: Any


@contextmanager
def clients(url: str, secret: str = SECRET) -> Iterator[Clients]:
    """See `Clients`; none of them tries again by itself."""
    session = boto3.Session(aws_access_key_id="AKIDUNUSED", aws_secret_access_key="unused")
    bedrock = session.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    bedrock.meta.events.register(
        "before-send.*", lambda request, **_: request.headers.__setitem__("x-outlay-key", secret)
    )
    azure = openai.AzureOpenAI(azure_endpoint=url, api_key=secret, api_version="2024-10-21", max_retries=0)
    google = genai.Client(api_key=secret, http_options={"base_url": url})
    with (
        openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0) as plain,
        azure,
        anthropic.Anthropic(base_url=url, api_key=secret, max_retries=0) as claude,
        httpx.Client() as http,
    ):
        ranker = cohere.ClientV2(api_key=secret, base_url=url, httpx_client=http)
        yield Clients(plain, azure, claude, google, ranker, bedrock)
    google.close()
    bedrock.close()


class Door(NamedTuple):
    """One route as a client uses it."""

    path: str
    """Template of the route table."""
    use: Callable[[Clients], Any]
    is_free: bool = False
    basis: str = "metered"
    """How its charge is known: `counted` where the vendor states no usage."""


def _drain(stream: Any) -> Any:
    for _ in stream:
        pass
    return stream


def _events(answer: Any) -> Any:
    return _drain(answer["stream"] if "stream" in answer else answer["body"])


def _translate(client: openai.OpenAI) -> Any:
    with warnings.catch_warnings():
        # the SDK calls the route deprecated; the vendor still serves and bills it
        warnings.simplefilter("ignore", DeprecationWarning)
        return client.audio.translations.create(model="whisper-test", file=("a.wav", sound()))


CLAUDE = "bedrock.claude-test-v1:0"
CONVERSE: Any = [{"role": "user", "content": [{"text": "hello"}]}]
INVOKE = '{"anthropic_version":"bedrock-2023-05-31","max_tokens":50,"messages":[{"role":"user","content":"hello"}]}'
DOORS: dict[str, Door] = {
    "chat": Door(
        "/v1/chat/completions", lambda c: c.openai.chat.completions.create(model="gpt-test", messages=HELLO)
    ),
    "chat stream": Door(
        "/v1/chat/completions",
        lambda c: _drain(c.openai.chat.completions.create(model="gpt-test", messages=HELLO, stream=True)),
    ),
    "chat with an image": Door(
        "/v1/chat/completions", lambda c: c.openai.chat.completions.create(model="gpt-test", messages=SIGHT)
    ),
    "chat over azure": Door(
        "/v1/chat/completions", lambda c: c.azure.chat.completions.create(model="gpt-test", messages=HELLO)
    ),
    "completions": Door(
        "/v1/completions", lambda c: c.openai.completions.create(model="instruct-test", prompt="once")
    ),
    "completions stream": Door(
        "/v1/completions",
        lambda c: _drain(c.openai.completions.create(model="instruct-test", prompt="once", stream=True)),
    ),
    "embeddings": Door(
        "/v1/embeddings", lambda c: c.openai.embeddings.create(model="embed-test", input="hello")
    ),
    "responses": Door("/v1/responses", lambda c: c.openai.responses.create(model="gpt-test", input="hello")),
    "responses stream": Door(
        "/v1/responses",
        lambda c: _drain(c.openai.responses.create(model="gpt-test", input="hello", stream=True)),
    ),
    "images": Door(
        "/v1/images/generations",
        lambda c: c.openai.images.generate(
            model="dall-e-test", prompt="a cat", n=2, size="1024x1024", quality="hd"
        ),
    ),
    "images by token": Door(
        "/v1/images/generations",
        lambda c: c.openai.images.generate(model="picture-test", prompt="a cat", size="1024x1024"),
    ),
    "image edit": Door(
        "/v1/images/edits",
        lambda c: c.openai.images.edit(
            model="picture-test", prompt="a hat", image=("a.png", sound(10), "image/png"), size="1024x1024"
        ),
    ),
    "speech": Door(
        "/v1/audio/speech",
        lambda c: c.openai.audio.speech.create(model="tts-test", voice="alloy", input="hello, world").read(),
    ),
    "transcription": Door(
        "/v1/audio/transcriptions",
        lambda c: c.openai.audio.transcriptions.create(model="whisper-test", file=("a.wav", sound())),
    ),
    "transcription by token": Door(
        "/v1/audio/transcriptions",
        lambda c: c.openai.audio.transcriptions.create(model="hear-test", file=("a.wav", sound())),
    ),
    "transcription over azure": Door(
        "/v1/audio/transcriptions",
        lambda c: c.azure.audio.transcriptions.create(model="whisper-test", file=("a.wav", sound())),
    ),
    "translation": Door(
        "/v1/audio/translations",
        lambda c: _translate(c.openai),
    ),
    "moderation": Door(
        "/v1/moderations",
        lambda c: c.openai.moderations.create(model="omni-moderation-latest", input="hello"),
        is_free=True,
    ),
    "messages": Door(
        "/v1/messages",
        lambda c: c.anthropic.messages.create(model="claude-test", max_tokens=50, messages=HELLO),
    ),
    "messages stream": Door(
        "/v1/messages",
        lambda c: _drain(
            c.anthropic.messages.create(model="claude-test", max_tokens=50, messages=HELLO, stream=True)
        ),
    ),
    "count tokens": Door(
        "/v1/messages/count_tokens",
        lambda c: c.anthropic.messages.count_tokens(model="claude-test", messages=HELLO),
        is_free=True,
    ),
    "gemini": Door(
        "/v1beta/models/{model}:generateContent",
        lambda c: c.google.models.generate_content(model="gemini-test", contents="hello"),
    ),
    "gemini stream": Door(
        "/v1beta/models/{model}:streamGenerateContent",
        lambda c: _drain(c.google.models.generate_content_stream(model="gemini-test", contents="hello")),
    ),
    "gemini embedding": Door(
        "/v1beta/models/{model}:batchEmbedContents",
        lambda c: c.google.models.embed_content(model="gemini-embed-test", contents="hello"),
        basis="counted",
    ),
    "gemini count": Door(
        "/v1beta/models/{model}:countTokens",
        lambda c: c.google.models.count_tokens(model="gemini-test", contents="hello"),
        is_free=True,
    ),
    "rerank": Door(
        "/v2/rerank",
        lambda c: c.cohere.rerank(model="rerank-test", query="what", documents=["a", "b", "c"]),
    ),
    "converse": Door(
        "/model/{model}/converse", lambda c: c.bedrock.converse(modelId=CLAUDE, messages=CONVERSE)
    ),
    "converse stream": Door(
        "/model/{model}/converse-stream",
        lambda c: _events(c.bedrock.converse_stream(modelId=CLAUDE, messages=CONVERSE)),
    ),
    "invoke": Door(
        "/model/{model}/invoke",
        lambda c: c.bedrock.invoke_model(modelId=CLAUDE, body=INVOKE)["body"].read(),
    ),
    "invoke stream": Door(
        "/model/{model}/invoke-with-response-stream",
        lambda c: _events(c.bedrock.invoke_model_with_response_stream(modelId=CLAUDE, body=INVOKE)),
    ),
}
"""Doors that one call goes through; jobs and sessions have tests of their own."""


@contextmanager
def house(
    folder: Path,
    limit: str = "100",
    *,
    settings: Settings | None = None,
    keep_calls: int = 64,
    providers: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[tuple[MockProvider, RunningGateway]]:
    """The mock of every vendor behind a gateway with one budget."""
    with (
        MockProvider(
            prices=world.meter_prices(),
            models=world.MODELS,
            behaviour={"output_tokens": 40},
            keep_calls=keep_calls,
        ) as mock,
        RunningGateway(
            folder / "l.db",
            mock.url,
            [budget("all", limit)],
            price_book=world.book(),
            upstreams=world.providers(mock.url, **(providers or {})),
            settings=settings or Settings(disclose=Disclose.ALL, job_poll_s=1),
            **changes,
        ) as gateway,
    ):
        yield mock, gateway
