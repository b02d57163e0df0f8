"""`outlay key`: make, rotate, list and revoke virtual keys. A secret is shown once, when made, and nowhere kept."""

import argparse
from typing import Any

from outlay.app.cli.access import actor, objects_of, open_config, operating, pairs
from outlay.app.cli.exit_codes import OK
from outlay.app.cli.output import Terminal
from outlay.app.cli.parser import PINNED_DIMENSIONS
from outlay.app.cli.run import Conflict
from outlay.app.cli.times import parse_length
from outlay.app.config import KeyEntry, new_secret, secret_hash


def create(options: argparse.Namespace, terminal: Terminal) -> int:
    """Make a key; a name that exists is a conflict."""
    secret = new_secret()
    body: dict[str, Any] = {"name": options.name, "secret_sha256": secret_hash(secret)}
    body |= {name: getattr(options, name) for name in PINNED_DIMENSIONS if getattr(options, name)}
    body["tags"] = dict(pairs(options.tag, "--tag"))
    body["allow_models"], body["deny_models"] = options.allow_model, options.deny_model
    if options.run_parent is not None:
        body["run_parent"] = options.run_parent
    if options.expires is not None:
        body["expires"] = options.expires
    with operating(options.config) as operations:
        for found in operations.objects():
            if (found["kind"], found["name"]) == ("key", options.name) and found["origin"] == "store":
                raise Conflict(
                    f"there is a key {options.name!r} already; revoke it first or choose another name"
                )
        made = operations.put("key", options.name, body, actor())
    shown = {name: value for name, value in body.items() if name != "secret_sha256" and value}
    terminal.document({**made, **shown, "secret": secret})
    terminal.text(f"key {options.name} made; its secret is shown this once:")
    terminal.text(secret)
    return OK


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """All keys and what they pin."""
    declared = {key.name: key for key in open_config(options.config).declared.keys}
    keys = [_described(found, declared) for found in objects_of(options.config, "key")]
    terminal.document({"keys": keys})
    terminal.table(
        ("KEY", "PINS", "MODELS", "SECRETS", "EXPIRES", "FROM"),
        [
            (
                key["name"],
                ",".join(f"{name}={value}" for name, value in key["pins"].items()) or "-",
                _models(key),
                _secrets(key),
                key["expires"] or "-",
                key["place"] or f"store v{key['version']}",
            )
            for key in keys
        ],
    )
    return OK


def rotate(options: argparse.Namespace, terminal: Terminal) -> int:
    """Give a key a new secret. Budgets, rules and what was spent are the key's and stay."""
    overlap_s = parse_length(options.overlap, "--overlap")
    secret = new_secret()
    with operating(options.config) as operations:
        # only the hash goes to the gateway
        made = operations.rotate_key(options.name, secret_hash(secret), overlap_s, actor())
    until = made["previous"][-1]
    terminal.document({**made, "secret": secret, "old_until": until})
    terminal.text(f"key {options.name} has a new secret; it is shown this once:")
    terminal.text(secret)
    terminal.text(f"the old one is refused from {until} on" if overlap_s else "the old one is refused now")
    return OK


def revoke(options: argparse.Namespace, terminal: Terminal) -> int:
    """Take a key away: its bearer is refused from now on."""
    with operating(options.config) as operations:
        done = operations.delete("key", options.name, actor())
    terminal.document(done)
    terminal.text(f"key {options.name} revoked")
    return OK


def _described(found: dict[str, Any], declared: dict[str, KeyEntry]) -> dict[str, Any]:
    """One key with stable fields, wherever it was declared."""
    body: dict[str, Any] = found.get("body") or {}
    entry = declared.get(found["name"]) if found["origin"] == "yaml" else None
    if entry is not None:
        body = {name: getattr(entry, name) for name in entry.__struct_fields__}
    pins = {name: body[name] for name in PINNED_DIMENSIONS if body.get(name)}
    pins |= {f"tag.{name}": value for name, value in (body.get("tags") or {}).items()}
    return {
        "name": found["name"],
        "origin": found["origin"],
        "place": found.get("place"),
        "version": found.get("version"),
        "pins": pins,
        "allow_models": list(body.get("allow_models") or ()),
        "deny_models": list(body.get("deny_models") or ()),
        "run_parent": body.get("run_parent") or None,
        "expires": body.get("expires"),
        "previous": [_until(old) for old in body.get("previous") or ()],
    }


def _until(old: Any) -> str:
    """When an earlier secret ends; it comes as JSON, or as an entry of the file."""
    return str(old["until"] if isinstance(old, dict) else old.until)


def _secrets(key: dict[str, Any]) -> str:
    """The current secret, and when those before it end."""
    return ", ".join(("1", *(f"old until {until}" for until in key["previous"])))


def _models(key: dict[str, Any]) -> str:
    allowed = ",".join(key["allow_models"]) or "all"
    return allowed + "".join(f",-{pattern}" for pattern in key["deny_models"])
