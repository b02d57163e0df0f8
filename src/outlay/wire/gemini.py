"""Google's dialect, requests: `generateContent`, `embedContent` and `countTokens` of the Gemini API.

Bytes -> `CallIntent`, or `Rejection` for what cannot be bounded. No I/O, no prices; the model stands in the path.

*Two spellings.* Google reads each field in camelCase and in snake_case. Either is read here; a field of money that is
given in both is refused, since only Google knows which one wins.

*Input bound.* UTF-8 bytes of the body, as in `wire.openai`; an inline image counts `IMAGE_TOKENS` instead of its bytes.
Inline audio, video and documents have no bound by their bytes, and files, cached contents and addresses are not in the
body: they set `has_referenced_input`. *Tokens of an image*: Gemini 3 at most 2240 (media resolution ultra high);
Gemini 2 258 for each tile of 256 to 768 pixels of an image of at most 3072 x 3072, at most 12 x 2 (+ 1 each for
rounding) tiles. https://ai.google.dev/gemini-api/docs/image-understanding
(not checked against the page).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    MAX_COUNT,
    Fields,
    decode_or_refuse,
    is_null,
    read_fields,
    refuse_count,
    refuse_model,
    refuse_nested_duplicate,
    refuse_tier,
)
from outlay.wire.gemini_answer import GenerateStream, is_priced_by_query, read_answer
from outlay.wire.intent import CallIntent, Dialect, HostedTool, Modality, Operation, Rejection
from outlay.wire.media import Media

__all__ = ["GenerateStream", "parse_count_tokens", "parse_embed_content", "parse_generate", "read_answer"]

GENERATE_OVERHEAD_TOKENS: Final = 128
TOOLS_OVERHEAD_TOKENS: Final = 1024
IMAGE_TOKENS: Final = 13 * 3 * 258
MAX_CANDIDATES: Final = 8
"""Largest `candidateCount`, Google's own limit."""
OUTPUT_LIMIT_FIELD: Final = "generationConfig.maxOutputTokens"
MAX_EMBEDDINGS: Final = 1000
"""Requests in one `batchEmbedContents`; Google takes 100."""

_SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "contents": "contents",
        "content": "content",
        "requests": "requests",
        "tools": "tools",
        "labels": "labels",
        "model": "model",
        "store": "store",
        "title": "title",
        "systemInstruction": "system_instruction",
        "generationConfig": "generation_config",
        "generateContentRequest": "generate_content_request",
        "cachedContent": "cached_content",
        "safetySettings": "safety_settings",
        "toolConfig": "tool_config",
        "serviceTier": "service_tier",
        "taskType": "task_type",
        "outputDimensionality": "output_dimensionality",
        "embedContentConfig": "embed_content_config",
        "modelArmorConfig": "model_armor_config",
        "maxOutputTokens": "max_output_tokens",
        "candidateCount": "candidate_count",
        "responseModalities": "response_modalities",
    }
)
"""camelCase -> snake_case of every field that matters here."""
_CAMEL: Final[Mapping[str, str]] = MappingProxyType(
    {snake: camel for camel, snake in _SPELLINGS.items()} | {camel: camel for camel in _SPELLINGS}
)
_FOLDED: Final[Mapping[str, str]] = MappingProxyType({camel.casefold(): camel for camel in _SPELLINGS})
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "modelSelectionConfig": "lets other models answer; name one in the path",
        "model_selection_config": "lets other models answer; name one in the path",
        "routingConfig": "lets other models answer; name one in the path",
        "routing_config": "lets other models answer; name one in the path",
        "automaticContinuation": "generates beyond the output limit; leave it out",
        "automatic_continuation": "generates beyond the output limit; leave it out",
    }
)
_CLIENT_TOOLS: Final = frozenset({"functiondeclarations", "computeruse"})
_HOSTED_TOOLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "googlesearch": "web_search",
        "googlesearchretrieval": "web_search",
        "urlcontext": "url_context",
        "codeexecution": "code_execution",
        "googlemaps": "google_maps",
        "filesearch": "file_search",
    }
)
"""Tool -> the price book's name. Only searches and maps have a fee."""
_PER_PROMPT: Final = frozenset({"google_maps"})
_TELLING: Final = (
    b"nline",
    b"ile_data",
    b"ileData",
    b"earch",
    b"aps",
    b"ontext",
    b"maxOutputTokens",
    b"max_output_tokens",
    b"andidate",
    b"odalities",
)
"""What a part, tool or limit that costs more than its bytes would mention."""
_IMAGE: Final = "image/"
_KINDS: Final[Mapping[str, Modality]] = MappingProxyType(
    {"audio": Modality.AUDIO, "video": Modality.VIDEO, "image": Modality.IMAGE, "application": Modality.IMAGE}
)


