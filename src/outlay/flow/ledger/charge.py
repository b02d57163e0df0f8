"""Holds and how they end: the records of the books, and the rows they become. Decides nothing."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from outlay.flow.accounts import Account
from outlay.flow.ledger.port import ChargeRow, HoldRow
from outlay.kernel.errors import AccountingBroken, StoreError
from outlay.wire.intent import Usage


class Status(StrEnum):
    """How a hold ended."""

    SETTLED = "settled"
    VOID = "void"
    EXPIRED = "expired"


class Basis(StrEnum):
    """Where a charge's amount comes from."""

    METERED = "metered"
    """The provider's usage, priced."""
    COUNTED = "counted"
    """Upper bounds of what was sent and seen; the provider did not say."""
    FULL = "full"
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The held amount, because nobody here can know."""
    CEILING = "ceiling"
    """The provider's usage at the operator's ceiling price."""
    SERVED_UNPRICED = "served_unpriced"
    """The provider's usage at the price of the model asked for: the model it says it served has none."""
    VOID = "void"
    RESOLVED = "resolved"
    """Was unknown; a person or an invoice corrected it."""
    IMPORTED = "imported"
    """What another gateway says was spent before this one: no hold, one charge for a budget's running window."""


class Hold:
    """Money set aside for one attempt, in all of its accounts."""

    __slots__ = (
        "accounts",
        "accounts_id",
        "attempt",
        "id",
        "identity_id",
        "is_ended",
        "nanos",
        "on_durable",
        "placed_at",
        "price_id",
        "request_id",
        "route_id",
        "seq",
    )

    id: bytes
    request_id: bytes
    attempt: int
    identity_id: int
    route_id: int
    price_id: int
    accounts: tuple[Account, ...]
    accounts_id: int
    nanos: int
    placed_at: int
    seq: int
    is_ended: bool
    on_durable: Callable[["Hold", StoreError | None], None]


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a hold ends. `cost_nanos` is booked whatever the hold was; the excess is an overrun."""

    status: Status
    basis: Basis
    cost_nanos: int
    usage: Usage | None = None
    route_id: int | None = None
    """Route with the model as served, if it differs from the hold's."""
    price_id: int | None = None
    """Price used, if it differs from the hold's."""
    first_byte_at: int | None = None
    http_status: int | None = None
    reason: str | None = None


def charge_row(hold: Hold, ending: Ending, now: int, seq: int) -> ChargeRow:
    """The row of an ended hold."""
    usage = ending.usage
    return ChargeRow(
        hold.id,
        hold.request_id,
        hold.attempt,
        hold.identity_id,
        hold.route_id if ending.route_id is None else ending.route_id,
        hold.price_id if ending.price_id is None else ending.price_id,
        hold.accounts_id,
        ending.status,
        ending.basis,
        hold.nanos,
        ending.cost_nanos,
        usage.input_tokens if usage else None,
        usage.cache_read_input_tokens if usage else None,
        usage.cache_creation_input_tokens if usage else None,
        usage.cache_creation_1h_input_tokens if usage else None,
        usage.cache_creation_12h_input_tokens if usage else None,
        usage.output_tokens if usage else None,
        usage.reasoning_output_tokens if usage else None,
        usage.web_search_requests + usage.file_search_requests + usage.code_execution_requests
        if usage
        else None,
        hold.placed_at,
        ending.first_byte_at,
        now,
        hold.seq,
        seq,
        ending.http_status,
        ending.reason,
        other_usage(usage) if usage is not None and has_other_usage(usage) else None,
    )


_OTHER_TOKENS = (
    "input_audio_tokens",
    "input_image_tokens",
    "input_video_tokens",
    "cache_read_audio_tokens",
    "cache_read_image_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)


def has_other_usage(usage: Usage) -> bool:
    """Whether a usage has more in it than a charge's columns hold."""
    return bool(
        usage.units
        or usage.input_audio_tokens
        or usage.input_image_tokens
        or usage.input_video_tokens
        or usage.output_audio_tokens
        or usage.output_image_tokens
    )


def other_usage(usage: Usage) -> str:
    """JSON of the tokens by modality and of the units of a usage."""
    found: dict[str, int] = {name: getattr(usage, name) for name in _OTHER_TOKENS if getattr(usage, name)}
    for unit in usage.units:
        found[unit.name] = found.get(unit.name, 0) + unit.count
    return msgspec.json.encode(found).decode()


def opening_hold(charge_id: bytes, numbers: tuple[int, int, int, int], nanos: int, at: int, seq: int) -> Hold:
    """What an opening charge stands on: a hold of its own amount that nobody asked the limits for.

    `numbers` are those of identity, route, price and set of accounts.
    """
    hold = Hold()
    hold.id = hold.request_id = charge_id
    hold.attempt = 1
    hold.identity_id, hold.route_id, hold.price_id, hold.accounts_id = numbers
    hold.accounts, hold.nanos, hold.placed_at, hold.seq = (), nanos, at, seq
    hold.is_ended = True
    hold.on_durable = told
    return hold


def stored_hold(row: HoldRow, accounts: tuple[Account, ...]) -> Hold:
    """The open hold that a row of an earlier epoch stands for."""
    hold = Hold()
    hold.id, hold.request_id, hold.attempt = row.id, row.request_id, row.attempt
    hold.identity_id, hold.route_id, hold.price_id = row.identity_id, row.route_id, row.price_id
    hold.accounts, hold.accounts_id, hold.nanos = accounts, row.accounts_id, row.nanos
    hold.placed_at, hold.seq = row.placed_at, row.seq
    hold.is_ended = False
    hold.on_durable = told
    return hold


def told(_hold: Hold, _error: StoreError | None) -> None:
    """Stands in the place of a listener that has been told."""
    raise AccountingBroken("a hold was reported durable twice")
