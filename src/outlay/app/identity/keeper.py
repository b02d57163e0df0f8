"""Keeps the issuers' keys fresh, in the background: the request path only ever sees a finished `Door`.

A source that fails leaves the last good keys in force. A token of an unknown key asks for one more look, at most every
`UNKNOWN_S` seconds, so that an issuer's new key is known soon and a forger cannot make us knock at its door.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from outlay.app.config.tree import IssuerEntry
from outlay.app.identity.door import Door
from outlay.app.identity.keysets import KeySet, KeysUnavailable, read_keys
from outlay.flow.gateway.keys import Tokens
from outlay.kernel.clock import NANOS_PER_SECOND, Clock

REFRESH_S: Final = 300
"""How often keys are looked at when nobody asks: a key that an issuer withdrew is in force no longer."""
UNKNOWN_S: Final = 10
"""Least time between two looks at one issuer's keys."""
THREADS: Final = 2
"""Threads that fetch: a slow issuer does not keep the others waiting."""


class _Watched:
    """One issuer, its keys as last read, and when that was tried."""

    __slots__ = ("entry", "folder", "is_due", "keys", "problem", "tried_at")

    def __init__(self, entry: IssuerEntry, folder: Path) -> None:
        self.entry = entry
        self.folder = folder
        self.keys: KeySet | None = None
        self.problem = ""
        self.tried_at: int | None = None
        """Monotonic ns."""
        self.is_due = True


class Keeper:
    """See the module. `publish` gets a new door whenever issuers or keys change; `log` an event and fields."""

    def __init__(
        self,
        clock: Clock,
        publish: Callable[[Tokens | None], None],
        log: Callable[..., None],
    ) -> None:
        self._clock = clock
        self._publish = publish
        self._log = log
        self._watched: dict[str, _Watched] = {}
        self._wake = asyncio.Event()
        self._pool = ThreadPoolExecutor(THREADS, "outlay-keys")

    def configure(self, issuers: Sequence[IssuerEntry], folder: Path) -> None:
        """Put these issuers in force. One that did not change keeps its keys."""
        old, self._watched = self._watched, {}
        for entry in issuers:
            known = old.get(entry.name)
            is_same = known is not None and (known.entry, known.folder) == (entry, folder)
            self._watched[entry.name] = known if is_same and known is not None else _Watched(entry, folder)
        self._renew()
        self._wake.set()

    async def run(self) -> None:
        """Look at keys as they fall due, until cancelled."""
        try:
            while True:
                due = [watched for watched in self._watched.values() if self._is_due(watched)]
                if due:
                    changed = await asyncio.gather(*(self._look(watched) for watched in due))
                    if any(changed):
                        self._renew()
                self._wake.clear()
                # not `wait_for`: up to Python 3.11 it may swallow a cancellation
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._wake.wait()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def view(self) -> dict[str, str]:
        """Issuer -> why its keys could not be read last time; "" if they could."""
        return {
            name: watched.problem or ("" if watched.keys is not None else "not read yet")
            for name, watched in self._watched.items()
        }

    def unknown(self, name: str) -> None:
        """A token of this issuer names a key that is not known."""
        watched = self._watched.get(name)
        if watched is not None and (not watched.is_due or self._is_due(watched)):
            watched.is_due = True
            self._wake.set()

    def _renew(self) -> None:
        entries = [watched.entry for watched in self._watched.values()]
        keys = {name: watched.keys for name, watched in self._watched.items()}
        self._publish(Door(entries, keys, self.unknown) if entries else None)

    def _since_s(self, watched: _Watched) -> int:
        if watched.tried_at is None:
            return REFRESH_S
        return (self._clock.monotonic() - watched.tried_at) // NANOS_PER_SECOND

    def _is_due(self, watched: _Watched) -> bool:
        return self._since_s(watched) >= (UNKNOWN_S if watched.is_due or watched.problem else REFRESH_S)

    def _pause_s(self) -> int:
        waits = [
            (UNKNOWN_S if watched.is_due or watched.problem else REFRESH_S) - self._since_s(watched)
            for watched in self._watched.values()
        ]
        return max(1, min(waits, default=REFRESH_S))

    async def _look(self, watched: _Watched) -> bool:
        """Read one issuer's keys; tells whether they changed."""
        watched.tried_at, watched.is_due = self._clock.monotonic(), False
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, read_keys, watched.entry, watched.folder)
        except KeysUnavailable as error:
            if str(error) != watched.problem:
                self._log("issuer_keys_unavailable", issuer=watched.entry.name, message=str(error))
            watched.problem = str(error)
            return False
        if watched.problem:
            self._log("issuer_keys_read", issuer=watched.entry.name)
        watched.problem = ""
        if watched.keys is not None and watched.keys.source == found.source:
            return False
        watched.keys = found
        return True
