"""How results look: tables for people, one JSON document for programs. Knows no command.

Text that callers chose (run names, tags) is stripped of control characters before it reaches a terminal.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.kernel.money import format_usd, usd_to_nanos

_COLOURS: Final = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
_TINTS: Final = {
    "ok": "green",
    "passes": "green",
    "warning": "yellow",
    "soft": "yellow",
    "problem": "red",
    "refused": "red",
}
"""Whole cells that are tinted."""
_FAR: Final = 2**62
"""Times beyond are `for ever`."""


class Terminal:
    """Where a command writes. With `is_json` only `document` reaches stdout."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        # https://no-color.org: any value that is not empty
        self._is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def document(self, value: object) -> None:
        """The result for programs; nothing unless `--json`."""
        if self.is_json:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")

    def text(self, line: str = "") -> None:
        """A line for people."""
        if not self.is_json:
            print(printable(line))

    def note(self, line: str) -> None:
        """A line beside the result, on stderr."""
        print(f"outlay: {printable(line)}", file=sys.stderr)

    def fail(self, lines: Sequence[str], error: Mapping[str, object]) -> None:
        """Why the command failed."""
        self.document({"error": error})
        for line in lines:
            self.note(line)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
        """Aligned columns; those named in `right` (separated by spaces) hold figures."""
        if self.is_json:
            return
        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(len(text) for text in column) for column in zip(heads, *cells, strict=True)]
        figures = set(right.split())
        for number, row in enumerate([list(heads), *cells]):
            parts = [
                self._tinted(text, text.rjust(width) if head in figures else text.ljust(width), number == 0)
                for head, text, width in zip(heads, row, widths, strict=True)
            ]
            print("  ".join(parts).rstrip())

    def _tinted(self, text: str, padded: str, is_head: bool) -> str:
        colour = "bold" if is_head else _TINTS.get(text)
        if not self._is_coloured or colour is None:
            return padded
        return f"\x1b[{_COLOURS[colour]}m{padded}\x1b[0m"


def printable(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor or hide what is said."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def usd(nanos: int | None) -> str:
    """An amount for a table: `$12.34`, `-` if there is none."""
    if nanos is None:
        return "-"
    text = format_usd(nanos)
    return f"-${text[1:]}" if text.startswith("-") else f"${text}"


def money(name: str, nanos: int | None) -> dict[str, Any]:
    """An amount for programs: `{name}_usd` as text and `{name}_nanos` as a whole number."""
    return {f"{name}_usd": None if nanos is None else format_usd(nanos), f"{name}_nanos": nanos}


def amount_nanos(text: str) -> int | None:
    """Nanos of a limit as stored; None for `none`."""
    return None if text == "none" else usd_to_nanos(text)


def iso(nanos: int | None) -> str | None:
    """A time as ISO UTC text; None for no time and for `for ever`."""
    if nanos is None or nanos >= _FAR:
        return None
    return datetime.fromtimestamp(nanos // NANOS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def window_words(text: str) -> str:
    """A window as it is written in outlay.yaml: `86400s` to `24h`, `604800s` to `7d`."""
    if not text.endswith("s") or not text[:-1].isdigit():
        return text
    seconds = int(text[:-1])
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0 and (unit != "d" or seconds > size):
            return f"{seconds // size}{unit}"
    return text


def scope_words(scope: Mapping[str, str]) -> str:
    """`team=search,user=*`; `all` for the empty scope."""
    return ",".join(f"{name}={value}" for name, value in sorted(scope.items())) or "all"
