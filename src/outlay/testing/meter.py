"""The mock provider's own meter: what it billed, request by request, by arithmetic of its own.

Shares no code with Outlay on purpose: the ledger is checked against it. Money is integer nano-dollars; a rate is
nanos per one million tokens; each line is rounded half-even once. Must not know HTTP.
"""

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import IO

import msgspec

TOKENS_PER_RATE = 1_000_000
ANY_MODEL = "*"
_IMAGE_FIELD = "image/"
_MS_PER_SECOND = 1000


class Outcome(StrEnum):
    COMPLETE = "complete"  # the whole answer was handed to the socket
    CUT = "cut"  # the provider broke off: a cut, an early end, an error in mid-stream
    CLIENT_GONE = "client_gone"  # the client closed before it was whole
    REFUSED = "refused"  # an error status


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nanos per million tokens of each class, and fees for what is not a token.

    A class without a rate costs what plain input or output costs. In a price table a field `image/<class>` (as in
    `image/high/1024x1024`) is the price in nanos of one image of that class, over `image_nanos`.
    """

    input: int = 0
    output: int = 0
    cached: int | None = None
    cache_write: int | None = None
    cache_write_long: int | None = None
    """None: as cache_write."""
    input_audio: int | None = None
    cached_audio: int | None = None
    """None: as cached."""
    input_image: int | None = None
    output_audio: int | None = None
    output_image: int | None = None
    request_nanos: int = 0
    """Flat nanos for each billed request."""
    web_search_nanos: int = 0
    """Nanos for each search that the provider ran."""
    image_nanos: int = 0
    """Nanos for each image that is billed by the piece."""
    audio_second_nanos: int = 0
    """Nanos for each second of audio; milliseconds are billed exactly."""
    character: int = 0
    """Nanos per million characters."""
    search_unit_nanos: int = 0
    """Nanos for each search unit of a rerank."""
    training: int = 0
    """Nanos per million trained tokens."""
    by_image: dict[str, int] = {}


class Tokens(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Billed tokens, and what is billed by another unit.

    `input` includes cached, cache-writing, audio and image ones; `output` includes reasoning, audio and image ones.
    """

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    """Of every TTL."""
    cache_write_long: int = 0
    """Those of them with the long TTL."""
    input_audio: int = 0
    """Cached ones included."""
    cached_audio: int = 0
    """Part of `cached` and of `input_audio`."""
    input_image: int = 0
    output: int = 0
    reasoning: int = 0
    output_audio: int = 0
    output_image: int = 0
    web_searches: int = 0
    """Searches, not tokens: billed by use."""
    images: int = 0
    """Images billed by the piece."""
    image_class: str = ""
    """`<quality>/<size>` of those images."""
    audio_ms: int = 0
    """Milliseconds of audio billed by time."""
    characters: int = 0
    search_units: int = 0
    training: int = 0
    """Trained tokens."""


class MeterEntry(msgspec.Struct, frozen=True, gc=False):
    """One request as billed; written before its last byte leaves."""

    sequence: int
    """Order of arrival, from 1. Entries are in order of ending."""
    received_at: int
    """UTC nanoseconds."""
    path: str
    model: str
    """As served."""
    service_tier: str | None
    request_id: str
    """The id the client was (or would have been) told."""
    outlay_request_id: str | None
    """Header `x-outlay-request-id` as received."""
    stream: bool
    status: int
    """HTTP status sent, or that would have been sent."""
    outcome: Outcome
    tokens: Tokens
    cost_nanos: int
    priced: bool
    """False: billed tokens of a model that the price table does not know; cost_nanos is 0."""
    job: str | None = None
    """Id of the batch, background response, session or training job that this was billed for."""


class Totals(msgspec.Struct, gc=False):
    """Sums over the requests of one model, or of all."""

    requests: int = 0
    billed_requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    """Input and output."""
    image_tokens: int = 0
    """Input and output."""
    images: int = 0
    audio_ms: int = 0
    characters: int = 0
    search_units: int = 0
    training_tokens: int = 0
    cost_nanos: int = 0

    def add(self, tokens: Tokens, cost_nanos: int, *, is_billed: bool) -> None:
        self.requests += 1
        if not is_billed:
            return
        self.billed_requests += 1
        self.input_tokens += tokens.input
        self.cached_tokens += tokens.cached
        self.cache_write_tokens += tokens.cache_write
        self.output_tokens += tokens.output
        self.reasoning_tokens += tokens.reasoning
        self.cost_nanos += cost_nanos
        # rare, and the mock must not be what a measurement measures
        if tokens.input_audio or tokens.output_audio or tokens.input_image or tokens.output_image:
            self.audio_tokens += tokens.input_audio + tokens.output_audio
            self.image_tokens += tokens.input_image + tokens.output_image
        if _has_units(tokens):
            self.images += tokens.images
            self.audio_ms += tokens.audio_ms
            self.characters += tokens.characters
            self.search_units += tokens.search_units
            self.training_tokens += tokens.training


NOTHING = Tokens()


