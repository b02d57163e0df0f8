"""How people are told: a signed webhook, or any service that `apprise` knows (Slack, mail, PagerDuty, Teams, ...).

Blocking; runs outside the gateway. A target's address is a secret: it never reaches a log, an error or the ledger.
"""

import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from outlay.app.cli.output import iso
from outlay.app.config.tree import AlertTargetEntry
from outlay.kernel.errors import ConfigError
from outlay.kernel.money import format_usd
from outlay.report.alerts import Alert, Kind, State

TRIES: Final = 3
PAUSE_S: Final = 1.0
"""Before the second try; doubles."""
TIMEOUT_S: Final = 10
SIGNATURE: Final = "x-outlay-signature"


class Told(msgspec.Struct, frozen=True):
    """Whether a target took a message."""

    target: str
    is_delivered: bool
    problem: str = ""


def tell(
    target: AlertTargetEntry, title: str, text: str, payload: Mapping[str, Any], *, pause_s: float = PAUSE_S
) -> Told:
    """Give a message to one target; tried a few times. Raises nothing."""
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        problem = _webhook(target, payload) if target.webhook else _service(target, title, text)
        if not problem:
            return Told(target.name, True)
    return Told(target.name, False, problem)


def sign(secret: str, at: int, body: bytes) -> str:
    """Value of `x-outlay-signature`: `t=SECONDS,v1=` and the HMAC-SHA256 of `SECONDS.BODY`, in hexadecimal."""
    digest = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _webhook(target: AlertTargetEntry, payload: Mapping[str, Any]) -> str:
    """POST the payload; what went wrong, without the address."""
    address = urlsplit(target.webhook)
    body = msgspec.json.encode(payload)
    at = int(time.time())
    headers = {"content-type": "application/json", "user-agent": "outlay", "content-length": str(len(body))}
    if target.secret:
        headers[SIGNATURE] = sign(target.secret, at, body)
    path = (address.path or "/") + (f"?{address.query}" if address.query else "")
    host, port = address.hostname or "", address.port
    connection: http.client.HTTPConnection
    if address.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be reached ({type(error).__name__})"
    finally:
        connection.close()
    return "" if 200 <= status < 300 else f"answered with status {status}"


def _service(target: AlertTargetEntry, title: str, text: str) -> str:
    try:
        import apprise
    except ImportError:
        return "install outlay[alerts] for it"
    service = apprise.Apprise()
    if not service.add(target.url):
        return "its url is none that apprise understands"
    return "" if service.notify(title=title, body=text) else "did not take the message"


def check_targets(targets: Sequence[AlertTargetEntry]) -> None:
    """Raises ConfigError if a target's url cannot be used."""
    for target in targets:
        if target.url:
            try:
                import apprise
            except ImportError:
                raise ConfigError(
                    "needs `pip install outlay[alerts]`", key=f"alerts.targets {target.name}"
                ) from None
            if not apprise.Apprise().add(target.url):
                raise ConfigError("is no url that apprise understands", key=f"alerts.targets {target.name}")


def title_of(alert: Alert) -> str:
    """One line."""
    what = "spent" if alert.kind is Kind.SPEND else "on course"
    if alert.state is State.RESOLVED:
        return f"Resolved: budget {alert.budget} ({alert.scope}) is below {alert.threshold} %"
    return f"Budget {alert.budget} ({alert.scope}): {alert.value_percent} % {what}"


def text_of(alert: Alert, contributors: Sequence[Mapping[str, str]], link: str) -> str:
    """What a person needs to know."""
    lines = [
        f"${format_usd(alert.spent_nanos)} spent and ${format_usd(alert.held_nanos)} held"
        f" of ${format_usd(alert.limit_nanos)}; threshold {alert.threshold} % of {alert.kind.value.replace('_', ' ')}."
    ]
    end = iso(alert.window_end)
    lines.append(f"The window ends at {end}." if end else "It does not reset.")
    if contributors:
        named = (f"{item['name']} ${item['cost_usd']}" for item in contributors)
        lines.append(f"Most of it: {', '.join(named)}.")
    if link:
        lines.append(link)
    return "\n".join(lines)


def payload_of(alert: Alert, contributors: Sequence[Mapping[str, str]], link: str) -> dict[str, Any]:
    """The webhook's JSON. Amounts as text and nanos."""
    return {
        "event": f"budget.alert.{alert.state.value}",
        "id": alert.id,
        "rule": alert.rule,
        "kind": alert.kind.value,
        "state": alert.state.value,
        "threshold_percent": alert.threshold,
        "value_percent": alert.value_percent,
        "budget": alert.budget,
        "scope": alert.scope,
        "currency": "USD",
        "limit": format_usd(alert.limit_nanos),
        "spent": format_usd(alert.spent_nanos),
        "held": format_usd(alert.held_nanos),
        "limit_nanos": alert.limit_nanos,
        "spent_nanos": alert.spent_nanos,
        "held_nanos": alert.held_nanos,
        "window_start": iso(alert.window_start) if alert.window_start else None,
        "resets_at": iso(alert.window_end),
        "fired_at": iso(alert.fired_at),
        "at": iso(alert.changed_at),
        "contributors": list(contributors),
        "link": link,
    }
