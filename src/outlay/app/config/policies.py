"""Policies as they are written: checked by path, and made into the records that the gateway works with."""

import re
from collections.abc import Callable
from typing import Final

from outlay.app.config.decode import joined
from outlay.app.config.tree import HoursEntry, PolicyEntry
from outlay.flow.budgets import Origin
from outlay.flow.policy import Hours, PolicyMode, PolicySpec, Rung
from outlay.flow.scope import MAX_VALUE_LENGTH
from outlay.flow.windows import parse_window
from outlay.kernel.money import usd_to_nanos

Report = Callable[[str, str], object]
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_PERCENT: Final = 100
_CLOCK: Final = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])\Z")
_COUNTS: Final = ("requests_per_minute", "tokens_per_minute", "parallel")
_AMOUNTS: Final = (
    "max_input_usd_per_mtok",
    "max_output_usd_per_mtok",
    "max_usd_per_call",
    "usd_per_minute",
    "usd_per_hour",
)


def check_policy(policy: PolicyEntry, path: str, report: Report) -> None:
    """A policy limits something, and each of its parts means something. Its scope is checked by the caller."""
    if "/" in policy.name:
        report(
            joined(path, "name"),
            "may not hold a slash: budgets of its spend velocity are named NAME/usd-per-...",
        )
    for name in _COUNTS:
        if getattr(policy, name) == 0:
            report(joined(path, name), "must be 1 or more; to refuse everything, `outlay kill` it")
    for name in ("allow_models", "deny_models", "providers"):
        if any(not item or len(item) > MAX_VALUE_LENGTH for item in getattr(policy, name)):
            report(joined(path, name), f"needs names of 1 to {MAX_VALUE_LENGTH} characters")
        elif name != "providers" and any("*" in item[:-1] for item in getattr(policy, name)):
            report(joined(path, name), "`*` may stand at the end only")
    for index, rung in enumerate(policy.ladder):
        at = joined(path, f"ladder[{index}]")
        if not 1 <= rung.at_percent <= MAX_PERCENT:
            report(f"{at}.at_percent", f"must be between 1 and {MAX_PERCENT} per cent of the budget")
        if any("*" in item[:-1] for item in rung.models):
            report(f"{at}.models", "`*` may stand at the end only")
        if bool(rung.use) == rung.pause:
            report(at, "needs either `use: MODEL` or `pause: true`")
    if policy.hours is not None:
        _check_hours(policy.hours, joined(path, "hours"), report)
    said = (
        *(getattr(policy, name) for name in (*_COUNTS, *_AMOUNTS)),
        policy.hours,
        policy.clamp,
        policy.runaway,
    )
    lists = (policy.allow_models, policy.deny_models, policy.providers, policy.ladder)
    if all(value is None for value in said) and not any(lists):
        report(path, "limits nothing; give it a limit, or take it away")


def policy_of(entry: PolicyEntry, origin: Origin, place: str) -> PolicySpec:
    """A policy, checked before."""
    return PolicySpec(
        name=entry.name,
        scope=entry.scope,
        mode=PolicyMode.SHADOW if entry.shadow else PolicyMode.ENFORCE,
        allow_models=entry.allow_models,
        deny_models=entry.deny_models,
        providers=entry.providers,
        max_input_nanos_per_mtok=_nanos(entry.max_input_usd_per_mtok),
        max_output_nanos_per_mtok=_nanos(entry.max_output_usd_per_mtok),
        max_nanos_per_call=_nanos(entry.max_usd_per_call),
        requests_per_minute=entry.requests_per_minute,
        tokens_per_minute=entry.tokens_per_minute,
        parallel=entry.parallel,
        nanos_per_minute=_nanos(entry.usd_per_minute),
        nanos_per_hour=_nanos(entry.usd_per_hour),
        ladder=tuple(Rung(rung.at_percent, rung.budget, rung.use, rung.models) for rung in entry.ladder),
        hours=None if entry.hours is None else _hours(entry.hours),
        runaway=entry.runaway,
        clamp=entry.clamp,
        origin=origin,
        place=place,
    )


def _check_hours(hours: HoursEntry, path: str, report: Report) -> None:
    for day in hours.days:
        if day not in WEEKDAYS:
            report(f"{path}.days", f"{day!r} is no day; use {', '.join(WEEKDAYS)}")
    if not hours.days:
        report(f"{path}.days", "names no day: nothing would ever pass")
    for name in ("start", "end"):
        found = _CLOCK.match(getattr(hours, name))
        if found is None or (found[1] == "24" and found[2] != "00"):
            report(f"{path}.{name}", "needs a time such as 08:00, between 00:00 and 24:00")
    if hours.start == hours.end:
        report(f"{path}.end", "is the start: nothing would ever pass")
    try:
        parse_window("day", hours.timezone)
    except ValueError as error:
        report(f"{path}.timezone", str(error))


def _hours(entry: HoursEntry) -> Hours:
    return Hours(entry.days, _minute(entry.start), _minute(entry.end), entry.timezone)


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _nanos(amount: str | None) -> int | None:
    return None if amount is None else usd_to_nanos(amount)
