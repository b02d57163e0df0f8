"""OpenAI Responses: its stream read into neutral events, and written from them."""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import Origin, Seal
from outlay.wire.translate.errors import VendorError, error_event, error_of, response_error, status_of
from outlay.wire.translate.events import (
    CallDelta,
    CallEnded,
    CallStarted,
    Decoder,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Sealed,
    Started,
    TextDelta,
    named_call,
)
from outlay.wire.translate.responses_answers import (
    OutputItem,
    Response,
    call_item,
    ended_status,
    message_item,
    reasoning_item,
    response_object,
    response_usage,
    text_part,
)


class _Event(msgspec.Struct):
    type: str = ""
    delta: str = ""
    item: OutputItem | None = None
    response: Response | None = None
    output_index: int = 0
    summary_index: int = 0
    message: str = ""
    code: str | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Event).decode


class ResponsesDecoder(Decoder):
    """Its end mark is `response.completed` or `response.incomplete`."""

    def __init__(self) -> None:
        super().__init__()
        self._call_index = -1

    def read(self, data: bytes) -> None:
        """See `Decoder`."""
        event = _decode(data)
        match event.type:
            case "response.output_text.delta" if event.delta:
                self.add(TextDelta(event.delta))
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                if event.output_index == self._call_index:
                    self.add_arguments(event.delta)
                else:
                    self.fail(VendorError("the provider mixed the parts of several tool calls"), 502)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" if event.delta:
                self.add(ReasoningDelta(event.delta))
            case "response.reasoning_summary_part.added" if event.summary_index > 0:
                self.add(ReasoningDelta("\n\n"))
            case "response.refusal.delta" if event.delta:
                self.add(RefusalDelta(event.delta))
            case "response.output_item.added" if event.item is not None:
                self._start_item(event.item, event.output_index)
            case "response.output_item.done" if event.item is not None:
                self._end_item(event.item, event.output_index)
            case "response.created" if event.response is not None:
                self.start(event.response.id, int(event.response.created_at or 0))
            case "response.completed" | "response.incomplete" if event.response is not None:
                response = event.response
                self.finish(response.stop(), None if response.usage is None else response.usage.tokens())
            case "response.failed" | "response.cancelled" if event.response is not None:
                stated = event.response.error
                error = VendorError(
                    (stated.message if stated is not None else "") or "the provider reported a failure",
                    None if stated is None else stated.code,
                )
                self.fail(error, status_of(error))
            case "error":
                given = (
                    {"error": event.error} if event.error else {"message": event.message, "code": event.code}
                )
                error = error_of(given) or VendorError("the provider reported an error")
                self.fail(error, status_of(error))
            case _:
                pass

    def _start_item(self, item: OutputItem, index: int) -> None:
        if item.type in {"function_call", "custom_tool_call"}:
            self._call_index = index
            self.begin_call(item.call_id, item.name, is_custom=item.type == "custom_tool_call")

    def _end_item(self, item: OutputItem, index: int) -> None:
        if item.type in {"function_call", "custom_tool_call"}:
            if index != self._call_index or not self.has_open_call:
                # some servers send a call whole, without its start
                self._start_item(item, index)
            if not self.has_arguments:
                self.add_arguments(item.arguments or item.input)
            self.end_call()
        elif item.type == "reasoning":
            seal = item.seal()
            if seal is not None:
                self.add(Sealed(seal))


