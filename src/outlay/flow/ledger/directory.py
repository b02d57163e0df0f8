"""Which accounts an identity falls under, and the numbers that rows use for what they share.

Accounts are made on first use, found again in the store, capped in number, and put away only with nothing held.
The directory changes no balance; `books` does.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import msgspec

from outlay.flow.accounts import Account
from outlay.flow.budgets import RUN_METER, BudgetSpec, Origin, budgets_for
from outlay.flow.ledger.port import (
    AccountLimitRow,
    AccountRow,
    Batch,
    BucketRow,
    ChargeRow,
    InternRow,
    LimitRow,
    Loaded,
    Store,
)
from outlay.flow.ledger.runs import Runs
from outlay.flow.raises import Raise, RaisesByAccount, by_account, raised_at
from outlay.flow.runs import Run, RunKey
from outlay.flow.scope import Identity, match_scope
from outlay.flow.windows import (
    FOREVER,
    Window,
    WindowKind,
    bounds,
    bucket_nanos,
    bucket_start,
)
from outlay.kernel.errors import AccountingBroken

MAX_ACCOUNTS = 200_000
"""Accounts in memory (about 100 MB): past it, idle ones are put away and come back from the store on use."""
MAX_INTERNED = 200_000
"""Interned values remembered per kind; forgetting one costs a look-up in the store."""

REMOVED = -1
"""`LimitRow.hard` of a budget that is no longer declared; declared again, it is seeded anew."""

RUN_BUDGET = BudgetSpec(
    RUN_METER, {"org": "*", "run": "*"}, None, Window(WindowKind.LIFETIME), hard=False, origin=Origin.BUILT_IN
)


class Chain:
    """The accounts one identity falls under now. `valid_until` is the UTC ns at which to look again; 0 is stale."""

    __slots__ = ("accounts", "accounts_id", "identity", "identity_id", "run_account", "runs", "valid_until")

    def __init__(self, identity: Identity, identity_id: int) -> None:
        self.identity = identity
        self.identity_id = identity_id
        self.accounts: tuple[Account, ...] = ()
        self.accounts_id = 0
        self.run_account: Account | None = None
        self.runs: tuple[Run, ...] = ()
        """The identity's run and its ancestors, if it was opened with limits or a parent."""
        self.valid_until = 0


class Interner:
    """Numbers for values of one kind: the same value has the same number, for ever."""

    def __init__(self, kind: str, highest: int, store: Store, batch: Callable[[], Batch]) -> None:
        self._kind = kind
        self._highest = highest
        self._store = store
        self._batch = batch
        self._numbers: dict[str, int] = {}
        self._unwritten: dict[str, int] = {}

    def number(self, body: str) -> int:
        """The number of `body`; a new one is written with the current batch."""
        found = self._numbers.get(body)
        if found is None:
            found = self._unwritten.get(body) or self._store.find_interned(self._kind, body)
            if found is None:
                self._highest += 1
                found = self._highest
                self._batch().interned.append(InternRow(self._kind, found, body))
                self._unwritten[body] = found
            if len(self._numbers) >= MAX_INTERNED:
                self._numbers.clear()
            self._numbers[body] = found
        return found

    def body(self, number: int) -> str:
        """The value of a number that some row names. Raises AccountingBroken if there is none."""
        for body, known in self._unwritten.items():
            if known == number:
                return body
        found = self._store.interned_body(self._kind, number)
        if found is None:
            raise AccountingBroken(f"{self._kind} {number} is named by a row but not stored")
        return found

    def written(self, body: str) -> None:
        """A value handed to a batch is durable."""
        self._unwritten.pop(body, None)


