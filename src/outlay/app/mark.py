"""A mark beside this machine's socket: the newest charge that a gateway here has seen written.

A ledger in which that charge is missing was restored from an older backup, or is another one: what was spent since is
not in it, so that nothing may be spent from it until an operator has looked.
"""

import contextlib
import os
from pathlib import Path

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.port import Store

RESTORED = "ledger_restored"


class Mark:
    """See the module. Written at most once a look, whole or not at all."""

    def __init__(self, local: Path) -> None:
        self._path = local.with_name(local.name + ".mark")
        self._written: bytes | None = None
        self._was_missing = False

    def missing(self, store: Store) -> Refusal | None:
        """Why nothing may be spent from the ledger; None if it has what the mark names. Raises StoreError."""
        try:
            charge = bytes.fromhex(self._path.read_text("ascii"))
        except (OSError, ValueError):
            return None
        if not charge:
            return None
        if store.charge(charge) is not None:
            self._written = charge
            return None
        self._was_missing = True
        return Refusal(
            503,
            RESTORED,
            "The ledger is older than what this gateway has written: it was restored from a backup, or is another one."
            " What was spent since is not in it. An operator must run `outlay doctor --accept-restore`.",
        )

    def keep(self, books: Books, blocked: Refusal | None) -> None:
        """Remember the newest charge; what an operator has accepted is forgotten."""
        if blocked is not None and blocked.code == RESTORED:
            return
        newest = books.newest_charge
        if newest is None and self._was_missing:
            self._was_missing = False
            with contextlib.suppress(OSError):
                self._path.unlink()
        if newest is None or newest == self._written:
            return
        half = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(OSError):
            half.write_text(newest.hex(), "ascii")
            os.replace(half, self._path)
            self._written = newest
