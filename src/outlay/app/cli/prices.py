"""`outlay price`: what models cost, what one's own entries change, what to look twice at; set and delete entries."""

import argparse
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from outlay.app.cli.access import actor, open_config, operating
from outlay.app.cli.exit_codes import FAILED, OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.app.cli.times import parse_when
from outlay.app.config import Config, StoredObject, build_snapshot
from outlay.app.control import feed_cache
from outlay.flow.ledger.rows import is_there
from outlay.kernel.clock import SystemClock, UnixNanos
from outlay.kernel.errors import ConfigError, NotFound
from outlay.kernel.money import format_usd
from outlay.lookup import describe
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import load_feed
from outlay.lookup.overrides import TOKEN_CLASSES
from outlay.lookup.price import ModelPrice, UnknownPrice

_TEXT_CLASSES: Final = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "cache_write_12h")
_CLASSES: Final = TOKEN_CLASSES
_NANOS_PER_1000_USES: Final = Decimal(10) ** 12


class _Prices(NamedTuple):
    """The price book in force, and the price sources that the configuration uses."""

    book: PriceBook
    sources: tuple[str, ...]
    now: UnixNanos


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """The price of a model, at every source that is asked; needs no outlay.yaml."""
    prices = _prices(options)
    at = prices.now if options.at is None else parse_when(options.at, prices.now, "--at")
    source, model = _source_of(options.model, options.provider, prices, at)
    found = describe.show(prices.book, source, model, at)
    if isinstance(found, UnknownPrice):
        nearest = f"; nearest: {', '.join(found.nearest)}" if found.nearest else ""
        raise NotFound(f"{found.reason.rstrip('.')}{nearest}")
    cards = describe.history(prices.book, source, model, at) if options.history else (found,)
    terminal.document({"prices": [_card(card) for card in cards]})
    for card in cards:
        _print_card(card, terminal)
    return OK


def diff(options: argparse.Namespace, terminal: Terminal) -> int:
    """What the operator's entries change now; with --since what changed in the book in force."""
    prices = _prices(options)
    before, since = PriceBook.build(prices.book.feed), prices.now
    if options.since is not None:
        before, since = prices.book, parse_when(options.since, prices.now, "--since")
    found = [
        difference
        for source in _chosen(options, prices)
        for difference in describe.diff(before, prices.book, source, (since, prices.now))
    ]
    terminal.document({"differences": [msgspec.to_builtins(difference) for difference in found]})
    terminal.table(
        ("PROVIDER", "MODEL", "FIELD", "BEFORE", "AFTER"),
        [
            (
                difference.provider,
                difference.model,
                difference.field,
                _number(difference.field, difference.before),
                _number(difference.field, difference.after),
            )
            for difference in found
        ],
        right="BEFORE AFTER",
    )
    if not found:
        terminal.text("no difference")
    return OK


def check(options: argparse.Namespace, terminal: Terminal) -> int:
    """What to look twice at."""
    prices = _prices(options)
    found = describe.check(prices.book, _chosen(options, prices), prices.now)
    terminal.document({"findings": [msgspec.to_builtins(finding) for finding in found]})
    terminal.table(
        ("PROVIDER", "MODEL", "KIND", "DETAIL"),
        [(f.provider, f.model or "-", f.kind, f.detail) for f in found],
    )
    if not found:
        terminal.text("nothing found")
    return FAILED if found and options.strict else OK


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """The operator's own entries."""
    config = open_config(options.config)
    declared = dict(
        zip(
            (name for kind, name in config.owned_names() if kind == "price"),
            config.declared.prices,
            strict=True,
        )
    )
    with operating(options.config) as operations:
        found = [item for item in operations.objects() if item["kind"] == "price"]
    entries = [
        {
            "name": item["name"],
            "origin": item["origin"],
            "place": item.get("place"),
            "version": item.get("version"),
            "entry": item.get("body") or msgspec.to_builtins(declared[item["name"]]),
        }
        for item in found
    ]
    terminal.document({"prices": entries})
    terminal.table(
        ("NAME", "KIND", "FROM"),
        [(e["name"], e["entry"]["kind"], e["place"] or f"store v{e['version']}") for e in entries],
    )
    return OK


