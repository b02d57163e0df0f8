"""OpenAI's dialect, answers: usage from a body or a stream, as OpenAI, vLLM, SGLang and llama.cpp write it. No I/O.

*Output total.* OpenAI's `completion_tokens` includes reasoning. Some servers leave reasoning out (xAI, Gemini's
compatible endpoint) and show it only in `total_tokens` or in `reasoning_tokens`. So the output is the largest total
that the answer states: max(completion, total - prompt), plus reasoning where that alone exceeds it.

*Input classes.* Where cached and cache-written tokens overlap (`cache_write_tokens` is "unadjusted"), the cached part
is cut back: the dearer class wins, and the classes never exceed the total.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from outlay.wire.intent import Answer, Operation, Usage
from outlay.wire.stream import EventReader

_T = TypeVar("_T")

MAX_TOKENS: Final = 2**40
"""A count above this is no count; the usage is then unknown."""


class _CacheWriteDetails(msgspec.Struct, gc=False):
    ttl_12h_tokens: int | None = None


class _CacheCreationDetails(msgspec.Struct, gc=False):
    """Anthropic's split, as LiteLLM passes it on in OpenAI's shape."""

    ephemeral_1h_input_tokens: int | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _CacheWriteDetails | None = None
    cache_creation_token_details: _CacheCreationDetails | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _FinishedChoice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    model: str | None = None
    service_tier: str | None = None
    id: str | None = None
    choices: list[_FinishedChoice] | None = None
    error: Any = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None
    custom: Any = None


class _Delta(msgspec.Struct, gc=False):
    """What a chunk's `delta` or a body's `message` may hold of generated content."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    """Of a legacy completion, whole or in a stream."""
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    service_tier: str | None = None
    id: str | None = None
    error: Any = None


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_decode_anything: Final = msgspec.json.Decoder().decode


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises: garbage gives `Answer(usage=None)`."""
    decoded = _decode_or_none(_decode_body, body)
    if decoded is None:
        return _read_odd_answer(body)
    choices = decoded.choices
    usage = None
    if decoded.usage is not None:
        usage = _usage(decoded.usage, decoded.model, decoded.service_tier, operation is Operation.EMBEDDINGS)
    return Answer(
        usage=usage,
        response_id=decoded.id,
        finish_reason=choices[0].finish_reason if choices else None,
        is_error=decoded.error is not None,
        # only `counted` settlement asks for it, and that only without usage
        output_bytes=0 if usage is not None else _body_output_bytes(body),
    )


class ChatStream(EventReader):
    """Reads a chat completion stream.

    `strip_usage`: we, not the client, asked for usage; then the chunk with `choices: []` and usage is left out, as
    the client would not know it. A chunk with both choices and usage (vLLM's `continuous_usage_stats`, some servers'
    last chunk) is forwarded as it is: cutting content to hide a count would be worse. llama.cpp's `timings` go with
    the usage chunk. The last usage counts.
    """

    __slots__ = ()

    def __init__(self, strip_usage: bool) -> None:
        super().__init__(holds_back=strip_usage)

    def is_content_only(self, chunk: bytes) -> bool:
        """No usage that is not null, no finish, no error, no end; the first chunk brings the answer's id."""
        if self.response_id is None or b'"error"' in chunk or b"[DONE]" in chunk:
            return False
        usages = chunk.count(b'"usage"')
        if usages and usages != chunk.count(b'"usage":null'):
            return False
        return chunk.count(b'"finish_reason"') == chunk.count(b'"finish_reason":null')

    def read_data(self, data: bytes) -> bool:
        """Take one chunk; False for the usage-only chunk of a stream whose client did not ask for it."""
        if not data.startswith(b"{"):
            if data.strip() == b"[DONE]":
                self.is_done = True
                self.usage_is_final = self.usage is not None
            return True
        chunk = _decode_or_none(_decode_chunk, data)
        if chunk is None:
            self._read_odd_chunk(data)
            return True
        choices = chunk.choices
        if choices:
            for choice in choices:
                if choice.finish_reason is not None:
                    self.finish_reason = choice.finish_reason
                if choice.delta is not None:
                    self._count(choice.delta)
                elif choice.text:
                    self._count_output(len(choice.text.encode()))
        if self.response_id is None:
            self.response_id = chunk.id
        if chunk.error is not None:
            self.error_seen = True
        if chunk.usage is None:
            return True
        self.usage = _usage(chunk.usage, chunk.model, chunk.service_tier, False)
        # beside content it may be a running count, also after one of several choices has finished
        self.usage_is_final = not choices
        return bool(choices) or not self._holds_back or chunk.error is not None

    def _count(self, delta: _Delta) -> None:
        self._count_output(_delta_bytes(delta))

    def _read_odd_chunk(self, data: bytes) -> None:
        """A chunk of unknown shape: what usage it stated is unknown, and its bytes count as output."""
        if b'"error"' in data:
            self.error_seen = True
        elif b'"usage"' in data and not self._is_ending:
            self.usage = None
        self._count_output(len(data))


