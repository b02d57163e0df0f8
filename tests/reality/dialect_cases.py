"""Four clients' ways of asking for the same thing through their vendors' SDKs, and what they were told, in one form."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from outlay.wire.intent import Operation
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES
from tests.reality.doors import PIXEL, Clients

SHORT = {CHAT: "chat", RESPONSES: "responses", MESSAGES: "messages", GENERATE: "gemini"}
SERVERS = {CHAT: "over-chat", RESPONSES: "over-responses", MESSAGES: "over-messages", GENERATE: "over-gemini"}
"""Model names, each served by a provider that speaks one dialect only."""
PATHS = {
    CHAT: "/v1/chat/completions",
    RESPONSES: "/v1/responses",
    MESSAGES: "/v1/messages",
    GENERATE: "GenerateContent",
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"verdict_key": {"type": "string"}},
    "required": ["verdict_key"],
    "additionalProperties": False,
}
ARGUMENTS = {"verdict_key": "ledger"}
"""What the mock answers where this schema is asked for."""


class Told(NamedTuple):
    """What a client was told, whatever its dialect."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    end: str
    """`stop`, `length` or `tools`."""
    input: int = -1
    """All of it, cached included; -1: not told."""
    cached: int = 0
    output: int = -1
    """All of it, reasoning included."""
    reasoning: int = 0


class Case(NamedTuple):
    """One feature as each client asks for it: keyword arguments over a plain call."""

    asks: dict[Operation, dict[str, Any]]
    marks: tuple[str, ...] = ()
    """Texts that the provider must have been sent."""
    mock: dict[str, Any] = {}
    feature: str = "text"
    """Row of docs/translation.md that says where it goes."""
    stream: bool = False


def tool(name: str) -> dict[Operation, Any]:
    """A function in each dialect."""
    plain = {"name": name, "description": "Looks it up.", "parameters": SCHEMA}
    return {
        CHAT: {"type": "function", "function": plain},
        RESPONSES: {"type": "function", "strict": False, **plain},
        MESSAGES: {"name": name, "description": "Looks it up.", "input_schema": SCHEMA},
        GENERATE: {
            "function_declarations": [
                {"name": name, "description": "Looks it up.", "parameters_json_schema": SCHEMA}
            ]
        },
    }


_TOOL = tool("look_up")
TOOLS: dict[Operation, dict[str, Any]] = {
    CHAT: {"tools": [_TOOL[CHAT]]},
    RESPONSES: {"tools": [_TOOL[RESPONSES]]},
    MESSAGES: {"tools": [_TOOL[MESSAGES]]},
    GENERATE: {"config": {"tools": [_TOOL[GENERATE]], "automatic_function_calling": {"disable": True}}},
}
FORCED: dict[Operation, dict[str, Any]] = {
    CHAT: {**TOOLS[CHAT], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
    RESPONSES: {**TOOLS[RESPONSES], "tool_choice": {"type": "function", "name": "look_up"}},
    MESSAGES: {**TOOLS[MESSAGES], "tool_choice": {"type": "tool", "name": "look_up"}},
    GENERATE: {
        "config": {
            **TOOLS[GENERATE]["config"],
            "tool_config": {
                "function_calling_config": {"mode": "ANY", "allowed_function_names": ["look_up"]}
            },
        }
    },
}
_CALL_TEXT = json.dumps({"verdict_key": "asked-for-17"})
_CALL = {"name": "look_up", "arguments": _CALL_TEXT}
ROUND_TRIP: dict[Operation, dict[str, Any]] = {
    CHAT: {
        **TOOLS[CHAT],
        "messages": [
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": _CALL}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "found-it-23"},
        ],
    },
    RESPONSES: {
        **TOOLS[RESPONSES],
        "input": [
            {"role": "user", "content": "look"},
            {"type": "function_call", "call_id": "call_1", **_CALL},
            {"type": "function_call_output", "call_id": "call_1", "output": "found-it-23"},
        ],
    },
    MESSAGES: {
        **TOOLS[MESSAGES],
        "messages": [
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "call_1", "name": "look_up", "input": json.loads(_CALL_TEXT)}
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "found-it-23"}],
            },
        ],
    },
    GENERATE: {
        **TOOLS[GENERATE],
        "contents": [
            {"role": "user", "parts": [{"text": "look"}]},
            {
                "role": "model",
                "parts": [{"function_call": {"name": "look_up", "args": json.loads(_CALL_TEXT)}}],
            },
            {
                "role": "user",
                "parts": [{"function_response": {"name": "look_up", "response": {"output": "found-it-23"}}}],
            },
        ],
    },
}


