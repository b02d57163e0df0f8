"""Opening balances: what another gateway spent before this one came, as charges of a kind of their own."""

from collections.abc import Callable

from outlay.flow.accounts import Account
from outlay.flow.budgets import BudgetSpec, budgets_for
from outlay.flow.ledger.charge import Basis, Ending, Status, charge_row, opening_hold
from outlay.flow.ledger.directory import Directory, encode_identity
from outlay.flow.ledger.port import Batch, PostingRow
from outlay.flow.scope import Identity
from outlay.flow.windows import WindowKind, bounds, bucket_leaves_at, bucket_start
from outlay.kernel.clock import Clock
from outlay.kernel.errors import NotFound, OutlayError
from outlay.kernel.ids import IdMaker

_OPENING_ROUTE = '{"provider":"","model":"","served":"","operation":"import"}'
_OPENING_PRICE = '{"price_id":"imported"}'


class Openings:
    """The part of the books that opens them; see `Books` for the collaborators."""

    directory: Directory
    _clock: Clock
    _batch: Batch
    _next_seq: Callable[[], int]
    _touch: Callable[[Account], None]
    flush: Callable[[], None]

    def open_with(
        self, budget: str, identity: Identity, target_nanos: int, at: int, *, actor: str, note: str
    ) -> int:
        """Bring a budget's account up to what another gateway spent in its running window; returns what was posted.

        One charge of basis `imported`, placed at `at` (UTC ns, when that window began, or the thing it is for was
        made): it counts in every budget that covers the identity and whose window contains `at`. An account that has
        as much already gets nothing, so twice is once, and what passed through here meanwhile is not counted again.
        May take an account past its limit. Raises NotFound, OutlayError if the budget does not cover the identity.
        """
        now = self._clock.now()
        spec = next((found for found in self.directory.budgets if found.name == budget), None)
        if spec is None:
            raise NotFound(f"there is no budget {budget!r}")
        account = self.directory.account_for(spec, identity, now)
        if account is None:
            raise OutlayError(f"the budget {budget!r} does not cover what the opening is for")
        account.leave(now)
        nanos = target_nanos - account.spent
        if nanos <= 0:
            return 0
        at = max(min(at, now), bounds(spec.window, now)[0])
        accounts = [
            found
            for applied in budgets_for(self.directory.budgets, identity)
            if (found := self.directory.account_for(applied.budget, identity, at)) is not None
            and not _has_left(applied.budget, at, now)
        ]
        numbers = (
            self.directory.identities.number(encode_identity(identity)),
            self.directory.routes.number(_OPENING_ROUTE),
            self.directory.prices.number(_OPENING_PRICE),
            self.directory.account_set(accounts),
        )
        charge_id = IdMaker(self._clock).make(at)
        hold = opening_hold(charge_id, numbers, nanos, at, self._next_seq())
        ending = Ending(Status.SETTLED, Basis.IMPORTED, nanos, reason=note)
        self._batch.charges.append(charge_row(hold, ending, at, self._next_seq()))
        self._batch.postings.append(PostingRow(self._next_seq(), charge_id, "opening", 0, now, actor, note))
        for found in accounts:
            found.post(nanos, at)
            self._touch(found)
        self.flush()
        return nanos


def _has_left(budget: BudgetSpec, at: int, now: int) -> bool:
    """Whether spend of that time is no longer in a rolling window."""
    window = budget.window
    return window.kind is WindowKind.ROLLING and bucket_leaves_at(window, bucket_start(window, at)) <= now
