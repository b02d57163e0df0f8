"""What a vendor's room of the mock hands to the server: one answer, in pieces that know their tokens.

Holds no vendor's format and no HTTP framing.
"""

from typing import NamedTuple

import msgspec

from outlay.testing import content
from outlay.testing.behaviour import Behaviour, UsageReport
from outlay.testing.meter import NOTHING, Tokens


class Piece(NamedTuple):
    """Bytes of the body that leave together."""

    data: bytes
    tokens: int
    """Output tokens generated with this piece; 0 for framing (role, finish, usage)."""


class Answer(msgspec.Struct, gc=False):
    """An answer as it would be without a failure of the wire."""

    status: int
    content_type: bytes
    headers: bytes
    """Vendor headers, each ending in CRLF."""
    pieces: list[Piece]
    model: str = ""
    service_tier: str | None = None
    speed: str | None = None
    """As served (Anthropic); `fast` has a price of its own."""
    inference_geo: str | None = None
    request_id: str = ""
    is_stream: bool = False
    tokens: Tokens = NOTHING
    """Billed if the answer arrives whole."""
    error_event: bytes = b""
    """The vendor's way to report an error in mid-stream."""

    @property
    def price_class(self) -> str | None:
        """What selects the rates besides the model: `fast` beats the tier."""
        return self.speed if self.speed == "fast" else self.service_tier


class Identity(NamedTuple):
    """What tells this request from others."""

    sequence: int
    serial: str
    """16 hexadecimal digits, unique in this server's life."""
    created: int
    """UTC seconds."""


class Saying(NamedTuple):
    """What the model wants to say: `text` (JSON), or plain words if it is None, in `total` visible tokens."""

    text: str | None
    total: int

    def part(self, start: int, end: int) -> str:
        """The text of the visible tokens `start`..`end`."""
        if self.text is None:
            return content.words(start, end - start)
        return content.share(self.text, self.total, start, end)


class Length(NamedTuple):
    """How far one choice gets, in tokens."""

    output: int
    """Generated: reasoning and visible ones."""
    reasoning: int
    visible: int
    is_cut: bool
    """The request's limit came before the end."""


def length_of(behaviour: Behaviour, limit: int | None) -> Length:
    """What is generated under the request's output limit (None: no limit); reasoning comes first."""
    wanted = max(behaviour.output_tokens, behaviour.reasoning_tokens)
    output = wanted if limit is None else min(wanted, limit)
    reasoning = min(behaviour.reasoning_tokens, output)
    return Length(output, reasoning, output - reasoning, output < wanted)


def saying(behaviour: Behaviour, text: str | None) -> Saying:
    """The whole of what one choice would say without a limit."""
    return Saying(text, max(0, behaviour.output_tokens - behaviour.reasoning_tokens))


def input_tokens(behaviour: Behaviour, counted: int) -> Tokens:
    """Billed input: the fixed number or the counted one; cached and written parts never exceed it."""
    total = counted if behaviour.input_tokens is None else behaviour.input_tokens
    cached = min(behaviour.cached_tokens, total)
    write = min(behaviour.cache_write_tokens, total - cached)
    return Tokens(
        input=total,
        cached=cached,
        cache_write=write,
        cache_write_long=min(behaviour.cache_write_long_tokens, write),
    )


def with_output(tokens: Tokens, output: int, reasoning: int) -> Tokens:
    """`tokens` with this output."""
    return Tokens(
        input=tokens.input,
        cached=tokens.cached,
        cache_write=tokens.cache_write,
        cache_write_long=tokens.cache_write_long,
        output=output,
        reasoning=min(reasoning, output),
        web_searches=tokens.web_searches,
    )


def reported(usage: UsageReport, tokens: Tokens) -> Tokens:
    """The tokens that the answer states and, for an explicit zero, that are billed."""
    return NOTHING if usage is UsageReport.ZERO else tokens


def chunk_bounds(behaviour: Behaviour, visible: int) -> list[tuple[int, int]]:
    """Token ranges of the content chunks; the last may be short, none is empty."""
    if visible <= 0:
        return []
    step = behaviour.tokens_per_chunk if behaviour.chunks is None else -(-visible // behaviour.chunks)
    return [(start, min(start + step, visible)) for start in range(0, visible, step)]