def _turns(*texts: str) -> dict[Operation, dict[str, Any]]:
    plain = [
        {"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)
    ]
    contents = [
        {"role": "model" if index % 2 else "user", "parts": [{"text": text}]}
        for index, text in enumerate(texts)
    ]
    return {
        CHAT: {"messages": plain},
        RESPONSES: {"input": plain},
        MESSAGES: {"messages": plain},
        GENERATE: {"contents": contents},
    }


_URL = f"data:image/png;base64,{PIXEL}"
CASES: dict[str, Case] = {
    "text": Case({client: {} for client in SHORT}, ("hello",)),
    "system prompt": Case(
        {
            CHAT: {
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
            },
            RESPONSES: {"instructions": "be brief"},
            MESSAGES: {"system": "be brief"},
            GENERATE: {"config": {"system_instruction": "be brief"}},
        },
        ("be brief", "hello"),
        feature="system prompt",
    ),
    "multi-turn": Case(
        _turns("first-q", "first-a", "second-q"), ("first-q", "first-a", "second-q"), feature="several turns"
    ),
    "image": Case(
        {
            CHAT: {
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URL}}]}]
            },
            RESPONSES: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": _URL}]}]},
            MESSAGES: {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                            }
                        ],
                    }
                ]
            },
            GENERATE: {
                "contents": [
                    {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": PIXEL}}]}
                ]
            },
        },
        (PIXEL,),
        feature="image as base64",
    ),
    "tools": Case(TOOLS, ("look_up", "verdict_key"), {"tool_call": True}, "function tools"),
    "tool result": Case(
        ROUND_TRIP, ("look_up", "asked-for-17", "found-it-23"), feature="tool calls and results, parallel"
    ),
    "forced tool": Case(FORCED, ("look_up",), feature="tool choice: one tool"),
    "parallel tool calls": Case(
        TOOLS,
        ("look_up",),
        {"tool_call": True, "tool_calls": 3, "tool_arguments": "{}"},
        "tool calls and results, parallel",
    ),
    "structured output": Case(
        {
            CHAT: {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
                }
            },
            RESPONSES: {
                "text": {
                    "format": {"type": "json_schema", "name": "verdict", "strict": True, "schema": SCHEMA}
                }
            },
            MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            GENERATE: {"config": {"response_mime_type": "application/json", "response_json_schema": SCHEMA}},
        },
        ("verdict_key",),
        feature="output by JSON schema",
    ),
    "streaming": Case({client: {} for client in SHORT}, ("hello",), stream=True),
    "streaming tool call": Case(TOOLS, ("look_up",), {"tool_call": True}, "function tools", stream=True),
    "usage": Case(
        {client: {} for client in SHORT},
        mock={"input_tokens": 100, "cached_tokens": 20, "reasoning_tokens": 10},
    ),
    "usage of a stream": Case(
        {client: {} for client in SHORT},
        mock={"input_tokens": 100, "cached_tokens": 20, "reasoning_tokens": 10},
        stream=True,
    ),
    "limit": Case(
        {
            CHAT: {"max_completion_tokens": 24},
            RESPONSES: {"max_output_tokens": 24},
            MESSAGES: {"max_tokens": 24},
            GENERATE: {"config": {"max_output_tokens": 24}},
        },
        (":24",),
        feature="output limit",
    ),
    "stop sequences": Case(
        {
            CHAT: {"stop": ["HALT-9"]},
            MESSAGES: {"stop_sequences": ["HALT-9"]},
            GENERATE: {"config": {"stop_sequences": ["HALT-9"]}},
        },
        ("HALT-9",),
        feature="stop sequences",
    ),
    "temperature": Case(
        {
            CHAT: {"temperature": 0.25},
            RESPONSES: {"temperature": 0.25},
            MESSAGES: {"extra_body": {"temperature": 0.25}},
            GENERATE: {"config": {"temperature": 0.25}},
        },
        (":0.25",),
        feature="temperature",
    ),
    "top_p": Case(
        {
            CHAT: {"top_p": 0.75},
            RESPONSES: {"top_p": 0.75},
            MESSAGES: {"extra_body": {"top_p": 0.75}},
            GENERATE: {"config": {"top_p": 0.75}},
        },
        (":0.75",),
        feature="top_p",
    ),
    "seed": Case({CHAT: {"seed": 4711}, GENERATE: {"config": {"seed": 4711}}}, (":4711",), feature="seed"),
    "user": Case(
        {
            CHAT: {"user": "user-77"},
            RESPONSES: {"user": "user-77"},
            MESSAGES: {"metadata": {"user_id": "user-77"}},
        },
        ("user-77",),
        feature="end user's id",
    ),
    "metadata": Case({CHAT: {"metadata": {"a": "b"}}, RESPONSES: {"metadata": {"a": "b"}}}),
    "stored conversation": Case({RESPONSES: {"conversation": "conv_1"}}, feature="stored conversation"),
}