class ResponsesEncoder:
    """Output items one after the other, each with its own opening and closing events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = ""
        self._created = 0
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: str | None = None
        self._item_id = ""
        self._part: str | None = None
        self._content: list[dict[str, Any]] = []
        self._texts: list[str] = []
        self._call: CallStarted | None = None
        self._delta_head = b""
        self._has_refusal = False

    def write(self, event: Event) -> bytes:
        """See `Encoder`."""
        match event:
            case TextDelta():
                return self._open_part("output_text") + self._delta(event.text)
            case CallDelta():
                return self._delta(event.arguments)
            case ReasoningDelta():
                return self._open_reasoning() + self._delta(event.text)
            case RefusalDelta():
                self._has_refusal = True
                return self._open_part("refusal") + self._delta(event.text)
            case Sealed():
                return self._seal(event.seal)
            case CallStarted():
                return self._start_call(event)
            case CallEnded():
                return self._close("completed")
            case Started():
                self._id, self._created = event.id, event.created
                response = response_object(event.id, self._model, event.created, "in_progress", [])
                return self._event("response.created", {"response": response}) + self._event(
                    "response.in_progress", {"response": response}
                )
            case Finished():
                return self._finish(event)
            case Failed():
                return self._fail(event)

    def _fail(self, event: Failed) -> bytes:
        """The SDK raises for `error`; Codex reads the reason from `response.failed`, and would try again without."""
        written = error_event(Operation.RESPONSES, event.status, event.error, self._sequence)
        self._sequence += 1
        response = response_object(self._id or "0", self._model, self._created, "failed", self._output)
        response["error"] = response_error(event.status, event.error)
        return written + self._event("response.failed", {"response": response})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        data = msgspec.json.encode({"type": kind, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _delta(self, text: str) -> bytes:
        self._texts.append(text)
        data = b'%b%b,"sequence_number":%d}\n\n' % (
            self._delta_head,
            msgspec.json.encode(text),
            self._sequence,
        )
        self._sequence += 1
        return data

    def _begin_deltas(self, kind: str, fields: dict[str, Any]) -> None:
        self._texts.clear()
        head = msgspec.json.encode({"type": kind, "item_id": self._item_id, **fields})
        self._delta_head = b'event: %b\ndata: %b,"delta":' % (kind.encode(), head[:-1])

    @property
    def _index(self) -> int:
        return len(self._output)

    def _start_item(self, kind: str, prefix: str, item: dict[str, Any]) -> bytes:
        closed = self._close("completed")
        self._open = kind
        self._item_id = item["id"] = f"{prefix}_{self._id}_{self._index}"
        return closed + self._event("response.output_item.added", {"output_index": self._index, "item": item})

    def _open_part(self, kind: str) -> bytes:
        """A message item with an open part of this kind."""
        if self._part == kind:
            return b""
        written = b""
        if self._open == "message":
            written = self._close_part()
        else:
            written = self._start_item("message", "msg", message_item("", "in_progress", []))
            self._content = []
        self._part = kind
        empty = text_part("") if kind == "output_text" else {"type": "refusal", "refusal": ""}
        where = self._where()
        written += self._event("response.content_part.added", {**where, "part": empty})
        fields = {"output_index": self._index, "content_index": len(self._content)}
        if kind == "output_text":
            self._begin_deltas("response.output_text.delta", {**fields, "logprobs": []})
        else:
            self._begin_deltas("response.refusal.delta", fields)
        return written

    def _where(self) -> dict[str, Any]:
        return {
            "item_id": self._item_id,
            "output_index": self._index,
            "content_index": len(self._content),
        }

    def _close_part(self) -> bytes:
        if self._part is None:
            return b""
        where, text = self._where(), "".join(self._texts)
        if self._part == "output_text":
            part = text_part(text)
            written = self._event("response.output_text.done", {**where, "text": text, "logprobs": []})
        else:
            part = {"type": "refusal", "refusal": text}
            written = self._event("response.refusal.done", {**where, "refusal": text})
        written += self._event("response.content_part.done", {**where, "part": part})
        self._content.append(part)
        self._part = None
        return written

    def _open_reasoning(self) -> bytes:
        if self._open == "reasoning":
            return b""
        written = self._start_item("reasoning", "rs", reasoning_item("", "", None))
        where = {"item_id": self._item_id, "output_index": self._index, "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        written += self._event("response.reasoning_summary_part.added", {**where, "part": part})
        self._begin_deltas(
            "response.reasoning_summary_text.delta", {"output_index": self._index, "summary_index": 0}
        )
        return written

    def _close_reasoning(self, seal: Seal | None) -> bytes:
        text = "".join(self._texts)
        where = {"item_id": self._item_id, "output_index": self._index, "summary_index": 0}
        part = {"type": "summary_text", "text": text}
        written = self._event("response.reasoning_summary_text.done", {**where, "text": text})
        written += self._event("response.reasoning_summary_part.done", {**where, "part": part})
        return written + self._end_item(reasoning_item(self._item_id, text, seal))

    def _seal(self, seal: Seal) -> bytes:
        if self._open == "reasoning" and seal.origin is not Origin.REDACTED:
            return self._close_reasoning(seal)
        written = self._start_item("reasoning", "rs", reasoning_item("", "", None))
        return written + self._end_item(reasoning_item(self._item_id, "", seal))

    def _start_call(self, event: CallStarted) -> bytes:
        self._call = event
        written = self._start_item("call", "fc", call_item("", "in_progress", named_call(event, "")))
        kind = (
            "response.custom_tool_call_input.delta"
            if event.is_custom
            else "response.function_call_arguments.delta"
        )
        self._begin_deltas(kind, {"output_index": self._index})
        return written

    def _close_call(self, call: CallStarted) -> bytes:
        arguments = "".join(self._texts)
        where: dict[str, Any] = {"item_id": self._item_id, "output_index": self._index}
        if call.is_custom:
            written = self._event("response.custom_tool_call_input.done", {**where, "input": arguments})
        else:
            done = {**where, "name": call.name, "arguments": arguments}
            written = self._event("response.function_call_arguments.done", done)
        return written + self._end_item(call_item(self._item_id, "completed", named_call(call, arguments)))

    def _close(self, status: str) -> bytes:
        """Close the open item, if any."""
        match self._open:
            case "message":
                written = self._close_part()
                return written + self._end_item(message_item(self._item_id, status, self._content))
            case "reasoning":
                return self._close_reasoning(None)
            case "call" if self._call is not None:
                return self._close_call(self._call)
            case _:
                return b""

    def _end_item(self, item: dict[str, Any]) -> bytes:
        written = self._event("response.output_item.done", {"output_index": self._index, "item": item})
        self._output.append(item)
        self._open = None
        return written

    def _finish(self, event: Finished) -> bytes:
        status, reason = ended_status(event.stop, has_refusal=self._has_refusal)
        closed = self._close(status)
        response = response_object(self._id, self._model, self._created, status, self._output)
        if reason is not None:
            response["incomplete_details"] = {"reason": reason}
        if event.tokens is not None:
            response["usage"] = response_usage(event.tokens)
        return closed + self._event(f"response.{status}", {"response": response})
