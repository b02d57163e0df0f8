"""OpenAI's dialect, moderation: `/v1/moderations`. The vendor's own models are free; others may cost by the token."""

from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    decode_or_refuse,
    find_case_variant,
    read_fields,
    refuse_missing,
    refuse_model,
)
from outlay.wire.intent import Answer, CallIntent, Dialect, Operation, Rejection, Usage
from outlay.wire.openai_answer import read_answer as read_token_answer
from outlay.wire.openai_terms import image_tokens

DEFAULT_MODEL: Final = "omni-moderation-latest"
OVERHEAD_TOKENS: Final = 64
_FIELDS: Final = frozenset({"model", "input"})


class _Asked(msgspec.Struct, gc=False):
    model: str | None = None


class _Answer(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    results: list[Any] | None = None
    usage: Any = None


_decode_asked: Final = msgspec.json.Decoder(_Asked).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def parse_moderation(body: bytes) -> CallIntent | Rejection:
    """The money side of a moderation. Never raises. Whether it costs anything is the price's matter."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("input",)) or find_case_variant(fields, _FIELDS)
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode_asked, body)
    if isinstance(asked, Rejection):
        return asked
    model = DEFAULT_MODEL if asked.model is None else asked.model
    refused = refuse_model(model)
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.MODERATION,
        model=model,
        input_tokens_bound=len(body) + OVERHEAD_TOKENS + body.count(b'"image_url"') * image_tokens(model),
        max_output_tokens=0,
        output_limit_field=None,
    )


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises. Results without usage are of a model that counts no tokens: zeros."""
    try:
        answer = _decode_answer(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"error"' in body[:64])
    if answer.usage is not None:
        return read_token_answer(Operation.EMBEDDINGS, body)
    if answer.results is None:
        return Answer(usage=None, is_error=b'"error"' in body[:64])
    return Answer(usage=Usage(0, 0, model=answer.model), response_id=answer.id)
