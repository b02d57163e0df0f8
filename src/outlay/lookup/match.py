"""Which model a name means: the feed's match clauses as data, evaluated at lookup.

The same seven clauses as genai-prices (equals, starts_with, ends_with, contains, regex, or, and), on lower-case
text. Pure.
"""

import re
from datetime import date

import msgspec

MAX_MODEL_NAME = 256
"""Longest model name that is looked up: names come from callers, and regular expressions run on them."""

_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Clause(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """One condition on a model name. `kind`: eq, start, end, has, re, or, and."""

    kind: str
    text: str = ""
    parts: tuple["Clause", ...] = ()

    def is_match(self, name: str) -> bool:
        """Whether the lower-case `name` fulfils the condition."""
        text = self.text
        match self.kind:
            case "eq":
                return name == text
            case "start":
                return name.startswith(text)
            case "end":
                return name.endswith(text)
            case "has":
                return text in name
            case "re":
                return re.search(text, name) is not None
            case "or":
                return any(part.is_match(name) for part in self.parts)
            case "and":
                return all(part.is_match(name) for part in self.parts)
            case _:
                raise ValueError(f"unknown match clause {self.kind!r}")


def equals(name: str) -> Clause:
    """Condition that holds for exactly this name (any case)."""
    return Clause("eq", name.lower())


def spellings(name: str) -> tuple[str, ...]:
    """Names to try for a requested model: itself in lower case, then with `-20260301` written `-2026-03-01`."""
    lower = name.lower()
    dashed = _COMPACT_DATE.sub(_dash_date, lower)
    return (lower,) if dashed == lower else (lower, dashed)


def _dash_date(found: re.Match[str]) -> str:
    year, month, day = (int(found.group(index)) for index in (1, 2, 3))
    try:
        return f"-{date(year, month, day).isoformat()}"
    except ValueError:
        return found.group(0)
