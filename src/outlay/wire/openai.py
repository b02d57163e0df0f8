"""OpenAI's dialect, requests: `/v1/chat/completions` and `/v1/embeddings`, also as vLLM, SGLang and llama.cpp speak it.

Bytes -> `CallIntent`, or `Rejection` for what cannot be bounded. No I/O, no prices.

*Input bound.* A token of a byte-level BPE covers at least one UTF-8 byte, and decoding JSON never lengthens text
(`\\u20ac` is 6 bytes for 3, `\\n` 2 for 1), so the body has at least as many bytes as its text has tokens. The tokens
a chat template puts around a message (4 to 8) are covered by that message's envelope, at least 26 bytes
(`{"role":"user","content":""}`). An image counts by its formula instead of its bytes (`wire.openai_terms`). Audio,
video and files have no bound by their bytes: they set `has_referenced_input`. What the template adds once is
`CHAT_OVERHEAD_TOKENS` and `TOOLS_OVERHEAD_TOKENS`.
Caveat: tokenizers that normalise with NFKC (XLM-R, T5: some embedding models) can lengthen rare ligatures.

*Unknown fields* pass, since vendors add harmless ones every month. Refused by name is each field known to change
money in a way the bound does not see: other modalities, input by reference, more or longer outputs, other models. A
field we do not know that raises the cost shows as an overrun, which is booked and blocks the budget.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    MAX_COUNT,
    Fields,
    decode_or_refuse,
    find_case_variant,
    is_null,
    read_fields,
    refuse_model,
    refuse_nested_duplicate,
    refuse_tier,
)
from outlay.wire.intent import CallIntent, Dialect, HostedTool, Modality, Operation, Rejection
from outlay.wire.media import Media
from outlay.wire.openai_answer import ChatStream, read_answer
from outlay.wire.openai_terms import cache_write, image_tokens, inline_bytes

__all__ = ["ChatStream", "parse_chat", "parse_embeddings", "read_answer"]

MAX_CHOICES: Final = 128
"""Largest `n`, OpenAI's own limit."""
CHAT_OVERHEAD_TOKENS: Final = 128
"""Once per chat: reply priming, and the default system block some templates write (gpt-oss: about 90 tokens)."""
TOOLS_OVERHEAD_TOKENS: Final = 384
"""Once per chat with tools: the instructions a template writes around them (Hermes, Llama, Qwen: 100 to 250)."""
EMBEDDINGS_OVERHEAD_TOKENS: Final = 16
"""Once per call; the 2 special tokens of each input are covered by its quotes and comma."""

