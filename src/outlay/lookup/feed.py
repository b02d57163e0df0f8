"""genai-prices as the price feed: read once by a short-lived process, kept as a compact cache.

The gateway must not import genai_prices (pydantic and 1.6 MB of Python data: 0.3 s and 60 MB), so `load_feed` reads
a cache keyed by that package's version and this module's format, and makes it in a child process
(`python -m outlay.lookup.feed`) when it is missing. Providers stay undecoded until they are asked for. Holds the
feed as it is; what is wrong with it is `corrections`' matter.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.errors import OutlayError
from outlay.kernel.money import usd_per_million_to_rate
from outlay.lookup.match import Clause

FEED_NAME = "genai-prices"
FORMAT = 2
"""Raise with every change of the records below: it is part of the cache's name."""
COMPILE_TIMEOUT_SECONDS = 60
MAX_CACHE_BYTES = 64 * 1024 * 1024

_PER_MILLION = {"_mtok": 1, "_mchars": 1, "_kcount": 1000, "_kpages": 1000}
"""Suffix of a price key -> what turns its USD into USD per 10**6 units. Other units are kept out of the numbers."""
_HOURS = "_hours"
_HOURS_PER_MILLION_MS = Decimal("3.6")
"""10**6 ms are 1 / 3.6 of an hour: prices per hour are kept per 10**6 milliseconds."""


class FeedError(OutlayError):
    """The price feed could not be read or compiled; without it nothing can be priced."""

    code = "price_feed"


