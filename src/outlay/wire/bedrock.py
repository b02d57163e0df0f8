"""Amazon Bedrock's dialect, requests: `Converse`, `ConverseStream`, `InvokeModel` and its stream. No I/O, no prices.

The model stands in the path. Converse has one shape for all models; the body of InvokeModel is each vendor's own, of
which are read: Anthropic's messages (by their own parser), Amazon's Nova (as Converse), Titan and Cohere embeddings.
The input bound is that of `wire.openai`. An image counts `wire.anthropic`'s maximum for Claude, else the largest of
`wire.openai_terms`; documents, video, audio and what lies in S3 set `has_referenced_input`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.anthropic import IMAGE_TOKENS as CLAUDE_IMAGE_TOKENS
from outlay.wire.anthropic import parse_messages
from outlay.wire.bedrock_answer import ConverseStream, InvokeStream, read_answer, usage_of_headers
from outlay.wire.body import insert_field
from outlay.wire.fields import (
    Fields,
    decode_or_refuse,
    find_case_variant,
    has_escaped_ascii,
    is_null,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
    refuse_nested_duplicate,
)
from outlay.wire.intent import CacheWrite, CallIntent, Dialect, Modality, Operation, Rejection
from outlay.wire.media import Media
from outlay.wire.openai_terms import IMAGE_TOKENS

__all__ = [
    "ConverseStream",
    "InvokeStream",
    "base_model",
    "parse_converse",
    "parse_invoke",
    "read_answer",
    "usage_of_headers",
]

OVERHEAD_TOKENS: Final = 128
TOOLS_OVERHEAD_TOKENS: Final = 1024
LIMIT_FIELD: Final = "inferenceConfig.maxTokens"
_NOVA_LIMIT_FIELD: Final = "inferenceConfig.max_new_tokens"

_FIELDS: Final = frozenset(
    [
        "messages",
        "system",
        "inferenceConfig",
        "toolConfig",
        "serviceTier",
        "performanceConfig",
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "outputConfig",
        "requestMetadata",
        "schemaVersion",
        "guardrailConfig",
        "promptVariables",
    ]
)
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "guardrailConfig": "is billed apart, by units that usage does not show; leave it out",
        "promptVariables": "belongs to a stored prompt, which has no bound; send the messages themselves",
    }
)
_SAFE_EXTRAS: Final = frozenset(
    ["thinking", "reasoning_config", "reasoningConfig", "top_k", "topK", "output_config", "anthropic_beta"]
)
"""Model fields that change neither limits nor what is billed."""
_TEXT_BLOCKS: Final = frozenset(
    [
        "text",
        "toolUse",
        "reasoningContent",
        "citationsContent",
        "searchResult",
        "json",
        "cachePoint",
        "status",
    ]
)
_MEDIA_BLOCKS: Final[Mapping[str, tuple[Modality, ...]]] = MappingProxyType(
    {
        "document": (Modality.IMAGE,),
        "video": (Modality.VIDEO, Modality.AUDIO),
        "audio": (Modality.AUDIO,),
    }
)
_TELLING: Final = (
    b'"image"',
    b'"document"',
    b'"video"',
    b'"audio"',
    b"okens",
    b'"systemTool"',
    b"s3Location",
)
"""What a block, tool or limit that costs other than its bytes would mention."""

_Block = dict[str, Any]


class _Message(msgspec.Struct, gc=False):
    content: list[_Block] | None = None


class _Inference(msgspec.Struct, gc=False):
    maxTokens: int | None = None
    max_new_tokens: int | None = None


class _Tools(msgspec.Struct, gc=False):
    tools: list[dict[str, Any]] | None = None


class _Tier(msgspec.Struct, gc=False):
    type: str | None = None


class _Performance(msgspec.Struct, gc=False):
    latency: str | None = None


class _Converse(msgspec.Struct, gc=False):
    messages: list[_Message]
    system: list[_Block] | None = None
    inferenceConfig: _Inference | None = None
    toolConfig: _Tools | None = None
    serviceTier: _Tier | None = None
    performanceConfig: _Performance | None = None
    additionalModelRequestFields: dict[str, Any] | None = None


class _Embedding(msgspec.Struct, gc=False):
    inputText: str | None = None
    texts: list[str] | None = None


_decode_converse: Final = msgspec.json.Decoder(_Converse).decode
_decode_embedding: Final = msgspec.json.Decoder(_Embedding).decode


def base_model(model: str) -> str:
    """The id or profile that an ARN names, which is what has a price; any other model as it is."""
    return model.rpartition("/")[2] if model.startswith("arn:") else model


def parse_converse(body: bytes, *, model: str, stream: bool) -> CallIntent | Rejection:
    """The money side of `Converse`. Never raises. `model` is the id, profile or ARN of the path, unescaped."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    return _converse(body, fields, base_model(model), Operation.CONVERSE, stream=stream)