_CHAT_FIELDS: Final = frozenset(
    [
        "model",
        "messages",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "stream",
        "stream_options",
        "service_tier",
        "tools",
        "functions",
        "modalities",
        "audio",
        "frequency_penalty",
        "function_call",
        "logit_bias",
        "logprobs",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
_EMBEDDINGS_FIELDS: Final = frozenset(["model", "input", "dimensions", "encoding_format", "user"])

_BY_REFERENCE: Final = ("unbounded_input", "brings input by reference, which has no bound; send it as text")
_MODALITY: Final = (
    "unsupported_modality",
    "changes how media are billed in a way that has no bound; leave it out",
)
_OUTPUT_ALIAS: Final = (
    "unsupported_field",
    "is another name for the output limit; state it as `max_completion_tokens` or `max_tokens`",
)
_MULTIPLIES: Final = ("unsupported_field", "multiplies what is generated and billed; use `n`")
_OTHER_MODEL: Final = ("unsupported_field", "lets other models answer; name one in `model`")
_SIDE_CALL: Final = ("unsupported_field", "starts further billable work that has no bound; leave it out")

_REFUSED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "previous_response_id": _BY_REFERENCE,
        "conversation": _BY_REFERENCE,
        "prompt": _BY_REFERENCE,
        "prompt_name": _BY_REFERENCE,  # TEI: a prefix kept at the server
        "prompt_id": _BY_REFERENCE,
        "prompt_embeds": _BY_REFERENCE,
        "chat_template": (
            "unbounded_input",
            "is a program that can write any number of tokens; leave it out",
        ),
        "mm_processor_kwargs": _MODALITY,
        "prediction": (
            "unbounded_output",
            "bills rejected tokens beyond any output limit (OpenAI takes no limit with it); leave it out",
        ),
        "max_output_tokens": _OUTPUT_ALIAS,
        "max_new_tokens": _OUTPUT_ALIAS,
        "max_tokens_to_sample": _OUTPUT_ALIAS,
        "n_predict": _OUTPUT_ALIAS,  # llama.cpp lets it override max_tokens
        "num_predict": _OUTPUT_ALIAS,
        "options": _OUTPUT_ALIAS,  # Ollama: options.num_predict
        "best_of": _MULTIPLIES,
        "n_cmpl": _MULTIPLIES,  # llama.cpp
        "use_beam_search": _MULTIPLIES,  # vLLM
        "beam_width": _MULTIPLIES,
        "num_beams": _MULTIPLIES,
        "num_return_sequences": _MULTIPLIES,
        "models": _OTHER_MODEL,  # OpenRouter
        "provider": _OTHER_MODEL,  # OpenRouter: routes to another price
        "route": _OTHER_MODEL,
        "fallbacks": _OTHER_MODEL,
        "moderation": _SIDE_CALL,
        "plugins": _SIDE_CALL,  # OpenRouter
        "search_parameters": _SIDE_CALL,  # xAI, billed by source
        "enable_search": _SIDE_CALL,
        "mcp_servers": _SIDE_CALL,
    }
)
_MONEY_NAMES: Final = _CHAT_FIELDS | _EMBEDDINGS_FIELDS | frozenset(_REFUSED)
_TEXT_PARTS: Final = frozenset({"text", "refusal"})
_IMAGE_PARTS: Final = frozenset({"image_url", "input_image"})
_OTHER_PARTS: Final[Mapping[str, tuple[Modality, ...]]] = MappingProxyType(
    {
        "input_audio": (Modality.AUDIO,),
        "audio_url": (Modality.AUDIO,),
        "video_url": (Modality.AUDIO, Modality.VIDEO),
        "file": (Modality.IMAGE,),
    }
)
"""Parts whose tokens nothing in the body bounds, and what they may be billed as besides text."""
_TELLING: Final = (b'_url"', b'"input_', b'"file"', b'"web_search', b'"image', b'"video', b'"audio"')
"""What a part or tool that costs other than its bytes would mention."""
_MODALITIES: Final = frozenset({"text", "audio"})
_CLIENT_TOOLS: Final = frozenset({"function", "custom"})


class _Url(msgspec.Struct, gc=False):
    url: str = ""


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    image_url: _Url | str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    audio: Any = None


class _Tool(msgspec.Struct, gc=False):
    type: str = "function"


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Chat(msgspec.Struct, gc=False):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    service_tier: str | None = None
    tools: list[_Tool] | None = None
    modalities: list[str] | None = None


class _Embeddings(msgspec.Struct, gc=False):
    model: str
    input: str | list[str | int | list[int]]


_decode_chat: Final = msgspec.json.Decoder(_Chat).decode
_decode_embeddings: Final = msgspec.json.Decoder(_Embeddings).decode


def parse_chat(body: bytes) -> CallIntent | Rejection:
    """The money side of a chat completion. Never raises.

    `cache_write` is at least DEFAULT: caching is automatic, and only lookup knows which models bill writes.
    """
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = _refuse_fields(fields, _CHAT_FIELDS, ("model", "messages"))
    if refused is not None:
        return refused
    chat = decode_or_refuse(_decode_chat, body)
    if isinstance(chat, Rejection):
        return chat
    refused = _refuse_chat(chat)
    if refused is not None:
        return refused
    media = _read_messages(chat.messages)
    if isinstance(media, Rejection):
        return media
    nested = refuse_nested_duplicate(body, _TELLING)
    if nested is not None:
        return nested
    limit, limit_field = chat.max_completion_tokens, "max_completion_tokens"
    if chat.max_tokens is not None:
        limit, limit_field = chat.max_tokens, "max_tokens"
    options = chat.stream_options
    has_tools = "tools" in fields or "functions" in fields
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.CHAT,
        model=chat.model,
        input_tokens_bound=len(body)
        + CHAT_OVERHEAD_TOKENS
        + (TOOLS_OVERHEAD_TOKENS if has_tools else 0)
        + (0 if media is None else media.tokens(image_tokens(chat.model))),
        max_output_tokens=limit,
        output_limit_field=None if limit is None else limit_field,
        choices=1 if chat.n is None else chat.n,
        stream=chat.stream is True,
        wants_stream_usage=options is not None and options.include_usage is True,
        service_tier=chat.service_tier,
        cache_write=cache_write(body),
        hosted_tools=_hosted_tools(fields),
        has_referenced_input=media is not None and media.is_referenced,
        input_modalities=() if media is None else media.kinds(),
        output_modalities=(Modality.AUDIO,) if chat.modalities and "audio" in chat.modalities else (),
    )


