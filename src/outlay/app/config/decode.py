"""Nodes to records: reads a tree into a struct type, and says everything that is wrong, each with path and line.

A wrong value never stops the reading of the rest. Amounts stay text. What a value means is `checks`' matter.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from outlay.app.config.document import Node, Problem, Scalar, ScalarKind, Sequence, Table
from outlay.app.config.tree import NO_LIMIT, PriceEntry, Reading
from outlay.app.config.values import parse_moment
from outlay.kernel.money import MoneyError, usd_to_nanos

MAX_INTEGER = 2**53
"""Largest whole number accepted: JSON readers elsewhere keep it exact."""
_SHORTEST_HIDDEN: Final = 4
"""Shorter values of variables are no secrets, and occur in ordinary words."""
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*(?:_[0-9]+)*)\Z")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*(?:_[0-9]+)*)?(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?\Z")
_NUMBERS: Final = frozenset({ScalarKind.INTEGER, ScalarKind.FRACTION})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTAINERS: Final = (tuple, dict, Mapping)

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Place(msgspec.Struct, frozen=True):
    """Where a value stands."""

    line: int | None
    variables: tuple[str, ...] = ()


class _Invalid:
    """What a value that cannot be read becomes, until its parent leaves it out."""


INVALID: Final = _Invalid()


class Decoder:
    """Reads nodes; collects `problems`, and by path the `places` of all values and the `records`.

    A record with a wrong field is in `records` too, with that field empty, so that the rest of it can be checked.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}
        self.records: dict[str, msgspec.Struct] = {}
        self._from_environment: dict[str, dict[str, str]] = {}

    def report(self, path: str, line: int | None, message: str) -> _Invalid:
        """Note a problem."""
        self.problems.append(Problem(path, line, message))
        return INVALID

    def refine(self, path: str, message: str) -> None:
        """Note a problem of meaning, unless this value or a part of it could not even be read.

        What the environment put there is not shown: a variable that was meant for something else may be a secret.
        """
        if self.has_problem(path):
            return
        for name, value in self._from_environment.get(path, {}).items():
            if len(value) >= _SHORTEST_HIDDEN:
                message = message.replace(value, f"${{{name}}}")
        self.report(path, None, message)

    def has_problem(self, path: str) -> bool:
        """Whether something is wrong with the value at a path, or beneath it."""
        return any(at == path or at.startswith((f"{path}.", f"{path}[")) for at, _, _ in self.problems)

    def struct(self, node: Node, kind: type[Struct], path: str) -> Struct | _Invalid:
        """A record of `kind`; INVALID if a field it cannot do without is missing or wrong."""
        if not isinstance(node, Table):
            return self.report(path, node.line, f"needs a mapping of {_names(kind)}")
        return self._filled(node, kind, path, ignored="")

    def _filled(self, node: Table, kind: type[Struct], path: str, ignored: str) -> Struct | _Invalid:
        hints = field_types(kind)
        values: dict[str, Any] = {}
        is_whole = True
        seen: dict[str, int | None] = {}
        for entry in node.entries:
            at = joined(path, entry.key)
            if entry.key in seen:
                first = seen[entry.key]
                where = "" if first is None else f" (first in line {first})"
                self.report(at, entry.line, f"stands here a second time{where}; remove one")
                continue
            seen[entry.key] = entry.line
            if entry.key == ignored:
                continue
            if entry.key not in hints:
                self.report(at, entry.line, f"unknown key; {nearest(entry.key, hints)}")
                is_whole = False
                continue
            self.places[at] = Place(entry.value.line if entry.value.line is not None else entry.line)
            if isinstance(entry.value, Scalar) and _is_absent(entry.value, hints[entry.key]):
                continue
            value = self.value(entry.value, hints[entry.key], at)
            if value is INVALID:
                is_whole = False
            else:
                values[entry.key] = value
        absent = [name for name in _required(kind) if name not in values]
        for name in absent:
            if name in seen:
                values[name] = {} if get_origin(hints[name]) is dict else ""
            else:
                self.report(path, node.line, f"needs {name}")
        if any(name not in values for name in absent):
            return INVALID
        record = kind(**values)
        self.records[path] = record
        return record if is_whole else INVALID

    def price(self, node: Node, path: str) -> PriceEntry | None:
        """A price of any kind; None if it is not whole."""
        found: PriceEntry | _Invalid = self.value(node, PriceEntry, path)
        return None if isinstance(found, _Invalid) else found

    def value(self, node: Node, wanted: Any, path: str) -> Any:
        """A value of any type that occurs in the tree."""
        reading: Reading | None = None
        if get_origin(wanted) is Annotated:
            wanted, reading = get_args(wanted)
        options = [option for option in get_args(wanted) if option is not NoneType]
        if get_origin(wanted) in (Union, UnionType):
            if len(options) > 1:
                return self._tagged(node, options, path)
            return self.value(node, options[0], path)
        origin = get_origin(wanted) or wanted
        if origin is tuple:
            return self._list(node, options[0], path)
        if origin in (dict, Mapping):
            return self._mapping(node, options[1], path)
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return self.struct(node, wanted, path)
        if not isinstance(node, Scalar):
            return self.report(path, node.line, f"needs {_described(wanted, reading)}")
        return self._scalar(node, wanted, reading, path)

    def _tagged(self, node: Node, options: list[Any], path: str) -> Any:
        if not isinstance(node, Table):
            return self.report(path, node.line, "needs a mapping with a `kind`")
        by_tag = {option.__struct_config__.tag: option for option in options}
        kind = node.get("kind")
        if not isinstance(kind, Scalar):
            return self.report(path, node.line, f"needs kind: one of {', '.join(by_tag)}")
        if kind.text not in by_tag:
            return self.report(joined(path, "kind"), kind.line, f"unknown kind; {nearest(kind.text, by_tag)}")
        self.places[joined(path, "kind")] = Place(kind.line)
        return self._filled(node, by_tag[kind.text], path, ignored="kind")

    def _list(self, node: Node, wanted: Any, path: str) -> Any:
        if not isinstance(node, Sequence):
            return self.report(path, node.line, "needs a list")
        found = []
        for index, item in enumerate(node.items):
            at = f"{path}[{index}]"
            self.places[at] = Place(item.line)
            found.append(self.value(item, wanted, at))
        return tuple(value for value in found if value is not INVALID)

    def _mapping(self, node: Node, wanted: Any, path: str) -> Any:
        if not isinstance(node, Table):
            return self.report(path, node.line, "needs a mapping")
        found: dict[str, Any] = {}
        lines: dict[str, int | None] = {}
        for entry in node.entries:
            at = joined(path, entry.key)
            if entry.key in lines:
                self.report(
                    at,
                    entry.line,
                    f"stands here a second time (first in line {lines[entry.key]}); remove one",
                )
                continue
            lines[entry.key] = entry.line
            if not entry.key or _CONTROL.search(entry.key):
                self.report(at, entry.line, "a name may not be empty or hold control characters")
                continue
            self.places[at] = Place(entry.value.line)
            found[entry.key] = self.value(entry.value, wanted, at)
        return {name: value for name, value in found.items() if value is not INVALID}

    def _scalar(self, node: Scalar, wanted: Any, reading: Reading | None, path: str) -> Any:
        self.places[path] = Place(node.line, node.variables)
        if node.variables:
            self._from_environment[path] = dict(zip(node.variables, node.values, strict=True))
        if node.missing:
            what = "missing secret" if reading is Reading.SECRET else "missing value"
            names = ", ".join(node.missing)
            return self.report(
                path, node.line, f"{what}: environment variable {names} is not set; set it before the start"
            )
        try:
            return self._read(node, wanted, reading)
        except ValueError as error:
            return self.report(path, node.line, str(error))

    def _read(self, node: Scalar, wanted: Any, reading: Reading | None) -> Any:
        if wanted is bool:
            if node.kind is not ScalarKind.BOOLEAN:
                raise ValueError(f"needs true or false, not {_shown(node, reading)}")
            return node.text.lower() in ("true", "yes", "on")
        if wanted is int:
            return _integer(node)
        if isinstance(wanted, type) and issubclass(wanted, Enum):
            choices = {str(option.value): option for option in wanted}
            if node.text not in choices or node.kind is not ScalarKind.TEXT:
                raise ValueError(f"{_shown(node, reading)} is not known; use {' or '.join(choices)}")
            return choices[node.text]
        return _READERS.get(reading, _text)(node, reading)


