"""OpenAI Responses: a whole answer read and written; usage, status and output items, also for its streams."""

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
    Seconds,
    Stop,
    Text,
    Tokens,
    ToolCall,
    id_core,
    refined_stop,
    unwrap_seal,
)
from outlay.wire.translate.responses_reader import response_seal


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class ResponseUsage(msgspec.Struct, gc=False):
    """`usage` of a response."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def tokens(self) -> Tokens:
        """In neutral words."""
        given = self.input_tokens_details or _InputDetails()
        generated = self.output_tokens_details or _OutputDetails()
        return Tokens(
            self.input_tokens or 0,
            self.output_tokens or 0,
            given.cached_tokens or 0,
            given.cache_write_tokens or 0,
            generated.reasoning_tokens or 0,
        )


class _Content(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""


class OutputItem(msgspec.Struct):
    """One item of `output`."""

    type: str
    id: str | None = None
    content: list[_Content] | None = None
    summary: list[_Content] | None = None
    encrypted_content: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    input: str = ""

    def seal(self) -> Seal | None:
        """The encrypted reasoning of a reasoning item."""
        if not self.encrypted_content:
            return None
        seal = unwrap_seal(self.encrypted_content, Origin.RESPONSES)
        return response_seal(self.id, self.encrypted_content) if seal.origin is Origin.RESPONSES else seal


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: str | None = None
    message: str = ""


class Response(msgspec.Struct):
    """A whole response, as an answer or in the events of a stream."""

    id: str = ""
    created_at: Seconds | None = None
    status: str | None = None
    output: list[OutputItem] = []
    incomplete_details: _Incomplete | None = None
    error: ResponseError | None = None
    usage: ResponseUsage | None = None

    def stop(self) -> Stop:
        """Why it ended, as far as the status says."""
        if self.status == "incomplete":
            reason = None if self.incomplete_details is None else self.incomplete_details.reason
            return Stop.CONTENT_FILTER if reason == "content_filter" else Stop.LENGTH
        return Stop.END


_decode: Final = msgspec.json.Decoder(Response).decode


def read_response(body: bytes) -> Answer | None:
    """A whole response; None if it did not end with an answer (failed, cancelled, still running)."""
    response = _decode(body)
    if not response.id or response.status not in {None, "completed", "incomplete"}:
        return None
    parts: list[Part] = []
    for item in response.output:
        match item.type:
            case "message":
                for content in item.content or ():
                    parts.append(
                        Refusal(content.refusal) if content.type == "refusal" else Text(content.text)
                    )
            case "function_call":
                parts.append(ToolCall(item.call_id, item.name, item.arguments or "{}"))
            case "custom_tool_call":
                parts.append(ToolCall(item.call_id, item.name, item.input, is_custom=True))
            case "reasoning":
                text = "\n\n".join(part.text for part in item.summary or item.content or ())
                parts.append(Reasoning(text, item.seal()))
            case _:
                pass
    return Answer(
        id_core(response.id),
        parts,
        refined_stop(response.stop(), parts),
        created=int(response.created_at or 0),
        tokens=None if response.usage is None else response.usage.tokens(),
    )


def response_usage(tokens: Tokens) -> dict[str, Any]:
    """`usage` as OpenAI writes it."""
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def text_part(text: str) -> dict[str, Any]:
    """Text in a message item."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_item(item_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """A message item."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": content}


def reasoning_item(item_id: str, text: str, seal: Seal | None) -> dict[str, Any]:
    """A reasoning item; its text stands as summary, since it may be one."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: dict[str, Any] = {"type": "reasoning", "id": item_id, "summary": summary}
    if seal is not None:
        item["encrypted_content"] = seal.wrapped()
    return item


def call_item(item_id: str, status: str, call: ToolCall) -> dict[str, Any]:
    """A tool call item."""
    if call.is_custom:
        return {
            "type": "custom_tool_call",
            "id": item_id,
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "input": call.arguments,
        }
    return {
        "type": "function_call",
        "id": item_id,
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


def response_object(
    answer_id: str, model: str, created: int, status: str, output: list[dict[str, Any]]
) -> dict[str, Any]:
    """A response without its end; what the request set is not known here, so OpenAI's defaults stand."""
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "store": False,
        "usage": None,
    }


def ended_status(stop: Stop, *, has_refusal: bool) -> tuple[str, str | None]:
    """Status and the reason of an incomplete one."""
    if stop is Stop.LENGTH:
        return "incomplete", "max_output_tokens"
    if stop is Stop.CONTENT_FILTER or (stop is Stop.REFUSAL and not has_refusal):
        return "incomplete", "content_filter"
    return "completed", None


def write_response(answer: Answer, model: str) -> bytes:
    """A whole response for the client."""
    output: list[dict[str, Any]] = []
    has_refusal = any(isinstance(part, Refusal) for part in answer.parts)
    status, reason = ended_status(answer.stop, has_refusal=has_refusal)
    for part in answer.parts:
        number = len(output)
        match part:
            case Text() | Refusal():
                content = (
                    text_part(part.text)
                    if isinstance(part, Text)
                    else {"type": "refusal", "refusal": part.text}
                )
                if output and output[-1]["type"] == "message":
                    output[-1]["content"].append(content)
                else:
                    output.append(message_item(f"msg_{answer.id}_{number}", status, [content]))
            case ToolCall():
                output.append(call_item(f"fc_{answer.id}_{number}", "completed", part))
            case Reasoning():
                output.append(reasoning_item(f"rs_{answer.id}_{number}", part.text, part.seal))
            case _:
                pass
    response = response_object(answer.id, model, answer.created, status, output)
    if reason is not None:
        response["incomplete_details"] = {"reason": reason}
    if answer.tokens is not None:
        response["usage"] = response_usage(answer.tokens)
    return msgspec.json.encode(response)
