"""Google Gemini: a whole answer read and written; usage and finish reasons, also for its streams.

`candidatesTokenCount` there leaves out the thoughts; the neutral count has them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.translate.conversation import (
    ABSENT,
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
    refined_stop,
    stated_raw,
)
from outlay.wire.translate.gemini_writer import packed_signature
from outlay.wire.translate.messages_answers import broken_arguments

_STOPS: Final[Mapping[str, Stop]] = MappingProxyType({"STOP": Stop.END, "MAX_TOKENS": Stop.LENGTH})
REASONS: Final[Mapping[Stop, str]] = MappingProxyType(
    {
        Stop.END: "STOP",
        Stop.STOP_SEQUENCE: "STOP",
        Stop.TOOL_CALLS: "STOP",
        Stop.PAUSE: "STOP",
        Stop.LENGTH: "MAX_TOKENS",
        Stop.CONTENT_FILTER: "SAFETY",
        Stop.REFUSAL: "SAFETY",
    }
)


class GoogleUsage(msgspec.Struct, rename="camel", gc=False):
    """`usageMetadata`; in a stream each is the total so far."""

    prompt_token_count: Count | None = None
    candidates_token_count: Count | None = None
    thoughts_token_count: Count | None = None
    cached_content_token_count: Count | None = None
    tool_use_prompt_token_count: Count | None = None

    def tokens(self) -> Tokens:
        """In neutral words."""
        thoughts = self.thoughts_token_count or 0
        return Tokens(
            (self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            (self.candidates_token_count or 0) + thoughts,
            self.cached_content_token_count or 0,
            0,
            thoughts,
        )


class _Call(msgspec.Struct):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = ABSENT


class GooglePart(msgspec.Struct, rename="camel"):
    """One part of an answer."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct):
    parts: list[GooglePart] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class GoogleAnswer(msgspec.Struct, rename="camel"):
    """A whole answer, or one chunk of a stream."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: GoogleUsage | None = None
    response_id: str | None = None
    error: Any = None

    def stop(self) -> Stop | None:
        """Why it ended, if it says so."""
        if self.candidates:
            reason = self.candidates[0].finish_reason
            if reason in {None, "FINISH_REASON_UNSPECIFIED"}:
                return None
            # what is neither a plain end nor a limit is a filter, or an answer that Google withdrew
            return _STOPS.get(str(reason), Stop.CONTENT_FILTER)
        if self.prompt_feedback is not None and self.prompt_feedback.block_reason:
            return Stop.CONTENT_FILTER
        return None

    def parts(self) -> list[GooglePart]:
        """The parts of the first candidate."""
        if not self.candidates or self.candidates[0].content is None:
            return []
        return self.candidates[0].content.parts or []


decode_google: Final = msgspec.json.Decoder(GoogleAnswer).decode


def read_part(part: GooglePart, core: str, number: int) -> list[Part]:
    """The neutral parts of one part; `number` counts the tool calls before it."""
    seal = None if part.thought_signature is None else Seal(Origin.GENERATE, part.thought_signature)
    if part.thought:
        return [Reasoning(part.text or "", seal)]
    parts: list[Part] = [] if seal is None else [Reasoning("", seal)]
    if part.text:
        parts.append(Text(part.text))
    if part.function_call is not None:
        call = part.function_call
        arguments = bytes(stated_raw(call.args) or b"{}").decode()
        parts.append(ToolCall(call.id or f"call_{core}_{number}", call.name, arguments))
    return parts


def read_google_answer(body: bytes) -> Answer | None:
    """A whole answer; None if it neither has a candidate nor says why not. Raises msgspec's errors."""
    answer = decode_google(body)
    stop = answer.stop()
    if not answer.candidates and stop is None:
        return None
    core = id_core(answer.response_id or "")
    parts: list[Part] = []
    calls = 0
    for part in answer.parts():
        parts.extend(read_part(part, core, calls))
        calls += part.function_call is not None
    return Answer(
        core,
        parts,
        refined_stop(stop or Stop.END, parts),
        tokens=None if answer.usage_metadata is None else answer.usage_metadata.tokens(),
    )


def google_usage(tokens: Tokens) -> dict[str, Any]:
    """`usageMetadata` as Google writes it."""
    usage = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": max(tokens.output - tokens.reasoning, 0),
        "totalTokenCount": tokens.input + tokens.output,
    }
    if tokens.cache_read:
        usage["cachedContentTokenCount"] = tokens.cache_read
    if tokens.reasoning:
        usage["thoughtsTokenCount"] = tokens.reasoning
    return usage


def seal_text(seal: Seal) -> str:
    """A seal as `thoughtSignature`."""
    return seal.data if seal.origin is Origin.GENERATE else packed_signature(seal.wrapped())


def call_part(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call as a part."""
    given = arguments_object(arguments)
    return {
        "functionCall": {
            "id": call_id,
            "name": name,
            "args": broken_arguments(arguments) if given is None else given,
        }
    }


def google_chunk(
    answer_id: str, model: str, parts: list[dict[str, Any]], stop: Stop | None
) -> dict[str, Any]:
    """One answer or chunk, without usage."""
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if stop is not None:
        candidate["finishReason"] = REASONS[stop]
    return {"candidates": [candidate], "modelVersion": model, "responseId": answer_id}


def write_google_answer(answer: Answer, model: str) -> bytes:
    """A whole answer for the client."""
    parts: list[dict[str, Any]] = []
    for part in answer.parts:
        match part:
            case Text() | Refusal():
                parts.append({"text": part.text})
            case ToolCall():
                parts.append(call_part(part.id, part.name, part.arguments))
            case Reasoning():
                written: dict[str, Any] = {"text": part.text, "thought": True}
                if part.seal is not None:
                    written["thoughtSignature"] = seal_text(part.seal)
                parts.append(written)
            case _:
                pass
    chunk = google_chunk(answer.id, model, parts, answer.stop)
    chunk["usageMetadata"] = google_usage(answer.tokens or Tokens())
    return msgspec.json.encode(chunk)