class FeedRate(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """Nanos per 10**6 units, and the cliffs above it: `(above_input_tokens, nanos per 10**6)` rising."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()


class FeedPeriod(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """Prices by genai-prices' key (`input_mtok`, ...), valid from a date, or in daily hours; later periods win."""

    prices: dict[str, FeedRate]
    valid_from: UnixNanos | None = None
    minutes: tuple[int, int] | None = None
    """UTC minutes of the day, half-open, may wrap."""


class FeedVariant(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """Prices that replace single keys when all of `when` holds; the first that sets a key wins."""

    when: tuple[tuple[str, str], ...]
    prices: dict[str, FeedRate]
    valid_from: UnixNanos | None = None


class FeedRow(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """One model of one provider with its whole history."""

    provider: str
    model: str
    match: Clause
    periods: tuple[FeedPeriod, ...]
    context_window: int | None = None
    variants: tuple[FeedVariant, ...] = ()
    is_deprecated: bool = False
    comment: str = ""


class FeedProvider(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A provider's rows, still encoded, and the providers whose models it resells at their price."""

    provider: str
    fallbacks: tuple[str, ...]
    price_page: str
    rows: msgspec.Raw


class FeedFile(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The cache file."""

    format: int
    version: str
    providers: tuple[FeedProvider, ...]


class Feed:
    """The feed of one version; rows are decoded a provider at a time, on first use."""

    __slots__ = ("_decoded", "_providers", "version")

    def __init__(self, file: FeedFile) -> None:
        self.version = file.version
        self._providers = {entry.provider: entry for entry in file.providers}
        self._decoded: dict[str, tuple[FeedRow, ...]] = {}

    @property
    def name(self) -> str:
        """Name and version, as it stands in price ids and sources."""
        return f"{FEED_NAME}-{self.version}"

    def providers(self) -> tuple[str, ...]:
        """Ids of all providers in the feed."""
        return tuple(self._providers)

    def fallbacks(self, provider: str) -> tuple[str, ...]:
        """Providers whose models this one resells at their list price (Azure: openai, ...)."""
        entry = self._providers.get(provider)
        return () if entry is None else entry.fallbacks

    def price_page(self, provider: str) -> str:
        """Address of the provider's price page, empty if the feed names none."""
        entry = self._providers.get(provider)
        return "" if entry is None else entry.price_page

    def rows(self, provider: str) -> tuple[FeedRow, ...]:
        """The provider's models in the feed's order (matching takes the first); empty if it is unknown."""
        rows = self._decoded.get(provider)
        if rows is None:
            entry = self._providers.get(provider)
            rows = () if entry is None else msgspec.msgpack.decode(entry.rows, type=tuple[FeedRow, ...])
            self._decoded[provider] = rows
        return rows


def feed_of(rows: Iterable[FeedRow], feed_version: str = "rows") -> Feed:
    """A feed made of given rows (tests, operators without genai-prices)."""
    by_provider: dict[str, list[FeedRow]] = {}
    for row in rows:
        by_provider.setdefault(row.provider, []).append(row)
    return Feed(
        FeedFile(
            FORMAT,
            feed_version,
            tuple(
                FeedProvider(provider, (), "", msgspec.Raw(msgspec.msgpack.encode(provider_rows)))
                for provider, provider_rows in by_provider.items()
            ),
        )
    )


def load_feed(cache_path: Path | None) -> Feed:
    """The installed feed, from the directory `cache_path` if it is there, else compiled by a child process.

    None: no cache, always compile. A cache that cannot be read or written costs time, not correctness. Raises
    `FeedError` if genai-prices is not installed or the child fails.
    """
    try:
        installed = version(FEED_NAME)
    except PackageNotFoundError as error:
        raise FeedError(f"{FEED_NAME} is not installed: no token prices") from error
    if cache_path is None:
        return Feed(_decode(_compile_in_child(None), installed))
    path = cache_path / f"prices-{FEED_NAME}-{installed}-f{FORMAT}.msgpack"
    try:
        return Feed(_decode(_read(path), installed))
    except (OSError, FeedError):
        return Feed(_decode(_compile_in_child(path), installed))


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MAX_CACHE_BYTES + 1)
    if len(data) > MAX_CACHE_BYTES:
        raise FeedError(f"price cache {path.name} is larger than {MAX_CACHE_BYTES} bytes")
    return data


def _decode(data: bytes, installed: str) -> FeedFile:
    try:
        file = msgspec.msgpack.decode(data, type=FeedFile)
    except msgspec.MsgspecError as error:
        raise FeedError("the price cache is damaged") from error
    if file.format != FORMAT or file.version != installed:
        raise FeedError("the price cache is of another version")
    return file


def _compile_in_child(path: Path | None) -> bytes:
    """The encoded feed from a child process; writes it to `path` as well if that can be done."""
    command = [sys.executable, "-m", "outlay.lookup.feed"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FeedError(f"the price feed could not be compiled: {type(error).__name__}") from error
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1][:300]
        raise FeedError(f"the price feed could not be compiled: {last}")
    if path is not None:
        _write_whole(path, done.stdout)
    return done.stdout


def _write_whole(path: Path, data: bytes) -> None:
    """Atomic: readers see the old file or the whole new one. A directory that is not writable is not an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)


def compile_feed() -> list[FeedRow]:
    """All rows of the installed genai-prices. Imports it: only for short-lived processes and tests."""
    return [
        row
        for entry in _compile_providers()
        for row in msgspec.msgpack.decode(entry.rows, type=list[FeedRow])
    ]


def encode_feed() -> bytes:
    """The cache file's bytes. Imports genai_prices."""
    return msgspec.msgpack.encode(FeedFile(FORMAT, version(FEED_NAME), tuple(_compile_providers())))


def _compile_providers() -> list[FeedProvider]:
    from genai_prices.data import providers

    compiled = []
    for provider in providers:
        rows = [_compile_model(provider.id, model) for model in provider.models]
        compiled.append(
            FeedProvider(
                provider.id,
                tuple(provider.fallback_model_providers or ()),
                (provider.pricing_urls or [""])[0],
                msgspec.Raw(msgspec.msgpack.encode(rows)),
            )
        )
    return compiled


def _compile_model(provider: str, model: Any) -> FeedRow:
    prices = model.prices
    periods = (
        tuple(
            FeedPeriod(_rates(entry.prices), _start(entry.constraint), _minutes(entry.constraint))
            for entry in prices
        )
        if isinstance(prices, list)
        else (FeedPeriod(_rates(prices)),)
    )
    variants = tuple(
        FeedVariant(tuple(sorted(variant.when.items())), _rates(variant.prices), _start(variant.constraint))
        for variant in model.price_variants or ()
    )
    return FeedRow(
        provider,
        model.id,
        _clause(model.match),
        periods,
        model.context_window,
        variants,
        bool(model.deprecated),
        model.price_comments or "",
    )


def _rates(prices: Any) -> dict[str, FeedRate]:
    """Every price that is set; keys without a suffix in `_PER_MILLION` are kept as a marker with their USD price."""
    found = {}
    for key, value in vars(prices).items():
        if value is None or key.startswith("_"):
            continue
        scale: int | Decimal = next(
            (number for suffix, number in _PER_MILLION.items() if key.endswith(suffix)), 1
        )
        if key.endswith(_HOURS):
            scale = 1 / _HOURS_PER_MILLION_MS
        base = value if isinstance(value, Decimal) else value.base
        tiers = (
            () if isinstance(value, Decimal) else tuple((t.start, _rate(t.price, scale)) for t in value.tiers)
        )
        found[key] = FeedRate(_rate(base, scale), tiers)
    return found


def _rate(usd: Decimal, scale: int | Decimal) -> int:
    return usd_per_million_to_rate(usd * scale)


def _start(constraint: Any) -> UnixNanos | None:
    day = getattr(constraint, "start_date", None)
    if day is None:
        return None
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    return UnixNanos(int(midnight.timestamp()) * NANOS_PER_SECOND)


def _minutes(constraint: Any) -> tuple[int, int] | None:
    start, end = getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)
    if start is None or end is None:
        return None
    if any(clock.tzinfo not in (None, UTC) for clock in (start, end)):
        raise FeedError("the feed has a daily window that is not in UTC")
    return start.hour * 60 + start.minute, end.hour * 60 + end.minute


def _clause(clause: Any) -> Clause:
    for attribute, kind in (
        ("equals", "eq"),
        ("starts_with", "start"),
        ("ends_with", "end"),
        ("contains", "has"),
    ):
        if hasattr(clause, attribute):
            return Clause(kind, getattr(clause, attribute).lower())
    if hasattr(clause, "regex"):
        return Clause("re", clause.regex)
    for attribute, kind in (("or_", "or"), ("and_", "and")):
        if hasattr(clause, attribute):
            return Clause(kind, "", tuple(_clause(part) for part in getattr(clause, attribute)))
    raise FeedError(f"the feed has a match clause of an unknown kind: {type(clause).__name__}")


if __name__ == "__main__":
    sys.stdout.buffer.write(encode_feed())