def parse_invoke(body: bytes, *, model: str, stream: bool) -> CallIntent | Rejection:
    """The money side of `InvokeModel`. Never raises; a body of a vendor that is not read here is refused."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    model = base_model(model)
    refused = refuse_model(model)
    if refused is not None:
        return refused
    if "anthropic_version" in fields:
        return _invoke_claude(body, fields, model, stream=stream)
    if "amazon.nova" in model and "messages" in fields:
        return _converse(body, fields, model, Operation.INVOKE, stream=stream)
    if ("titan-embed" in model and "inputText" in fields) or ("cohere.embed" in model and "texts" in fields):
        return _embedding(body, fields, model)
    return Rejection(
        422,
        "unsupported_model",
        "InvokeModel is metered for Anthropic, Nova, Titan and Cohere embeddings; use Converse for others",
    )


def _converse(
    body: bytes, fields: Fields, model: str, operation: Operation, *, stream: bool
) -> CallIntent | Rejection:
    refused = refuse_model(model) or refuse_missing(fields, ("messages",))
    if refused is None:
        refused = find_case_variant(fields, _FIELDS) or _refuse_folded(fields)
    if refused is not None:
        return refused
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]):
            return Rejection(422, "unsupported_field", f"`{name}` {_REFUSED[name]}", name)
    asked = decode_or_refuse(_decode_converse, body)
    if isinstance(asked, Rejection):
        return asked
    inference = asked.inferenceConfig or _Inference()
    media = Media()
    refused = (
        _refuse_terms(asked, inference)
        or _read_blocks(asked.system, media)
        or _read_messages(asked.messages, media)
        or refuse_nested_duplicate(body, _TELLING)
    )
    if refused is not None:
        return refused
    is_nova_limit = inference.max_new_tokens is not None
    limit = inference.max_new_tokens if is_nova_limit else inference.maxTokens
    image_tokens = CLAUDE_IMAGE_TOKENS if "anthropic." in model else IMAGE_TOKENS
    has_tools = asked.toolConfig is not None
    tier = None if asked.serviceTier is None else asked.serviceTier.type
    return CallIntent(
        dialect=Dialect.BEDROCK,
        operation=operation,
        model=model,
        input_tokens_bound=len(body)
        + OVERHEAD_TOKENS
        + (TOOLS_OVERHEAD_TOKENS if has_tools else 0)
        + media.tokens(image_tokens),
        max_output_tokens=limit,
        output_limit_field=_NOVA_LIMIT_FIELD if is_nova_limit else LIMIT_FIELD,
        stream=stream,
        wants_stream_usage=stream,
        service_tier=tier,
        cache_write=_cache_write(body),
        has_referenced_input=media.is_referenced,
        input_modalities=media.kinds(),
    )


def _refuse_folded(fields: Fields) -> Rejection | None:
    """The API's names have capitals, so they are compared without regard to case."""
    known = {name.casefold(): name for name in _FIELDS}
    for name in fields:
        meant = known.get(name.casefold())
        if meant is not None and meant != name:
            return Rejection(
                422, "duplicate_field", f"`{name[:64]}` differs from `{meant}` only in case", meant
            )
    return None