def joined(path: str, key: str) -> str:
    """`gateway` and `port` to `gateway.port`."""
    return f"{path}.{key}" if path else key


@lru_cache(maxsize=64)
def field_types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Field name -> type of a record, marks included."""
    return {
        name: hint
        for name, hint in get_type_hints(kind, include_extras=True).items()
        if name in kind.__struct_fields__
    }


@lru_cache(maxsize=64)
def _required(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if field.required)


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """What a person may have meant."""
    found = get_close_matches(name, known, 1, 0.6)
    return f"did you mean {found[0]}?" if found else f"known here: {', '.join(known)}"


def _is_absent(node: Scalar, wanted: Any) -> bool:
    """`budgets:` with nothing below, or an explicit null where a value may be absent."""
    if node.kind is not ScalarKind.NULL:
        return False
    if get_origin(wanted) in _CONTAINERS or (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        return True
    return NoneType in get_args(wanted)


def _names(kind: type[msgspec.Struct]) -> str:
    return ", ".join(field_types(kind))


def _described(wanted: Any, reading: Reading | None) -> str:
    if wanted is bool:
        return "true or false"
    if wanted is int:
        return "a whole number"
    return {Reading.AMOUNT: "a number", Reading.LIMIT: "an amount of USD", Reading.MOMENT: "a date"}.get(
        reading or Reading.LABEL, "text"
    )


def _shown(node: Scalar, reading: Reading | None) -> str:
    """A value for an error: as written, so that nothing from the environment is shown, and no secret at all."""
    if reading is Reading.SECRET:
        return "this value"
    if not node.written:
        return "nothing"
    return repr(node.written[:60])


def _text(node: Scalar, reading: Reading | None) -> str:
    if node.kind is not ScalarKind.TEXT and not node.is_filled:
        raise ValueError(f"needs text, not {node.kind}; put it in quotes")
    if _CONTROL.search(node.text):
        raise ValueError("may not hold control characters")
    return node.text


def _label(node: Scalar, reading: Reading | None) -> str:
    if node.kind in (ScalarKind.BOOLEAN, ScalarKind.NULL):
        raise ValueError(f"needs text, not {node.kind}; put it in quotes")
    if _CONTROL.search(node.text):
        raise ValueError("may not hold control characters")
    return node.text


def _integer(node: Scalar) -> int:
    if node.kind is ScalarKind.BOOLEAN or not _INTEGER.match(node.text) or node.kind is ScalarKind.MOMENT:
        raise ValueError(f"needs a whole number, not {_shown(node, None)}")
    if node.kind is ScalarKind.TEXT and not node.is_filled:
        raise ValueError(f"needs a whole number without quotes, not {_shown(node, None)}")
    value = int(node.text)
    if not 0 <= value <= MAX_INTEGER:
        raise ValueError(f"must be between 0 and {MAX_INTEGER}, not {_shown(node, None)}")
    return value


def _amount(node: Scalar, reading: Reading | None) -> str:
    text = node.text
    if node.kind in (ScalarKind.BOOLEAN, ScalarKind.NULL):
        raise ValueError(f"needs a number, not {node.kind}")
    if text.lower().lstrip("+-").lstrip(".") in ("nan", "inf", "infinity"):
        raise ValueError(f"{_shown(node, reading)} is not a finite number")
    if not text or not any(digit.isdigit() for digit in text) or not _DECIMAL.match(text):
        raise ValueError(f"{_shown(node, reading)} is not a plain decimal number such as 0.25 or 100")
    if text.startswith("-"):
        raise ValueError(f"{_shown(node, reading)} is negative; use 0 or more")
    return text.replace("_", "")


def _limit(node: Scalar, reading: Reading | None) -> str:
    if node.kind is ScalarKind.TEXT and node.text == NO_LIMIT:
        return NO_LIMIT
    text = _amount(node, reading)
    try:
        usd_to_nanos(text)
    except MoneyError as error:
        cause = str(error).partition(":")[0]
        raise ValueError(f"{_shown(node, reading)} is no limit: {cause}") from error
    return text


def _moment(node: Scalar, reading: Reading | None) -> str:
    if node.kind in (ScalarKind.BOOLEAN, ScalarKind.NULL):
        raise ValueError(f"needs a date, not {node.kind}")
    try:
        parse_moment(node.text)
    except ValueError as error:
        raise ValueError(
            f"{_shown(node, reading)} is not a date; write 2026-12-31 or 2026-12-31T18:00:00Z"
        ) from error
    return node.text


_READERS: Final[Mapping[Reading | None, Callable[[Scalar, Reading | None], str]]] = {
    Reading.LABEL: _label,
    Reading.AMOUNT: _amount,
    Reading.LIMIT: _limit,
    Reading.MOMENT: _moment,
}
