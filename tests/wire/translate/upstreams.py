"""Answers and streams as the four vendors send them, written by hand after their documentation and recordings."""

import json
from dataclasses import dataclass
from typing import Any

from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES, Operation


@dataclass(frozen=True)
class Said:
    """What an answer says, in nobody's dialect."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    stop: str = "end"
    input: int = 0
    output: int = 0
    cached: int = 0
    thought: int = 0


OSLO, ROME = {"city": "Oslo"}, {"city": "Rome"}
EXPECTED = {
    "plain": Said(text="Hello there", input=12, output=4),
    "tools": Said(
        text="I look.",
        reasoning="Hm, two.",
        calls=(("weather", OSLO), ("weather", ROME)),
        stop="tool_calls",
        input=100,
        output=50,
        cached=30,
        thought=20,
    ),
    "limit": Said(text="Once upon", stop="length", input=12, output=4),
    "filter": Said(text="How to", stop="filter", input=12, output=4),
}


def _chat_usage(said: Said) -> dict[str, Any]:
    return {
        "prompt_tokens": said.input,
        "completion_tokens": said.output,
        "total_tokens": said.input + said.output,
        "prompt_tokens_details": {"cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.thought},
    }


def _responses_usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": said.input,
        "output_tokens": said.output,
        "total_tokens": said.input + said.output,
        "input_tokens_details": {"cached_tokens": said.cached, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": said.thought},
    }


def _messages_usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": said.input - said.cached,
        "output_tokens": said.output,
        "cache_read_input_tokens": said.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens_details": {"thinking_tokens": said.thought},
    }


def _google_usage(said: Said) -> dict[str, Any]:
    return {
        "promptTokenCount": said.input,
        "candidatesTokenCount": said.output - said.thought,
        "thoughtsTokenCount": said.thought,
        "cachedContentTokenCount": said.cached,
        "totalTokenCount": said.input + said.output,
    }


STOPS = {
    CHAT: {"end": "stop", "tool_calls": "tool_calls", "length": "length", "filter": "content_filter"},
    MESSAGES: {"end": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "filter": "refusal"},
    GENERATE: {"end": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "filter": "SAFETY"},
    RESPONSES: {
        "end": "completed",
        "tool_calls": "completed",
        "length": "incomplete: max_output_tokens",
        "filter": "incomplete: content_filter",
    },
}


def answer(upstream: Operation, said: Said) -> bytes:
    """A whole answer."""
    return json.dumps(BODIES[upstream](said)).encode()


def _chat_body(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said.text or None,
        "refusal": said.refusal or None,
    }
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{i}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for i, (name, given) in enumerate(said.calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": STOPS[CHAT][said.stop], "logprobs": None}
    return {
        "id": "chatcmpl-Abc",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-x-2026",
        "choices": [choice],
        "usage": _chat_usage(said),
    }


def _responses_output(said: Said) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    if said.reasoning:
        output.append(
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": said.reasoning}],
                "encrypted_content": "gAAAA",
            }
        )
    content: list[dict[str, Any]] = []
    if said.text:
        content.append({"type": "output_text", "text": said.text, "annotations": []})
    if said.refusal:
        content.append({"type": "refusal", "refusal": said.refusal})
    if content:
        output.append(
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
        )
    for i, (name, given) in enumerate(said.calls):
        output.append(
            {
                "type": "function_call",
                "id": f"fc_{i}",
                "call_id": f"call_{i}",
                "name": name,
                "arguments": json.dumps(given),
                "status": "completed",
            }
        )
    return output


def _responses_body(said: Said) -> dict[str, Any]:
    status, _, reason = STOPS[RESPONSES][said.stop].partition(": ")
    return {
        "id": "resp_Abc",
        "object": "response",
        "created_at": 1700000000.0,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": "gpt-x-2026",
        "output": _responses_output(said),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _responses_usage(said),
    }


def _messages_body(said: Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if said.reasoning:
        content.append({"type": "thinking", "thinking": said.reasoning, "signature": "EqQB"})
    if said.text:
        content.append({"type": "text", "text": said.text})
    for i, (name, given) in enumerate(said.calls):
        content.append({"type": "tool_use", "id": f"call_{i}", "name": name, "input": given})
    return {
        "id": "msg_Abc",
        "type": "message",
        "role": "assistant",
        "model": "claude-x-2026",
        "content": content,
        "stop_reason": STOPS[MESSAGES][said.stop],
        "stop_sequence": None,
        "usage": _messages_usage(said),
    }


def _google_parts(said: Said) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if said.reasoning:
        parts.append({"text": said.reasoning, "thought": True})
    if said.text:
        parts.append({"text": said.text})
    for i, (name, given) in enumerate(said.calls):
        part: dict[str, Any] = {"functionCall": {"name": name, "args": given}}
        if i == 0:
            part["thoughtSignature"] = "CiQB"
        parts.append(part)
    return parts


def _google_body(said: Said) -> dict[str, Any]:
    candidate = {
        "content": {"parts": _google_parts(said), "role": "model"},
        "finishReason": STOPS[GENERATE][said.stop],
        "index": 0,
    }
    return {
        "candidates": [candidate],
        "usageMetadata": _google_usage(said),
        "modelVersion": "gemini-x",
        "responseId": "Abc",
    }


BODIES = {CHAT: _chat_body, RESPONSES: _responses_body, MESSAGES: _messages_body, GENERATE: _google_body}


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [half for half in (text[:middle], text[middle:]) if half]


def _data(event: dict[str, Any], *, name: bool = False) -> bytes:
    head = f"event: {event['type']}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n".encode()


def stream(upstream: Operation, said: Said) -> bytes:
    """The same answer as a stream."""
    return STREAMS[upstream](said)


def _chat_stream(said: Said) -> bytes:
    head = {
        "id": "chatcmpl-Abc",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-x-2026",
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _data(
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}
        )

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning_content": half}) for half in _halves(said.reasoning)]
    events += [chunk({"content": half}) for half in _halves(said.text)]
    events += [chunk({"refusal": half}) for half in _halves(said.refusal)]
    for i, (name, given) in enumerate(said.calls):
        function = {"name": name, "arguments": ""}
        events.append(
            chunk({"tool_calls": [{"index": i, "id": f"call_{i}", "type": "function", "function": function}]})
        )
        events += [
            chunk({"tool_calls": [{"index": i, "function": {"arguments": half}}]})
            for half in _halves(json.dumps(given))
        ]
    events.append(chunk({}, STOPS[CHAT][said.stop]))
    events.append(_data({**head, "choices": [], "usage": _chat_usage(said)}))
    return b"".join(events) + b"data: [DONE]\n\n"


def _responses_stream(said: Said) -> bytes:
    final = _responses_body(said)
    started = {**final, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
    ]
    for index, item in enumerate(final["output"]):
        where = {"item_id": item["id"], "output_index": index}
        opened = {**item, "summary": [], "content": [], "arguments": ""}
        opened = {key: value for key, value in opened.items() if key in item and key != "encrypted_content"}
        events.append({"type": "response.output_item.added", "output_index": index, "item": opened})
        if item["type"] == "reasoning":
            part = {"type": "summary_text", "text": ""}
            kind = "response.reasoning_summary"
            events.append({"type": f"{kind}_part.added", **where, "summary_index": 0, "part": part})
            events += [
                {"type": f"{kind}_text.delta", **where, "summary_index": 0, "delta": half}
                for half in _halves(said.reasoning)
            ]
        elif item["type"] == "message":
            for at, content in enumerate(item["content"]):
                kind = "output_text" if content["type"] == "output_text" else "refusal"
                text = content.get("text") or content.get("refusal")
                events += [
                    {"type": f"response.{kind}.delta", **where, "content_index": at, "delta": half}
                    for half in _halves(text)
                ]
        else:
            events += [
                {"type": "response.function_call_arguments.delta", **where, "delta": half}
                for half in _halves(item["arguments"])
            ]
            events.append(
                {"type": "response.function_call_arguments.done", **where, "arguments": item["arguments"]}
            )
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{final['status']}", "response": final})
    return b"".join(
        _data({**event, "sequence_number": number}, name=True) for number, event in enumerate(events)
    )


def _messages_stream(said: Said) -> bytes:
    final = _messages_body(said)
    usage = {**final["usage"], "output_tokens": 1}
    started = {**final, "content": [], "stop_reason": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": started}, {"type": "ping"}]
    for index, block in enumerate(final["content"]):
        empty = {**block, "text": "", "thinking": "", "signature": "", "input": {}}
        empty = {key: value for key, value in empty.items() if key in block}
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        deltas: list[dict[str, Any]]
        match block["type"]:
            case "text":
                deltas = [{"type": "text_delta", "text": half} for half in _halves(block["text"])]
            case "thinking":
                deltas = [{"type": "thinking_delta", "thinking": half} for half in _halves(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case _:
                halves = ["", *_halves(json.dumps(block["input"]))]
                deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": final["stop_reason"], "stop_sequence": None}
    events.append(
        {
            "type": "message_delta",
            "delta": end,
            "usage": {
                "output_tokens": said.output,
                "output_tokens_details": final["usage"]["output_tokens_details"],
            },
        }
    )
    events.append({"type": "message_stop"})
    return b"".join(_data(event, name=True) for event in events)


def _google_stream(said: Said) -> bytes:
    head = {"modelVersion": "gemini-x", "responseId": "Abc"}
    parts: list[dict[str, Any]] = []
    for part in _google_parts(said):
        if "text" in part:
            parts += [{**part, "text": half} for half in _halves(part["text"])]
        else:
            parts.append(part)
    chunks = [
        {
            "candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}],
            "usageMetadata": {"promptTokenCount": said.input, "totalTokenCount": said.input},
            **head,
        }
        for part in parts
    ]
    last = {
        "candidates": [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": STOPS[GENERATE][said.stop],
                "index": 0,
            }
        ],
        "usageMetadata": _google_usage(said),
        **head,
    }
    # Google ends its lines with CR LF
    return b"".join(_data(chunk).replace(b"\n", b"\r\n") for chunk in [*chunks, last])


STREAMS = {
    CHAT: _chat_stream,
    RESPONSES: _responses_stream,
    MESSAGES: _messages_stream,
    GENERATE: _google_stream,
}
