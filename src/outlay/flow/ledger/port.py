"""What a store must do, and the rows it keeps. A store decides nothing: it writes a batch whole or not at all.

`submit(batch, done)` is completion-style so that a store off the event loop (PostgreSQL) serves the same books;
SQLite and memory call `done` before they return. Row fields are in storage order; amounts are nanos, times UTC ns.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from outlay.flow.runs import Run
from outlay.kernel.errors import StoreError

SCHEMA_VERSION = 3


class HoldRow(NamedTuple):
    """An open hold. One row per attempt; it leaves the table when its charge arrives."""

    id: bytes
    request_id: bytes
    attempt: int
    identity_id: int
    route_id: int
    price_id: int
    accounts_id: int
    nanos: int
    placed_at: int
    seq: int
    epoch: int


class ChargeRow(NamedTuple):
    """How a hold ended: settled, void or expired, with what the provider said."""

    id: bytes
    request_id: bytes
    attempt: int
    identity_id: int
    route_id: int
    price_id: int
    accounts_id: int
    status: str
    basis: str
    hold_nanos: int
    cost_nanos: int
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    cache_write_12h_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    tool_requests: int | None
    placed_at: int
    first_byte_at: int | None
    settled_at: int
    hold_seq: int
    settle_seq: int
    http_status: int | None
    reason: str | None
    other_usage: str | None = None
    """JSON of what else was billed: tokens by modality, units."""


class JobRow(NamedTuple):
    """A deferred hold: a job that a provider works on after it has answered. It leaves the table with its hold."""

    hold_id: bytes
    kind: str
    """`batch`, `message_batch`, `fine_tuning` or `response`."""
    provider: str
    job_id: str
    """The provider's."""
    body: str
    """JSON of what settling needs: model, tier, price and times."""
    at: int


class OwnerRow(NamedTuple):
    """Whose a provider's object (file, job, response) is: providers' accounts are shared, objects are not."""

    provider: str
    resource: str
    org: str
    team: str
    key: str
    at: int


class RunRow(NamedTuple):
    """A run that has a parent or limits of its own. `parent` is a name in the same org and team, or ""."""

    org: str
    team: str
    name: str
    parent: str
    cap_nanos: int | None
    max_calls: int | None
    deadline: int | None
    opened_at: int
    calls: int


class AccountLimitRow(NamedTuple):
    """The limit of one account from `seq` on, where it is not its budget's: a run's own, or raised for a while."""

    seq: int
    account_id: int
    limit_nanos: int | None
    hard: int
    """1 hard, 0 soft, -1 the budget's own again."""
    at: int


class ExtensionRow(NamedTuple):
    """A hold that grew: the journal of what was added, and when."""

    seq: int
    hold_id: bytes
    nanos: int
    at: int


class RefusalRow(NamedTuple):
    """How often callers of a key were refused so within a minute; `times` is added to what is stored."""

    minute: int
    """UTC, since 1970."""
    code: str
    budget: str
    """Of the budget or policy that refused; "" where none did."""
    org: str
    team: str
    key: str
    times: int


class AccountRow(NamedTuple):
    """Balance of one budget window. `budget` is the declaration's key (name and digest of scope and window)."""

    id: int
    budget: str
    name: str
    scope: str
    window_start: int
    window_end: int
    limit_nanos: int | None
    spent: int
    held: int


class BucketRow(NamedTuple):
    """One bucket of a rolling account."""

    account_id: int
    start: int
    spent: int


class PostingRow(NamedTuple):
    """A typed posting outside hold and settle: an adjustment by a person, later accruals."""

    seq: int
    charge_id: bytes
    kind: str
    nanos: int
    at: int
    actor: str
    note: str


class InternRow(NamedTuple):
    """A value that many rows name by number: an `identity`, `route`, `price` or set of `accounts`."""

    kind: str
    id: int
    body: str


class LimitRow(NamedTuple):
    """The limit of a budget from `seq` on: what an audit checks holds against."""

    seq: int
    budget: str
    name: str
    limit_nanos: int | None
    hard: int
    at: int
    body: str


class ObjectRow(NamedTuple):
    """A version of a key, budget or price set by CLI or API. The newest version counts; `body` "" is a deletion."""

    kind: str
    name: str
    version: int
    body: str
    at: int
    actor: str


