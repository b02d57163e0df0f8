"""Requests as the vendors' SDKs write them, with their helpers for schemas, tools and media."""

import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import types as google
from pydantic import BaseModel
from tests.wire.translate.vendors import check_request

from outlay.wire.intent import Operation
from outlay.wire.translate import Translated, translate_request
from outlay.wire.translate.request import READERS
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, PAIRS, RESPONSES


class City(BaseModel):
    """What is asked for."""

    name: str
    population: int | None


class Sent(Exception):
    """Stops an SDK once it has written its request."""


def captured(call: Callable[[Callable[[Any], Any]], object]) -> bytes:
    bodies: list[bytes] = []

    def handler(request: Any) -> Any:
        bodies.append(request.read())
        raise Sent

    with pytest.raises((Sent, openai.APIConnectionError, anthropic.APIConnectionError)):
        call(handler)
    return bodies[0]


def chat_body(handler: Any) -> object:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    sdk = openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)
    return sdk.chat.completions.parse(
        model="m",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which city?"}],
        tools=[openai.pydantic_function_tool(City, name="city")],
        response_format=City,
        temperature=0.2,
        max_completion_tokens=3000,
    )


def responses_body(handler: Any) -> object:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    sdk = openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)
    return sdk.responses.parse(
        model="m",
        instructions="Be brief.",
        input="Which city?",
        tools=[openai.pydantic_function_tool(City, name="city")["function"] | {"type": "function"}],
        text_format=City,
        temperature=0.2,
        max_output_tokens=3000,
    )


def messages_body(handler: Any) -> object:
    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    sdk = anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)
    return sdk.messages.parse(
        model="m",
        max_tokens=3000,
        system="Be brief.",
        messages=[{"role": "user", "content": "Which city?"}],
        tools=[{"name": "city", "input_schema": City.model_json_schema()}],
        output_format=City,
    )


def city(name: str, population: int) -> str:
    """A city.

    Args:
        name: what it is called
        population: how many live there
    """
    return name * population


def generate_body(handler: Any) -> object:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    sdk = genai.Client(
        api_key="k", http_options=google.HttpOptions(base_url="http://gateway", httpx_client=http)
    )
    return sdk.models.generate_content(
        model="m",
        contents=["Which city?", google.Part.from_bytes(data=b"\xfb\xff\xfe", mime_type="image/png")],
        config=google.GenerateContentConfig(
            system_instruction="Be brief.",
            tools=[city],
            response_mime_type="application/json",
            response_schema=City,
            temperature=0.2,
            max_output_tokens=3000,
            thinking_config=google.ThinkingConfig(include_thoughts=True, thinking_budget=1024),
            safety_settings=[
                google.SafetySetting(
                    category=google.HarmCategory.HARM_CATEGORY_HARASSMENT,
                    threshold=google.HarmBlockThreshold.OFF,
                )
            ],
        ),
    )


CALLS = {CHAT: chat_body, RESPONSES: responses_body, MESSAGES: messages_body, GENERATE: generate_body}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_what_the_sdks_write_is_translated(source: Operation, target: Operation) -> None:
    body = captured(CALLS[source])
    result = translate_request(source, target, body, model="m", stream=False, max_output_tokens=None)
    assert isinstance(result, Translated), result
    check_request(target, result.body, stream=False)
    said = READERS[target](without_store(result.body))
    assert said.system == ["Be brief."]
    assert said.max_tokens == 3000
    assert [tool.name for tool in said.tools] == ["city"]
    assert set(json.loads(bytes(said.tools[0].schema or b""))["properties"]) == {"name", "population"}
    assert said.format is not None
    schema = json.loads(bytes(said.format.schema or b""))
    assert schema["type"] == "object"
    assert schema["properties"]["name"]["type"] == "string"
    assert b"Which city?" in result.body


def without_store(body: bytes) -> bytes:
    fields = json.loads(body)
    fields.pop("store", None)
    return json.dumps({"model": "m", **fields}).encode()
