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


class Outcome(StrEnum):
    COMPLETE = "complete"  # the whole answer was handed to the socket
    CUT = "cut"  # the provider broke off: a cut, an early end, an error in mid-stream
    CLIENT_GONE = "client_gone"  # the client closed before it was whole
    REFUSED = "refused"  # an error status


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nanos per million tokens of each class; a class without a rate of its own costs what plain input costs."""

    input: int
    output: int = 0
    cached: int | None = None
    cache_write: int | None = None
    cache_write_long: int | None = None
    """None: as cache_write."""
    request_nanos: int = 0
    """Flat nanos for each billed request."""
    web_search_nanos: int = 0
    """Nanos for each search that the provider ran."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Billed tokens. `input` includes cached and cache-writing ones, `output` includes reasoning."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0
    """Of every TTL."""
    cache_write_long: int = 0
    """Those of them with the long TTL."""
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0
    """Searches, not tokens: billed by use."""


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


class Totals(msgspec.Struct, gc=False):
    """Sums over the requests of one model, or of all."""

    requests: int = 0
    billed_requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
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
        self._rates = {name: msgspec.convert(dict(rates), Rates) for name, rates in (prices or {}).items()}
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
        nanos += _line(tokens.output, rates.output)
        plain = tokens.input - tokens.cached - tokens.cache_write
        nanos += _line(plain, rates.input)
        if tokens.cached:
            nanos += _line(tokens.cached, rates.input if rates.cached is None else rates.cached)
        if tokens.cache_write:
            write = rates.input if rates.cache_write is None else rates.cache_write
            write_1h = write if rates.cache_write_long is None else rates.cache_write_long
            nanos += _line(tokens.cache_write - tokens.cache_write_long, write)
            nanos += _line(tokens.cache_write_long, write_1h)
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


def _line(tokens: int, rate: int) -> int:
    """`tokens * rate / 10**6` nanos, half-even; the exact case first, because it is nearly every case."""
    product = tokens * rate
    if product % TOKENS_PER_RATE == 0:
        return product // TOKENS_PER_RATE
    return round(Fraction(product, TOKENS_PER_RATE))
