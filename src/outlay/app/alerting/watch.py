"""The watch: balances from the ledger every few seconds, changes kept by the ledger's owner, then told to people.

What is kept first and told after is told at least once: an alert whose telling failed is told again at the next look.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from outlay.app.alerting.telling import payload_of, tell, text_of, title_of
from outlay.app.config import Config
from outlay.app.config.tree import AlertsSection
from outlay.app.operations import Operating
from outlay.flow.ledger.reader import LedgerReader, SpendRow
from outlay.flow.ledger.room_reader import RoomReader
from outlay.kernel.errors import NotFound
from outlay.kernel.money import format_usd
from outlay.report.alerts import Alert, Balance, Rule, changes, crossings

EVERY_S: Final = 2
TOP: Final = 3


class Watch:
    """See the module. One instance a process."""

    def __init__(self, *, pause_s: float = 1.0) -> None:
        self._pause_s = pause_s

    def look(self, config: Config, operations: Operating, now: int) -> list[Alert]:
        """One look: the alerts that changed. Raises StoreError if there is no ledger, or its owner does not answer."""
        section = config.declared.alerts
        rules = rules_of(section)
        known = {item["id"]: msgspec.convert(item, Alert) for item in operations.alerts()}
        with RoomReader(config.ledger_place) as reader:
            balances = balances_of(reader, now)
            changed = changes(known, crossings(rules, balances, now), now)
            told = []
            for alert in changed:
                # kept as untold before it is told: who dies in the middle leaves it to the next look
                kept = msgspec.structs.replace(alert, undelivered=targets_of(section, alert))
                operations.keep_alert(msgspec.to_builtins(kept), "outlay:alerts")
                told.append(self._told(config, kept, contributors(reader, kept, now), operations))
            for alert in known.values():
                if alert.undelivered and alert.id not in {item.id for item in changed}:
                    self._told(config, alert, contributors(reader, alert, now), operations)
        return told

    def _told(
        self, config: Config, alert: Alert, most: Sequence[Mapping[str, str]], operations: Operating
    ) -> Alert:
        """Tell those who have not been told, and keep who that still is."""
        section = config.declared.alerts
        link = section.link
        missed = []
        for target in section.targets:
            if target.name not in alert.undelivered:
                continue
            found = tell(
                target,
                title_of(alert),
                text_of(alert, most, link),
                payload_of(alert, most, link),
                pause_s=self._pause_s,
            )
            if not found.is_delivered:
                missed.append(target.name)
        result = msgspec.structs.replace(alert, undelivered=tuple(missed))
        if result != alert:
            # somebody may have acknowledged it meanwhile
            now_kept = next((item for item in operations.alerts() if item["id"] == alert.id), None)
            newest = result if now_kept is None else msgspec.convert(now_kept, Alert)
            newest = msgspec.structs.replace(newest, undelivered=result.undelivered)
            operations.keep_alert(msgspec.to_builtins(newest), "outlay:alerts")
        return result


def targets_of(section: AlertsSection, alert: Alert) -> tuple[str, ...]:
    """Names of those who are told of an alert."""
    rule = next((rule for rule in section.rules if rule.name == alert.rule), None)
    wanted = () if rule is None else rule.targets or tuple(target.name for target in section.targets)
    return tuple(target.name for target in section.targets if target.name in wanted)


def rules_of(section: AlertsSection) -> list[Rule]:
    """The rules as `report` knows them."""
    return [
        Rule(entry.name, entry.budgets, entry.percent, entry.run_rate_percent, entry.targets)
        for entry in section.rules
    ]


def balances_of(reader: LedgerReader, now: int) -> list[Balance]:
    """Accounts of limited budgets in their current windows."""
    return [
        Balance(
            view.id,
            view.budget,
            view.scope,
            view.window_start,
            view.window_end,
            view.limit_nanos,
            view.spent_nanos,
            view.held_nanos,
        )
        for view in reader.accounts(now)
        if view.limit_nanos is not None and view.is_current
    ]


def contributors(reader: RoomReader, alert: Alert, now: int) -> list[dict[str, Any]]:
    """The dearest keys and models of an account's window; none if the ledger does not know the account."""
    try:
        # the values themselves: what a scope says to people cannot be read back
        scope = dict(reader.account_values(alert.account_id))
    except NotFound:
        return []
    groups = [name for name in scope if name not in ("key", "model")]
    rows = reader.spend([*groups, "key", "model"], alert.window_start, now + 1)
    kept = [row for row in rows if _is_in(row, scope)]
    return [
        {
            "name": f"{row.group['key']}/{row.group['model']}",
            "cost_usd": format_usd(row.cost_nanos),
            "cost_nanos": row.cost_nanos,
        }
        for row in kept[:TOP]
        if row.cost_nanos
    ]


def _is_in(row: SpendRow, scope: Mapping[str, str]) -> bool:
    return all(
        _matches(value, row.group[name].lower() if name == "model" else row.group[name])
        for name, value in scope.items()
    )


def _matches(wanted: str, value: str) -> bool:
    return value == wanted or (wanted.endswith("*") and value.startswith(wanted[:-1]))
