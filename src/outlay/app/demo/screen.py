"""What the demo shows: headings, tables, and one progress line that overwrites itself on a terminal."""

from collections.abc import Sequence
from typing import TextIO


class Screen:
    """Plain lines; on a terminal the progress line is redrawn, elsewhere it is printed once in a while."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._progress = ""

    def line(self, text: str) -> None:
        """One line."""
        if self._progress and self._is_terminal:
            self._out.write("\r\x1b[K")
        self._progress = ""
        self._out.write(text + "\n")
        self._out.flush()

    def heading(self, text: str) -> None:
        """A heading with room above it."""
        self.line("")
        self.line(text)
        self.line("-" * len(text))

    def progress(self, text: str, *, is_milestone: bool = False) -> None:
        """Where things stand; milestones are shown without a terminal too."""
        if self._is_terminal:
            self._out.write("\r\x1b[K" + text)
            self._out.flush()
            self._progress = text
        elif is_milestone:
            self.line(text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns: the first to the left, the others to the right."""
        widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
        for row in (head, *rows):
            cells = [
                cell.ljust(widths[at]) if at == 0 else cell.rjust(widths[at]) for at, cell in enumerate(row)
            ]
            self.line("  " + "  ".join(cells).rstrip())