class _Blob(msgspec.Struct, gc=False):
    data: str = ""
    mime_type: str | None = None
    mimeType: str | None = None


class _FileData(msgspec.Struct, gc=False):
    mime_type: str | None = None
    mimeType: str | None = None


class _FunctionResponse(msgspec.Struct, gc=False):
    parts: "list[_Part] | None" = None


class _Part(msgspec.Struct, gc=False):
    inline_data: _Blob | None = None
    inlineData: _Blob | None = None
    file_data: _FileData | None = None
    fileData: _FileData | None = None
    function_response: _FunctionResponse | None = None
    functionResponse: _FunctionResponse | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | _Part | None = None


class _Config(msgspec.Struct, gc=False, rename="camel"):
    max_output_tokens: int | str | None = None
    candidate_count: int | str | None = None
    response_modalities: list[str] | str | None = None


class _EmbedRequest(msgspec.Struct, gc=False):
    model: str | None = None
    content: _Content | None = None


_Contents = list[_Content] | _Content | str
_Tools = list[dict[str, Any]] | dict[str, Any]
_decode_contents: Final = msgspec.json.Decoder(_Contents).decode
_decode_system: Final = msgspec.json.Decoder(_Content | str).decode
_decode_tools: Final = msgspec.json.Decoder(_Tools).decode
_decode_config: Final = msgspec.json.Decoder(_Config).decode
_decode_embeds: Final = msgspec.json.Decoder(list[_EmbedRequest]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


def parse_generate(body: bytes, *, model: str, stream: bool) -> CallIntent | Rejection:
    """The money side of `generateContent` (or `streamGenerateContent`). Never raises.

    `model` as in the path (`models/` may stand before it). Thinking counts towards the output limit.
    """
    fields = _read(body, ("contents",))
    if isinstance(fields, Rejection):
        return fields
    model = _bare(model)
    media = Media()
    refused = refuse_model(model) or _read_contents(fields, media)
    if refused is not None:
        return refused
    if not is_null(fields.get("cachedContent")):
        media.add_reference(*Modality)  # what was cached may be anything
    config = _read_config(fields)
    if isinstance(config, Rejection):
        return config
    limit, choices, outputs = config
    hosted = _read_tools(fields.get("tools"), model)
    if isinstance(hosted, Rejection):
        return hosted
    tier = _text_of(fields.get("serviceTier"))
    if isinstance(tier, Rejection):
        return tier
    refused = refuse_tier(tier) or refuse_nested_duplicate(body, _TELLING)
    if refused is not None:
        return refused
    has_tools = not is_null(fields.get("tools"))
    return CallIntent(
        dialect=Dialect.GOOGLE,
        operation=Operation.GENERATE,
        model=model,
        input_tokens_bound=len(body)
        + GENERATE_OVERHEAD_TOKENS
        + (TOOLS_OVERHEAD_TOKENS if has_tools else 0)
        + media.tokens(IMAGE_TOKENS),
        max_output_tokens=limit,
        output_limit_field=OUTPUT_LIMIT_FIELD,
        choices=choices,
        stream=stream,
        wants_stream_usage=stream,
        service_tier=tier,
        hosted_tools=hosted,
        has_referenced_input=media.is_referenced,
        input_modalities=media.kinds(),
        output_modalities=outputs,
    )


def parse_embed_content(body: bytes, *, model: str) -> CallIntent | Rejection:
    """The money side of `embedContent` and `batchEmbedContents`. Never raises."""
    fields = _read(body, ())
    if isinstance(fields, Rejection):
        return fields
    model = _bare(model)
    refused = refuse_model(model)
    if refused is not None:
        return refused
    if "requests" in fields:
        requests = decode_or_refuse(_decode_embeds, bytes(fields["requests"]))
    else:
        content = decode_or_refuse(_decode_system, bytes(fields.get("content", b"null")))
        if isinstance(content, Rejection):
            return content
        named = _text_of(fields.get("model"))
        if isinstance(named, Rejection):
            return named
        requests = [_EmbedRequest(named, None if isinstance(content, str) else content)]
    if isinstance(requests, Rejection):
        return requests
    if len(requests) > MAX_EMBEDDINGS:
        return Rejection(
            422, "too_many", f"`requests` has more than {MAX_EMBEDDINGS} embeddings; send fewer", "requests"
        )
    media = Media()
    for request in requests:
        if request.model is not None and _bare(request.model) != model:
            return Rejection(
                422, "unsupported_field", "`model` differs from the model in the path; name one", "model"
            )
        if request.content is not None:
            refused = _read_content(request.content, media)
            if refused is not None:
                return refused
    refused = refuse_nested_duplicate(body, _TELLING)
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.GOOGLE,
        operation=Operation.EMBED_CONTENT,
        model=model,
        input_tokens_bound=len(body) + GENERATE_OVERHEAD_TOKENS + media.tokens(IMAGE_TOKENS),
        max_output_tokens=0,
        output_limit_field=None,
        has_referenced_input=media.is_referenced,
        input_modalities=media.kinds(),
    )


