"""OpenAI's dialect, requests of the legacy `/v1/completions`, as engines still serve it. No I/O, no prices.

Answers have the shape of chat answers as far as money goes: `wire.openai_answer` reads them. The input bound is that of
`wire.openai`; token ids are at least one byte each.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.fields import (
    decode_or_refuse,
    find_case_variant,
    is_null,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
    refuse_tier,
)
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection
from outlay.wire.openai_answer import ChatStream, read_answer
from outlay.wire.openai_terms import cache_write

__all__ = ["ChatStream", "parse_completion", "read_answer"]

DEFAULT_MAX_TOKENS: Final = 16
"""What OpenAI and vLLM generate if no limit is stated."""
COMPLETION_OVERHEAD_TOKENS: Final = 16
MAX_COMPLETIONS: Final = 4096
"""Prompts x completions of one call; OpenAI takes at most 2048 prompts."""

_FIELDS: Final = frozenset(
    [
        "model",
        "prompt",
        "max_tokens",
        "n",
        "best_of",
        "echo",
        "stream",
        "stream_options",
        "suffix",
        "service_tier",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "presence_penalty",
        "seed",
        "stop",
        "temperature",
        "top_p",
        "user",
    ]
)
_OUTPUT_ALIAS: Final = "is another name for the output limit; state it as `max_tokens`"
_MULTIPLIES: Final = "multiplies what is generated and billed; use `n`"
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "max_completion_tokens": _OUTPUT_ALIAS,
        "max_output_tokens": _OUTPUT_ALIAS,
        "max_new_tokens": _OUTPUT_ALIAS,
        "n_predict": _OUTPUT_ALIAS,
        "num_predict": _OUTPUT_ALIAS,
        "options": _OUTPUT_ALIAS,
        "n_cmpl": _MULTIPLIES,
        "use_beam_search": _MULTIPLIES,
        "beam_width": _MULTIPLIES,
        "num_beams": _MULTIPLIES,
        "prompt_embeds": "brings input by reference, which has no bound; send it as text",
        "models": "lets other models answer; name one in `model`",
        "provider": "lets other models answer; name one in `model`",
        "fallbacks": "lets other models answer; name one in `model`",
    }
)
_MONEY_NAMES: Final = _FIELDS | frozenset(_REFUSED)


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Completion(msgspec.Struct, gc=False):
    model: str
    prompt: str | list[str | int | list[int]] | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    service_tier: str | None = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


def parse_completion(body: bytes) -> CallIntent | Rejection:
    """The money side of a completion. Never raises.

    `choices` is prompts x max(`n`, `best_of`): each prompt gets that many, and all of them are billed. Without
    `max_tokens` the limit is `DEFAULT_MAX_TOKENS`, and the gateway does well to write it into the body, since
    llama.cpp has no limit then.
    """
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model", "prompt"))
    if refused is not None:
        return refused
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]):
            return Rejection(422, "unsupported_field", f"`{name}` {_REFUSED[name]}", name)
    refused = find_case_variant(fields, _MONEY_NAMES)
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode, body)
    if isinstance(asked, Rejection):
        return asked
    prompts = 1
    if isinstance(asked.prompt, list) and not all(isinstance(item, int) for item in asked.prompt):
        prompts = len(asked.prompt)
    refused = (
        refuse_model(asked.model)
        or refuse_count("max_tokens", asked.max_tokens, least=0)
        or refuse_count("n", asked.n, most=128)
        or refuse_count("best_of", asked.best_of, most=128)
        or refuse_tier(asked.service_tier)
        or refuse_count("prompt", prompts * max(asked.n or 1, asked.best_of or 1), most=MAX_COMPLETIONS)
    )
    if refused is not None:
        return refused
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.COMPLETIONS,
        model=asked.model,
        input_tokens_bound=len(body) + COMPLETION_OVERHEAD_TOKENS,
        max_output_tokens=DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
        output_limit_field="max_tokens",
        choices=max(prompts, 1) * max(asked.n or 1, asked.best_of or 1),
        stream=asked.stream is True,
        wants_stream_usage=asked.stream_options is not None and asked.stream_options.include_usage is True,
        service_tier=asked.service_tier,
        cache_write=cache_write(body),
    )