def ask(vendors: Clients, client: Operation, model: str, asked: dict[str, Any], *, stream: bool) -> Told:
    """One call through a vendor's SDK."""
    return _ASK[client](vendors, {"model": model, **asked}, stream)


def _chat(vendors: Clients, asked: dict[str, Any], stream: bool) -> Told:
    asked = {"messages": [{"role": "user", "content": "hello"}], **asked}
    create: Any = vendors.openai.chat.completions.create
    if not stream:
        answer = create(**asked)
        choice, usage = answer.choices[0], answer.usage
        calls = [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or ()]
        return _chat_told(choice.message.content or "", calls, choice.finish_reason, usage)
    text, end, usage = "", "", None
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for chunk in create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            end = choice.finish_reason or end
            for part in choice.delta.tool_calls or ():
                names[part.index] = names.get(part.index) or part.function.name
                arguments[part.index] = arguments.get(part.index, "") + (part.function.arguments or "")
    return _chat_told(text, [(names[i], json.loads(arguments[i])) for i in names], end, usage)


def _chat_told(text: str, calls: list[tuple[str, dict[str, Any]]], end: str, usage: Any) -> Told:
    end = {"stop": "stop", "length": "length", "tool_calls": "tools"}.get(end, end)
    if usage is None:
        return Told(text, calls, end)
    cached, thought = usage.prompt_tokens_details, usage.completion_tokens_details
    return Told(
        text,
        calls,
        end,
        usage.prompt_tokens,
        (cached and cached.cached_tokens) or 0,
        usage.completion_tokens,
        (thought and thought.reasoning_tokens) or 0,
    )


def _responses(vendors: Clients, asked: dict[str, Any], stream: bool) -> Told:
    asked = {"input": "hello", **asked}
    create: Any = vendors.openai.responses.create
    text = None
    if stream:
        answer, text = None, ""
        for event in create(**asked, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type in ("response.completed", "response.incomplete"):
                answer = event.response
        assert answer is not None, "the stream ended without its last event"
        assert text == answer.output_text
    else:
        answer = create(**asked)
    calls = [(i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
    end = (
        "tools" if calls else {"completed": "stop", "incomplete": "length"}.get(answer.status, answer.status)
    )
    usage = answer.usage
    return Told(
        answer.output_text,
        calls,
        end,
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens,
    )


def _messages(vendors: Clients, asked: dict[str, Any], stream: bool) -> Told:
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200, **asked}
    if stream:
        with vendors.anthropic.messages.stream(**asked) as events:
            answer: Any = events.get_final_message()
    else:
        answer = vendors.anthropic.messages.create(**asked)
    usage = answer.usage
    cached = usage.cache_read_input_tokens or 0
    return Told(
        "".join(block.text for block in answer.content if block.type == "text"),
        [(block.name, block.input) for block in answer.content if block.type == "tool_use"],
        {"end_turn": "stop", "max_tokens": "length", "tool_use": "tools"}.get(
            answer.stop_reason, answer.stop_reason
        ),
        usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0),
        cached,
        usage.output_tokens,
    )


def _gemini(vendors: Clients, asked: dict[str, Any], stream: bool) -> Told:
    asked = {"contents": "hello", **asked}
    models: Any = vendors.google.models
    chunks = list(models.generate_content_stream(**asked)) if stream else [models.generate_content(**asked)]
    parts = [
        part
        for chunk in chunks
        for candidate in chunk.candidates or ()
        for part in (candidate.content and candidate.content.parts) or ()
    ]
    calls = [(part.function_call.name, part.function_call.args or {}) for part in parts if part.function_call]
    ends = [c.finish_reason.name for chunk in chunks for c in chunk.candidates or () if c.finish_reason]
    assert ends, "the answer does not say how it ended"
    usage = next(chunk.usage_metadata for chunk in reversed(chunks) if chunk.usage_metadata)
    thought = usage.thoughts_token_count or 0
    return Told(
        "".join(part.text for part in parts if part.text and not part.thought),
        calls,
        "tools" if calls else {"STOP": "stop", "MAX_TOKENS": "length"}.get(ends[-1], ends[-1]),
        usage.prompt_token_count,
        usage.cached_content_token_count or 0,
        (usage.candidates_token_count or 0) + thought,
        thought,
    )


_ASK: dict[Operation, Callable[[Clients, dict[str, Any], bool], Told]] = {
    CHAT: _chat,
    RESPONSES: _responses,
    MESSAGES: _messages,
    GENERATE: _gemini,
}
