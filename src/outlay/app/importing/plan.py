"""What an import would make here, and what it could not carry over: the common form of every source."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final, NamedTuple

from outlay.app.config.tree import (
    AccessEntry,
    BudgetEntry,
    KeyEntry,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
)
from outlay.flow.scope import MAX_VALUE_LENGTH
from outlay.kernel.clock import UnixNanos
from outlay.kernel.money import MAX_NANOS, NANOS_PER_USD

_NANO: Final = Decimal(1).scaleb(-9)


class Unmapped(NamedTuple):
    """A field that carries a value and has no counterpart here."""

    where: str
    """`key ci: tpm_limit`."""
    value: str
    """As a person may see it; never a secret."""
    reason: str
    fix: str


class Opening(NamedTuple):
    """What was spent elsewhere in the running window of a budget."""

    budget: str
    identity: Mapping[str, object]
    """Dimension -> value, as `flow.scope.Identity` has them; without an org it is the file's."""
    nanos: int
    at: UnixNanos
    """Start of the window there, or when the thing it is for was made, if later."""
    note: str


@dataclass(slots=True)
class Plan:
    """Everything found in one source, in the order in which it was found."""

    source: str
    """`litellm` or `bifrost`."""
    keys: list[KeyEntry] = field(default_factory=list)
    budgets: list[BudgetEntry] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    prices: list[PriceEntry] = field(default_factory=list)
    providers: list[ProviderEntry] = field(default_factory=list)
    models: list[ModelEntry] = field(default_factory=list)
    access: list[AccessEntry] = field(default_factory=list)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """SHA-256 of the secret of a key that must not work here -> its name, and why: blocked there."""
    unmapped: list[Unmapped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Where the same object means something else here."""

    def leave(self, where: str, value: object, reason: str, fix: str) -> None:
        """List a field that is not carried over; once."""
        hidden = value != A_SECRET and may_be_secret(where, value)
        found = Unmapped(where, HIDDEN if hidden else shown(value), reason, fix)
        if found not in self.unmapped:
            self.unmapped.append(found)

    def note(self, text: str) -> None:
        """Say once where meanings differ."""
        if text not in self.notes:
            self.notes.append(text)


MAX_SHOWN: Final = 80
A_SECRET: Final = "(a secret)"
HIDDEN: Final = "(not shown)"
_SECRET_WORDS: Final = ("password", "secret", "token", "credential", "api_key", "auth")
_HARMLESS_WORDS: Final = ("tokens", "author")


def may_be_secret(where: str, value: object) -> bool:
    """Whether a field's value may be, or hold, a secret: by its name, or since nobody knows what is in it."""
    if isinstance(value, Mapping) or (isinstance(value, list) and any(not isinstance(x, str) for x in value)):
        return True
    name = re.split(r"[:. ]", where)[-1].lower()
    for word in _HARMLESS_WORDS:
        name = name.replace(word, "")
    return any(word in name for word in _SECRET_WORDS) or "://" in str(value)


def plain_address(address: str) -> str:
    """An address without user name, query and fragment, which may be secrets."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def shown(value: object) -> str:
    """A value in a report: one line, cut."""
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def carries(value: object) -> bool:
    """Whether a field says anything: not absent, empty, false or zero."""
    return value not in (None, "", False, 0, [], {})


def amount(value: object) -> Decimal | None:
    """A sum of money as the source wrote it; None if it is not one that can be a limit or a spend."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and 0 <= found * NANOS_PER_USD <= MAX_NANOS else None


def limit_text(value: Decimal) -> str:
    """A limit as outlay.yaml has it, to the nano."""
    return plain(value.quantize(_NANO, rounding=ROUND_HALF_EVEN))


def spent_nanos(value: Decimal) -> int:
    """What was spent, in nanos, rounded up: never less than the source counted."""
    return int((value * NANOS_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def plain(value: Decimal) -> str:
    """Plain decimal text without needless zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_name(text: str) -> bool:
    """Whether a text may be the name of an object and the value of a dimension."""
    return (
        0 < len(text) <= MAX_VALUE_LENGTH and text == text.strip() and "*" not in text and text.isprintable()
    )


def readable_names(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Id -> the name a person gave, where it is one and no other has it; else the id."""
    found = [(identifier, (name or "").strip()) for identifier, name in pairs]
    taken: dict[str, int] = {}
    for identifier, name in found:
        for text in {identifier, name}:
            taken[text] = taken.get(text, 0) + 1
    return {
        identifier: name if (is_name(name) and taken[name] == 1) or name == identifier else identifier
        for identifier, name in found
    }