def put(options: argparse.Namespace, terminal: Terminal) -> int:
    """Set a model's price: in force for the next call."""
    provider, model = _provider_and_model(options.model, options.provider)
    amounts = {name: getattr(options, name) for name in _CLASSES if getattr(options, name) is not None}
    body: dict[str, Any] = {"kind": "custom", "provider": provider, "model": model, "usd_per_mtok": amounts}
    optional = {
        "usd_per_request": options.per_request,
        "context_window": options.context_window,
        "max_output_tokens": options.max_output_tokens,
        "valid_from": options.valid_from,
        "valid_to": options.valid_to,
        "aliases": options.alias or None,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    if options.unit:
        body["usd_per_unit"] = dict(_unit_price(text) for text in options.unit)
    name = f"{provider}/{model}" + (f"@{options.valid_from}" if options.valid_from else "")
    with operating(options.config) as operations:
        done = operations.put("price", name, body, actor())
    terminal.document({**done, "body": body})
    shown = ", ".join(f"{kind} ${amount}" for kind, amount in amounts.items())
    terminal.text(f"price of {name}: {shown} per million tokens (version {done['version']})")
    return OK


def delete(options: argparse.Namespace, terminal: Terminal) -> int:
    """Take an entry away: the feed's price is in force again, if it has one."""
    name = f"{options.provider}/{options.name}" if options.provider else options.name
    with operating(options.config) as operations:
        done = operations.delete("price", name, actor())
    terminal.document(done)
    terminal.text(f"price {name} deleted")
    return OK


def _prices(options: argparse.Namespace) -> _Prices:
    now = SystemClock().now()
    path = Path(options.config)
    if not path.exists() and options.config == "outlay.yaml":
        book = PriceBook.build(load_feed(None))
        return _Prices(book, tuple(book.feed.providers()), now)
    config = open_config(options.config)
    book = build_snapshot(
        config, _stored_prices(config, options.config), load_feed(feed_cache(config.local_path)), 0
    ).book
    sources = dict.fromkeys(provider.prices or provider.name for provider in config.declared.providers)
    return _Prices(book, tuple(sources) or tuple(book.feed.providers()), now)


def _stored_prices(config: Config, path: str) -> list[StoredObject]:
    if not is_there(config.ledger_place):
        return []
    with operating(path) as operations:
        return [
            StoredObject("price", item["name"], item["version"], msgspec.json.encode(item["body"]).decode())
            for item in operations.objects()
            if item["kind"] == "price" and item["origin"] == "store"
        ]


def _chosen(options: argparse.Namespace, prices: _Prices) -> tuple[str, ...]:
    return prices.sources if options.provider is None else (options.provider,)


def _source_of(model: str, provider: str | None, prices: _Prices, at: UnixNanos) -> tuple[str, str]:
    """The source asked for, or the first that knows the model by itself (not by a ceiling)."""
    if provider is not None:
        return provider, model
    source, separator, rest = model.partition("/")
    if separator and (source in prices.sources or prices.book.names(source)):
        return source, rest
    for source in prices.sources:
        found = prices.book.find(source, model, at)
        if isinstance(found, ModelPrice) and not found.is_ceiling:
            return source, model
    return prices.sources[0], model


def _provider_and_model(model: str, provider: str | None) -> tuple[str, str]:
    if provider is not None:
        return provider, model
    source, separator, rest = model.partition("/")
    if not separator or not source or not rest:
        raise ConfigError("say whose price it is: --provider NAME, or PROVIDER/MODEL", key="--provider")
    return source, rest


def _card(card: describe.PriceCard) -> dict[str, Any]:
    """A price with stable fields; rates are USD per 10**6 tokens."""
    return {
        "price_id": card.price_id,
        "provider": card.provider,
        "model": card.model,
        "source": card.source,
        "valid_from": iso(card.valid_from),
        "valid_to": iso(card.valid_to),
        "context_window": card.context_window,
        "max_output_tokens": card.max_output_tokens,
        "rates": [
            {
                "name": section.name,
                "usd_per_mtok": {
                    name: format_usd(rate)
                    for name in _CLASSES
                    if (rate := getattr(section.rates, name)) is not None
                },
                "nanos_per_mtok": {
                    name: rate for name in _CLASSES if (rate := getattr(section.rates, name)) is not None
                },
            }
            for section in card.sections
        ],
        "geo_multipliers_permille": card.geo_multipliers,
        "nanos_per_million_units": dict(card.unit_rates),
        "usd_per_1000_uses": {tool: _per_1000(fee) for tool, fee in card.tool_fees.items()},
        **money("fee_per_request", card.fee_per_request_nanos),
        "is_ceiling": card.is_ceiling,
        "doubts": list(card.doubts),
    }


def _print_card(card: describe.PriceCard, terminal: Terminal) -> None:
    start, end = iso(card.valid_from), iso(card.valid_to)
    period = f" from {start}" if start else ""
    period += f" until {end}" if end else ""
    terminal.text(f"{card.provider}/{card.model}{' (a ceiling price)' if card.is_ceiling else ''}{period}")
    terminal.text(f"{card.price_id}: {card.source}")
    terminal.table(
        ("USD PER 1M TOKENS", "INPUT", "OUTPUT", "CACHE READ", "WRITE", "WRITE 1H", "WRITE 12H"),
        [
            (section.name, *(usd(getattr(section.rates, name)) for name in _TEXT_CLASSES))
            for section in card.sections
        ],
        right="INPUT OUTPUT WRITE",
    )
    for section in card.sections:
        for name in _CLASSES:
            rate = getattr(section.rates, name)
            if name not in _TEXT_CLASSES and rate is not None:
                terminal.text(f"{section.name}, {name.replace('_', ' ')}: {usd(rate)} per 1M tokens")
    for unit, rate in card.unit_rates.items():
        terminal.text(f"{unit}: ${_per_1000(rate)} per 1000")
    for tool, fee in card.tool_fees.items():
        terminal.text(f"{tool}: ${_per_1000(fee)} per 1000 uses")
    for geo, permille in card.geo_multipliers.items():
        terminal.text(f"served in {geo}: x{permille / Decimal(1000)}")
    if card.fee_per_request_nanos:
        terminal.text(f"each call: {usd(card.fee_per_request_nanos)}")
    terminal.text(
        f"context window {card.context_window or 'unknown'}, most output {card.max_output_tokens or 'unknown'}"
    )
    for doubt in card.doubts:
        terminal.text(f"doubt: {doubt}")


def _unit_price(text: str) -> tuple[str, str]:
    """`image/hd=0.08` as name and USD."""
    name, separator, usd_text = text.rpartition("=")
    if not separator or not name:
        raise ConfigError(f"{text!r} is not NAME=USD, such as image=0.04", key="--unit")
    return name, usd_text


def _per_1000(fee: int) -> str:
    """USD per 1000 uses of nanos per 10**6 uses."""
    text = f"{Decimal(fee) / _NANOS_PER_1000_USES:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _number(field: str, value: int | None) -> str:
    if value is None:
        return "-"
    if field in ("context_window", "model") or field.startswith("geo."):
        return str(value)
    return f"${_per_1000(value)}/1000" if field.startswith("tool.") else usd(value)