def parse_count_tokens(body: bytes, *, model: str) -> CallIntent | Rejection:
    """A free call: nothing but the model is read, and any content may be counted."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    model = _bare(model)
    refused = refuse_model(model)
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.GOOGLE,
        operation=Operation.COUNT_TOKENS,
        model=model,
        input_tokens_bound=len(body) + GENERATE_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS,
        max_output_tokens=0,
        output_limit_field=None,
    )


def _bare(model: str) -> str:
    return model.removeprefix("models/")


def _read(body: bytes, required: tuple[str, ...]) -> Fields | Rejection:
    """The body's fields by camelCase name, each read once."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    read = _one_spelling(fields)
    if isinstance(read, Rejection):
        return read
    for name in required:
        if name not in read:
            return Rejection(400, "missing_field", f"`{name}` is missing", name)
    return read


def _one_spelling(fields: Fields) -> Fields | Rejection:
    read: Fields = {}
    for name, value in fields.items():
        if name in _REFUSED and not is_null(value):
            return Rejection(422, "unsupported_field", f"`{name}` {_REFUSED[name]}", name)
        camel = _CAMEL.get(name, name)
        if camel in read:
            return Rejection(
                422, "duplicate_field", f"`{camel}` is given in two spellings; send it once", camel
            )
        read[camel] = value
        known = _FOLDED.get(name.replace("_", "").casefold())
        if known is not None and name not in _CAMEL:
            return Rejection(
                422,
                "duplicate_field",
                f"`{name[:64]}` is an odd spelling of `{known}`; write `{known}`",
                known,
            )
    return read


def _read_contents(fields: Fields, media: Media) -> Rejection | None:
    for name, decode in (("contents", _decode_contents), ("systemInstruction", _decode_system)):
        raw = fields.get(name)
        if raw is None or is_null(raw):
            continue
        read = decode_or_refuse(decode, bytes(raw))
        if isinstance(read, Rejection):
            return read
        for content in read if isinstance(read, list) else (read,):
            refused = None if isinstance(content, str) else _read_content(content, media)
            if refused is not None:
                return refused
    return None


def _read_content(content: _Content, media: Media) -> Rejection | None:
    parts = content.parts
    if parts is None:
        return None
    for part in parts if isinstance(parts, list) else (parts,):
        refused = _read_part(part, media)
        if refused is not None:
            return refused
    return None