def _decode_or_none(decode: Callable[[bytes], _T], data: bytes) -> _T | None:
    try:
        return decode(data)
    except (ValueError, RecursionError):
        return None


def _usage(stated: _Usage, model: str | None, service_tier: str | None, is_input_only: bool) -> Usage | None:
    """The stated counts as one record; None if a total is missing or a count is absurd."""
    input_tokens, output_tokens = stated.prompt_tokens, stated.completion_tokens
    if input_tokens is None:
        return None
    if output_tokens is None:
        if not is_input_only:
            return None
        output_tokens = 0
    if not 0 <= input_tokens <= MAX_TOKENS or not 0 <= output_tokens <= MAX_TOKENS:
        return None
    total = stated.total_tokens
    if total is not None and not is_input_only and total - input_tokens > output_tokens:
        output_tokens = total - input_tokens
        if output_tokens > MAX_TOKENS:
            return None
    prompt, completion = stated.prompt_tokens_details, stated.completion_tokens_details
    if prompt is None and completion is None:
        return Usage(input_tokens, output_tokens, model=model, service_tier=service_tier)
    cached = written = written_1h = written_12h = reasoning = heard = spoken = 0
    if completion is not None:
        reasoning = completion.reasoning_tokens or 0
        spoken = completion.audio_tokens or 0
        if not 0 <= reasoning <= MAX_TOKENS or not 0 <= spoken <= output_tokens:
            return None
        if reasoning > output_tokens:
            output_tokens += reasoning
    if prompt is not None:
        cached, written = prompt.cached_tokens or 0, prompt.cache_write_tokens or 0
        details = prompt.cache_write_tokens_details
        written_12h = (details.ttl_12h_tokens or 0) if details is not None else 0
        creation = prompt.cache_creation_token_details
        written_1h = (creation.ephemeral_1h_input_tokens or 0) if creation is not None else 0
        heard = prompt.audio_tokens or 0
        if not 0 <= written_1h <= written - written_12h:
            return None
        if not 0 <= heard <= input_tokens or cached < 0 or written_12h < 0 or written < 0:
            return None
        if cached > input_tokens or written > input_tokens or written_12h > written:
            return None
        cached = min(cached, input_tokens - written)
    return Usage(
        input_tokens,
        output_tokens,
        cache_read_input_tokens=cached,
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=written_1h,
        cache_creation_12h_input_tokens=written_12h,
        reasoning_output_tokens=reasoning,
        input_audio_tokens=heard,
        output_audio_tokens=spoken,
        model=model,
        service_tier=service_tier,
    )


def _delta_bytes(delta: _Delta) -> int:
    """UTF-8 bytes of the generated content in a delta or message."""
    content = delta.content
    size = 0
    if content:
        size = len(content) if content.isascii() else len(content.encode())
    for text in (delta.reasoning_content, delta.refusal):
        if text:
            size += len(text.encode())
    if (
        delta.reasoning and delta.reasoning != delta.reasoning_content
    ):  # some servers send it under both names
        size += len(delta.reasoning.encode())
    if delta.function_call is not None:
        size += _function_bytes(delta.function_call)
    for call in delta.tool_calls or ():
        if call.function is not None:
            size += _function_bytes(call.function)
        if call.custom is not None:
            size += len(msgspec.json.encode(call.custom))
    return size


def _function_bytes(function: _Function) -> int:
    return len((function.name or "").encode()) + len((function.arguments or "").encode())


def _body_output_bytes(body: bytes) -> int:
    """UTF-8 bytes generated, of a body without usage; the whole body if its shape is unknown."""
    decoded = _decode_or_none(_decode_chunk, body)
    if decoded is None:
        return len(body)
    return sum(
        len((c.text or "").encode()) if c.message is None else _delta_bytes(c.message)
        for c in decoded.choices or ()
    )


def _read_odd_answer(body: bytes) -> Answer:
    """A body that is not a completion: perhaps an error of another shape, else garbage."""
    decoded = _decode_or_none(_decode_anything, body)
    is_error = isinstance(decoded, dict) and decoded.get("error") is not None
    return Answer(usage=None, is_error=is_error, output_bytes=0 if is_error else _body_output_bytes(body))
