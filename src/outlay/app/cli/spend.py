"""`outlay spend`: what was spent, grouped by any dimensions; what nobody claimed is `unattributed`."""

import argparse
from typing import Any, Final

from outlay.app.cli.access import open_config, reading
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.app.cli.times import parse_when
from outlay.flow.ledger.reader import SpendRow
from outlay.kernel.clock import SystemClock, UnixNanos
from outlay.kernel.errors import ConfigError

_COUNTS: Final = (
    "charges",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_AMOUNTS: Final = ("cost", "unknown", "overrun")


def spend(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print a report with a row of totals."""
    now = SystemClock().now()
    since = parse_when(options.since, now, "--since")
    # a charge of this very moment belongs to a report until now
    until = UnixNanos(now + 1) if options.until is None else parse_when(options.until, now, "--until")
    if since >= until:
        raise ConfigError("ends before it begins", key="--until")
    by = [name.strip() for name in options.by.split(",") if name.strip()]
    if len(set(by)) != len(by):
        raise ConfigError("names a group twice", key="--by")
    config = open_config(options.config)
    with reading(config) as reader:
        rows = reader.spend(by, since, until)
    total = {name: sum(getattr(row, name) for row in rows) for name in _COUNTS}
    total |= {f"{name}_nanos": sum(getattr(row, f"{name}_nanos") for row in rows) for name in _AMOUNTS}
    terminal.document(
        {
            "since": iso(since),
            "until": iso(until),
            "by": by,
            "rows": [{"group": row.group, **_figures(_of(row))} for row in rows],
            "total": _figures(total),
        }
    )
    cells = [(*row.group.values(), *_cells(_of(row))) for row in rows]
    cells.append((*(["total"] + [""] * (len(by) - 1) if by else []), *_cells(total)))
    heads = (*(name.upper() for name in by), "COST", "CALLS", "INPUT", "CACHED", "OUTPUT", "UNKNOWN")
    terminal.table(heads, cells, right="COST CALLS INPUT CACHED OUTPUT UNKNOWN")
    return OK


def _of(row: SpendRow) -> dict[str, int]:
    names = (*_COUNTS, *(f"{name}_nanos" for name in _AMOUNTS))
    return {name: getattr(row, name) for name in names}


def _figures(values: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _AMOUNTS:
        found |= money(name, values[f"{name}_nanos"])
    return found | {name: values[name] for name in _COUNTS}


def _cells(values: dict[str, int]) -> tuple[str, ...]:
    return (
        usd(values["cost_nanos"]),
        str(values["charges"]),
        str(values["input_tokens"]),
        str(values["cache_read_tokens"]),
        str(values["output_tokens"]),
        usd(values["unknown_nanos"]),
    )
