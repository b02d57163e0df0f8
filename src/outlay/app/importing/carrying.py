"""Puts a plan in force: objects through the ledger's owner, the rest into a file, and says what became of each part."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from outlay.app.config import Config, ConfigErrors, load_config, parse_config
from outlay.app.config.tree import Declared
from outlay.app.control import open_operations
from outlay.app.importing.comparison import Comparison, Conflict, Item, Spent, compare
from outlay.app.importing.plan import Opening, Plan
from outlay.app.importing.yaml_text import Sections, piece_text, whole_text
from outlay.app.operations import Operating
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.ledger.rows import is_there
from outlay.flow.scope import Identity, match_scope, scope_text
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, OutlayError, StoreError

OWNER_ONLY: Final = 0o600
_CHUNK: Final = 500
"""Objects of one step: a running gateway serves calls between two of them."""


@dataclass(slots=True)
class Outcome:
    """What an import did, or would do."""

    made: list[Item] = field(default_factory=list)
    same: list[Item] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    openings: list[tuple[Opening, int | None]] = field(default_factory=list)
    """With what was posted; None: not yet."""
    file: Path | None = None
    """Written, or to be written."""
    is_whole: bool = False
    """`file` is a complete outlay.yaml."""
    is_file_new: bool = False
    """It was not there with this very text."""

    @property
    def changes(self) -> bool:
        """Whether anything is made."""
        return bool(self.made or self.openings or self.is_file_new)


def carry(
    plan: Plan, path: Path, environ: Mapping[str, str], actor: str, *, dry_run: bool, replace: bool = False
) -> Outcome:
    """Put a plan in force beside the outlay.yaml at `path`, which is written if there is none.

    Raises ConfigErrors, StoreError. What cannot be stored is a conflict and stops nothing else.
    """
    is_fresh = not path.exists()
    everything = Sections(tuple(plan.providers), tuple(plan.models), tuple(plan.access))
    planned = _planned(plan, everything, path, environ, must=is_fresh and not dry_run)
    config = None if is_fresh else load_config(path, environ)
    outcome = Outcome(is_whole=is_fresh)
    if is_fresh:
        outcome.file, outcome.is_file_new = path, True
        outcome.made += _file_items(everything)
        if dry_run:
            _report(outcome, plan, compare(plan, None, planned, [], _nobody_knows))
            return outcome
        _write(path, whole_text(plan.source, secrets.token_urlsafe(32), everything))
        config = load_config(path, environ)
    assert config is not None
    if dry_run:
        _dry(outcome, plan, config, planned, environ)
        return outcome
    with open_operations(path, environ) as operations:
        found = compare(plan, config, planned, operations.objects(), _nobody_knows)
        _settle_file(outcome, plan, config, found, write=True)
        outcome.same += [] if is_fresh else [item for item in found.same if item.kind in _FILE_KINDS]
        outcome.same += [item for item in found.same if item.kind not in _FILE_KINDS]
        _store(outcome, found, operations, actor, replace=replace)
        _open(outcome, found, operations, config, actor)
    return outcome


_FILE_KINDS: Final = frozenset({"provider", "model", "access"})


def _planned(
    plan: Plan, sections: Sections, path: Path, environ: Mapping[str, str], *, must: bool
) -> Declared | None:
    """The plan's part of the file as it would be read. Its problems stop a file that must be read at once."""
    try:
        return parse_config(whole_text(plan.source, "x" * 32, sections), path, environ).declared
    except ConfigErrors as errors:
        if must:
            raise
        for problem in errors.problems:
            plan.note(f"the file to be written: {problem.key or ''} {problem.problem}")
        return None


def _dry(
    outcome: Outcome, plan: Plan, config: Config, planned: Declared | None, environ: Mapping[str, str]
) -> None:
    if not is_there(config.ledger_place):
        found = compare(plan, config, planned, [], _nobody_knows)
    else:
        with open_operations(config.path, environ) as operations:
            objects = operations.objects()
        with LedgerReader(config.ledger_place) as reader:
            found = compare(plan, config, planned, objects, _balances(reader, config))
    _settle_file(outcome, plan, config, found, write=False)
    outcome.same += found.same
    _report(outcome, plan, found)


