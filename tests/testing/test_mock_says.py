"""Knobs that put words and tool calls into the model's mouth, in every dialect."""

import json
from typing import Any

import anthropic
import openai
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


def calls_in(path: str, answer: dict[str, Any]) -> list[tuple[str, Any]]:
    """Name and arguments of the tool calls, arguments as the dialect carries them."""
    match path:
        case "/v1/chat/completions":
            functions = [call["function"] for call in answer["choices"][0]["message"]["tool_calls"]]
            return [(function["name"], function["arguments"]) for function in functions]
        case "/v1/responses":
            return [(item["name"], item["arguments"]) for item in answer["output"]]
        case "/v1/messages":
            return [(block["name"], block["input"]) for block in answer["content"]]
        case "/model/m/converse":
            uses = [block["toolUse"] for block in answer["output"]["message"]["content"]]
            return [(use["name"], use["input"]) for use in uses]
        case _:
            calls = [part["functionCall"] for part in answer["candidates"][0]["content"]["parts"]]
            return [(call["name"], call["args"]) for call in calls]


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
        {"tool_call": True, "tool_calls": 3, "tool_arguments": '{"a":1}'},
        {"tool_call": True, "tool_calls": 3, "output_tokens": 2},
    )
    raw.send(ask(path), path=path, headers=headers)
    assert text_in(path, raw.read_answer().json()) == "déjà vu"
    raw.send(ask(path), path=path, headers=headers)
    [(name, arguments)] = calls_in(path, raw.read_answer().json())
    assert name == "second"
    assert arguments in ('{"a":[1,"é"]}', {"a": [1, "é"]})
    raw.send(ask(path), path=path, headers=headers)
    assert [name for name, _ in calls_in(path, raw.read_answer().json())] == ["first"]
    raw.send(ask(path), path=path, headers=headers)
    several = calls_in(path, raw.read_answer().json())
    assert several in ([("first", '{"a":1}')] * 3, [("first", {"a": 1})] * 3)
    # two tokens are not enough for three calls
    raw.send(ask(path), path=path, headers=headers)
    assert len(calls_in(path, raw.read_answer().json())) == 2
    assert [entry.tokens.output for entry in provider.meter.entries] == [80, 80, 80, 80, 2]


def test_several_calls_stream_as_the_sdks_read_them(provider: MockProvider):
    provider.behave(tool_call=True, tool_calls=2, tool_arguments='{"a":[1,"é"]}')
    seen = []
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="any") as client:
        with client.chat.completions.stream(**ask("/v1/chat/completions")) as chat:
            calls = chat.get_final_completion().choices[0].message.tool_calls or []
        seen.append([(call.id, call.function.arguments) for call in calls])
        with client.responses.stream(**ask("/v1/responses")) as told:
            items = told.get_final_response().output
        seen.append([(item.call_id, item.arguments) for item in items])
    with anthropic.Anthropic(base_url=provider.url, api_key="any") as claude:
        with claude.messages.stream(**ask("/v1/messages")) as message:
            blocks = message.get_final_message().content
        seen.append([(block.id, json.dumps(block.input, ensure_ascii=False)) for block in blocks])
    for calls in seen:
        assert [arguments.replace(" ", "") for _, arguments in calls] == ['{"a":[1,"é"]}'] * 2
        assert len({call_id for call_id, _ in calls}) == 2
