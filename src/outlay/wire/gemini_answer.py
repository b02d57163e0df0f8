"""Google's dialect, answers: usage from a body or a stream of the Gemini API. No I/O.

`promptTokenCount` holds the cached tokens and the whole prompt, but not what tools brought (`toolUsePromptTokenCount`),
which is billed as input; thinking is apart from the candidates and is billed as output. In a stream each chunk states
the usage so far: the last one counts. A grounded answer costs one search (models before Gemini 3) or one for each
query; an answer that used maps one unit `google_maps`. https://ai.google.dev/gemini-api/docs/pricing.
"""

from typing import Any, Final

import msgspec

from outlay.wire.intent import Answer, Operation, Units, Usage
from outlay.wire.stream import EventReader

MAX_TOKENS: Final = 2**40
"""A count above this is no count; the usage is then unknown."""
_OLD_MODELS: Final = ("gemini-1", "gemini-2", "gemini-pro", "gemini-flash-1")
_TIERS: Final = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "STANDARD": "standard",
    "PRIORITY": "priority",
    "FLEX": "flex",
    "UNSPECIFIED": None,
    "SERVICE_TIER_UNSPECIFIED": None,
    "TRAFFIC_TYPE_UNSPECIFIED": None,
}


class _Share(msgspec.Struct, gc=False, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class _Usage(msgspec.Struct, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    response_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None
    prompt_tokens_details: list[_Share] | None = None
    tool_use_prompt_tokens_details: list[_Share] | None = None
    cache_tokens_details: list[_Share] | None = None
    candidates_tokens_details: list[_Share] | None = None
    response_tokens_details: list[_Share] | None = None
    service_tier: str | None = None
    traffic_type: str | None = None


class _Blob(msgspec.Struct, gc=False):
    data: str | None = None


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    inline_data: _Blob | None = None
    function_call: Any = None
    executable_code: Any = None
    code_execution_result: Any = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Chunk(msgspec.Struct, gc=False):
    maps: Any = None


class _Grounding(msgspec.Struct, gc=False, rename="camel"):
    web_search_queries: list[str] | None = None
    image_search_queries: list[str] | None = None
    grounding_chunks: list[_Chunk] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    grounding_metadata: _Grounding | None = None


class _Answer(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None
    total_tokens: int | None = None
    """Of a `countTokens` answer."""


class _Searches:
    """Queries and places that ground an answer; chunks of a stream may repeat them."""

    __slots__ = ("queries", "uses_maps")

    def __init__(self) -> None:
        self.queries: dict[str, int] = {}
        self.uses_maps = False

    def read(self, candidates: list[_Candidate]) -> None:
        seen: dict[str, int] = {}
        for candidate in candidates:
            grounding = candidate.grounding_metadata
            if grounding is None:
                continue
            for query in (*(grounding.web_search_queries or ()), *(grounding.image_search_queries or ())):
                seen[query] = seen.get(query, 0) + 1
            self.uses_maps = self.uses_maps or any(
                chunk.maps is not None for chunk in grounding.grounding_chunks or ()
            )
        for query, count in seen.items():
            self.queries[query] = max(self.queries.get(query, 0), count)

    def count(self, model: str | None) -> int:
        """Searches that are billed. An empty query is not."""
        asked = sum(count for query, count in self.queries.items() if query)
        return asked if is_priced_by_query(model or "") else min(asked, 1)


_decode: Final = msgspec.json.Decoder(_Answer, strict=False).decode
_decode_list: Final = msgspec.json.Decoder(list[_Answer], strict=False).decode


def is_priced_by_query(model: str) -> bool:
    """Whether Google Search is billed for each query (Gemini 3 and later), not once for each grounded prompt."""
    return not model.startswith(_OLD_MODELS)


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises: garbage gives `Answer(usage=None)`.

    `streamGenerateContent` without `alt=sse` answers with one array of chunks, which is read as the stream it is.
    """
    try:
        chunks = _decode_list(body) if body.lstrip()[:1] == b"[" else [_decode(body)]
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"error"' in body[:64], output_bytes=len(body))
    searches = _Searches()
    answer = Answer(usage=None)
    stated: _Usage | None = None
    model = response_id = finish = None
    size = 0
    for chunk in chunks:
        if chunk.error is not None:
            answer = Answer(usage=None, is_error=True)
        if operation is Operation.COUNT_TOKENS:
            return Answer(usage=None if chunk.total_tokens is None else Usage(0, 0))
        searches.read(chunk.candidates or [])
        stated = chunk.usage_metadata or stated
        model, response_id = chunk.model_version or model, chunk.response_id or response_id
        for candidate in chunk.candidates or ():
            finish = candidate.finish_reason or finish
            size += _content_bytes(candidate)
    if answer.is_error:
        return answer
    usage = None
    if stated is not None:
        usage = _usage(stated, model, searches, is_input_only=operation is Operation.EMBED_CONTENT)
    return Answer(
        usage=usage,
        response_id=response_id,
        finish_reason=finish,
        output_bytes=0 if usage is not None else size,
    )


class GenerateStream(EventReader):
    """Reads a `streamGenerateContent?alt=sse` stream; every byte is forwarded at once.

    The dialect has no end mark: the stream is whole once a chunk has stated a finish reason (or that the prompt was
    blocked) together with usage, and then closes.
    """

    __slots__ = ("_model", "_searches", "_stated")

    def __init__(self) -> None:
        super().__init__(holds_back=False)
        self._stated: _Usage | None = None
        self._model: str | None = None
        self._searches = _Searches()

    def read_data(self, data: bytes) -> bool:
        """Take one chunk."""
        if not data.startswith(b"{"):
            return True
        try:
            chunk = _decode(data)
        except (ValueError, RecursionError):
            self._read_odd_chunk(data)
            return True
        if chunk.error is not None:
            self.error_seen = True
        self.response_id = self.response_id or chunk.response_id
        self._model = chunk.model_version or self._model
        if chunk.candidates:
            self._searches.read(chunk.candidates)
            for candidate in chunk.candidates:
                self.finish_reason = candidate.finish_reason or self.finish_reason
                self._count_output(_content_bytes(candidate))
        if chunk.usage_metadata is not None:
            self._stated = chunk.usage_metadata
        if self._stated is not None:
            self.usage = _usage(self._stated, self._model, self._searches, is_input_only=False)
        is_ended = self.finish_reason is not None or chunk.prompt_feedback is not None
        if is_ended and chunk.usage_metadata is not None:
            self.is_done = True
            self.usage_is_final = self.usage is not None
        return True

    def _read_odd_chunk(self, data: bytes) -> None:
        """A chunk of unknown shape: what usage it stated is unknown, and its bytes count as output."""
        if b'"error"' in data[:64]:
            self.error_seen = True
        elif b'"usageMetadata"' in data and not self._is_ending:
            self._stated = self.usage = None
            self.usage_is_final = False
        self._count_output(len(data))


def _content_bytes(candidate: _Candidate) -> int:
    """UTF-8 bytes generated, in one candidate; media by its bytes as text."""
    size = 0
    for part in (candidate.content.parts if candidate.content is not None else None) or ():
        if part.text:
            size += len(part.text.encode())
        if part.inline_data is not None and part.inline_data.data:
            size += len(part.inline_data.data)
        for value in (part.function_call, part.executable_code, part.code_execution_result):
            if value is not None:
                size += len(msgspec.json.encode(value))
    return size


def _usage(stated: _Usage, model: str | None, searches: _Searches, *, is_input_only: bool) -> Usage | None:
    """The stated counts as one record; None if a total is missing or a count is absurd."""
    prompt = stated.prompt_token_count
    if prompt is None and not (is_input_only and stated.total_token_count):
        # Google leaves out what is zero, but a prompt never is
        return None
    prompt, tools = prompt or 0, stated.tool_use_prompt_token_count or 0
    thoughts, cached = stated.thoughts_token_count or 0, stated.cached_content_token_count or 0
    total_input = prompt + tools
    output = (stated.candidates_token_count or stated.response_token_count or 0) + thoughts
    total = stated.total_token_count or 0
    if not is_input_only:
        output = max(output, total - total_input)
    elif total > total_input:
        total_input = total
    taken = _shares(stated.prompt_tokens_details, stated.tool_use_prompt_tokens_details)
    read = _shares(stated.cache_tokens_details)
    made = _shares(stated.candidates_tokens_details, stated.response_tokens_details)
    counts = (total_input, output, prompt, tools, thoughts, cached, *taken.values(), *read.values())
    if min(*counts, *made.values(), 0) < 0 or max(*counts, *made.values(), 0) > MAX_TOKENS:
        return None
    media_in = {kind: taken.get(kind, 0) for kind in ("AUDIO", "IMAGE", "VIDEO")}
    audio_out, image_out = made.get("AUDIO", 0), made.get("IMAGE", 0)
    if made.get("VIDEO") or sum(media_in.values()) > total_input or audio_out + image_out > output:
        return None
    if cached > total_input or thoughts > output:
        return None
    tier = stated.service_tier or stated.traffic_type
    return Usage(
        total_input,
        output,
        cache_read_input_tokens=cached,
        reasoning_output_tokens=thoughts,
        web_search_requests=searches.count(model),
        input_audio_tokens=media_in["AUDIO"],
        input_image_tokens=media_in["IMAGE"],
        input_video_tokens=media_in["VIDEO"],
        cache_read_audio_tokens=min(read.get("AUDIO", 0), cached, media_in["AUDIO"]),
        cache_read_image_tokens=min(read.get("IMAGE", 0), cached, media_in["IMAGE"]),
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
        units=(Units("google_maps", 1),) if searches.uses_maps else (),
        model=model,
        service_tier=None if tier is None else _TIERS.get(tier.upper(), tier.lower()),
    )


def _shares(*lists: list[_Share] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for shares in lists:
        for share in shares or ():
            name = (share.modality or "").upper()
            found[name] = found.get(name, 0) + (share.token_count or 0)
    return found
