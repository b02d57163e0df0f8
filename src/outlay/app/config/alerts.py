"""The `alerts` section as it is written: what its targets and rules must say."""

from collections.abc import Callable
from urllib.parse import urlsplit

from outlay.app.config.tree import AlertsSection

Report = Callable[[str, str], object]
MAX_PERCENT = 10_000


def check_alerts(section: AlertsSection, path: str, report: Report) -> None:
    """Targets can be reached in principle, rules name targets that there are."""
    names: set[str] = set()
    for index, target in enumerate(section.targets):
        at = f"{path}.targets[{index}]"
        if not target.name or target.name in names:
            report(f"{at}.name", "needs a name of its own")
        names.add(target.name)
        if bool(target.url) == bool(target.webhook):
            report(at, "needs either url (of apprise) or webhook")
        if target.webhook and urlsplit(target.webhook).scheme not in ("http", "https"):
            report(f"{at}.webhook", "needs an http:// or https:// address")
        if target.secret and not target.webhook:
            report(f"{at}.secret", "signs webhooks only")
    seen: set[str] = set()
    for index, rule in enumerate(section.rules):
        at = f"{path}.rules[{index}]"
        if not rule.name or rule.name in seen or "|" in rule.name:
            report(f"{at}.name", "needs a name of its own, without `|`")
        seen.add(rule.name)
        if not rule.percent and not rule.run_rate_percent:
            report(at, "needs percent or run_rate_percent: thresholds in per cent of the limit")
        for field in ("percent", "run_rate_percent"):
            if any(not 1 <= value <= MAX_PERCENT for value in getattr(rule, field)):
                report(f"{at}.{field}", f"needs per cents between 1 and {MAX_PERCENT}")
        for name in rule.targets:
            if name not in names:
                report(
                    f"{at}.targets",
                    f"there is no target {name!r}; known: {', '.join(sorted(names)) or 'none'}",
                )
    if section.rules and not section.targets:
        report(f"{path}.targets", "nobody would be told; name a target")
