"""What a vendor's room of the mock hands to the server: one answer, in pieces that know their tokens.

Holds no vendor's format and no HTTP framing.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

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
    job: str | None = None
    """Id of what a later entry of the meter is billed for (batch, background response)."""

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


class Offer(NamedTuple):
    """A tool that the request offers."""

    name: str
    schema: dict[str, Any] | None
    """JSON schema of the arguments; None: the tool takes plain text."""

    def arguments(self, behaviour: Behaviour) -> Saying:
        """What the model passes to it."""
        if behaviour.tool_arguments is not None:
            return saying(behaviour, behaviour.tool_arguments)
        return saying(behaviour, None if self.schema is None else content.instance_json(self.schema))


class ToolCall(NamedTuple):
    """One call of a tool in an answer."""

    number: int
    name: str
    says: Saying
    visible: int
    """Tokens of the arguments that got out before the limit."""
    is_custom: bool
    """The tool takes plain text."""

    def id(self, prefix: str, serial: str) -> str:
        """An id that differs from the other calls'."""
        return f"{prefix}{serial}" if self.number == 0 else f"{prefix}{serial}_{self.number}"

    @property
    def text(self) -> str:
        """The arguments, as far as they got."""
        return self.says.part(0, self.visible)


def calls_of(offer: Offer, behaviour: Behaviour, visible: int) -> list[ToolCall]:
    """The calls of the chosen tool: they share what it says, and what a limit lets through."""
    whole = offer.arguments(behaviour)
    count = min(behaviour.tool_calls, max(1, whole.total))  # a call of no token says nothing
    calls = []
    for number in range(count):
        start, end = whole.total * number // count, whole.total * (number + 1) // count
        shown = min(max(visible - start, 0), end - start)
        if number == 0 or shown:
            calls.append(
                ToolCall(number, offer.name, Saying(whole.text, end - start), shown, offer.schema is None)
            )
    return calls


def chosen_tool(
    offers: list[Offer], behaviour: Behaviour, *, forced: str | None, is_demanded: bool, prompt: str
) -> Offer | None:
    """The tool to call: the forced one; or the first if a call is demanded, by the request, a knob or the prompt.

    `prompt` is the text of the last message, empty if it is not the user's.
    """
    if not offers:
        return None
    wanted = behaviour.tool_name if forced is None else forced
    named = next((offer for offer in offers if offer.name == wanted), None)
    if forced is not None:
        return named or offers[0]
    if is_demanded or behaviour.tool_call or "use the tool" in prompt.lower():
        return named or offers[0]
    return None


def length_of(behaviour: Behaviour, limit: int | None) -> Length:
    """What is generated under the request's output limit (None: no limit); reasoning comes first."""
    wanted = max(behaviour.output_tokens, behaviour.reasoning_tokens)
    output = wanted if limit is None else min(wanted, limit)
    reasoning = min(behaviour.reasoning_tokens, output)
    return Length(output, reasoning, output - reasoning, output < wanted)


def saying(behaviour: Behaviour, text: str | None) -> Saying:
    """The whole of what one choice would say without a limit; `text` (JSON) wins over the knob `say`."""
    text = behaviour.say if text is None else text
    return Saying(text, max(0, behaviour.output_tokens - behaviour.reasoning_tokens))


def input_tokens(behaviour: Behaviour, counted: int, *, audio: int = 0, image: int = 0) -> Tokens:
    """Billed input: the fixed number or the counted one; no part of it ever exceeds it.

    `audio` and `image` are the counted parts that the vendor states apart; a fixed `input_tokens` bounds them.
    """
    total = counted if behaviour.input_tokens is None else behaviour.input_tokens
    cached = min(behaviour.cached_tokens, total)
    write = min(behaviour.cache_write_tokens, total - cached)
    if behaviour.audio_tokens is not None:
        audio = behaviour.audio_tokens
    if behaviour.image_tokens is not None:
        image = behaviour.image_tokens
    if not audio and not image:
        return Tokens(
            input=total,
            cached=cached,
            cache_write=write,
            cache_write_long=min(behaviour.cache_write_long_tokens, write),
        )
    audio = min(audio, total - write)
    cached_audio = min(behaviour.cached_audio_tokens, audio, cached)
    # what is cached beyond the cached audio is text, so the fresh media must leave room for it
    audio = min(audio, total - write - (cached - cached_audio))
    return Tokens(
        input=total,
        cached=cached,
        cache_write=write,
        cache_write_long=min(behaviour.cache_write_long_tokens, write),
        input_audio=audio,
        cached_audio=cached_audio,
        input_image=min(image, total - write - (cached - cached_audio) - audio),
    )


def with_output(tokens: Tokens, output: int, reasoning: int) -> Tokens:
    """`tokens` with this output; audio and image parts of it shrink with it."""
    if tokens.output_audio or tokens.output_image:
        return replace(
            tokens,
            output=output,
            reasoning=min(reasoning, output),
            output_audio=min(tokens.output_audio, output),
            output_image=min(tokens.output_image, output),
        )
    return replace(tokens, output=output, reasoning=min(reasoning, output))


def reported(usage: UsageReport, tokens: Tokens) -> Tokens:
    """The tokens that the answer states and, for an explicit zero, that are billed."""
    return NOTHING if usage is UsageReport.ZERO else tokens


def chunk_bounds(behaviour: Behaviour, visible: int) -> list[tuple[int, int]]:
    """Token ranges of the content chunks; the last may be short, none is empty."""
    if visible <= 0:
        return []
    step = behaviour.tokens_per_chunk if behaviour.chunks is None else -(-visible // behaviour.chunks)
    return [(start, min(start + step, visible)) for start in range(0, visible, step)]
