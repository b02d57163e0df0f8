"""OpenAI's Responses API, answers: usage from a response object or a response stream. No I/O.

`output_tokens` includes reasoning. Searches are counted by `tool_usage` where it is stated, else by the output's
items (only actions of kind `search` are billed); containers by their distinct ids. Usage of the image tool belongs to
another model: with any of it the usage is unknown.
"""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Answer, Operation, Usage
from outlay.wire.stream import EventReader

MAX_TOKENS: Final = 2**40
"""A count above this is no count; the usage is then unknown."""
_RUNNING: Final = frozenset({"queued", "in_progress"})
_ENDS: Final = frozenset(
    ["response.completed", "response.incomplete", "response.failed", "response.cancelled"]
)


class _WriteDetails(msgspec.Struct, gc=False):
    ttl_12h_tokens: int | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _WriteDetails | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    action: Any = None
    container_id: str | None = None


class _ImageTool(msgspec.Struct, gc=False):
    total_tokens: int | None = None


class _SearchTool(msgspec.Struct, gc=False):
    num_requests: int | None = None


class _ToolUsage(msgspec.Struct, gc=False):
    image_gen: _ImageTool | None = None
    web_search: _SearchTool | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    object: str | None = None
    id: str | None = None
    status: str | None = None
    model: str | None = None
    service_tier: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    tool_usage: _ToolUsage | None = None
    output: list[_Item] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: str | None = None
    response: _Response | None = None
    error: Any = None


class _Output(msgspec.Struct, gc=False):
    output: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_decode_response: Final = msgspec.json.Decoder(_Response).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_output: Final = msgspec.json.Decoder(_Output).decode


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises: garbage gives `Answer(usage=None)`.

    A response that is queued or in progress has no usage yet: its `finish_reason` is then its status.
    """
    try:
        response = _decode_response(body)
    except (ValueError, RecursionError):
        return _read_odd_answer(body)
    is_error = response.error is not None and response.object != "response"
    usage = None if response.status in _RUNNING else _usage(response)
    return Answer(
        usage=usage,
        response_id=response.id,
        finish_reason=_finish_reason(response),
        is_error=is_error,
        output_bytes=0
        if usage is not None or is_error or response.status in _RUNNING
        else _output_bytes(body),
    )


class ResponsesStream(EventReader):
    """Reads a response stream; every byte is forwarded at once. The last event carries the whole response."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(holds_back=False)

    def is_content_only(self, chunk: bytes) -> bool:
        """No event that carries a response (created, ended), and no error."""
        return b'"response"' not in chunk and b'"error"' not in chunk and self.response_id is not None

    def read_data(self, data: bytes) -> bool:
        """Take one event's data."""
        if not data.startswith(b"{"):
            return True  # keep-alives; `[DONE]`, which some engines add
        try:
            event = _decode_event(data)
        except (ValueError, RecursionError):
            self._read_odd_event(data)
            return True
        if event.delta is not None:
            self._count_output(len(event.delta.encode()))
        if event.type == "error" or (not event.type and event.error is not None):
            self.error_seen = True
        response = event.response
        if response is None:
            return True
        if response.id is not None:
            self.response_id = response.id
        if event.type in _ENDS:
            self.is_done = True
            self.error_seen = self.error_seen or event.type == "response.failed"
            self.finish_reason = _finish_reason(response)
            self.usage = _usage(response)
            self.usage_is_final = self.usage is not None
        return True

    def _read_odd_event(self, data: bytes) -> None:
        """An event of unknown shape: its bytes count as output; if it ended the response, usage is unknown."""
        if b'"error"' in data[:64]:
            self.error_seen = True
        elif b'"usage"' in data and not self._is_ending:
            self.usage = None
            self.usage_is_final = False
        self._count_output(len(data))


def _finish_reason(response: _Response) -> str | None:
    if response.incomplete_details is not None and response.incomplete_details.reason is not None:
        return response.incomplete_details.reason
    return response.status


def _usage(response: _Response) -> Usage | None:
    """The stated counts as one record; None if a total is missing, a count is absurd, or another model's."""
    stated = response.usage
    if stated is None or stated.input_tokens is None or stated.output_tokens is None:
        return None
    total_input, output = stated.input_tokens, stated.output_tokens
    if stated.total_tokens is not None:
        output = max(output, stated.total_tokens - total_input)
    details = stated.input_tokens_details or _InputDetails()
    cached, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    half_day = (details.cache_write_tokens_details or _WriteDetails()).ttl_12h_tokens or 0
    made = stated.output_tokens_details or _OutputDetails()
    reasoning = made.reasoning_tokens or 0
    if reasoning > output:
        output += reasoning
    counts = (total_input, output, cached, written, half_day, reasoning)
    media = (
        details.audio_tokens or 0,
        details.image_tokens or 0,
        made.audio_tokens or 0,
        made.image_tokens or 0,
    )
    if min(*counts, *media) < 0 or max(*counts, *media) > MAX_TOKENS:
        return None
    if cached > total_input or written > total_input or half_day > written:
        return None
    if media[0] + media[1] > total_input or media[2] + media[3] > output:
        return None
    tools = response.tool_usage or _ToolUsage()
    if tools.image_gen is not None and tools.image_gen.total_tokens:
        return None
    searches, files, containers = _tool_counts(response, tools)
    if not 0 <= searches <= MAX_TOKENS:
        return None
    return Usage(
        total_input,
        output,
        cache_read_input_tokens=min(cached, total_input - written),
        cache_creation_input_tokens=written,
        cache_creation_12h_input_tokens=half_day,
        reasoning_output_tokens=reasoning,
        web_search_requests=searches,
        file_search_requests=files,
        code_execution_requests=containers,
        input_audio_tokens=media[0],
        input_image_tokens=media[1],
        output_audio_tokens=media[2],
        output_image_tokens=media[3],
        model=response.model,
        service_tier=response.service_tier,
    )


def _tool_counts(response: _Response, tools: _ToolUsage) -> tuple[int, int, int]:
    """Web searches, file searches and containers."""
    searches = files = anonymous = 0
    containers: set[str] = set()
    for item in response.output or ():
        match item.type:
            case "web_search_call":
                # opening a page that was found, or finding a text in it, is not billed
                kind = item.action.get("type") if isinstance(item.action, dict) else None
                searches += kind in {None, "search"}
            case "file_search_call":
                files += 1
            case "code_interpreter_call":
                if item.container_id is None:
                    anonymous = 1
                else:
                    containers.add(item.container_id)
            case _:
                pass
    if tools.web_search is not None and tools.web_search.num_requests is not None:
        searches = tools.web_search.num_requests
    return searches, files, len(containers) or anonymous


def _output_bytes(body: bytes) -> int:
    """Bytes of the output as JSON, of a body without usage; the whole body if its shape is unknown."""
    try:
        return len(_decode_output(body).output)
    except (ValueError, RecursionError):
        return len(body)


def _read_odd_answer(body: bytes) -> Answer:
    try:
        is_error = _decode_output(body).error is not None
    except (ValueError, RecursionError):
        is_error = False
    return Answer(usage=None, is_error=is_error, output_bytes=0 if is_error else _output_bytes(body))
