"""OpenAI chat completions: a whole answer read and written; usage and finish reasons, also for its streams."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.translate.conversation import (
    Answer,
    Count,
    Part,
    Reasoning,
    Refusal,
    Seconds,
    Stop,
    Text,
    Tokens,
    ToolCall,
    id_core,
    refined_stop,
)

STOPS: Final[Mapping[str, Stop]] = MappingProxyType(
    {
        "stop": Stop.END,
        "length": Stop.LENGTH,
        "tool_calls": Stop.TOOL_CALLS,
        "function_call": Stop.TOOL_CALLS,
        "content_filter": Stop.CONTENT_FILTER,
    }
)
_REASONS: Final[Mapping[Stop, str]] = MappingProxyType(
    {
        Stop.END: "stop",
        Stop.STOP_SEQUENCE: "stop",
        Stop.PAUSE: "stop",
        Stop.LENGTH: "length",
        Stop.TOOL_CALLS: "tool_calls",
        Stop.CONTENT_FILTER: "content_filter",
    }
)


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """`usage` of an answer or a chunk."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    def tokens(self) -> Tokens:
        """In neutral words."""
        prompt = self.prompt_tokens_details or _PromptDetails()
        completion = self.completion_tokens_details or _CompletionDetails()
        given, reasoning = self.prompt_tokens or 0, completion.reasoning_tokens or 0
        # some servers leave reasoning out of the completion; see `wire.openai_answer`
        output = max(self.completion_tokens or 0, (self.total_tokens or 0) - given)
        if reasoning > output:
            output += reasoning
        return Tokens(given, output, prompt.cached_tokens or 0, prompt.cache_write_tokens or 0, reasoning)


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | None = None


class _Custom(msgspec.Struct):
    name: str = ""
    input: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    created: Seconds | None = None
    usage: ChatUsage | None = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


def read_chat_answer(body: bytes) -> Answer | None:
    """A whole completion; None if it has no choice. Raises msgspec's errors."""
    completion = _decode(body)
    if not completion.choices:
        return None
    choice = completion.choices[0]
    message = choice.message
    core = id_core(completion.id or "")
    parts: list[Part] = []
    reasoning = message.reasoning_content or message.reasoning
    if reasoning and isinstance(reasoning, str):
        parts.append(Reasoning(reasoning))
    if message.content:
        parts.append(Text(message.content))
    if message.refusal:
        parts.append(Refusal(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        call_id = call.id or f"call_{core}_{index}"
        if call.function is not None:
            parts.append(ToolCall(call_id, call.function.name, call.function.arguments or "{}"))
        elif call.custom is not None:
            parts.append(ToolCall(call_id, call.custom.name, call.custom.input or "", is_custom=True))
    return Answer(
        core,
        parts,
        refined_stop(STOPS.get(choice.finish_reason or "stop", Stop.END), parts),
        created=int(completion.created or 0),
        tokens=None if completion.usage is None else completion.usage.tokens(),
    )


def finish_reason(stop: Stop, *, has_refusal: bool) -> str:
    """OpenAI's word. A refusal that is said in `refusal` ends plainly, as OpenAI's own do."""
    if stop is Stop.REFUSAL:
        return "stop" if has_refusal else "content_filter"
    return _REASONS[stop]


def chat_usage(tokens: Tokens) -> dict[str, Any]:
    """`usage` as OpenAI writes it."""
    prompt_details = {"cached_tokens": tokens.cache_read}
    if tokens.cache_write:
        prompt_details["cache_write_tokens"] = tokens.cache_write
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def write_chat_answer(answer: Answer, model: str) -> bytes:
    """A whole completion for the client. Seals of reasoning have no place in it."""
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, object]] = []
    for part in answer.parts:
        match part:
            case Text():
                texts.append(part.text)
            case Refusal():
                refusals.append(part.text)
            case Reasoning() if part.text:
                reasoning.append(part.text)
            case ToolCall():
                calls.append(_write_call(part))
            case _:
                pass
    message: dict[str, object] = {
        "role": "assistant",
        "content": "".join(texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(answer.stop, has_refusal=bool(refusals)),
    }
    completion: dict[str, object] = {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": answer.created,
        "model": model,
        "choices": [choice],
    }
    if answer.tokens is not None:
        completion["usage"] = chat_usage(answer.tokens)
    return msgspec.json.encode(completion)


def _write_call(call: ToolCall) -> dict[str, object]:
    if call.is_custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
