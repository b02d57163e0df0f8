"""What a file of policies would change among stored objects, field by field; and the record it leaves. Pure."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

PLANNED: Final = ("budget", "policy")
"""Kinds of object that a file of policies may hold, in the order in which they are made."""
CHANGE: Final = "policy_change"
"""Kind of the stored record of an applied file: which versions it made, and why."""
Names = tuple[str, str]
"""Kind and name."""


class FieldChange(msgspec.Struct, frozen=True):
    """One field of an object; an absent one is None."""

    field: str
    old: Any
    new: Any


class PlannedChange(msgspec.Struct, frozen=True):
    """An object that is made, changed or deleted."""

    kind: str
    name: str
    body: str
    """JSON of the entry; empty: deleted."""
    fields: tuple[FieldChange, ...]


class Standing(msgspec.Struct, frozen=True):
    """An object that stays as it is; `place` is where outlay.yaml declares it."""

    kind: str
    name: str
    place: str = ""


class Plan(msgspec.Struct, frozen=True):
    """What an apply does, or did."""

    made: tuple[PlannedChange, ...]
    changed: tuple[PlannedChange, ...]
    deleted: tuple[PlannedChange, ...]
    unchanged: tuple[Standing, ...]
    read_only: tuple[Standing, ...]
    """What outlay.yaml owns: it is changed there, and while the file names it nothing is applied."""
    is_applied: bool = False

    @property
    def has_changes(self) -> bool:
        """Whether there is something to do."""
        return bool(self.made or self.changed or self.deleted)

    def rows(self) -> list[tuple[str, str, str]]:
        """(kind, name, body) of what is written."""
        return [(item.kind, item.name, item.body) for item in (*self.made, *self.changed, *self.deleted)]

    def stored_after(self, stored: Mapping[Names, str]) -> dict[Names, str]:
        """The stored objects once it is applied."""
        after = dict(stored)
        for kind, name, body in self.rows():
            after[kind, name] = body
        return {names: body for names, body in after.items() if body}


class Change(msgspec.Struct, frozen=True):
    """The record of an applied file."""

    note: str
    versions: tuple[tuple[str, str, int], ...]
    """Kind, name and version of each object."""


def plan_of(
    wanted: Mapping[Names, str],
    stored: Mapping[Names, str],
    owned: Mapping[Names, str],
    prune: Collection[str] = (),
) -> Plan:
    """Compare what a file wants with what is stored; bodies are JSON of entries, `owned` gives outlay.yaml's places."""
    made, changed, unchanged, read_only = [], [], [], []
    for (kind, name), body in sorted(wanted.items()):
        place, old = owned.get((kind, name)), stored.get((kind, name))
        if place is not None:
            read_only.append(Standing(kind, name, place))
        elif old is None:
            made.append(PlannedChange(kind, name, body, field_changes("", body)))
        elif fields := field_changes(old, body):
            changed.append(PlannedChange(kind, name, body, fields))
        else:
            unchanged.append(Standing(kind, name))
    deleted = [
        PlannedChange(kind, name, "", field_changes(body, ""))
        for (kind, name), body in sorted(stored.items())
        if kind in prune and kind in PLANNED and (kind, name) not in wanted
    ]
    return Plan(tuple(made), tuple(changed), tuple(deleted), tuple(unchanged), tuple(read_only))


def field_changes(old: str, new: str) -> tuple[FieldChange, ...]:
    """Fields in which two bodies differ, in their order; an empty body has no fields."""
    before: dict[str, Any] = msgspec.json.decode(old) if old else {}
    after: dict[str, Any] = msgspec.json.decode(new) if new else {}
    return tuple(
        FieldChange(name, before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if name != "name" and before.get(name) != after.get(name)
    )


def change_row(
    rows: Collection[tuple[str, str, str]], following: Mapping[Names, int], note: str, at: int
) -> tuple[str, str, str]:
    """The record of a change as a row (kind, name, body); `following` gives the numbers of the next versions."""
    versions = tuple((kind, name, following.get((kind, name), 1)) for kind, name, _ in rows)
    return CHANGE, str(at), msgspec.json.encode(Change(note, versions)).decode()


def notes_of(records: Collection[str]) -> dict[tuple[str, str, int], str]:
    """(kind, name, version) -> note, from the bodies of change records."""
    found = {}
    for body in records:
        change = msgspec.json.decode(body, type=Change)
        found.update(dict.fromkeys(change.versions, change.note))
    return found