class Batch:
    """All writes of one tick. Applied in one transaction, in the order of the attributes here."""

    __slots__ = (
        "account_limits",
        "accounts",
        "adjusted",
        "balances",
        "before",
        "buckets",
        "charges",
        "dirty_runs",
        "ended",
        "extensions",
        "hold_sets",
        "holds",
        "interned",
        "jobs",
        "jobs_done",
        "limits",
        "owners",
        "postings",
        "refusals",
        "runs",
    )

    def __init__(self) -> None:
        self.before: Batch | None = None
        """What is on its way to the store: the store may show it or not. Nothing in it may be forgotten meanwhile."""
        self.interned: list[InternRow] = []
        self.limits: list[LimitRow] = []
        self.accounts: list[AccountRow] = []
        self.account_limits: list[AccountLimitRow] = []
        self.dirty_runs: list[Run] = []
        """Runs whose rows `runs` gets when the batch is handed over."""
        self.refusals: list[RefusalRow] = []
        self.runs: list[RunRow] = []
        """Newest state of a run; replaces its row."""
        self.holds: list[HoldRow] = []
        self.extensions: list[ExtensionRow] = []
        """Added to the hold's row."""
        self.hold_sets: list[tuple[int, bytes]] = []
        """(accounts_id, hold id): a budget made while the hold was open."""
        self.ended: list[tuple[bytes]] = []
        self.charges: list[ChargeRow] = []
        self.postings: list[PostingRow] = []
        self.adjusted: list[tuple[int, str, bytes]] = []
        """(nanos to add to adjustment_nanos, new basis, charge id)."""
        self.balances: list[tuple[int, int, int | None, int]] = []
        """(spent, held, limit, account id): absolute, as of this batch."""
        self.buckets: list[BucketRow] = []
        self.jobs: list[JobRow] = []
        self.jobs_done: list[tuple[bytes]] = []
        """Hold ids whose job is over."""
        self.owners: list[OwnerRow] = []

    @property
    def grown(self) -> list[tuple[int, bytes]]:
        """(nanos, hold id) of `extensions`."""
        return [(row.nanos, row.hold_id) for row in self.extensions]

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.holds
            or self.charges
            or self.balances
            or self.interned
            or self.limits
            or self.accounts
            or self.postings
            or self.adjusted
            or self.hold_sets
            or self.buckets
            or self.jobs
            or self.jobs_done
            or self.owners
            or self.dirty_runs
            or self.runs
            or self.refusals
            or self.account_limits
            or self.extensions
        )


class Loaded(NamedTuple):
    """What the books need at start."""

    max_interned: dict[str, int]
    """Highest number by kind of interned value."""
    limits: dict[str, LimitRow]
    """Newest by budget key."""
    max_account_id: int
    open_holds: list[HoldRow]
    last_seq: int
    epoch: int
    """This process's number; rows of earlier epochs belong to a process that is dead or fenced."""
    was_clean: bool
    """The last epoch ended with a clean stop."""
    jobs: list[JobRow]
    """Deferred holds; they stay open over restarts."""
    host_crashed: bool
    """The last epoch ended without a clean stop, the machine has booted since, and commits did not wait for the
    disk: the last moments may be missing."""


class StoreBusy(StoreError):
    """Another process holds the store's lock for a moment; the same batch may be submitted again."""

    code = "ledger_busy"


class StoreInUse(StoreError):
    """Another process owns the ledger: it may be had when that one is gone."""


class StoreUnreachable(StoreError):
    """The database that holds the ledger does not answer: it may when it is asked again."""


class StoreFenced(StoreError):
    """Another process owns the ledger now: this one may write nothing more and must end."""

    code = "ledger_fenced"


Done = Callable[[StoreError | None], None]


class Store(Protocol):
    """A durable home for rows. All methods are called from the books' thread."""

    def load(self, now: int) -> Loaded:
        """Open a new epoch and read what the books need. Raises StoreError."""

    def submit(self, batch: Batch, done: Done) -> None:
        """Write the batch atomically; call `done(None)` once durable, or `done(error)` if nothing was written."""

    def settle(self) -> None:
        """Wait until what was submitted is written or has failed, and call its `done`. For what is rare."""

    def find_interned(self, kind: str, body: str) -> int | None:
        """Number of an interned value, if it was ever used."""

    def interned_body(self, kind: str, number: int) -> str | None:
        """The value behind a number."""

    def find_account(self, budget: str, scope: str, window_start: int) -> AccountRow | None:
        """The stored balance of an account, if it was ever used."""

    def account_by_id(self, account_id: int) -> AccountRow | None:
        """The stored balance with that number."""

    def buckets_of(self, account_id: int, since: int) -> list[BucketRow]:
        """Ring buckets that began at or after `since`, oldest first."""

    def spend_since(self, since: int, by_settlement: bool, bucket: int) -> list[tuple[int, int, int]]:
        """(identity id, bucket start or 0, nanos) of all charges placed (or settled) since; for new budgets."""

    def charge(self, charge_id: bytes) -> ChargeRow | None:
        """One charge, or None. `cost_nanos` includes adjustments."""

    def attempts(self, request_id: bytes) -> Sequence[ChargeRow]:
        """All ended attempts of a request, in order."""

    def run(self, org: str, team: str, name: str) -> RunRow | None:
        """A run, if it was opened with a parent or limits."""

    def owner(self, provider: str, resource: str) -> OwnerRow | None:
        """Whose a provider's object is, if it was made through here."""

    def accept_crash(self) -> None:
        """An operator has looked at what a crash of the host may have lost: the next start need not ask again."""

    def objects(self) -> list[ObjectRow]:
        """The newest version of every object, deletions included."""

    def put_object(self, kind: str, name: str, body: str, at: int, actor: str) -> int:
        """Append a version; returns its number. Raises StoreError."""

    def put_objects(self, objects: Sequence[tuple[str, str, str]], at: int, actor: str) -> list[int]:
        """Append a version of each (kind, name, body), all or none; returns their numbers. Raises StoreError."""

    def abandon(self) -> None:
        """Let go of files and connections as a process does that dies: nothing is marked, the next owner recovers."""

    def close(self, now: int) -> None:
        """Mark a clean stop and release the file."""
