"""Tables behind charts: the same figures for a page, a CSV file and a JSON document. Pure."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outlay.kernel.money import format_usd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula."""


@dataclass(frozen=True, slots=True)
class Usd:
    """An amount in nanos; None is none."""

    nanos: int | None


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads somewhere on this console."""

    text: str
    href: str


Cell = str | int | Usd | Link | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under heads. Texts may be callers' own."""

    id: str
    caption: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def as_csv(self) -> str:
        """For a spreadsheet: amounts as plain decimal USD."""
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(self.heads)
        writer.writerows([_csv_text(cell) for cell in row] for row in self.rows)
        return stream.getvalue()

    def as_json(self) -> dict[str, Any]:
        """For a program: amounts as text and as whole nanos."""
        return {
            "table": self.id,
            "caption": self.caption,
            "rows": [
                {head: _json_value(cell) for head, cell in zip(self.heads, row, strict=True)}
                for row in self.rows
            ],
        }


def _csv_text(cell: Cell) -> str:
    match cell:
        case Usd():
            return "" if cell.nanos is None else format_usd(cell.nanos)
        case Link():
            return _harmless(cell.text)
        case None:
            return ""
        case str():
            return _harmless(cell)
        case _:
            return str(cell)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json_value(cell: Cell) -> Any:
    match cell:
        case Usd():
            return None if cell.nanos is None else {"usd": format_usd(cell.nanos), "nanos": cell.nanos}
        case Link():
            return cell.text
        case _:
            return cell