def _report(outcome: Outcome, plan: Plan, found: Comparison) -> None:
    """What would be made."""
    del plan
    outcome.made += [Item(kind, name) for kind, name, _ in found.new]
    outcome.conflicts += found.conflicts
    outcome.openings += [(opening, None) for opening in found.openings]


def _nobody_knows(_opening: Opening, _scope: Mapping[str, str]) -> int | None:
    return None


def _balances(reader: LedgerReader, config: Config) -> Spent:
    """What accounts have spent in their current windows, from the ledger."""
    spent = {
        (view.budget, view.scope): view.spent_nanos
        for view in reader.accounts(SystemClock().now())
        if view.is_current
    }

    def look_up(opening: Opening, scope: Mapping[str, str]) -> int | None:
        values = match_scope(scope, _identity(opening, config.org))
        return None if values is None else spent.get((opening.budget, scope_text(values)))

    return look_up


def _identity(opening: Opening, org: str) -> Identity:
    return msgspec.convert({"org": org, **opening.identity}, Identity)


def _settle_file(outcome: Outcome, plan: Plan, config: Config, found: Comparison, *, write: bool) -> None:
    """What only the file can declare goes beside it, for a person to paste."""
    if found.sections.is_empty():
        return
    path = config.path.with_name(f"{config.path.stem}.imported.yaml")
    text = piece_text(plan.source, config.file, found.sections)
    outcome.file = path
    outcome.is_file_new = not (path.exists() and path.read_text("utf-8") == text)
    if outcome.is_file_new:
        outcome.made += _file_items(found.sections)
    if write and outcome.is_file_new:
        _write(path, text)


def _file_items(sections: Sections) -> list[Item]:
    found = [Item("provider", entry.name, "in the file") for entry in sections.providers]
    found += [Item("model", entry.name, "in the file") for entry in sections.models]
    found += [Item("access", str(dict(entry.scope)), "in the file") for entry in sections.access]
    found += [
        Item("price", f"{getattr(entry, 'provider', '')}/{getattr(entry, 'model', '')}", "in the file")
        for entry in sections.prices
    ]
    return found


def _store(outcome: Outcome, found: Comparison, operations: Operating, actor: str, *, replace: bool) -> None:
    items = list(found.new)
    for conflict in found.conflicts:
        again = next((item for item in found.replaceable if item[:2] == conflict[:2]), None)
        if replace and again is not None:
            items.append(again)
        else:
            outcome.conflicts.append(conflict)
    for start in range(0, len(items), _CHUNK):
        chunk: list[dict[str, Any]] = [
            {"kind": kind, "name": name, "body": msgspec.to_builtins(entry)}
            for kind, name, entry in items[start : start + _CHUNK]
        ]
        for answer in operations.put_all(chunk, actor):
            if "problem" in answer:
                outcome.conflicts.append(
                    Conflict(
                        answer["kind"], answer["name"], answer["problem"], "change it where it comes from"
                    )
                )
            else:
                outcome.made.append(Item(answer["kind"], answer["name"], f"store v{answer['version']}"))


def _open(outcome: Outcome, found: Comparison, operations: Operating, config: Config, actor: str) -> None:
    """Narrowest first, as the plan has them: a wider budget's opening adds what the narrower ones do not cover."""
    lost = {conflict.name for conflict in outcome.conflicts if conflict.kind == "budget"}
    for opening in found.openings:
        if opening.budget in lost:
            continue
        asked = {
            "budget": opening.budget,
            "identity": {"org": config.org, **opening.identity},
            "nanos": opening.nanos,
            "at": opening.at,
            "note": opening.note,
        }
        try:
            posted = int(operations.open_with(asked, actor)["posted_nanos"])
        except StoreError:
            raise
        except (ConfigError, OutlayError) as error:
            outcome.conflicts.append(
                Conflict("opening", opening.budget, str(error), "outlay budget show " + opening.budget)
            )
            continue
        if posted:
            outcome.openings.append((opening, posted))
        else:
            outcome.same.append(Item("opening", opening.budget))


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path.name} cannot be written: {error.strerror}") from error
