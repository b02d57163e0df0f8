"""Text to nodes: YAML or JSON as a plain tree in which every key and value knows its line, and where it came from.

Built from YAML events with a stack of its own, so neither nesting nor aliases can exhaust the process. Scalars keep
their source text: an amount never passes through a float. `${VAR}` is filled in here, from the environment given.
"""

import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

MAX_BYTES = 1024 * 1024
"""Largest outlay.yaml: about ten thousand budgets."""
MAX_DEPTH = 16
"""The deepest known key lies at 5."""
MAX_NODES = 200_000
"""Nodes after aliases are followed: a bomb of aliases stops here."""
_VARIABLE: Final = re.compile(r"\$\$\{|\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class ScalarKind(StrEnum):
    """What a scalar is by itself, before the field it stands in is known."""

    TEXT = "text"
    INTEGER = "a whole number"
    FRACTION = "a number"
    BOOLEAN = "true or false"
    MOMENT = "a date"
    NULL = "nothing"


class Problem(NamedTuple):
    """Something wrong at a place; `line` counts from 1, None in JSON."""

    path: str
    line: int | None
    message: str


class Scalar(msgspec.Struct, frozen=True):
    """One value."""

    text: str
    kind: ScalarKind
    line: int | None
    written: str
    """As it stands in the file, before `${VAR}`: what an error may show."""
    variables: tuple[str, ...] = ()
    """Environment variables whose values went into `text`."""
    values: tuple[str, ...] = ()
    """Those values; never to be shown."""
    missing: tuple[str, ...] = ()
    """Variables that are not set and have no default."""

    @property
    def is_filled(self) -> bool:
        """Whether `${VAR}` or its default made the text: then quotes in the file say nothing about its kind."""
        return self.text != self.written


class Sequence(msgspec.Struct, frozen=True):
    """A list."""

    items: "tuple[Node, ...]"
    line: int | None


class Entry(NamedTuple):
    """A key of a mapping, and its value."""

    key: str
    line: int | None
    """Of the key."""
    value: "Node"


class Table(msgspec.Struct, frozen=True):
    """A mapping; a key that stands there twice is kept twice."""

    entries: tuple[Entry, ...]
    line: int | None

    def get(self, key: str) -> "Node | None":
        """The value of a key, the first if there are two."""
        return next((entry.value for entry in self.entries if entry.key == key), None)

    def with_text(self, key: str, text: str) -> "Table":
        """The same with one more text."""
        return Table(
            (*self.entries, Entry(key, self.line, Scalar(text, ScalarKind.TEXT, self.line, text))), self.line
        )


Node = Scalar | Sequence | Table


class DocumentError(Exception):
    """The text is no document that can be read; holds one problem."""

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.problem = Problem("", line, message)


def read_yaml(text: str, environ: Mapping[str, str]) -> Node | None:
    """The one document of a YAML text; None if it is empty. Raises DocumentError."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise DocumentError(None, f"the file is larger than {MAX_BYTES // 1024} KiB")
    import yaml

    loader_type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_type(text)
        try:
            return _Builder(loader, environ).build()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "end of stream" in (error.problem or ""):  # what was never closed is where it was opened
            mark = error.context_mark or mark
        if "nesting depth" in (error.problem or ""):  # newer parsers stop before our own limit is seen
            raise DocumentError(
                None if mark is None else mark.line + 1, f"nested deeper than {MAX_DEPTH} levels"
            ) from error
        raise DocumentError(
            None if mark is None else mark.line + 1, f"not YAML: {error.problem or error.context}"
        ) from error
    except yaml.YAMLError as error:
        raise DocumentError(None, "not YAML: the text has characters that YAML does not allow") from error


class _Open:
    """A list or mapping whose end has not come yet."""

    __slots__ = ("anchor", "is_table", "items", "key", "line", "size")

    def __init__(self, line: int, anchor: str | None, *, is_table: bool) -> None:
        self.line = line
        self.anchor = anchor
        self.is_table = is_table
        self.items: list[Any] = []
        self.key: Scalar | None = None
        self.size = 1


class _Builder:
    """Puts a tree together from the events of one YAML document."""

    def __init__(self, loader: Any, environ: Mapping[str, str]) -> None:
        self._loader = loader
        self._environ = environ
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._root: Node | None = None
        self._documents = 0
        self._total = 0

    def build(self) -> Node | None:
        """Take all events."""
        import yaml

        for event in self._events():
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise DocumentError(line, "a second document begins here; keep one")
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._refuse_tag(event.tag, line)
                    if len(self._stack) >= MAX_DEPTH:
                        raise DocumentError(line, f"nested deeper than {MAX_DEPTH} levels")
                    is_table = isinstance(event, yaml.MappingStartEvent)
                    self._stack.append(_Open(line, event.anchor, is_table=is_table))
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()
                case yaml.ScalarEvent():
                    self._refuse_tag(event.tag, line)
                    self._add(self._scalar(event, line), event.anchor, 1)
                case yaml.AliasEvent():
                    if event.anchor not in self._anchors:
                        raise DocumentError(line, f"alias *{event.anchor} has no anchor before it")
                    node, size = self._anchors[event.anchor]
                    self._add(node, None, size)
                case _:
                    pass
        return self._root

    def _events(self) -> Iterator[Any]:
        while self._loader.check_event():
            yield self._loader.get_event()

    @staticmethod
    def _refuse_tag(tag: str | None, line: int) -> None:
        if tag is not None and tag not in ("!", "tag:yaml.org,2002:str"):
            raise DocumentError(line, "tags (!...) are not used here; remove the tag")

    def _scalar(self, event: Any, line: int) -> Scalar:
        import yaml

        written = event.value
        text, used, missing = _filled(written, self._environ, line)
        if len(self._stack) and self._stack[-1].is_table and self._stack[-1].key is None:
            text, used, missing = written, {}, ()  # keys are never filled in
        tag = self._loader.resolve(yaml.ScalarNode, text, event.implicit)
        # a variable in quotes stays text; a bare one may be a number, as the environment says
        is_bare = event.implicit[0] and not (written and not text)
        kind = _KINDS.get(tag, ScalarKind.TEXT) if is_bare else ScalarKind.TEXT
        return Scalar(text, kind, line, written, tuple(used), tuple(used.values()), missing)

    def _close(self) -> None:
        done = self._stack.pop()
        node: Node = (
            Table(tuple(done.items), done.line) if done.is_table else Sequence(tuple(done.items), done.line)
        )
        self._total -= done.size - 1  # what is inside was counted when it came
        self._add(node, done.anchor, done.size)

    def _add(self, node: Node, anchor: str | None, size: int) -> None:
        """Put a finished node of so many values into its parent."""
        self._total += size
        if self._total > MAX_NODES:
            raise DocumentError(node.line, f"more than {MAX_NODES} values (aliases followed)")
        if anchor is not None:
            self._anchors[anchor] = (node, size)
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.size += size
        if not parent.is_table:
            parent.items.append(node)
        elif parent.key is None:
            if not isinstance(node, Scalar):
                raise DocumentError(node.line, "a key must be plain text")
            if node.text == "<<":
                raise DocumentError(node.line, "merge keys (<<) are not supported; write the values out")
            parent.key = node
        else:
            parent.items.append(Entry(parent.key.text, parent.key.line, node))
            parent.key = None


_KINDS: Final = {
    "tag:yaml.org,2002:int": ScalarKind.INTEGER,
    "tag:yaml.org,2002:float": ScalarKind.FRACTION,
    "tag:yaml.org,2002:bool": ScalarKind.BOOLEAN,
    "tag:yaml.org,2002:timestamp": ScalarKind.MOMENT,
    "tag:yaml.org,2002:null": ScalarKind.NULL,
}


def _filled(
    written: str, environ: Mapping[str, str], line: int
) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """`written` with its variables filled in, the variables used and their values, and those that are missing."""
    if "${" not in written:
        return written, {}, ()
    used: dict[str, str] = {}
    missing: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if name is None:
            return "${"  # written as $${
        if not _VARIABLE_NAME.match(name):
            raise DocumentError(line, f"${{{name}}} is not a variable; write ${{NAME}} or ${{NAME:-default}}")
        found = environ.get(name)
        if default is not None and not found:
            return default
        if found is None:
            missing.append(name)
            return ""
        used[name] = found
        return found

    return _VARIABLE.sub(value, written), used, tuple(missing)


def read_json(body: bytes) -> Node:
    """A JSON text as nodes without lines. Raises DocumentError."""
    if len(body) > MAX_BYTES:
        raise DocumentError(None, f"the body is larger than {MAX_BYTES // 1024} KiB")

    def number(kind: ScalarKind) -> Any:
        return lambda text: Scalar(text, kind, None, text)

    try:
        found = json.loads(
            body,
            object_pairs_hook=lambda pairs: Table(
                tuple(Entry(key, None, _node(value)) for key, value in pairs), None
            ),
            parse_int=number(ScalarKind.INTEGER),
            parse_float=number(ScalarKind.FRACTION),
            parse_constant=number(ScalarKind.FRACTION),
        )
        return _node(found)
    except (ValueError, RecursionError) as error:
        raise DocumentError(None, "not a JSON document") from error


def _node(value: Any) -> Node:
    match value:
        case Scalar() | Table() | Sequence():
            return value
        case list():
            return Sequence(tuple(_node(item) for item in value), None)
        case bool():
            return Scalar("true" if value else "false", ScalarKind.BOOLEAN, None, str(value).lower())
        case None:
            return Scalar("", ScalarKind.NULL, None, "null")
        case _:
            return Scalar(str(value), ScalarKind.TEXT, None, str(value))
