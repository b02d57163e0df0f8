"""`outlay policy simulate`: past charges through a file of policies; what would have been refused, rerouted, saved."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from outlay.app.cli.access import open_config
from outlay.app.cli.exit_codes import FAILED, OK
from outlay.app.cli.output import Terminal, iso, money, usd
from outlay.app.cli.policies import read_checked
from outlay.app.cli.times import parse_when
from outlay.app.simulating import Simulated
from outlay.app.simulating import simulate as replayed
from outlay.flow.past import Amount, Cause, Part, Reroute
from outlay.kernel.clock import SystemClock, UnixNanos
from outlay.kernel.errors import ConfigError

MAX_PARTS: Final = 50
"""Teams and models in the table for people, the dearest; --json has all."""
NOT_KNOWN: Final = (
    "what clients would have done after a refusal: each later call is taken as it came",
    "waiting and clamping: a call that the gateway would have let wait (`budget_busy`) or shortened"
    " (`call_too_large`) counts as refused",
    "the lines of a batch: what one of them may cost at most is not asked of the batch's charge",
    "the upper bound of tokens: in rates a call counts the tokens that it used",
    "a rerouted call's own worst case, tokens and tier at the other model: its hold is scaled by its cost, its"
    " tokens are priced as they were, at the standard tier",
    "runs' own limits, raises, orders, and access rules of keys and outlay.yaml: they are not replayed",
)
"""What a replay cannot say; shown with every answer."""


def simulate(options: argparse.Namespace, terminal: Terminal) -> int:
    """Replay, and print; exit code 1 if the replay and the ledger do not agree on what there was."""
    now = SystemClock().now()
    since = parse_when(options.since, now, "--since")
    # a charge of this very moment belongs to a replay until now
    until = UnixNanos(now + 1) if options.until is None else parse_when(options.until, now, "--until")
    if since >= until:
        raise ConfigError("ends before it begins", key="--until")
    config = open_config(options.config)
    file = read_checked(options, terminal, alone=options.replace)
    done = replayed(config, file, since, until, replaces=options.replace)
    terminal.document(
        {"since": iso(since), "until": iso(until), "replaces": options.replace, **_document(done)}
    )
    _print(done, terminal, f"{iso(since)} to {iso(until)}")
    if not done.agrees:
        terminal.note("the replay and the ledger do not agree: run `outlay ledger verify`")
    return OK if done.agrees else FAILED


def _document(done: Simulated) -> dict[str, Any]:
    found = done.found
    return {
        "policies": [policy.name for policy in done.rules.policies],
        "budgets": [budget.name for budget in done.rules.budgets],
        "ledger": {"charges": done.ledger_charges, **money("cost", done.ledger_nanos)},
        "agrees": done.agrees,
        "total": _part(found.total),
        "refused": [{**_cause(cause), **_amount(amount)} for cause, amount in _dearest(found.refused)],
        "marked": [{**_cause(cause), **_amount(amount)} for cause, amount in _dearest(found.marked)],
        "rerouted": [
            {"by": by, "from": model, "to": other, **_reroute(sums)}
            for (by, model, other), sums in sorted(found.rerouted.items())
            if sums.charges
        ],
        "by_team_and_model": [
            {"team": team, "model": model, **_part(part)} for (team, model), part in _parts(done)
        ],
        "not_known": list(NOT_KNOWN),
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        **_amount(part.all),
        "refused": _amount(part.refused),
        "rerouted": _reroute(part.rerouted),
        **money("remaining", part.remaining_nanos),
    }


def _cause(cause: Cause) -> dict[str, str]:
    return {"by": cause.by, "code": cause.code}


def _amount(amount: Amount) -> dict[str, Any]:
    return {"charges": amount.charges, **money("cost", amount.cost_nanos)}


def _reroute(sums: Reroute) -> dict[str, Any]:
    return {
        "charges": sums.charges,
        **money("old", sums.old_nanos),
        **money("new", sums.new_nanos),
        **money("saved", sums.old_nanos - sums.new_nanos),
        "unpriced": sums.unpriced,
    }


def _dearest(found: Mapping[Cause, Amount]) -> list[tuple[Cause, Amount]]:
    return sorted(found.items(), key=lambda pair: (-pair[1].cost_nanos, pair[0].by, pair[0].code))


def _parts(done: Simulated) -> list[tuple[tuple[str, str], Part]]:
    """Teams and models that had charges, the dearest first."""
    found = [(key, part) for key, part in done.found.parts.items() if part.all.charges]
    return sorted(found, key=lambda pair: (-pair[1].all.cost_nanos, pair[0]))


def _print(done: Simulated, terminal: Terminal, period: str) -> None:
    total, found = done.found.total, done.found
    refused, moved = total.refused, total.rerouted
    is_equal = "as the ledger says" if done.agrees else f"but the ledger says {usd(done.ledger_nanos)}"
    terminal.text(f"{period}: {total.all.charges} charges, {usd(total.all.cost_nanos)}, {is_equal}")
    terminal.text(f"refused    {refused.charges} charges, {usd(refused.cost_nanos)}")
    saved = usd(moved.old_nanos - moved.new_nanos)
    terminal.text(
        f"rerouted   {moved.charges} charges, {usd(moved.old_nanos)} -> {usd(moved.new_nanos)}, saved {saved}"
    )
    terminal.text(f"remaining  {usd(total.remaining_nanos)}")
    for title, causes in (("would have been refused", found.refused), ("would be marked only", found.marked)):
        if causes:
            terminal.text()
            terminal.text(f"{title}:")
            terminal.table(
                ("BY", "REASON", "CHARGES", "COST"),
                [(c.by, c.code, str(a.charges), usd(a.cost_nanos)) for c, a in _dearest(causes)],
                right="CHARGES COST",
            )
    rows = [(key, sums) for key, sums in sorted(found.rerouted.items()) if sums.charges]
    if rows:
        terminal.text()
        terminal.text("would have been rerouted:")
        terminal.table(
            ("BY", "FROM", "TO", "CHARGES", "OLD", "NEW", "SAVED"),
            [
                (*key, str(s.charges), usd(s.old_nanos), usd(s.new_nanos), usd(s.old_nanos - s.new_nanos))
                for key, s in rows
            ],
            right="CHARGES OLD NEW SAVED",
        )
        if moved.unpriced:
            terminal.text(
                f"of them {moved.unpriced} at their old cost: the ledger does not hold what prices them"
            )
    _print_parts(done, terminal)
    terminal.text()
    terminal.text("a replay does not know:")
    for line in NOT_KNOWN:
        terminal.text(f"- {line}")


def _print_parts(done: Simulated, terminal: Terminal) -> None:
    parts = _parts(done)
    if not parts:
        return
    terminal.text()
    terminal.table(
        ("TEAM", "MODEL", "CHARGES", "COST", "REFUSED", "REFUSED COST", "REROUTED", "REMAINING"),
        [
            (
                *key,
                str(part.all.charges),
                usd(part.all.cost_nanos),
                str(part.refused.charges),
                usd(part.refused.cost_nanos),
                str(part.rerouted.charges),
                usd(part.remaining_nanos),
            )
            for key, part in parts[:MAX_PARTS]
        ],
        right="CHARGES COST REFUSED REROUTED REMAINING",
    )
    if len(parts) > MAX_PARTS:
        terminal.text(f"and {len(parts) - MAX_PARTS} more; --json has all")
