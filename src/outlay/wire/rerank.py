"""Cohere's dialect, rerank: `/v1/rerank` and `/v2/rerank`, as Jina, Voyage and engines speak it too. No I/O, no prices.

*Search units.* One for each started 100 documents; a document longer than 500 tokens, the query included, is split into
chunks that count as documents. A token is at least one byte, so bytes bound the chunks. `max_tokens_per_doc` cuts what
is read of a document. *Tokens.* Servers that bill by the token count the query with every document.
https://docs.cohere.com/docs/rerank-overview and https://cohere.com/pricing, read 2026-11-24.
"""

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    Fields,
    decode_or_refuse,
    find_case_variant,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
    refuse_nested_duplicate,
)
from outlay.wire.intent import Answer, CallIntent, Dialect, Operation, Rejection, Units, Usage

MAX_DOCUMENTS: Final = 10_000
"""Cohere's own limit."""
MAX_TOKENS: Final = 2**40
DOCUMENTS_PER_UNIT: Final = 100
TOKENS_PER_CHUNK: Final = 500
LEAST_CHUNK: Final = 100
"""Tokens of a document that a chunk holds at least, however long the query is."""
TOKENS_PER_DOCUMENT: Final = 16
"""What surrounds a document and its copy of the query."""

_FIELDS: Final = frozenset(
    [
        "model",
        "query",
        "documents",
        "max_tokens_per_doc",
        "max_chunks_per_doc",
        "top_n",
        "return_documents",
        "rank_fields",
        "priority",
        "truncation",
        "user",
    ]
)


class _Asked(msgspec.Struct, gc=False):
    model: str
    query: Any
    documents: list[msgspec.Raw]
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None


class _Billed(msgspec.Struct, gc=False):
    search_units: msgspec.Raw = msgspec.Raw(b"")
    input_tokens: msgspec.Raw = msgspec.Raw(b"")


class _Meta(msgspec.Struct, gc=False):
    billed_units: _Billed | None = None


class _Usage(msgspec.Struct, gc=False):
    total_tokens: int | None = None
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    meta: _Meta | None = None
    usage: _Usage | None = None
    results: Any = None
    message: str | None = None
    error: Any = None


_decode_asked: Final = msgspec.json.Decoder(_Asked).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def parse_rerank(body: bytes) -> CallIntent | Rejection:
    """The money side of a rerank. Never raises."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model", "query", "documents")) or find_case_variant(fields, _FIELDS)
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode_asked, body)
    if isinstance(asked, Rejection):
        return asked
    refused = (
        refuse_model(asked.model)
        or refuse_count("documents", len(asked.documents), most=MAX_DOCUMENTS)
        or refuse_count("max_tokens_per_doc", asked.max_tokens_per_doc)
        or refuse_count("max_chunks_per_doc", asked.max_chunks_per_doc)
        or _refuse_media(asked, fields)
        or refuse_nested_duplicate(body, (b'"image', b'"video', b'"audio'))
    )
    if refused is not None:
        return refused
    query = len(fields["query"])
    return CallIntent(
        dialect=Dialect.COHERE,
        operation=Operation.RERANK,
        model=asked.model,
        input_tokens_bound=len(body) + len(asked.documents) * (query + TOKENS_PER_DOCUMENT),
        max_output_tokens=0,
        output_limit_field=None,
        units=(Units("search_unit", -(-_chunks(asked, query) // DOCUMENTS_PER_UNIT)),),
    )


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises. Units and tokens are both taken; the price knows which it bills."""
    try:
        answer = _decode_answer(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"message"' in body[:64])
    if answer.error is not None or (answer.results is None and answer.message is not None):
        return Answer(usage=None, is_error=True)
    billed = (answer.meta.billed_units if answer.meta is not None else None) or _Billed()
    units, tokens = _whole(billed.search_units), _whole(billed.input_tokens)
    if answer.usage is not None and tokens is None:
        stated = answer.usage.total_tokens
        tokens = answer.usage.prompt_tokens if stated is None else stated
    if tokens is not None and not 0 <= tokens <= MAX_TOKENS:
        return Answer(usage=None, response_id=answer.id)
    if units is None and tokens is None:
        return Answer(usage=None, response_id=answer.id)
    served = () if units is None else (Units("search_unit", units),)
    return Answer(usage=Usage(tokens or 0, 0, units=served, model=answer.model), response_id=answer.id)


def _refuse_media(asked: _Asked, fields: Fields) -> Rejection | None:
    """A document or query that is an image has no bound by its bytes."""
    for value in (fields["query"], *asked.documents):
        text = bytes(value)
        if text.startswith(b"{") and any(name in text for name in (b'"image', b'"video', b'"audio', b'"url')):
            return Rejection(
                422, "unsupported_modality", "`documents`: only text can be bounded here", "documents"
            )
    return None


def _chunks(asked: _Asked, query: int) -> int:
    room = max(LEAST_CHUNK, TOKENS_PER_CHUNK - query)
    most = MAX_TOKENS if asked.max_tokens_per_doc is None else asked.max_tokens_per_doc + query
    return sum(max(1, -(-min(len(document), most) // room)) for document in asked.documents)


def _whole(raw: msgspec.Raw) -> int | None:
    """A count that may be written as `1.0`, rounded up."""
    try:
        value = Decimal(bytes(raw).decode())
    except (InvalidOperation, UnicodeDecodeError, ValueError):
        return None
    return (
        int(value.to_integral_value(ROUND_CEILING))
        if value.is_finite() and 0 <= value <= MAX_TOKENS
        else None
    )