class Directory:
    """See the module. `batch` gives the batch of the current tick."""

    def __init__(
        self, store: Store, loaded: Loaded, batch: Callable[[], Batch], next_seq: Callable[[], int]
    ) -> None:
        self._store = store
        self._batch = batch
        self._next_seq = next_seq
        self.runs = Runs(store, batch)
        self._run_budgets: tuple[BudgetSpec, ...] = (RUN_BUDGET,)
        self._raises: RaisesByAccount = {}
        self._enforces_runs = True
        self.raises_end_at = FOREVER
        """UTC ns at which a raise ends."""
        self.relimited: list[Account] = []
        """Accounts whose limit changed apart from a call; the owner writes and empties this."""
        highest = loaded.max_interned
        self.identities = Interner("identity", highest.get("identity", 0), store, batch)
        self.routes = Interner("route", highest.get("route", 0), store, batch)
        self.prices = Interner("price", highest.get("price", 0), store, batch)
        self.account_sets = Interner("accounts", highest.get("accounts", 0), store, batch)
        self._accounts: dict[tuple[str, str, int], Account] = {}
        self._by_id: dict[int, Account] = {}
        self._max_account_id = loaded.max_account_id
        self._limits = loaded.limits
        self._budgets: tuple[BudgetSpec, ...] = (RUN_BUDGET,)
        self._chains: list[Chain] = []
        self._chains_of_run: dict[RunKey, list[Chain]] = {}
        self._next_cleaning = MAX_ACCOUNTS

    @property
    def budgets(self) -> tuple[BudgetSpec, ...]:
        """The budgets in force, declared ones first."""
        return self._budgets

    def written(self, batch: Batch) -> None:
        """The batch's interned values are durable and can be found in the store."""
        interners = {
            "identity": self.identities,
            "route": self.routes,
            "price": self.prices,
            "accounts": self.account_sets,
        }
        for row in batch.interned:
            interners[row.kind].written(row.body)

    def accounts(self) -> list[Account]:
        """Every account in memory."""
        return list(self._by_id.values())

    def open_chain(self, identity: Identity, now: int) -> Chain:
        """A new chain for an identity; the caller keeps and refreshes it."""
        chain = Chain(identity, self.identities.number(encode_identity(identity)))
        self.refresh(chain, now)
        return chain

    def refresh(self, chain: Chain, now: int) -> None:
        """Bring a chain up to date: windows that ended, buckets that leave, budgets that changed."""
        if len(self._accounts) >= self._next_cleaning or len(self._chains) >= MAX_ACCOUNTS:
            self._put_idle_away()
        run = self.runs.of(chain.identity)
        if chain.valid_until == 0:
            self._chains.append(chain)
            self._remember_runs(chain, run)
        accounts, until = [], FOREVER
        chain.run_account = None
        chain.runs = () if run is None else run.line()
        found = list(budgets_for(self._budgets, chain.identity))
        for ancestor in chain.runs[1:]:
            above = msgspec.structs.replace(chain.identity, run=ancestor.name)
            found += [applied for applied in budgets_for(self._run_budgets, above) if applied not in found]
        for applied in found:
            account = self._account(applied.budget, applied.values, now)
            accounts.append(account)
            until = min(until, self._set_own_limit(account, chain.runs, now))
            if account.buckets is not None:
                account.leave(now)
                size = bucket_nanos(applied.budget.window)
                until = min(until, bucket_start(applied.budget.window, now) + size)
            else:
                until = min(until, account.end)
            if applied.budget.name == RUN_METER and chain.run_account is None:
                chain.run_account = account
        chain.accounts = tuple(accounts)
        chain.accounts_id = self.account_set(accounts)
        chain.valid_until = until

    def _set_own_limit(self, account: Account, runs: Sequence[Run], now: int) -> int:
        """Put the account's own limit and raises in force and journal a change; UTC ns at which to look again."""
        extra, until = 0, FOREVER
        raises = self._raises.get((account.budget.name, account.values)) if self._raises else None
        if raises is not None:
            extra, until = raised_at(raises, now)
        own = None
        if runs and account.budget.name == RUN_METER:
            name = dict(account.values)["run"]
            own = next((run.cap_nanos for run in runs if run.name == name), None)
        if account.set_own(own, extra, is_hard=self._enforces_runs):
            self._journal(account, now)
        return until

    def _journal(self, account: Account, now: int) -> None:
        """Write which limit is in force in an account, where it is not simply its budget's."""
        is_own = account.own_limit is not None or account.raised
        row = AccountLimitRow(
            self._next_seq(), account.id, account.limit, int(account.is_hard) if is_own else -1, now
        )
        self._batch().account_limits.append(row)

    def _remember_runs(self, chain: Chain, run: Run | None) -> None:
        identity = chain.identity
        if identity.run:
            keys = (
                [(identity.org, identity.team, identity.run)] if run is None else [r.key for r in run.line()]
            )
            for key in keys:
                self._chains_of_run.setdefault(key, []).append(chain)

    def run_changed(self, key: RunKey) -> None:
        """Chains of a run and of those below it must look again before their next use."""
        for chain in self._chains_of_run.pop(key, ()):
            chain.valid_until = 0

    def account_set(self, accounts: Sequence[Account]) -> int:
        """Number of a set of accounts."""
        return self.account_sets.number(",".join(str(account.id) for account in accounts))

    def accounts_of_set(self, accounts_id: int) -> tuple[Account, ...]:
        """The accounts that a row's set names, from memory or the store."""
        body = self.account_sets.body(accounts_id)
        return tuple(self._account_by_id(int(part)) for part in body.split(",") if part)

    def make_stale(self) -> None:
        """Every chain must look again before its next use."""
        for chain in self._chains:
            chain.valid_until = 0
        self._chains = []
        self._chains_of_run = {}

    def set_budgets(
        self,
        budgets: Sequence[BudgetSpec],
        now: int,
        raises: Sequence[Raise] = (),
        *,
        enforces_runs: bool = True,
    ) -> list[BudgetSpec]:
        """Put declarations in force, journal changed limits, and return the budgets the ledger never saw.

        `enforces_runs`: whether a run's own limit refuses (it does not in shadow mode).
        """
        seq = self._next_seq
        self._raises, self._enforces_runs = by_account(raises), enforces_runs
        wanted = {budget_key(budget): budget for budget in (*budgets, RUN_BUDGET)}
        current = {budget_key(budget) for budget in self._budgets}
        fresh = []
        for key, budget in wanted.items():
            known = self._limits.get(key)
            row = limit_row(key, budget, seq(), now)
            if known is None or known.hard == REMOVED:
                fresh.append(budget)
            if known is None or (known.limit_nanos, known.hard) != (row.limit_nanos, row.hard):
                self._limits[key] = row
                self._batch().limits.append(row)
        for key in (set(self._limits) | current) - set(wanted):
            old = self._limits[key]
            if old.hard != REMOVED:
                removed = old._replace(seq=seq(), limit_nanos=None, hard=REMOVED, at=now)
                self._limits[key] = removed
                self._batch().limits.append(removed)
        for (key, _, _), account in self._accounts.items():
            row = self._limits[key]
            old_limit = account.limit
            account.set_budget(wanted.get(key) or _budget_of(row))
            if account.raised and account.limit != old_limit:
                self._journal(account, now)
        self._budgets = tuple(wanted.values())
        self._run_budgets = tuple(budget for budget in self._budgets if "run" in budget.scope)
        self.make_stale()
        self.apply_raises(now)
        return [budget for budget in fresh if budget.name != RUN_METER]

    def apply_raises(self, now: int) -> None:
        """Put raises in force in their accounts, and take those away that have ended, so that a balance is read right
        before its next use."""
        raised = {account for account in self._by_id.values() if account.raised}
        by_name = {budget.name: budget for budget in self._budgets}
        self.raises_end_at = FOREVER
        for (name, values), raises in self._raises.items():
            extra, until = raised_at(raises, now)
            self.raises_end_at = min(self.raises_end_at, until)
            budget = by_name.get(name)
            if budget is not None and extra:
                account = self._account(budget, values, now)
                raised.discard(account)
                self._raise(account, extra, now)
        for account in raised:
            self._raise(account, 0, now)

    def _raise(self, account: Account, extra: int, now: int) -> None:
        if account.set_own(account.own_limit, extra, is_hard=account.own_is_hard):
            self._journal(account, now)
            self.relimited.append(account)

    def seed(
        self, fresh: Sequence[BudgetSpec], now: int, unwritten: Sequence[ChargeRow]
    ) -> Iterator[Account]:
        """Start new budgets from what the ledger already knows: a budget made in mid-window is not born empty.

        `unwritten` are charges that the store does not have yet. Yields each account whose balance it changed,
        possibly more than once.
        """
        for budget in fresh:
            rolling = budget.window.kind is WindowKind.ROLLING
            start, _ = bounds(budget.window, now)
            size = bucket_nanos(budget.window) if rolling else 0
            begun: set[int] = set()
            rows = self._store.spend_since(start, rolling, size)
            for row in unwritten:
                posted_at = row.settled_at if rolling else row.placed_at
                if posted_at >= start:
                    rows.append((row.identity_id, posted_at, row.cost_nanos))
            # oldest first, as a ring's buckets stand
            for identity_id, at, nanos in sorted(rows, key=lambda found: found[1]):
                identity = decode_identity(self.identities.body(identity_id))
                values = match_scope(budget.scope, identity)
                if values is not None and nanos:
                    account = self._account(budget, values, now)
                    if account.id not in begun:
                        begun.add(account.id)
                        account.post(-account.spent, now)
                        if account.buckets is not None:
                            account.buckets.clear()
                    account.post(nanos, at if rolling else now)
                    yield account

    def account_for(self, budget: BudgetSpec, identity: Identity, now: int) -> Account | None:
        """The account of one budget for an identity, if the budget covers it."""
        values = match_scope(budget.scope, identity)
        return None if values is None else self._account(budget, values, now)

    def _account(self, budget: BudgetSpec, values: tuple[tuple[str, str], ...], now: int) -> Account:
        start, end = (0, FOREVER) if budget.window.kind is WindowKind.ROLLING else bounds(budget.window, now)
        key = (budget_key(budget), encode_values(values), start)
        account = self._accounts.get(key)
        if account is None:
            row = self._store.find_account(*key)
            if row is None:
                self._max_account_id += 1
                account = Account(self._max_account_id, budget, values, start, end)
                limit = budget.limit_nanos
                self._batch().accounts.append(
                    AccountRow(account.id, key[0], budget.name, key[1], start, end, limit, 0, 0)
                )
            else:
                account = self._stored(row, budget, values)
                account.leave(now)
            self._remember(key, account)
        return account

    def _account_by_id(self, account_id: int) -> Account:
        account = self._by_id.get(account_id)
        if account is None:
            row = self._store.account_by_id(account_id)
            if row is None:
                raise AccountingBroken(f"account {account_id} is named by a row but not stored")
            account = self._stored(row, _budget_of(self._limits[row.budget]), decode_values(row.scope))
            self._remember((row.budget, row.scope, row.window_start), account)
        return account

    def _stored(self, row: AccountRow, budget: BudgetSpec, values: tuple[tuple[str, str], ...]) -> Account:
        account = Account(row.id, budget, values, row.window_start, row.window_end)
        account.spent, account.held = row.spent, row.held
        if account.buckets is not None:
            account.buckets.extend(
                [bucket.start, bucket.spent] for bucket in self._store.buckets_of(row.id, 0)
            )
            account.spent = sum(bucket[1] for bucket in account.buckets)
        return account

    def _remember(self, key: tuple[str, str, int], account: Account) -> None:
        self._accounts[key] = account
        self._by_id[account.id] = account

    def _put_idle_away(self) -> None:
        """Forget idle accounts. Only at a point where nobody is collecting accounts: two objects for one account
        would be two balances."""
        busy = {
            key: account
            for key, account in self._accounts.items()
            if account.held or account.open_holds or account.is_dirty or account.waiting
        }
        unwritten = {row.id for row in self._batch().accounts}
        before = self._batch().before
        if before is not None:
            # the store may not show yet what they are now
            unwritten.update(row.id for row in before.accounts)
            unwritten.update(account_id for _, _, _, account_id in before.balances)
        for key, account in self._accounts.items():
            if account.id in unwritten:
                busy[key] = account
        self._accounts = busy
        self._by_id = {account.id: account for account in busy.values()}
        self.runs.put_away()
        self._next_cleaning = max(MAX_ACCOUNTS, 2 * len(busy))
        self.make_stale()


