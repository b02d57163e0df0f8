"""What the vendors' SDKs say about a body: each is held against the SDK's own types, unknown fields included."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from anthropic.types import message_create_params
from google.genai import types as google
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter

from outlay.wire.intent import Operation


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def solid(value: Any) -> Any:
    """Validated lists are lazy: read them to the end."""
    if isinstance(value, Mapping):
        return {key: solid(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [solid(item) for item in value]
    return value


def check_request(target: Operation, body: bytes, *, stream: bool) -> dict[str, Any]:
    """The decoded body, if the vendor's types take it whole."""
    given: dict[str, Any] = json.loads(body)
    match target:
        case Operation.CHAT:
            kind: Any = completion_create_params.CompletionCreateParamsNonStreaming
            if stream:
                kind = completion_create_params.CompletionCreateParamsStreaming
        case Operation.RESPONSES:
            kind = response_create_params.ResponseCreateParamsNonStreaming
            if stream:
                kind = response_create_params.ResponseCreateParamsStreaming
        case Operation.MESSAGES:
            kind = message_create_params.MessageCreateParamsNonStreaming
            if stream:
                kind = message_create_params.MessageCreateParamsStreaming
            # the API's version 2023-06-01 takes them for models up to 4.6; the SDK of the next one does not name them
            given = {
                name: value for name, value in given.items() if name not in {"temperature", "top_p", "top_k"}
            }
        case _:
            _check_google(given)
            return given
    assert solid(adapter(kind).validate_python(given)) == given
    return given


def _check_google(body: dict[str, Any]) -> None:
    """Google's types refuse unknown fields; the SDK's flat config is spread over the body."""
    config = dict(body.get("generationConfig", {}))
    known = {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "serviceTier"}
    assert set(body) <= known
    config.update(
        {name: value for name, value in body.items() if name not in {"contents", "generationConfig"}}
    )
    google.GenerateContentConfig.model_validate(config)
    for content in body["contents"]:
        google.Content.model_validate(content)
