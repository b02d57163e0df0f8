"""Anthropic Messages: a whole answer read and written; usage and stop reasons, also for its streams.

`input_tokens` there leaves out what was read from or written to the cache; the neutral count has it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.translate.conversation import (
    Answer,
    Count,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Seal,
    Stop,
    Text,
    Tokens,
    ToolCall,
    arguments_object,
    id_core,
    unwrap_seal,
)

STOPS: Final[Mapping[str, Stop]] = MappingProxyType(
    {
        "end_turn": Stop.END,
        "max_tokens": Stop.LENGTH,
        "model_context_window_exceeded": Stop.LENGTH,
        "stop_sequence": Stop.STOP_SEQUENCE,
        "tool_use": Stop.TOOL_CALLS,
        "pause_turn": Stop.PAUSE,
        "refusal": Stop.REFUSAL,
    }
)
REASONS: Final[Mapping[Stop, str]] = MappingProxyType(
    {
        Stop.END: "end_turn",
        Stop.LENGTH: "max_tokens",
        Stop.STOP_SEQUENCE: "stop_sequence",
        Stop.TOOL_CALLS: "tool_use",
        Stop.PAUSE: "pause_turn",
        Stop.REFUSAL: "refusal",
        Stop.CONTENT_FILTER: "refusal",
    }
)


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Count | None = None


class MessageUsage(msgspec.Struct, gc=False):
    """`usage` of an answer, of `message_start` or of `message_delta`; later statements are totals."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None

    def tokens(self) -> Tokens:
        """In neutral words."""
        read = self.cache_read_input_tokens or 0
        written = self.cache_creation_input_tokens or 0
        details = self.output_tokens_details or _OutputDetails()
        return Tokens(
            (self.input_tokens or 0) + read + written,
            self.output_tokens or 0,
            read,
            written,
            details.thinking_tokens or 0,
        )

    def after(self, start: "MessageUsage") -> "MessageUsage":
        """This statement over an earlier one: what it does not say stays."""
        return MessageUsage(
            start.input_tokens if self.input_tokens is None else self.input_tokens,
            start.output_tokens if self.output_tokens is None else self.output_tokens,
            start.cache_read_input_tokens
            if self.cache_read_input_tokens is None
            else self.cache_read_input_tokens,
            start.cache_creation_input_tokens
            if self.cache_creation_input_tokens is None
            else self.cache_creation_input_tokens,
            self.output_tokens_details or start.output_tokens_details,
        )


class StopDetails(msgspec.Struct):
    """Why the model refused."""

    explanation: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    thinking: str = ""
    signature: str = ""
    data: str = ""


class _Message(msgspec.Struct):
    content: list[_Block]
    id: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: MessageUsage | None = None


_decode: Final = msgspec.json.Decoder(_Message).decode


def read_message(body: bytes) -> Answer | None:
    """A whole message. Raises msgspec's errors."""
    message = _decode(body)
    parts: list[Part] = []
    for block in message.content:
        match block.type:
            case "text" if block.text:
                parts.append(Text(block.text))
            case "tool_use":
                parts.append(ToolCall(block.id, block.name, bytes(block.input).decode()))
            case "thinking":
                seal = unwrap_seal(block.signature, Origin.MESSAGES) if block.signature else None
                parts.append(Reasoning(block.thinking, seal))
            case "redacted_thinking":
                parts.append(Reasoning("", Seal(Origin.REDACTED, block.data)))
            case _:
                pass
    if message.stop_details is not None and message.stop_details.explanation:
        parts.append(Refusal(message.stop_details.explanation))
    return Answer(
        id_core(message.id or ""),
        parts,
        STOPS.get(message.stop_reason or "end_turn", Stop.END),
        stop_sequence=message.stop_sequence,
        tokens=None if message.usage is None else message.usage.tokens(),
    )


def message_usage(tokens: Tokens) -> dict[str, Any]:
    """`usage` as Anthropic writes it."""
    return {
        "input_tokens": max(tokens.input - tokens.cache_read - tokens.cache_write, 0),
        "output_tokens": tokens.output,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write,
        **({"output_tokens_details": {"thinking_tokens": tokens.reasoning}} if tokens.reasoning else {}),
    }


def broken_arguments(arguments: str) -> dict[str, str]:
    """Arguments that are no JSON object, for a dialect that takes nothing else: the client's tool will refuse them."""
    return {"invalid_arguments": arguments}


def seal_block(seal: Seal, text: str) -> dict[str, Any]:
    """Reasoning with its seal, as a thinking block."""
    if seal.origin is Origin.REDACTED:
        return {"type": "redacted_thinking", "data": seal.data}
    signature = seal.data if seal.origin is Origin.MESSAGES else seal.wrapped()
    return {"type": "thinking", "thinking": text, "signature": signature}


def write_message(answer: Answer, model: str) -> bytes:
    """A whole message for the client."""
    content: list[dict[str, Any]] = []
    for part in answer.parts:
        match part:
            case Text() | Refusal():
                content.append({"type": "text", "text": part.text})
            case ToolCall():
                arguments = arguments_object(part.arguments)
                content.append(
                    {
                        "type": "tool_use",
                        "id": part.id,
                        "name": part.name,
                        "input": broken_arguments(part.arguments) if arguments is None else arguments,
                    }
                )
            case Reasoning():
                if part.seal is None:
                    content.append({"type": "thinking", "thinking": part.text, "signature": ""})
                else:
                    content.append(seal_block(part.seal, part.text))
            case _:
                pass
    return msgspec.json.encode(
        {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": REASONS[answer.stop],
            "stop_sequence": answer.stop_sequence,
            "usage": message_usage(answer.tokens or Tokens()),
        }
    )
