"""`outlay policy`: check, plan and apply a file of policies; list, show, trace and delete stored ones."""

import argparse
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from outlay.app.cli.access import actor, objects_of, open_config, operating, reading
from outlay.app.cli.exit_codes import CONFLICT, FAILED, OK
from outlay.app.cli.output import Terminal, iso, scope_words
from outlay.app.config import Config
from outlay.app.config.policy_file import PolicyFile, budget_names, policies_in_force, read_policies
from outlay.app.config.tree import PolicyEntry
from outlay.app.policy_plan import CHANGE, Plan, PlannedChange, field_changes, notes_of
from outlay.flow.ledger.rows import NoLedger
from outlay.kernel.errors import NotFound


def check(options: argparse.Namespace, terminal: Terminal) -> int:
    """Every problem of a file; budgets of ladders are looked up where there is a configuration."""
    file = read_checked(options, terminal)
    found = {"budgets": len(file.document.budgets), "policies": len(file.document.policies)}
    terminal.document({"file": str(file.path), **found})
    terminal.text(f"{file.path.name} is good: {found['policies']} policies, {found['budgets']} budgets")
    return OK


def plan(options: argparse.Namespace, terminal: Terminal) -> int:
    """What an apply would do."""
    found = _applied(options, terminal, is_plan=True)
    _print(found, terminal, is_plan=True)
    return FAILED if options.detailed_exitcode and found.has_changes else OK


def apply(options: argparse.Namespace, terminal: Terminal) -> int:
    """Make it so: all of it, or nothing."""
    found = _applied(options, terminal, is_plan=False)
    _print(found, terminal, is_plan=False)
    return CONFLICT if found.read_only else OK


def show_all(options: argparse.Namespace, terminal: Terminal) -> int:
    """All policies in a line each."""
    found = policies(options.config)
    terminal.document({"policies": found})
    terminal.table(
        ("POLICY", "SCOPE", "MODE", "SAYS", "FROM"),
        [
            (
                item["name"],
                scope_words(item["body"].get("scope", {})),
                "shadow" if item["body"].get("shadow") else "enforce",
                ", ".join(_says(item["body"])),
                item["place"] or f"store v{item['version']}",
            )
            for item in found
        ],
    )
    return OK


def show(options: argparse.Namespace, terminal: Terminal) -> int:
    """One policy with all its fields."""
    found = next((item for item in policies(options.config) if item["name"] == options.name), None)
    if found is None:
        raise NotFound(f"there is no policy {options.name!r}")
    terminal.document(found)
    terminal.text(
        f"policy {found['name']}, declared in {found['place'] or 'the ledger, version ' + str(found['version'])}"
    )
    terminal.table(
        ("FIELD", "VALUE"),
        [(name, _text(value)) for name, value in found["body"].items() if name != "name"],
    )
    return OK


def history(options: argparse.Namespace, terminal: Terminal) -> int:
    """The versions of a stored policy, the newest first."""
    with reading(open_config(options.config)) as reader:
        rows = reader.versions("policy", options.name)
        notes = notes_of([row.body for row in reader.versions(CHANGE)])
    if not rows:
        raise NotFound(
            f"no policy {options.name!r} was ever stored; what outlay.yaml declares has its history there"
        )
    before = [*(row.body for row in rows[1:]), ""]
    versions = [
        {
            "version": row.version,
            "at": iso(row.at),
            "actor": row.actor,
            "note": notes.get(("policy", row.name, row.version), ""),
            "is_deleted": not row.body,
            "changes": msgspec.to_builtins(field_changes(old, row.body)),
        }
        for row, old in zip(rows, before, strict=True)
    ]
    terminal.document({"name": options.name, "versions": versions})
    for item in versions:
        what = "deleted" if item["is_deleted"] else "stored"
        note = f": {item['note']}" if item["note"] else ""
        terminal.text(f"version {item['version']}  {item['at']}  {what} by {item['actor']}{note}")
        for change in item["changes"]:
            terminal.text(f"    {change['field']}: {_text(change['old'])} -> {_text(change['new'])}")
    return OK


