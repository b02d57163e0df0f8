"""`outlay ledger`: unknown outcomes and their resolution, one request's attempts, the audit."""

import argparse
from typing import Any

from outlay.app.cli.access import actor, open_config, operating, reading
from outlay.app.cli.exit_codes import FAILED, OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.flow.ledger.reader import ChargeView
from outlay.kernel.errors import ConfigError, NotFound
from outlay.kernel.ids import parse_id
from outlay.kernel.money import MoneyError, usd_to_nanos


def unknown(options: argparse.Namespace, terminal: Terminal) -> int:
    """Charges that wait for someone who knows what they really cost."""
    if options.limit < 1:
        raise ConfigError("must be 1 or more", key="--limit")
    with reading(open_config(options.config)) as reader:
        charges = [_described(charge) for charge in reader.unknown(options.limit)]
    terminal.document({"charges": charges})
    _table(charges, terminal)
    return OK


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """All ended attempts of a request."""
    request_id = parse_id(options.id)
    if request_id is None:
        raise ConfigError(f"{options.id!r} is not a request id (req_ and 32 hexadecimal digits)")
    with reading(open_config(options.config)) as reader:
        charges = [_described(charge) for charge in reader.request(request_id)]
    if not charges:
        raise NotFound("no ended attempt of that request is in the ledger")
    terminal.document({"request_id": charges[0]["request_id"], "charges": charges})
    _table(charges, terminal)
    for charge in charges:
        pins = ", ".join(f"{name} {value}" for name, value in charge["identity"].items() if value)
        terminal.text(f"attempt {charge['attempt']}: {pins}; price {charge['price_id']}")
        tokens = ", ".join(f"{name} {value}" for name, value in charge["tokens"].items() if value is not None)
        terminal.text(f"  {tokens or 'no usage known'}; held {usd(charge['held_nanos'])}")
    return OK


def resolve(options: argparse.Namespace, terminal: Terminal) -> int:
    """Book what a call really cost; the difference is freed (or posted) in every budget it was held in."""
    try:
        nanos = 0 if options.not_billed else usd_to_nanos(options.cost)
    except MoneyError as error:
        raise ConfigError(f"{error}; give USD such as 0.0123", key="--cost") from error
    with operating(options.config) as operations:
        done = operations.resolve(options.id, nanos, actor(), options.note)
    terminal.document(
        {
            "id": done["id"],
            **money("cost", done["cost_nanos"]),
            **money("adjustment", done["adjustment_nanos"]),
        }
    )
    terminal.text(
        f"{done['id']} booked at {usd(done['cost_nanos'])} (adjusted by {usd(done['adjustment_nanos'])})"
    )
    return OK


def verify(options: argparse.Namespace, terminal: Terminal) -> int:
    """Recompute the whole ledger."""
    with operating(options.config) as operations:
        found = operations.verify()
    findings = list(found["findings"])
    terminal.document(
        {
            "is_right": not findings,
            "charges": found["charges"],
            "open_holds": found["open_holds"],
            "accounts": found["accounts"],
            **money("spend", found["spend_nanos"]),
            **money("unknown", found["unknown_nanos"]),
            **money("overrun", found["overrun_nanos"]),
            **money("most_over_limit", found["most_over_limit_nanos"]),
            "findings": findings,
        }
    )
    for finding in findings:
        terminal.text(f"problem: {finding}")
    terminal.text(
        f"{found['charges']} charges, {usd(found['spend_nanos'])} spent, {usd(found['unknown_nanos'])} of unknown"
        f" outcome, {usd(found['overrun_nanos'])} overrun, {found['open_holds']} open holds,"
        f" {found['accounts']} accounts"
    )
    terminal.text("the books are wrong" if findings else "the books are right")
    return FAILED if findings else OK


def _described(charge: ChargeView) -> dict[str, Any]:
    """One charge with stable fields."""
    return {
        "id": f"req_{charge.id}",
        "request_id": f"req_{charge.request_id}",
        "attempt": charge.attempt,
        "placed_at": iso(charge.placed_at),
        "settled_at": iso(charge.settled_at),
        "provider": charge.provider,
        "model": charge.model,
        "served": charge.served,
        "operation": charge.operation,
        "status": charge.status,
        "basis": charge.basis,
        "reason": charge.reason,
        "http_status": charge.http_status,
        **money("held", charge.hold_nanos),
        **money("cost", charge.cost_nanos),
        "price_id": charge.price_id,
        "identity": charge.identity,
        "tokens": charge.tokens,
    }


def _table(charges: list[dict[str, Any]], terminal: Terminal) -> None:
    terminal.table(
        ("ID", "WHEN", "PROVIDER", "MODEL", "BASIS", "COST", "REASON"),
        [
            (
                charge["id"],
                charge["placed_at"],
                charge["provider"],
                charge["model"],
                charge["basis"],
                usd(charge["cost_nanos"]),
                charge["reason"] or "-",
            )
            for charge in charges
        ],
        right="COST",
    )