def parse_embeddings(body: bytes) -> CallIntent | Rejection:
    """The money side of an embeddings call: text, texts, token ids (an id is one token and at least one byte)."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = _refuse_fields(fields, _EMBEDDINGS_FIELDS, ("model", "input"))
    if refused is not None:
        return refused
    if not is_null(fields.get("messages")):
        return Rejection(
            422, "unsupported_modality", "`messages` may hold media here; use `input`", "messages"
        )
    embeddings = decode_or_refuse(_decode_embeddings, body)
    if isinstance(embeddings, Rejection):
        return embeddings
    refused = refuse_model(embeddings.model)
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.EMBEDDINGS,
        model=embeddings.model,
        input_tokens_bound=len(body) + EMBEDDINGS_OVERHEAD_TOKENS,
        max_output_tokens=0,
        output_limit_field=None,
    )


def _refuse_fields(fields: Fields, known: frozenset[str], required: tuple[str, ...]) -> Rejection | None:
    """Refuse a missing field, a field that changes money unseen, or a money field in another case."""
    for name in required:
        if name not in fields:
            return Rejection(400, "missing_field", f"`{name}` is missing", name)
    if known.issuperset(fields):
        return None
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]):
            code, reason = _REFUSED[name]
            return Rejection(422, code, f"`{name}` {reason}", name)
    return find_case_variant(fields, _MONEY_NAMES)


def _refuse_chat(chat: _Chat) -> Rejection | None:
    """Refuse values that are out of range, ambiguous or not text."""
    refused = refuse_model(chat.model) or refuse_tier(chat.service_tier)
    if refused is not None:
        return refused
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        return Rejection(
            422,
            "ambiguous_limit",
            "`max_tokens` and `max_completion_tokens` are both given; send one",
            "max_tokens",
        )
    for name, limit in (
        ("max_tokens", chat.max_tokens),
        ("max_completion_tokens", chat.max_completion_tokens),
    ):
        if limit is not None and not 0 < limit <= MAX_COUNT:
            return Rejection(400, "invalid_value", f"`{name}` must be from 1 to {MAX_COUNT}", name)
    if chat.n is not None and not 0 < chat.n <= MAX_CHOICES:
        return Rejection(400, "invalid_value", f"`n` must be from 1 to {MAX_CHOICES}", "n")
    if chat.modalities is not None and not _MODALITIES.issuperset(chat.modalities):
        return Rejection(
            422, "unsupported_modality", "`modalities` may only be `text` and `audio`", "modalities"
        )
    for tool in chat.tools or ():
        if tool.type not in _CLIENT_TOOLS:
            return Rejection(
                422,
                "unsupported_tool",
                f"`tools`: type `{tool.type[:64]}` is not known and may be billed",
                "tools",
            )
    return None


def _read_messages(messages: list[_Message]) -> Media | Rejection | None:
    """What is not text in the messages, None if all is; refuses parts of unknown kinds."""
    media: Media | None = None
    for index, message in enumerate(messages):
        if message.audio is not None:
            media = media or Media()
            media.add_reference(Modality.AUDIO)  # an earlier answer's audio, named by its id
        content = message.content
        if content is None or isinstance(content, str):
            continue
        for part in content:
            if part.type in _TEXT_PARTS:
                continue
            media = media or Media()
            if part.type in _IMAGE_PARTS:
                url = part.image_url
                media.add_image(inline_bytes(url.url if isinstance(url, _Url) else url))
            elif part.type in _OTHER_PARTS:
                media.add_reference(*_OTHER_PARTS[part.type])
            else:
                name = f"messages[{index}].content"
                kind = f"`{part.type[:64]}`" if part.type else "without `type`"
                return Rejection(
                    422, "unsupported_modality", f"`{name}`: a part {kind} cannot be bounded", name
                )
    return media


def _hosted_tools(fields: Fields) -> tuple[HostedTool, ...]:
    """Chat has one: `web_search_options`, whose uses cannot be limited."""
    if "web_search_options" in fields and not is_null(fields["web_search_options"]):
        return (HostedTool("web_search", None),)
    return ()
