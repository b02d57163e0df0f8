"""Where each effective value comes from: what `outlay config check` prints. Secrets are never shown."""

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

import msgspec

from outlay.app.config.decode import field_types, joined
from outlay.app.config.load import Config
from outlay.app.config.tree import Reading
from outlay.flow.ledger.place import place_of

HIDDEN: Final = "***"
DEFAULT: Final = "default"


class ValueOrigin(NamedTuple):
    """One effective value."""

    path: str
    value: str
    """As text; `***` for secrets that are set, empty if there is none."""
    origin: str
    """`outlay.yaml:12`, `env OPENAI_API_KEY` or `default`."""


def config_origins(config: Config) -> list[ValueOrigin]:
    """Every effective value of a configuration, in the order of the tree."""
    found = [ValueOrigin(path, text, _origin(config, path)) for path, text in _leaves(config.declared, "")]
    # the address of a database holds its password
    return [
        each._replace(value=str(place_of(each.value))) if each.path == "ledger" else each for each in found
    ]


def _origin(config: Config, path: str) -> str:
    place = config.places.get(path)
    if place is None and path.endswith(".secret_sha256"):
        place = config.places.get(path.removesuffix("_sha256"))
    if place is None:
        return DEFAULT
    if place.variables:
        return f"env {', '.join(place.variables)}"
    return f"{config.file}:{place.line}"


def _leaves(record: msgspec.Struct, path: str) -> Iterator[tuple[str, str]]:
    tag = record.__struct_config__.tag
    if tag is not None:
        yield joined(path, "kind"), str(tag)
    hints = field_types(type(record))
    for name, hint in hints.items():
        if name != "secret" or "secret_sha256" not in hints:  # of a key only the hash is kept
            yield from _values(getattr(record, name), hint, joined(path, name))


def _values(value: Any, hint: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case msgspec.Struct():
            yield from _leaves(value, path)
        case tuple() if any(isinstance(item, msgspec.Struct) for item in value):
            for index, item in enumerate(value):
                yield from _leaves(item, f"{path}[{index}]")
        case tuple():
            yield path, ", ".join(map(str, value))
        case dict():
            inner = get_args(hint)[1] if get_args(hint) else str
            for name, item in value.items():
                yield from _values(item, inner, joined(path, name))
        case _:
            yield path, _shown(value, hint)


def _shown(value: Any, hint: Any) -> str:
    if value is None or value == "":
        return ""
    if get_origin(hint) is Annotated and Reading.SECRET in get_args(hint):
        return HIDDEN
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.value if isinstance(value, Enum) else value)