def _refuse_terms(asked: _Converse, inference: _Inference) -> Rejection | None:
    if inference.maxTokens is not None and inference.max_new_tokens is not None:
        return Rejection(
            422, "ambiguous_limit", "`maxTokens` and `max_new_tokens` are both given", LIMIT_FIELD
        )
    refused = refuse_count(LIMIT_FIELD, inference.maxTokens) or refuse_count(
        _NOVA_LIMIT_FIELD, inference.max_new_tokens
    )
    if refused is not None:
        return refused
    for name in asked.additionalModelRequestFields or ():
        if name not in _SAFE_EXTRAS:
            field = f"additionalModelRequestFields.{name[:64]}"
            return Rejection(422, "unsupported_field", f"`{field}` may change what is billed", field)
    performance = asked.performanceConfig
    if performance is not None and performance.latency not in {None, "standard"}:
        return Rejection(
            422, "unsupported_field", "`performanceConfig`: only `standard` is priced", "performanceConfig"
        )
    for tool in (asked.toolConfig.tools if asked.toolConfig is not None else None) or ():
        for name in tool:
            if name not in {"toolSpec", "cachePoint"}:
                return Rejection(
                    422, "unsupported_tool", f"`toolConfig`: `{name[:64]}` has no bound", "toolConfig"
                )
    return None


def _read_messages(messages: list[_Message], media: Media) -> Rejection | None:
    for message in messages:
        refused = _read_blocks(message.content, media)
        if refused is not None:
            return refused
    return None


def _read_blocks(blocks: list[_Block] | None, media: Media) -> Rejection | None:
    for block in blocks or ():
        for name, value in block.items():
            if name in _TEXT_BLOCKS or value is None:
                continue
            if name == "image":
                source = value.get("source") if isinstance(value, dict) else None
                data = source.get("bytes") if isinstance(source, dict) else None
                media.add_image(len(data) if isinstance(data, str) and data.isascii() else 0)
            elif name in _MEDIA_BLOCKS:
                media.add_reference(*_MEDIA_BLOCKS[name])
            elif name == "toolResult" and isinstance(value, dict):
                inner = value.get("content")
                if not isinstance(inner, list) or not all(isinstance(item, dict) for item in inner):
                    return Rejection(400, "invalid_value", "`toolResult.content` must be a list", "messages")
                refused = _read_blocks(inner, media)
                if refused is not None:
                    return refused
            else:
                return Rejection(
                    422,
                    "unsupported_modality",
                    f"`messages`: a block `{name[:64]}` cannot be bounded",
                    "messages",
                )
    return None


def _invoke_claude(body: bytes, fields: Fields, model: str, *, stream: bool) -> CallIntent | Rejection:
    for name in ("model", "stream"):
        if not is_null(fields.get(name)):
            return Rejection(
                422, "unsupported_field", f"`{name}` stands in the path here; leave it out", name
            )
    intent = parse_messages(insert_field(body, "model", model))
    if isinstance(intent, Rejection):
        return intent
    return msgspec.structs.replace(
        intent,
        dialect=Dialect.BEDROCK,
        operation=Operation.INVOKE,
        stream=stream,
        wants_stream_usage=stream,
    )


def _embedding(body: bytes, fields: Fields, model: str) -> CallIntent | Rejection:
    for name in ("inputImage", "images", "inputs"):
        if not is_null(fields.get(name)):
            return Rejection(422, "unsupported_modality", f"`{name}`: only text can be bounded", name)
    asked = decode_or_refuse(_decode_embedding, body)
    if isinstance(asked, Rejection):
        return asked
    return CallIntent(
        dialect=Dialect.BEDROCK,
        operation=Operation.INVOKE,
        model=model,
        input_tokens_bound=len(body) + OVERHEAD_TOKENS,
        max_output_tokens=0,
        output_limit_field=None,
    )


def _cache_write(body: bytes) -> CacheWrite:
    """Dearest cache write that the body can ask for, by its bytes: a false match only holds a little more."""
    if b"cachePoint" in body or has_escaped_ascii(body):
        return CacheWrite.HOUR if b"1h" in body or has_escaped_ascii(body) else CacheWrite.DEFAULT
    return CacheWrite.NONE
