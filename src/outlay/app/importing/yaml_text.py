"""Providers, models and access rules as the text of an outlay.yaml: what only that file may declare."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from outlay.app.config.tree import AccessEntry, ModelEntry, PriceEntry, ProviderEntry

_HEAD: Final = """\
# Imported from {source} by `outlay import`. Secrets are variables: set them where Outlay runs.
"""
_WHOLE: Final = """\
version: 1
ledger: outlay.db           # keys and budgets are kept there: outlay key list, outlay budget list

gateway:
  host: 127.0.0.1
  port: 4100
  # mode: shadow            # decide and record, never refuse: to compare before switching over

console:
  host: 127.0.0.1
  port: 4101
  admin_token: "{token}"
"""
_PIECE: Final = """\
# Paste each list below into the list of the same name in {config}, then delete this file.
"""


class Sections(msgspec.Struct, frozen=True):
    """What goes into the file."""

    providers: Sequence[ProviderEntry] = ()
    models: Sequence[ModelEntry] = ()
    access: Sequence[AccessEntry] = ()
    prices: Sequence[PriceEntry] = ()

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.providers or self.models or self.access or self.prices)


def whole_text(source: str, token: str, sections: Sections) -> str:
    """A complete outlay.yaml, with an admin token."""
    return _HEAD.format(source=source) + _WHOLE.format(token=token) + _lists(sections)


def piece_text(source: str, config: str, sections: Sections) -> str:
    """What is to be pasted into an outlay.yaml that is there."""
    return _HEAD.format(source=source) + _PIECE.format(config=config) + _lists(sections)


def _lists(sections: Sections) -> str:
    import yaml

    text = ""
    for name in sections.__struct_fields__:
        entries = [_declared(entry) for entry in getattr(sections, name)]
        if entries:
            text += "\n" + yaml.safe_dump(
                {name: entries}, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
            )
    return text


def _declared(entry: msgspec.Struct) -> dict[str, Any]:
    """The fields of an entry that are not as they would be anyway."""
    found: dict[str, Any] = {}
    tag = entry.__struct_config__.tag
    if tag:
        found["kind"] = str(tag)
    for info in msgspec.structs.fields(entry):
        value = getattr(entry, info.name)
        default = info.default_factory() if callable(info.default_factory) else info.default
        if value != default:
            found[info.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, msgspec.Struct):
        return _declared(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
