"""Request bodies: one for each feature of the table and each dialect that can say it, as the vendors write them."""

import json
from typing import Any

from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES, Operation

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="
PICTURE = "https://example.com/cat.png"
PAPER = "https://example.com/paper.pdf"
CLOSED = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}

Body = dict[str, Any]


def chat(*messages: Body, **fields: Any) -> Body:
    return {"model": "m", "messages": list(messages) or [{"role": "user", "content": "Hello"}], **fields}


def responses(*items: Body, **fields: Any) -> Body:
    hello = {"type": "message", "role": "user", "content": "Hello"}
    return {"model": "m", "input": list(items) or [hello], **fields}


def messages(*turns: Body, **fields: Any) -> Body:
    hello = {"role": "user", "content": "Hello"}
    return {"model": "m", "max_tokens": 2000, "messages": list(turns) or [hello], **fields}


def generate(*contents: Body, config: Body | None = None, **fields: Any) -> Body:
    body: Body = {"contents": list(contents) or [{"role": "user", "parts": [{"text": "Hello"}]}], **fields}
    if config is not None:
        body["generationConfig"] = config
    return body


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def parts(*given: Body, role: str = "user") -> Body:
    return {"role": role, "parts": list(given)}


def message(role: str, content: Any) -> Body:
    return {"type": "message", "role": role, "content": content}


TEXT = {"type": "text", "text": "Look"}
INPUT_TEXT = {"type": "input_text", "text": "Look"}
DATA_URL = f"data:image/png;base64,{PNG}"
PDF_URL = f"data:application/pdf;base64,{PDF}"


def tool(source: Operation, name: str = "weather", *, strict: bool = False) -> Body:
    described = {"name": name, "description": "The weather now"}
    match source:
        case Operation.CHAT:
            extra = {"strict": True} if strict else {}
            return {"type": "function", "function": {**described, "parameters": CLOSED, **extra}}
        case Operation.RESPONSES:
            return {"type": "function", **described, "parameters": CLOSED, "strict": strict}
        case Operation.MESSAGES:
            return {**described, "input_schema": CLOSED, **({"strict": True} if strict else {})}
        case _:
            return {"functionDeclarations": [{**described, "parametersJsonSchema": CLOSED}]}


BUILDERS = {CHAT: chat, RESPONSES: responses, MESSAGES: messages, GENERATE: generate}


def with_tools(source: Operation, *, names: tuple[str, ...] = ("weather", "time"), **fields: Any) -> Body:
    body = BUILDERS[source](**fields)
    body["tools"] = [tool(source, name) for name in names]
    return body


def calling(mode: str, *names: str) -> Body:
    config: Body = {"mode": mode}
    if names:
        config["allowedFunctionNames"] = list(names)
    return {"functionCallingConfig": config}


CHAT_CALLS = (
    user("Weather in Oslo and Rome?"),
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {
                "id": "call_a",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
            },
            {
                "id": "call_b",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "call_a", "content": "2 C"},
    {"role": "tool", "tool_call_id": "call_b", "content": "21 C"},
    user("And tomorrow?"),
)
RESPONSES_CALLS = (
    message("user", "Weather in Oslo and Rome?"),
    message("assistant", "I look."),
    {"type": "function_call", "call_id": "call_a", "name": "weather", "arguments": '{"city":"Oslo"}'},
    {"type": "function_call", "call_id": "call_b", "name": "weather", "arguments": '{"city":"Rome"}'},
    {"type": "function_call_output", "call_id": "call_a", "output": "2 C"},
    {"type": "function_call_output", "call_id": "call_b", "output": "21 C"},
    message("user", "And tomorrow?"),
)
MESSAGES_CALLS = (
    user("Weather in Oslo and Rome?"),
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "call_b", "name": "weather", "input": {"city": "Rome"}},
        ],
    },
    user(
        [
            {"type": "tool_result", "tool_use_id": "call_a", "content": "2 C"},
            {"type": "tool_result", "tool_use_id": "call_b", "content": [{"type": "text", "text": "21 C"}]},
            {"type": "text", "text": "And tomorrow?"},
        ]
    ),
)
GENERATE_CALLS = (
    parts({"text": "Weather in Oslo and Rome?"}),
    parts(
        {"text": "I look."},
        {"functionCall": {"id": "call_a", "name": "weather", "args": {"city": "Oslo"}}},
        {"functionCall": {"id": "call_b", "name": "weather", "args": {"city": "Rome"}}},
        role="model",
    ),
    parts(
        {"functionResponse": {"id": "call_a", "name": "weather", "response": {"output": "2 C"}}},
        {"functionResponse": {"id": "call_b", "name": "weather", "response": {"output": "21 C"}}},
        {"text": "And tomorrow?"},
    ),
)
ONE_CALL = {
    RESPONSES: RESPONSES_CALLS[2],
    MESSAGES: {"role": "assistant", "content": [MESSAGES_CALLS[1]["content"][1]]},
    GENERATE: parts(GENERATE_CALLS[1]["parts"][1], role="model"),
}
GRAMMAR = {"syntax": "lark", "definition": 'start: "a"'}
_SCHEMA_FORMAT = {"name": "place", "schema": CLOSED, "strict": True}

