"""Prometheus text (exposition format 0.0.4) of what gateway and ledger say. Pure; bounded labels only.

Counters are the gateway process's own and begin at 0 when it starts, as Prometheus expects; what counts as money is
the ledger. Source of the format: Prometheus documentation, "Exposition formats".
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from outlay.flow.gateway.metrics import LATENCY_BOUNDS_US, MetricsView
from outlay.kernel.money import format_usd

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_MICROS_PER_SECOND: Final = 1_000_000

Labels = tuple[tuple[str, str], ...]


class BudgetGauge(NamedTuple):
    """The account of the current window of a budget that has exactly one."""

    budget: str
    scope: str
    limit_nanos: int | None
    spent_nanos: int
    held_nanos: int


class MetricsReading(NamedTuple):
    """What is rendered. `gateway` is None if it could not be reached."""

    gateway: MetricsView | None
    is_ledger_readable: bool
    budgets: Sequence[BudgetGauge]


def render_metrics(reading: MetricsReading) -> str:
    """All families that are known now; a family without a sample is left out."""
    lines: list[str] = []
    _family(lines, "outlay_up", "gauge", "Whether the gateway answers.", [((), _flag(reading.gateway))])
    _family(
        lines,
        "outlay_ledger_readable",
        "gauge",
        "Whether the console can read the ledger.",
        [((), _flag(reading.is_ledger_readable))],
    )
    if reading.gateway is not None:
        _counters(lines, reading.gateway)
        _gauges(lines, reading.gateway)
        _histogram(lines, reading.gateway)
    _budgets(lines, reading.budgets)
    return "\n".join(lines) + "\n"


def _counters(lines: list[str], view: MetricsView) -> None:
    _family(
        lines,
        "outlay_spend_usd_total",
        "counter",
        "Settled cost in USD.",
        [(_target(key), format_usd(nanos)) for key, nanos in sorted(view.spend_nanos.items())],
    )
    _family(
        lines,
        "outlay_charges_total",
        "counter",
        "Holds that ended, by what their cost is based on.",
        [(_charge(key), str(count)) for key, count in sorted(view.charges.items())],
    )
    _family(
        lines,
        "outlay_refusals_total",
        "counter",
        "Calls that Outlay answered itself, by code.",
        [((("code", code),), str(count)) for code, count in sorted(view.refusals.items())],
    )
    for name, text, value in (
        ("sent", "Calls that left for a provider.", str(view.sent)),
        ("overrun_usd", "Cost above the hold in USD.", format_usd(view.overrun_nanos)),
        (
            "unknown_usd",
            "Booked at the held amount in USD: the outcome is unknown.",
            format_usd(view.unknown_nanos),
        ),
        ("ledger_commits", "Ledger transactions.", str(view.commits)),
    ):
        _family(lines, f"outlay_{name}_total", "counter", text, [((), value)])


def _gauges(lines: list[str], view: MetricsView) -> None:
    for name, text, value in (
        ("held_usd", "Money held now in USD.", format_usd(view.held_nanos)),
        ("open_holds", "Open holds.", str(view.open_holds)),
        ("waiting", "Calls that wait for money others hold.", str(view.waiting)),
        ("connections", "Client connections.", str(view.connections)),
        ("exchanges", "Calls in flight.", str(view.exchanges)),
        ("sessions", "Open WebSockets.", str(view.sessions)),
        ("jobs", "Holds that wait for a provider's job.", str(view.jobs)),
        ("store_down", "Whether the ledger takes no writes.", _flag(view.is_store_down)),
        ("spending_blocked", "Whether spending waits for an operator.", _flag(view.blocked)),
    ):
        _family(lines, f"outlay_{name}", "gauge", text, [((), value)])
    _family(
        lines,
        "outlay_upstream_connections",
        "gauge",
        "Connections to providers.",
        [((("provider", name),), str(count)) for name, count in sorted(view.upstream_connections.items())],
    )
    _family(
        lines,
        "outlay_target_open",
        "gauge",
        "Whether the circuit of a target with alternatives is open.",
        [
            ((("target", name),), _flag(bool(found["is_open"])))
            for name, found in sorted(view.targets.items())
        ],
    )


def _histogram(lines: list[str], view: MetricsView) -> None:
    name = "outlay_decision_seconds"
    lines.append(f"# HELP {name} From the last byte of a request to its leaving, waits for money included.")
    lines.append(f"# TYPE {name} histogram")
    total = 0
    for bound, count in zip(LATENCY_BOUNDS_US, view.decision_us, strict=False):
        total += count
        lines.append(_sample(f"{name}_bucket", (("le", _seconds(bound)),), str(total)))
    total = sum(view.decision_us)
    lines.append(_sample(f"{name}_bucket", (("le", "+Inf"),), str(total)))
    lines.append(_sample(f"{name}_sum", (), _seconds(view.decision_us_sum)))
    lines.append(_sample(f"{name}_count", (), str(total)))


def _budgets(lines: list[str], budgets: Sequence[BudgetGauge]) -> None:
    labels = [(("budget", found.budget), ("scope", found.scope)) for found in budgets]
    for name, text, amounts in (
        ("limit", "Limit of the current window in USD.", [found.limit_nanos for found in budgets]),
        ("spent", "Spent in the current window in USD.", [found.spent_nanos for found in budgets]),
        ("held", "Held in the current window in USD.", [found.held_nanos for found in budgets]),
    ):
        samples = [
            (label, format_usd(nanos))
            for label, nanos in zip(labels, amounts, strict=True)
            if nanos is not None
        ]
        _family(lines, f"outlay_budget_{name}_usd", "gauge", text, samples)


def _family(lines: list[str], name: str, kind: str, text: str, samples: Iterable[tuple[Labels, str]]) -> None:
    found = [_sample(name, labels, value) for labels, value in samples]
    if found:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *found]


def _sample(name: str, labels: Labels, value: str) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _target(key: str) -> Labels:
    provider, _, model = key.partition("|")
    return (("provider", provider), ("model", model))


def _charge(key: str) -> Labels:
    target, _, basis = key.rpartition("|")
    return (*_target(target), ("basis", basis))


def _seconds(micros: int) -> str:
    """Decimal text, exact: no float stands between a count and its text."""
    whole, part = divmod(micros, _MICROS_PER_SECOND)
    digits = f"{part:06d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _flag(value: object) -> str:
    return "1" if value else "0"
