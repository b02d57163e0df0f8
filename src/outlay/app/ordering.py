"""Orders as they come from a person and as they are stored: checked, written, read again. Stops nothing itself."""

from collections.abc import Mapping

import msgspec

from outlay.flow.ledger.port import Store
from outlay.flow.orders import Order, OrderKind
from outlay.flow.scope import DIMENSIONS, MAX_VALUE_LENGTH, is_dimension
from outlay.kernel.errors import ConfigError

ORDER = "order"
"""Kind of the stored objects."""
MAX_REASON = 500


def checked_order(kind: str, scope: Mapping[str, str], reason: str, actor: str, at: int) -> Order:
    """The order that somebody gives at `at` (UTC ns). Raises ConfigError naming the field."""
    if kind not in tuple(OrderKind):
        raise ConfigError(f"{kind!r} is no order; use kill or pause", key="kind")
    for dimension, value in scope.items():
        if not is_dimension(dimension):
            raise ConfigError(
                f"{dimension!r} is no dimension; use {', '.join(DIMENSIONS)} or tag.NAME", key="scope"
            )
        if not value or len(value) > MAX_VALUE_LENGTH:
            raise ConfigError(
                f"{dimension} needs a value of at most {MAX_VALUE_LENGTH} characters", key="scope"
            )
    if not reason.strip():
        raise ConfigError("say why: callers read it in their refusals", key="reason")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise ConfigError(f"must be at most {MAX_REASON} printable characters", key="reason")
    return Order(OrderKind(kind), dict(scope), reason.strip(), actor, at)


def stored_orders(store: Store) -> dict[str, Order]:
    """Orders that no one has lifted, by name."""
    return {
        row.name: msgspec.json.decode(row.body, type=Order)
        for row in store.objects()
        if row.kind == ORDER and row.body
    }