def delete(options: argparse.Namespace, terminal: Terminal) -> int:
    """Take a stored policy away: in force for the next call."""
    with operating(options.config) as operations:
        done = operations.delete("policy", options.name, actor())
    terminal.document(done)
    terminal.text(f"policy {options.name} deleted")
    return OK


def policies(config_path: str) -> list[dict[str, Any]]:
    """Every policy that is in force."""
    return policies_in_force(open_config(config_path), objects_of(config_path, "policy"))


def read_checked(options: argparse.Namespace, terminal: Terminal, *, alone: bool = False) -> PolicyFile:
    """The file of policies. Raises ConfigErrors. `alone`: its ladders may stand on its own budgets only."""
    known = set() if alone else _known_budgets(options, terminal)
    return read_policies(Path(options.file), os.environ, known)


def _known_budgets(options: argparse.Namespace, terminal: Terminal) -> set[str] | None:
    if not Path(options.config).exists():
        terminal.note(f"there is no {options.config} here: budgets of ladders are not looked up")
        return None
    config = open_config(options.config)
    return budget_names(config, _stored(config))


def _stored(config: Config) -> list[tuple[str, str, str]]:
    try:
        with reading(config) as reader:
            return [(row.kind, row.name, row.body) for row in reader.objects()]
    except NoLedger:
        return []  # no ledger yet, so nothing is stored


def _applied(options: argparse.Namespace, terminal: Terminal, *, is_plan: bool) -> Plan:
    file = read_checked(options, terminal)
    with operating(options.config) as operations:
        document = operations.apply_policies(
            file.objects(),
            actor(),
            "" if is_plan else options.note,
            file.sections if options.prune else (),
            is_plan=is_plan,
        )
    found = msgspec.convert(document, Plan)
    terminal.document({"file": str(file.path), "has_changes": found.has_changes, **_document(found)})
    return found


def _document(found: Plan) -> dict[str, Any]:
    def changes(items: Iterable[PlannedChange]) -> list[dict[str, Any]]:
        return [
            {"kind": item.kind, "name": item.name, "fields": msgspec.to_builtins(item.fields)}
            for item in items
        ]

    return {
        "made": changes(found.made),
        "changed": changes(found.changed),
        "deleted": changes(found.deleted),
        "unchanged": [{"kind": item.kind, "name": item.name} for item in found.unchanged],
        "read_only": msgspec.to_builtins(found.read_only),
        "is_applied": found.is_applied,
    }


def _print(found: Plan, terminal: Terminal, *, is_plan: bool) -> None:
    for sign, items in (("+", found.made), ("~", found.changed), ("-", found.deleted)):
        for item in items:
            terminal.text(f"{sign} {item.kind} {item.name}")
            for change in item.fields if sign != "-" else ():
                old = "" if sign == "+" else f"{_text(change.old)} -> "
                terminal.text(f"    {change.field}: {old}{_text(change.new)}")
    for standing in found.read_only:
        terminal.text(
            f"! {standing.kind} {standing.name}: read-only, declared in {standing.place}; edit it there"
        )
    counts = f"{len(found.made)} to make, {len(found.changed)} to change, {len(found.deleted)} to delete"
    if found.read_only:
        terminal.text("nothing was changed" if not is_plan else "an apply would change nothing")
    elif not found.has_changes:
        terminal.text(f"nothing to do: {len(found.unchanged)} objects are as the file says")
    elif is_plan:
        terminal.text(f"{counts}, {len(found.unchanged)} unchanged")
    else:
        done = f"{len(found.made)} made, {len(found.changed)} changed, {len(found.deleted)} deleted"
        terminal.text(f"{done}, {len(found.unchanged)} unchanged; in force for the next call")


def _says(body: Mapping[str, Any]) -> list[str]:
    """What a policy limits, by its fields' names, with the value where that is one word."""
    entry = msgspec.convert(body, PolicyEntry)
    found = []
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if name not in ("name", "scope", "shadow") and value not in (None, (), ""):
            found.append(f"{name} {value}" if isinstance(value, str | int) else name)
    return found


def _text(value: Any) -> str:
    """A field's value on one line."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