class Meter:
    """Entries and totals. Written by the provider's thread only; reading from another thread is safe."""

    def __init__(
        self,
        prices: Mapping[str, Mapping[str, int]] | None = None,
        *,
        keep_entries: bool = True,
        file: IO[bytes] | None = None,
    ) -> None:
        """`prices`: `model`, `model@tier` or `*` -> fields of `Rates`. `keep_entries=False` keeps totals only.

        `file` receives each entry as one JSON line, flushed, so that it outlives this process.
        """
        self._rates = {name: _rates(fields) for name, fields in (prices or {}).items()}
        self._keep = keep_entries
        self._file = file
        self._encoder = msgspec.json.Encoder()
        self.reset()

    def reset(self) -> None:
        """Forget entries and totals; the price table stays."""
        self.entries: list[MeterEntry] = []
        self.by_model: dict[str, Totals] = {}
        self.all = Totals()
        self.by_outcome: dict[Outcome, int] = {}
        self.open_requests = 0
        """Requests received and not yet ended."""
        self.refused_connections = 0

    @property
    def total_nanos(self) -> int:
        return self.all.cost_nanos

    def begin(self) -> None:
        self.open_requests += 1

    def end(self, entry: MeterEntry) -> None:
        """Book one ended request."""
        is_billed = entry.tokens is not NOTHING
        self.all.add(entry.tokens, entry.cost_nanos, is_billed=is_billed)
        totals = self.by_model.get(entry.model)
        if totals is None:
            totals = self.by_model[entry.model] = Totals()
        totals.add(entry.tokens, entry.cost_nanos, is_billed=is_billed)
        self.by_outcome[entry.outcome] = self.by_outcome.get(entry.outcome, 0) + 1
        if self._file is not None:
            self._file.write(self._encoder.encode(entry) + b"\n")
            self._file.flush()
        if self._keep:
            self.entries.append(entry)
        # last, so that a reader who sees nothing open sees every entry
        self.open_requests = max(0, self.open_requests - 1)

    def cost(self, model: str, price_class: str | None, tokens: Tokens) -> tuple[int, bool]:
        """Nanos for `tokens` and whether the model has a price; (0, True) if nothing was billed.

        The rates of `model@price_class` (a served tier, or `fast`) win over the model's, and those over `*`.
        """
        if tokens is NOTHING:
            return 0, True
        rates = self._rates.get(f"{model}@{price_class}") if price_class else None
        if rates is None:
            rates = self._rates.get(model) or self._rates.get(ANY_MODEL)
        if rates is None:
            return 0, False
        nanos = rates.request_nanos + tokens.web_searches * rates.web_search_nanos
        output, plain = tokens.output, tokens.input - tokens.cached - tokens.cache_write
        cached = tokens.cached
        if tokens.input_audio or tokens.input_image:
            fresh_audio = tokens.input_audio - tokens.cached_audio
            plain -= fresh_audio + tokens.input_image
            cached -= tokens.cached_audio
            cached_rate = _either(rates.cached, rates.input)
            nanos += _line(fresh_audio, _either(rates.input_audio, rates.input))
            nanos += _line(tokens.cached_audio, _either(rates.cached_audio, cached_rate))
            nanos += _line(tokens.input_image, _either(rates.input_image, rates.input))
        if tokens.output_audio or tokens.output_image:
            output -= tokens.output_audio + tokens.output_image
            nanos += _line(tokens.output_audio, _either(rates.output_audio, rates.output))
            nanos += _line(tokens.output_image, _either(rates.output_image, rates.output))
        nanos += _line(output, rates.output)
        nanos += _line(plain, rates.input)
        if cached:
            nanos += _line(cached, _either(rates.cached, rates.input))
        if tokens.cache_write:
            write = _either(rates.cache_write, rates.input)
            nanos += _line(tokens.cache_write - tokens.cache_write_long, write)
            nanos += _line(tokens.cache_write_long, _either(rates.cache_write_long, write))
        if _has_units(tokens):
            nanos += _units_nanos(tokens, rates)
        return nanos, True

    def report(self, since: int = 0) -> dict[str, object]:
        """JSON-ready: totals, totals by model, entries from index `since` on, and the next index to ask for."""
        entries = self.entries[since:]
        return {
            "total_nanos": self.total_nanos,
            "totals": msgspec.to_builtins(self.all),
            "by_model": {model: msgspec.to_builtins(totals) for model, totals in self.by_model.items()},
            "by_outcome": {str(outcome): count for outcome, count in self.by_outcome.items()},
            "open_requests": self.open_requests,
            "refused_connections": self.refused_connections,
            "entries": [msgspec.to_builtins(entry) for entry in entries],
            "next": since + len(entries),
        }


def _rates(fields: Mapping[str, int]) -> Rates:
    """A row of the price table; `image/<class>` fields become the prices by class."""
    rates = msgspec.convert(
        {name: value for name, value in fields.items() if not name.startswith(_IMAGE_FIELD)}, Rates
    )
    by_image = {
        name.removeprefix(_IMAGE_FIELD): value
        for name, value in fields.items()
        if name.startswith(_IMAGE_FIELD)
    }
    return msgspec.structs.replace(rates, by_image=by_image) if by_image else rates


def _either(rate: int | None, otherwise: int) -> int:
    return otherwise if rate is None else rate


def _has_units(tokens: Tokens) -> bool:
    """Whether anything is billed that is not a token of a prompt or an answer."""
    return bool(
        tokens.images or tokens.audio_ms or tokens.characters or tokens.search_units or tokens.training
    )


def _units_nanos(tokens: Tokens, rates: Rates) -> int:
    """What is not billed by the token of a prompt or an answer."""
    nanos = tokens.search_units * rates.search_unit_nanos
    if tokens.images:
        nanos += tokens.images * rates.by_image.get(tokens.image_class, rates.image_nanos)
    if tokens.audio_ms:
        nanos += round(Fraction(tokens.audio_ms * rates.audio_second_nanos, _MS_PER_SECOND))
    return nanos + _line(tokens.characters, rates.character) + _line(tokens.training, rates.training)


def _line(tokens: int, rate: int) -> int:
    """`tokens * rate / 10**6` nanos, half-even; the exact case first, because it is nearly every case."""
    product = tokens * rate
    if product % TOKENS_PER_RATE == 0:
        return product // TOKENS_PER_RATE
    return round(Fraction(product, TOKENS_PER_RATE))