SAMPLES: dict[str, dict[Operation, Body]] = {
    "text": {source: build() for source, build in BUILDERS.items()},
    "several turns": {
        CHAT: chat(user("Hi"), {"role": "assistant", "content": "Hello"}, user("Go on")),
        RESPONSES: responses(message("user", "Hi"), message("assistant", "Hello"), message("user", "Go on")),
        MESSAGES: messages(user("Hi"), {"role": "assistant", "content": "Hello"}, user("Go on")),
        GENERATE: generate(
            parts({"text": "Hi"}), parts({"text": "Hello"}, role="model"), parts({"text": "Go on"})
        ),
    },
    "system prompt": {
        CHAT: chat({"role": "system", "content": "Be brief."}, user("Hi")),
        RESPONSES: responses(instructions="Be brief."),
        MESSAGES: messages(
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        ),
        GENERATE: generate(systemInstruction={"parts": [{"text": "Be brief."}]}),
    },
    "system message after the first turn": {
        CHAT: chat(user("Hi"), {"role": "developer", "content": "Now in French."}, user("Go on")),
        RESPONSES: responses(
            message("user", "Hi"), message("developer", "Now in French."), message("user", "Go")
        ),
        MESSAGES: messages(user("Hi"), {"role": "system", "content": "Now in French."}, user("Go on")),
    },
    "image as base64": {
        CHAT: chat(user([TEXT, {"type": "image_url", "image_url": {"url": DATA_URL}}])),
        RESPONSES: responses(
            message("user", [INPUT_TEXT, {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}])
        ),
        MESSAGES: messages(
            user(
                [
                    TEXT,
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                ]
            )
        ),
        GENERATE: generate(parts({"text": "Look"}, {"inlineData": {"mimeType": "image/png", "data": PNG}})),
    },
    "image by URL": {
        CHAT: chat(user([TEXT, {"type": "image_url", "image_url": {"url": PICTURE}}])),
        RESPONSES: responses(
            message("user", [{"type": "input_image", "image_url": PICTURE, "detail": "auto"}])
        ),
        MESSAGES: messages(user([{"type": "image", "source": {"type": "url", "url": PICTURE}}])),
    },
    "PDF as base64": {
        CHAT: chat(user([{"type": "file", "file": {"file_data": PDF_URL, "filename": "a.pdf"}}, TEXT])),
        RESPONSES: responses(
            message("user", [{"type": "input_file", "file_data": PDF_URL, "filename": "a.pdf"}, INPUT_TEXT])
        ),
        MESSAGES: messages(
            user(
                [
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                        "title": "a.pdf",
                    },
                    TEXT,
                ]
            )
        ),
        GENERATE: generate(
            parts({"inlineData": {"mimeType": "application/pdf", "data": PDF}}, {"text": "Look"})
        ),
    },
    "PDF by URL": {
        RESPONSES: responses(message("user", [{"type": "input_file", "file_url": PAPER}])),
        MESSAGES: messages(user([{"type": "document", "source": {"type": "url", "url": PAPER}}])),
    },
    "file kept at the vendor": {
        CHAT: chat(user([{"type": "file", "file": {"file_id": "file-1"}}])),
        RESPONSES: responses(message("user", [{"type": "input_file", "file_id": "file-1"}])),
        MESSAGES: messages(user([{"type": "document", "source": {"type": "file", "file_id": "file_1"}}])),
        GENERATE: generate(
            parts({"fileData": {"fileUri": "https://example.com/files/1", "mimeType": "a/b"}})
        ),
    },
    "audio": {
        CHAT: chat(user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])),
        GENERATE: generate(parts({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}})),
    },
    "function tools": {source: with_tools(source) for source in BUILDERS},
    "strict function tools": {
        CHAT: chat(tools=[tool(CHAT, strict=True)]),
        RESPONSES: responses(tools=[tool(RESPONSES, strict=True)]),
        MESSAGES: messages(tools=[tool(MESSAGES, strict=True)]),
        GENERATE: generate(tools=[tool(GENERATE)], toolConfig=calling("VALIDATED")),
    },
    "custom tools (free text, grammar)": {
        CHAT: chat(
            tools=[
                {
                    "type": "custom",
                    "custom": {"name": "patch", "format": {"type": "grammar", "grammar": GRAMMAR}},
                }
            ]
        ),
        RESPONSES: responses(
            tools=[{"type": "custom", "name": "patch", "format": {"type": "grammar", **GRAMMAR}}]
        ),
    },
    "tools that the vendor runs": {
        CHAT: chat(tools=[{"type": "web_search"}]),
        RESPONSES: responses(tools=[{"type": "web_search"}]),
        MESSAGES: messages(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}]),
        GENERATE: generate(tools=[{"googleSearch": {}}]),
    },
    "tool choice: auto, none, required": {
        CHAT: with_tools(CHAT, tool_choice="required"),
        RESPONSES: with_tools(RESPONSES, tool_choice="required"),
        MESSAGES: with_tools(MESSAGES, tool_choice={"type": "any"}),
        GENERATE: with_tools(GENERATE, toolConfig=calling("ANY")),
    },
    "tool choice: one tool": {
        CHAT: with_tools(CHAT, tool_choice={"type": "function", "function": {"name": "weather"}}),
        RESPONSES: with_tools(RESPONSES, tool_choice={"type": "function", "name": "weather"}),
        MESSAGES: with_tools(MESSAGES, tool_choice={"type": "tool", "name": "weather"}),
        GENERATE: with_tools(GENERATE, toolConfig=calling("ANY", "weather")),
    },
    "tool choice: some of the tools": {
        CHAT: with_tools(
            CHAT,
            names=("weather", "time", "place"),
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "weather"}},
                        {"type": "function", "function": {"name": "time"}},
                    ],
                },
            },
        ),
        RESPONSES: with_tools(
            RESPONSES,
            names=("weather", "time", "place"),
            tool_choice={
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}, {"type": "function", "name": "time"}],
            },
        ),
        GENERATE: with_tools(
            GENERATE, names=("weather", "time", "place"), toolConfig=calling("ANY", "weather", "time")
        ),
    },
    "at most one tool call": {
        CHAT: with_tools(CHAT, parallel_tool_calls=False),
        RESPONSES: with_tools(RESPONSES, parallel_tool_calls=False),
        MESSAGES: with_tools(MESSAGES, tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    },
    "tool calls and results, parallel": {
        CHAT: chat(*CHAT_CALLS, tools=[tool(CHAT)]),
        RESPONSES: responses(*RESPONSES_CALLS, tools=[tool(RESPONSES)]),
        MESSAGES: messages(*MESSAGES_CALLS, tools=[tool(MESSAGES)]),
        GENERATE: generate(*GENERATE_CALLS, tools=[tool(GENERATE)]),
    },
    "failed tool result": {
        MESSAGES: messages(
            user("Hi"),
            ONE_CALL[MESSAGES],
            user(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_a",
                        "content": "no such city",
                        "is_error": True,
                    }
                ]
            ),
        ),
        GENERATE: generate(
            parts({"text": "Hi"}),
            ONE_CALL[GENERATE],
            parts(
                {
                    "functionResponse": {
                        "id": "call_a",
                        "name": "weather",
                        "response": {"error": "no such city"},
                    }
                }
            ),
        ),
    },
    "image in a tool result": {
        RESPONSES: responses(
            message("user", "Hi"),
            ONE_CALL[RESPONSES],
            {
                "type": "function_call_output",
                "call_id": "call_a",
                "output": [INPUT_TEXT, {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}],
            },
        ),
        MESSAGES: messages(
            user("Hi"),
            ONE_CALL[MESSAGES],
            user(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_a",
                        "content": [
                            TEXT,
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                            },
                        ],
                    }
                ]
            ),
        ),
        GENERATE: generate(
            parts({"text": "Hi"}),
            ONE_CALL[GENERATE],
            parts(
                {
                    "functionResponse": {
                        "id": "call_a",
                        "name": "weather",
                        "response": {"output": "Look"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
                    }
                }
            ),
        ),
    },
    "output by JSON schema": {
        CHAT: chat(response_format={"type": "json_schema", "json_schema": _SCHEMA_FORMAT}),
        RESPONSES: responses(text={"format": {"type": "json_schema", **_SCHEMA_FORMAT}}),
        MESSAGES: messages(output_config={"format": {"type": "json_schema", "schema": CLOSED}}),
        GENERATE: generate(config={"responseMimeType": "application/json", "responseJsonSchema": CLOSED}),
    },
    "output as any JSON object": {
        CHAT: chat(response_format={"type": "json_object"}),
        RESPONSES: responses(text={"format": {"type": "json_object"}}),
        GENERATE: generate(config={"responseMimeType": "application/json"}),
    },
    "output limit": {
        CHAT: chat(max_tokens=77),
        RESPONSES: responses(max_output_tokens=77),
        MESSAGES: messages(max_tokens=77),
        GENERATE: generate(config={"maxOutputTokens": 77}),
    },
    "temperature": {
        CHAT: chat(temperature=0.7),
        RESPONSES: responses(temperature=0.7),
        MESSAGES: messages(temperature=0.7),
        GENERATE: generate(config={"temperature": 0.7}),
    },
    "temperature above 1": {
        CHAT: chat(temperature=1.5),
        RESPONSES: responses(temperature=1.5),
        GENERATE: generate(config={"temperature": 1.5}),
    },
    "top_p": {
        CHAT: chat(top_p=0.9),
        RESPONSES: responses(top_p=0.9),
        MESSAGES: messages(top_p=0.9),
        GENERATE: generate(config={"topP": 0.9}),
    },
    "top_k": {
        CHAT: chat(top_k=40),
        MESSAGES: messages(top_k=40),
        GENERATE: generate(config={"topK": 40}),
    },
    "stop sequences": {
        CHAT: chat(stop=["END", "STOP"]),
        MESSAGES: messages(stop_sequences=["END", "STOP"]),
        GENERATE: generate(config={"stopSequences": ["END", "STOP"]}),
    },
    "seed": {CHAT: chat(seed=7), GENERATE: generate(config={"seed": 7})},
    "presence penalty": {
        CHAT: chat(presence_penalty=0.5),
        GENERATE: generate(config={"presencePenalty": 0.5}),
    },
    "frequency penalty": {
        CHAT: chat(frequency_penalty=0.5),
        GENERATE: generate(config={"frequencyPenalty": 0.5}),
    },
    "reasoning effort": {
        CHAT: chat(reasoning_effort="high"),
        RESPONSES: responses(reasoning={"effort": "high"}),
        MESSAGES: messages(thinking={"type": "adaptive"}, output_config={"effort": "high"}),
        GENERATE: generate(config={"thinkingConfig": {"thinkingLevel": "HIGH"}}),
    },
    "reasoning effort `max`": {
        CHAT: chat(reasoning_effort="max"),
        RESPONSES: responses(reasoning={"effort": "max"}),
        MESSAGES: messages(thinking={"type": "adaptive"}, output_config={"effort": "max"}),
    },
    "no reasoning": {
        CHAT: chat(reasoning_effort="none"),
        RESPONSES: responses(reasoning={"effort": "none"}),
        MESSAGES: messages(thinking={"type": "disabled"}),
        GENERATE: generate(config={"thinkingConfig": {"thinkingBudget": 0}}),
    },
    "thinking budget in tokens": {
        MESSAGES: messages(max_tokens=20000, thinking={"type": "enabled", "budget_tokens": 8192}),
        GENERATE: generate(config={"maxOutputTokens": 20000, "thinkingConfig": {"thinkingBudget": 8192}}),
    },
    "end user's id": {
        CHAT: chat(user="u-1"),
        RESPONSES: responses(user="u-1"),
        MESSAGES: messages(metadata={"user_id": "u-1"}),
    },
    "service tier `flex`": {
        CHAT: chat(service_tier="flex"),
        RESPONSES: responses(service_tier="flex"),
        GENERATE: generate(serviceTier="flex"),
    },
    "service tier: standard only": {
        CHAT: chat(service_tier="default"),
        RESPONSES: responses(service_tier="default"),
        MESSAGES: messages(service_tier="standard_only"),
        GENERATE: generate(serviceTier="standard"),
    },
    "several choices": {CHAT: chat(n=2), GENERATE: generate(config={"candidateCount": 2})},
    "log probabilities": {
        CHAT: chat(logprobs=True),
        RESPONSES: responses(top_logprobs=2),
        GENERATE: generate(config={"responseLogprobs": True}),
    },
    "token bias": {CHAT: chat(logit_bias={"42": 1})},
    "storing the answer": {
        CHAT: chat(store=True),
        RESPONSES: responses(store=True),
        GENERATE: generate(store=True),
    },
    "going on from a stored answer": {
        RESPONSES: responses(previous_response_id="resp_1"),
        GENERATE: generate(cachedContent="cachedContents/1"),
    },
    "stored conversation": {RESPONSES: responses(conversation="conv_1")},
    "answering in the background": {RESPONSES: responses(background=True)},
    "beginning of the answer (prefill)": {
        MESSAGES: messages(user("Hi"), {"role": "assistant", "content": "Once upon"})
    },
    "name of a participant": {CHAT: chat({"role": "user", "name": "Ann", "content": "Hi"})},
    "fast mode": {MESSAGES: messages(speed="fast")},
    "where the model runs": {MESSAGES: messages(inference_geo="eu")},
    "safety thresholds": {
        GENERATE: generate(
            safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_LOW_AND_ABOVE"}]
        )
    },
    "a field we do not know": {
        CHAT: chat(brand_new=1),
        RESPONSES: responses(brand_new=1),
        MESSAGES: messages(brand_new=1),
        GENERATE: generate(brandNew=1),
    },
}


def encoded(body: Body) -> bytes:
    return json.dumps(body).encode()
