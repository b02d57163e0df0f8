"""What the console reaches: outlay.yaml as it stands, the running gateway's operations, the ledger to read.

Every use has a connection of its own, so a gateway that was started again is found at once and no thread shares a
handle; those to a ledger's database are kept for the next reader. State changes only through the gateway: without one
they raise `GatewayDown`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import msgspec

from outlay.app.config import BudgetEntry, Config, ConsoleSection
from outlay.app.control import ControlClient
from outlay.app.operations import ConfigSource
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.rollup import Rollup
from outlay.flow.ledger.room_reader import PastLimit, RoomReader
from outlay.flow.ledger.rows import Shelf
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import Fault, OutlayError, StoreError


class GatewayDown(OutlayError):
    """No gateway runs, or it does not answer: nothing can be changed now."""

    fault = Fault.STORE
    code = "gateway_down"
    http_status = 503
    retryable = True


class Conflict(OutlayError):
    """The name is taken."""

    fault = Fault.CALLER
    code = "conflict"
    http_status = 409


class Desk:
    """See the module. Methods may be called from many threads."""

    def __init__(self, source: ConfigSource, clock: SystemClock) -> None:
        self._source = source
        self._lock = Lock()
        self.clock = clock
        self.making = Lock()
        """Held while a key is made: two creations of one name must not both find it free."""
        self.deciding = Lock()
        """Held while a decision is checked and made."""
        self._ledger = source.config.local_path
        self._place = source.config.ledger_place
        self._shelf = Shelf(self._place)
        self.rollup = Rollup(self._place, clock)
        self._past: tuple[tuple[PastLimit, ...], tuple[PastLimit, ...]] = ((), ())

    def config(self) -> Config:
        """The file as last read well."""
        with self._lock:
            changed = self._source.read_if_changed()
            if changed is not None:
                self._source.config = changed
            return self._source.config

    def section(self) -> ConsoleSection:
        """Tokens and people in force; an edit of the file changes them without a restart."""
        return self.config().console

    @contextmanager
    def operating(self) -> Iterator[ControlClient]:
        """The running gateway's operations. Raises GatewayDown."""
        try:
            client = ControlClient(self._ledger, self._place)
        except OSError as error:
            raise GatewayDown("the gateway is not running; `outlay up` starts it") from error
        try:
            yield client
        except StoreError as error:
            # the socket ended in the middle: a change may or may not be in force
            raise GatewayDown(f"{error}; look whether the change is in force") from error
        finally:
            client.close()

    @contextmanager
    def reading(self) -> Iterator[RoomReader]:
        """The ledger, read-only. Raises StoreError."""
        with self._shelf.lent() as rows:
            yield RoomReader(rows)

    def overspends(self) -> tuple[PastLimit, ...]:
        """Accounts that calls took past every limit that was in force, largest first. Raises StoreError."""
        with self.reading() as reader:
            found = tuple(reader.past_limits())
            known, answer = self._past
            if found == known:
                return answer
            booked = reader.booked_under({item.account_id for item in found}) if found else {}
        over = [
            msgspec.structs.replace(item, over_nanos=min(item.over_nanos, booked[item.account_id]))
            for item in found
        ]
        answer = tuple(
            sorted((item for item in over if item.over_nanos > 0), key=lambda item: -item.over_nanos)
        )
        self._past = (found, answer)
        return answer

    def audit(self) -> Audit:
        """Recompute the ledger here, not on the gateway's event loop. Raises StoreError."""
        return audit(self._place)

    def close(self) -> None:
        """Let go of the connections to the ledger that were kept."""
        self._shelf.close()
        self.rollup.close()

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind, of file and store, by name. Raises GatewayDown."""
        with self.operating() as operations:
            found = [item for item in operations.objects() if item["kind"] == kind]
        return sorted(found, key=lambda item: str(item["name"]))

    def budgets(self) -> list[tuple[dict[str, Any], BudgetEntry]]:
        """Every budget with its declaration; a stored one that the file shadows is left out."""
        declared = {entry.name: entry for entry in self.config().declared.budgets}
        found = []
        for item in self.objects("budget"):
            if item["origin"] == "store":
                if item["name"] not in declared:
                    found.append((item, msgspec.convert(item["body"], BudgetEntry)))
            elif item["name"] in declared:
                found.append((item, declared[item["name"]]))
        return found