def _read_part(part: _Part, media: Media) -> Rejection | None:
    if (
        (part.inline_data is not None and part.inlineData is not None)
        or (part.file_data is not None and part.fileData is not None)
        or (part.function_response is not None and part.functionResponse is not None)
    ):
        return Rejection(422, "duplicate_field", "a part has a field in two spellings; send it once")
    blob, file = part.inlineData or part.inline_data, part.fileData or part.file_data
    if blob is not None:
        kind = blob.mimeType or blob.mime_type or ""
        if kind.startswith(_IMAGE):
            media.add_image(len(blob.data) if blob.data.isascii() else 0)
        else:
            media.add_reference(*(() if kind.startswith("text/") else _kinds(kind)))
    if file is not None:
        media.add_reference(*_kinds(file.mimeType or file.mime_type or ""))
    response = part.functionResponse or part.function_response
    for inner in (response.parts if response is not None else None) or ():
        refused = _read_part(inner, media)
        if refused is not None:
            return refused
    return None


def _kinds(mime_type: str) -> tuple[Modality, ...]:
    """Modalities that a file of this type may be billed as; any, if the type does not tell. Videos have sound."""
    kind = _KINDS.get(mime_type.partition("/")[0].lower())
    if kind is None:
        return tuple(Modality)
    return (Modality.VIDEO, Modality.AUDIO) if kind is Modality.VIDEO else (kind,)


def _read_config(fields: Fields) -> tuple[int | None, int, tuple[Modality, ...]] | Rejection:
    """Output limit, candidates and modalities of the output."""
    raw = fields.get("generationConfig")
    if raw is None or is_null(raw):
        return None, 1, ()
    inner = read_fields(bytes(raw))
    if not isinstance(inner, Rejection):
        inner = _one_spelling(inner)
    if isinstance(inner, Rejection):
        return inner
    config = decode_or_refuse(_decode_config, msgspec.json.encode(inner))
    if isinstance(config, Rejection):
        return config
    limit = _count(config.max_output_tokens, OUTPUT_LIMIT_FIELD, MAX_COUNT)
    choices = _count(config.candidate_count, "generationConfig.candidateCount", MAX_CANDIDATES)
    if isinstance(limit, Rejection):
        return limit
    if isinstance(choices, Rejection):
        return choices
    wanted = config.response_modalities or ()
    outputs: set[Modality] = set()
    for name in (wanted,) if isinstance(wanted, str) else wanted:
        kind = name.lower()
        if kind in {Modality.AUDIO, Modality.IMAGE, Modality.VIDEO}:
            outputs.add(Modality(kind))
        elif kind not in {"text", "modality_unspecified"}:
            return Rejection(
                422,
                "unsupported_modality",
                f"`generationConfig.responseModalities`: `{name[:64]}` is not known",
                "generationConfig.responseModalities",
            )
    return limit, 1 if choices is None else choices, tuple(sorted(outputs))


def _count(value: int | str | None, name: str, most: int) -> int | Rejection | None:
    """A number, which Google also reads from text."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) < len(str(MAX_COUNT)) + 1):
            return Rejection(400, "invalid_value", f"`{name}` must be a whole number", name)
        value = int(value)
    return refuse_count(name, value, 1, most) or value


def _text_of(raw: msgspec.Raw | None) -> str | Rejection | None:
    if raw is None or is_null(raw):
        return None
    return decode_or_refuse(_decode_text, bytes(raw))


def _read_tools(raw: msgspec.Raw | None, model: str) -> tuple[HostedTool, ...] | Rejection:
    """Tools that Google runs. Searches are billed by query (Gemini 3 on) or once a prompt."""
    if raw is None or is_null(raw):
        return ()
    tools = decode_or_refuse(_decode_tools, bytes(raw))
    if isinstance(tools, Rejection):
        return tools
    hosted: dict[str, HostedTool] = {}
    for tool in tools if isinstance(tools, list) else (tools,):
        for name, value in tool.items():
            kind = name.replace("_", "").lower()
            if value is None or kind in _CLIENT_TOOLS:
                continue
            found = _HOSTED_TOOLS.get(kind)
            if found is None:
                return Rejection(
                    422,
                    "unsupported_tool",
                    f"`tools`: `{name[:64]}` is not known and may bring input or cost without bound",
                    "tools",
                )
            is_once = found in _PER_PROMPT or not is_priced_by_query(model)
            hosted[found] = HostedTool(found, 1 if is_once else None)
    return tuple(hosted.values())
