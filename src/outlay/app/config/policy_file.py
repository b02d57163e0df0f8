"""A file of policies and budgets: read and checked exactly as those of outlay.yaml, all problems at once."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outlay.app.config.checks import VERSION, Known, check_records
from outlay.app.config.convert import budget_of
from outlay.app.config.decode import Decoder, Place
from outlay.app.config.document import DocumentError, Problem, Table, read_yaml
from outlay.app.config.load import Config, errors_by_line, read_text, report_duplicates
from outlay.app.config.policies import policy_of
from outlay.app.config.tree import BudgetEntry, PolicyEntry
from outlay.flow.budgets import RUN_METER, BudgetSpec, Origin
from outlay.flow.policy import PolicySpec, budgets_of


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What such a file may hold."""

    version: int = VERSION
    """Of the format; outlay.yaml's."""
    budgets: tuple[BudgetEntry, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A checked file."""

    path: Path
    document: PolicyDocument
    sections: tuple[str, ...]
    """Kinds of object (`budget`, `policy`) whose section the file has, be it empty: what `--prune` is about."""
    places: Mapping[str, Place]

    def place(self, path: str) -> str:
        """`policies.yaml:12` of a path."""
        found = self.places.get(path)
        return self.path.name if found is None or found.line is None else f"{self.path.name}:{found.line}"

    def objects(self) -> list[dict[str, Any]]:
        """Every entry as `Operations.apply_policies` takes it."""
        entries: list[tuple[str, BudgetEntry | PolicyEntry]] = []
        entries += [("budget", budget) for budget in self.document.budgets]
        entries += [("policy", policy) for policy in self.document.policies]
        return [
            {"kind": kind, "name": entry.name, "body": msgspec.to_builtins(entry)} for kind, entry in entries
        ]

    def policies(self) -> tuple[PolicySpec, ...]:
        """Its policies as the gateway works with them."""
        return tuple(
            policy_of(entry, Origin.STORE, self.place(f"policies[{index}]"))
            for index, entry in enumerate(self.document.policies)
        )

    def budgets(self) -> tuple[BudgetSpec, ...]:
        """Its budgets as the gateway works with them."""
        return tuple(
            budget_of(entry, Origin.STORE, self.place(f"budgets[{index}]"))
            for index, entry in enumerate(self.document.budgets)
        )


def read_policies(
    path: Path, environ: Mapping[str, str], known_budgets: Collection[str] | None = None
) -> PolicyFile:
    """Read and check a file. Raises ConfigErrors with every problem, `file:line: key: problem`.

    `known_budgets` are those that a ladder may stand on beside the file's own; None: any, because nobody knows.
    """
    text = read_text(path, "there is no such file")
    decoder = Decoder()
    try:
        root = read_yaml(text, environ)
    except DocumentError as error:
        raise errors_by_line(path, [error.problem], {}) from error
    if not isinstance(root, Table):
        what = "the file is empty" if root is None else "needs a mapping at the top"
        raise errors_by_line(path, [Problem("", 1, f"{what}; it holds `policies:` and `budgets:`")], {})
    document = decoder.struct(root, PolicyDocument, "")
    report_duplicates(root, decoder)
    check_records(decoder.records, Known(path.parent, (), (), ()), decoder.refine)
    if isinstance(document, PolicyDocument):
        if document.version != VERSION:
            decoder.refine("version", f"this release reads version {VERSION}, not {document.version}")
        if known_budgets is not None:
            _check_rungs(document, known_budgets, decoder)
    if decoder.problems or not isinstance(document, PolicyDocument):
        raise errors_by_line(path, decoder.problems, decoder.places)
    names = {entry.key for entry in root.entries}
    sections = tuple(kind for kind, key in (("budget", "budgets"), ("policy", "policies")) if key in names)
    return PolicyFile(path, document, sections, decoder.places)


def policies_in_force(config: Config, objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Policies among the objects that `Operations.objects` names, each with its body as it is written.

    A stored one whose name the file owns is left out, and so is one that the file let go of a moment ago.
    """
    declared = {entry.name: entry for entry in config.declared.policies}
    found = []
    for item in objects:
        is_stored = item["origin"] == "store"
        if is_stored == (item["name"] in declared):
            continue
        body = item["body"] if is_stored else msgspec.to_builtins(declared[item["name"]])
        found.append(
            {
                "name": item["name"],
                "origin": item["origin"],
                "place": item.get("place"),
                "version": item.get("version"),
                "body": body,
            }
        )
    return found


def budget_names(config: Config, stored: Collection[tuple[str, str, str]]) -> set[str]:
    """Budgets that outlay.yaml and stored objects (kind, name, body) make, those of spend velocity included."""
    entries = list(config.declared.policies)
    names = {entry.name for entry in config.declared.budgets}
    for kind, name, body in stored:
        if kind == "budget" and body:
            names.add(name)
        elif kind == "policy" and body:
            entries.append(msgspec.json.decode(body, type=PolicyEntry))
    return names | _velocity(entries)


def _velocity(entries: Collection[PolicyEntry]) -> set[str]:
    return {budget.name for entry in entries for budget in budgets_of(policy_of(entry, Origin.STORE, ""))}


def _check_rungs(document: PolicyDocument, known: Collection[str], decoder: Decoder) -> None:
    """A rung stands on a budget that there is."""
    if decoder.problems:
        return  # a velocity that cannot be read would be one error more
    names = {*known, *(entry.name for entry in document.budgets), RUN_METER} | _velocity(document.policies)
    for index, entry in enumerate(document.policies):
        for number, rung in enumerate(entry.ladder):
            if rung.budget not in names:
                decoder.refine(
                    f"policies[{index}].ladder[{number}].budget",
                    f"there is no budget {rung.budget!r}; the file, outlay.yaml and the ledger name none",
                )