def budget_key(budget: BudgetSpec) -> str:
    """Name and digest of scope and window: a budget whose meaning changes is a new set of accounts."""
    meaning = msgspec.json.encode((sorted(budget.scope.items()), budget.window))
    return f"{budget.name}#{blake2b(meaning, digest_size=4).hexdigest()}"


def encode_values(values: tuple[tuple[str, str], ...]) -> str:
    """Stored text of an account's scope values; JSON, so that no client's value can look like another scope."""
    return msgspec.json.encode(values).decode()


def decode_values(body: str) -> tuple[tuple[str, str], ...]:
    """The scope values of a stored text."""
    return msgspec.json.decode(body, type=tuple[tuple[str, str], ...])


def encode_identity(identity: Identity) -> str:
    """Stored text of an identity: JSON without the empty dimensions."""
    found: dict[str, object] = {
        name: getattr(identity, name) for name in identity.__struct_fields__ if getattr(identity, name)
    }
    return msgspec.json.encode(found).decode()


def decode_identity(body: str) -> Identity:
    """The identity of a stored text."""
    return msgspec.json.decode(body, type=Identity)


def changed_buckets(account: Account) -> list[BucketRow]:
    """Rows of a rolling account's ring that changed since the last time."""
    unwritten = account.unwritten
    if not unwritten:
        return []
    found = []
    # the newest bucket is nearly always the only one
    for start, spent in reversed(account.buckets or ()):
        if start in unwritten:
            unwritten.discard(start)
            found.append(BucketRow(account.id, start, spent))
            if not unwritten:
                break
    unwritten.clear()
    return found


def limit_row(key: str, budget: BudgetSpec, seq: int, now: int) -> LimitRow:
    """The journal's row of a declaration."""
    body = msgspec.json.encode({"scope": dict(budget.scope), "window": budget.window}).decode()
    return LimitRow(seq, key, budget.name, budget.limit_nanos, int(budget.hard), now, body)


class _Meaning(msgspec.Struct):
    scope: dict[str, str]
    window: Window


def _budget_of(row: LimitRow) -> BudgetSpec:
    meaning = msgspec.json.decode(row.body, type=_Meaning)
    return BudgetSpec(row.name, meaning.scope, row.limit_nanos, meaning.window, row.hard == 1)
