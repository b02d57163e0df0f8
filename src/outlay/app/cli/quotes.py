"""`outlay quote`: what would this request be held at, which budgets apply, may it pass. Holds nothing."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from outlay.app.cli.access import operating
from outlay.app.cli.exit_codes import FAILED, OK
from outlay.app.cli.output import Terminal, iso, money, usd, window_words
from outlay.kernel.errors import ConfigError

MAX_BODY: Final = 32 * 1024 * 1024
"""As the gateway's own default."""


def quote(options: argparse.Namespace, terminal: Terminal) -> int:
    """Exit code 0 if the request would pass now, 1 if it would be refused."""
    body = _body(options.file)
    with operating(options.config) as operations:
        found = operations.quote(options.path, body, options.key)
    refusal = found.get("refusal")
    if refusal is not None:
        refusal = {name: refusal.get(name) for name in ("status", "code", "message", "fields")}
    if "quote" not in found:  # no price, no route, or not a request: nothing to compute
        terminal.document({"passes": False, "bound": None, "budgets": [], "refusal": refusal})
        terminal.text(
            f"refused ({refusal['status']} {refusal['code']}): {refusal['message']}" if refusal else "refused"
        )
        return FAILED
    bound = _bound(found)
    budgets = [_budget(budget) for budget in found["budgets"]]
    terminal.document({"passes": found["passes"], "bound": bound, "budgets": budgets, "refusal": refusal})
    _print(found, bound, budgets, refusal, terminal)
    return OK if found["passes"] else FAILED


def _print(
    found: dict[str, Any],
    bound: dict[str, Any],
    budgets: list[dict[str, Any]],
    refusal: dict[str, Any] | None,
    terminal: Terminal,
) -> None:
    terminal.text(
        f"{bound['provider']} {bound['model']}: at most {usd(bound['total_nanos'])}"
        f" (input {usd(bound['input_nanos'])} for at most {bound['input_tokens']} tokens,"
        f" output {usd(bound['output_nanos'])} for at most {bound['max_output_tokens']},"
        f" fees {usd(bound['fees_nanos'])})"
    )
    terminal.text(
        f"price {bound['price_id']}{' (a ceiling)' if bound['is_ceiling'] else ''}: {bound['price_source']}"
    )
    terminal.table(
        ("BUDGET", "SCOPE", "WINDOW", "KIND", "LIMIT", "SPENT", "HELD", "AVAILABLE", "RESETS"),
        [
            (
                budget["name"],
                budget["scope"],
                budget["window"],
                "hard" if budget["hard"] else "soft",
                usd(budget["limit_nanos"]),
                usd(budget["spent_nanos"]),
                usd(budget["held_nanos"]),
                usd(budget["available_nanos"]),
                budget["resets_at"] or "-",
            )
            for budget in budgets
        ],
        right="LIMIT SPENT HELD AVAILABLE",
    )
    if refusal is not None:
        terminal.text(f"refused ({refusal['status']} {refusal['code']}): {refusal['message']}")
        return
    how = f", moved from {bound['downgraded_from']} to {bound['model']}" if bound["downgraded_from"] else ""
    if bound["is_clamped"]:
        how += f", with its output limited to {found['max_output_tokens']} tokens"
    terminal.text(f"passes{how}")


def _bound(found: dict[str, Any]) -> dict[str, Any]:
    """The worst case with stable fields."""
    parts = found["quote"]
    return {
        "provider": found["provider"],
        "model": found["model"],
        **money("total", parts["total_nanos"]),
        **money("input", parts["input_nanos"]),
        **money("output", parts["output_nanos"]),
        **money("fees", parts["fees_nanos"]),
        "input_tokens": parts["input_tokens"],
        "max_output_tokens": parts["max_output_tokens"],
        "choices": parts["choices"],
        "is_clamped": found["is_clamped"],
        "clamped_max_output_tokens": found["max_output_tokens"] if found["is_clamped"] else None,
        "price_id": found["price_id"],
        "price_source": found["price_source"],
        "is_ceiling": found["is_ceiling"],
        "downgraded_from": found["downgraded_from"] or None,
    }


def _budget(budget: dict[str, Any]) -> dict[str, Any]:
    limit = budget["limit_nanos"]
    left = None if limit is None else limit - budget["spent_nanos"] - budget["held_nanos"]
    return {
        "name": budget["budget"],
        "scope": budget["scope"],
        "window": window_words(budget["window"]),
        "hard": budget["is_hard"],
        **money("limit", limit),
        **money("spent", budget["spent_nanos"]),
        **money("held", budget["held_nanos"]),
        **money("available", left),
        "resets_at": iso(budget["resets_at"]),
    }


def _body(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BODY + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(MAX_BODY + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", key="--file") from error
    if len(data) > MAX_BODY:
        raise ConfigError(f"larger than {MAX_BODY // 1024 // 1024} MiB", key="--file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("the request is not UTF-8", key="--file") from error
