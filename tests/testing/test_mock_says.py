"""Knobs that put words and tool calls into the model's mouth, in every dialect."""

from typing import Any

import pytest

from outlay.testing import MockProvider

TOOLS = ("first", "second")
SCHEMA = {"type": "object", "properties": {}}
TEXT = [{"role": "user", "content": "x"}]
GEMINI = "/v1beta/models/m:generateContent"


def ask(path: str) -> dict[str, Any]:
    """A request on `path` that offers both tools."""
    match path:
        case "/v1/chat/completions":
            tools: list[Any] = [
                {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in TOOLS
            ]
            return {"model": "m", "messages": TEXT, "tools": tools}
        case "/v1/responses":
            tools = [{"type": "function", "name": name, "parameters": SCHEMA} for name in TOOLS]
            return {"model": "m", "input": TEXT, "tools": tools}
        case "/v1/messages":
            tools = [{"name": name, "input_schema": SCHEMA} for name in TOOLS]
            return {"model": "m", "max_tokens": 500, "messages": TEXT, "tools": tools}
        case "/model/m/converse":
            tools = [{"toolSpec": {"name": name, "inputSchema": {"json": SCHEMA}}} for name in TOOLS]
            messages = [{"role": "user", "content": [{"text": "x"}]}]
            return {"messages": messages, "toolConfig": {"tools": tools}}
        case _:
            tools = [{"name": name, "parametersJsonSchema": SCHEMA} for name in TOOLS]
            return {"contents": [{"parts": [{"text": "x"}]}], "tools": [{"functionDeclarations": tools}]}


def call_in(path: str, answer: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments of the tool call, arguments as the dialect carries them."""
    match path:
        case "/v1/chat/completions":
            function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
            return function["name"], function["arguments"]
        case "/v1/responses":
            return answer["output"][0]["name"], answer["output"][0]["arguments"]
        case "/v1/messages":
            return answer["content"][0]["name"], answer["content"][0]["input"]
        case "/model/m/converse":
            use = answer["output"]["message"]["content"][0]["toolUse"]
            return use["name"], use["input"]
        case _:
            call = answer["candidates"][0]["content"]["parts"][0]["functionCall"]
            return call["name"], call["args"]


def text_in(path: str, answer: dict[str, Any]) -> str:
    match path:
        case "/v1/chat/completions":
            return str(answer["choices"][0]["message"]["content"])
        case "/v1/responses":
            return str(answer["output"][0]["content"][0]["text"])
        case "/v1/messages":
            return str(answer["content"][0]["text"])
        case "/model/m/converse":
            return str(answer["output"]["message"]["content"][0]["text"])
        case _:
            return str(answer["candidates"][0]["content"]["parts"][0]["text"])


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/model/m/converse", GEMINI]
)
def test_the_mouth_is_led(raw, provider: MockProvider, path):
    headers = {"anthropic-version": "2023-06-01", "authorization": "Bearer any"}
    provider.queue(
        {"say": "déjà vu"},
        {"tool_call": True, "tool_name": "second", "tool_arguments": '{"a":[1,"é"]}'},
        {"tool_call": True},
    )
    raw.send(ask(path), path=path, headers=headers)
    assert text_in(path, raw.read_answer().json()) == "déjà vu"
    raw.send(ask(path), path=path, headers=headers)
    name, arguments = call_in(path, raw.read_answer().json())
    assert name == "second"
    assert arguments in ('{"a":[1,"é"]}', {"a": [1, "é"]})
    raw.send(ask(path), path=path, headers=headers)
    assert call_in(path, raw.read_answer().json())[0] == "first"
