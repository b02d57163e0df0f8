"""Jobs that a provider works on after it has answered: batches, fine-tuning, background responses.

A job is held at its worst case when it is submitted and settled when the provider has done it, by asking the provider
now and then. Its hold survives restarts: the row holds all that settling needs. What a job used is priced line by line
with the same functions as any call, at the price stored with the hold.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from outlay.flow.gateway.client import Request
from outlay.flow.gateway.entries import Memo
from outlay.flow.gateway.exchange import Exchange
from outlay.flow.gateway.fetch import TOO_LARGE, Fetch
from outlay.flow.gateway.fetch import Done as FetchDone
from outlay.flow.gateway.fixed import FixedTerms
from outlay.flow.gateway.job_terms import (
    FILE_PATH,
    KINDS,
    RESULTS_PATH,
    Done,
    JobBody,
    batch_terms,
    message_batch_terms,
    read_job,
    settle_lines,
    settle_response,
    settle_training,
    training_terms,
)
from outlay.flow.gateway.ladders import ladder_pause
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.settlement import Settlement, Terms
from outlay.flow.gateway.snapshot import Provider
from outlay.flow.ledger.charge import Basis, Ending, Hold, Status
from outlay.flow.ledger.port import JobRow
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import AccountingBroken
from outlay.wire.intent import Operation, Rejection
from outlay.wire.jobs import BatchRequest, parse_batch, parse_fine_tuning
from outlay.wire.routes import Match

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

HINT_PAUSE_NS: Final = 1_000_000_000
"""A client that looks at its job in a loop does not make us ask as often."""
TICK_NS: Final = 500_000_000
"""How often all open jobs are looked over for one whose turn it is."""
MAX_POLLS: Final = 8
"""Jobs asked about at the same time."""
PATHS: Final = {
    "batch": "/batches/{id}",
    "message_batch": "/v1/messages/batches/{id}",
    "fine_tuning": "/fine_tuning/jobs/{id}",
    "response": "/responses/{id}",
}


class Submission(FixedTerms):
    """The terms of a job, and what keeps its hold open."""

    __slots__ = ("_body", "_keeper", "_kind")

    def __init__(self, keeper: "JobKeeper", terms: Terms, body: JobBody) -> None:
        super().__init__(terms)
        self._keeper = keeper
        self._kind = KINDS[terms.intent.operation]
        self._body = body

    def accepted(self, status: int, body: bytes) -> str | None:
        """See `FixedTerms`. A response that is whole at once is no job."""
        if status >= 300:
            return None
        job = read_job(self._kind, body)
        if job is None or not job.id or (self._kind == "response" and job.is_over):
            return None
        return job.id

    def defer(self, hold: Hold, job_id: str, shadow: str) -> None:
        """See `FixedTerms`."""
        body = msgspec.structs.replace(self._body, shadow=shadow) if shadow else self._body
        self._keeper.keep(hold, self._kind, self.terms, job_id, body)


class JobKeeper:
    """See the module."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._next_tick = 0
        self._polling: set[bytes] = set()
        self._asked_at: dict[bytes, int] = {}
        """Hold id -> monotonic ns of the last question."""

    # -- submitting -------------------------------------------------------------------------------------------

    def submit(self, exchange: Exchange, memo: Memo, match: Match, request: Request) -> None:
        """Take a job: read what it will work on, then hold its worst case as any call's."""
        exchange.await_input(memo)
        operation = match.route.operation
        provider = self._gateway.resources.provider_of(memo.snapshot, memo.key, match.route.dialect, "")
        if isinstance(provider, Refusal):
            exchange.refuse(provider)
            return
        if operation is Operation.MESSAGE_BATCH:
            found = message_batch_terms(memo, provider, request.body, self._gateway.clock.now())
            self._begin(exchange, memo, match, request, provider, found)
            return
        order = parse_batch(request.body) if operation is Operation.BATCH else parse_fine_tuning(request.body)
        if isinstance(order, Rejection):
            self._gateway.desk.reject(exchange, memo, match, request, order)
            return
        file_id = order.input_file_id if isinstance(order, BatchRequest) else order.training_file
        where = self._gateway.resources.provider_of(
            memo.snapshot, memo.key, match.route.dialect, file_id, request.header(b"x-outlay-provider")
        )
        if isinstance(where, Refusal):
            exchange.refuse(where)
            return
        at = where

        def fetched(status: int, data: bytes) -> None:
            if status != 200:
                reason = data.decode("utf-8", "replace")[:100] if status == 0 else f"status {status}"
                exchange.refuse(
                    Refusal(502, "file_unreadable", f"The provider did not give the job's file: {reason}.")
                )
                return
            now = self._gateway.clock.now()
            theirs = self._gateway.resources.is_anothers_in(memo.snapshot, memo.key, data)
            if theirs is not None:
                exchange.refuse(theirs)
                return
            try:
                if isinstance(order, BatchRequest):
                    terms = batch_terms(memo, at, order, data, now)
                else:
                    terms = training_terms(memo, at, order, data, now)
                self._begin(exchange, memo, match, request, at, terms)
            except AccountingBroken:
                raise
            except Exception as error:  # noqa: BLE001 - the request shell: whatever went wrong, the hold ends
                exchange.fail(error)

        limit = memo.snapshot.settings.max_job_bytes
        self._fetch(at, FILE_PATH.replace("{id}", file_id), limit, fetched)

    def _begin(  # noqa: PLR0917 - two call sites, above
        self,
        exchange: Exchange,
        memo: Memo,
        match: Match,
        request: Request,
        provider: Provider,
        found: tuple[Terms, JobBody] | Refusal,
    ) -> None:
        if isinstance(found, Refusal):
            if self._gateway.is_shadow and found.status in (403, 422):
                self._gateway.desk.let_pass(exchange, memo, match, request, found.code, provider)
                return
            exchange.refuse(found)
            return
        terms, body = found
        operation = match.route.operation
        entries = self._gateway.desk.entries_at(memo, provider, operation, match.path, terms.model)
        if isinstance(entries, Refusal):
            exchange.refuse(entries)
            return
        paused = ladder_pause(self._gateway, entries.targets[0], exchange.id, exchange.began_at)
        if paused is not None:
            exchange.refuse(paused)
            return
        exchange.fixed = Submission(self, terms, body)
        exchange.start(memo, match, terms.intent, entries)

    def background(self, terms: Terms) -> Submission:
        """A response that goes on in the background, at its ordinary terms."""
        return Submission(self, terms, JobBody(terms.model, tier=terms.intent.service_tier or ""))

    def keep(self, hold: Hold, kind: str, terms: Terms, job_id: str, body: JobBody) -> None:
        """A provider has taken a job: its hold stays open."""
        self._gateway.books.defer(hold, kind, terms.provider.name, job_id, msgspec.json.encode(body).decode())

    # -- settling ---------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Ask about jobs that were not asked about for `job_poll_s`; monotonic ns."""
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_NS
        jobs = self._gateway.books.jobs
        if not jobs:
            return
        pause = self._gateway.settings.job_poll_s * 1_000_000_000
        for row in jobs:
            if len(self._polling) >= MAX_POLLS:
                return
            if row.hold_id not in self._polling and now - self._asked_at.get(row.hold_id, 0) >= pause:
                self._ask(row)

    def hint(self, provider: str, resource: str) -> None:
        """Somebody has just looked at an object: if it is a job of ours, see how it stands."""
        now = self._gateway.clock.monotonic()
        for row in self._gateway.books.jobs:
            if (row.provider, row.job_id) != (provider, resource) or row.hold_id in self._polling:
                continue
            if now - self._asked_at.get(row.hold_id, 0) >= HINT_PAUSE_NS:
                self._ask(row)

    def _ask(self, row: JobRow) -> None:
        gateway = self._gateway
        provider = gateway.snapshot.providers.get(row.provider)
        self._asked_at[row.hold_id] = gateway.clock.monotonic()
        if provider is None:
            return  # the operator took it away: the hold stays until it is back, or is resolved by hand
        self._polling.add(row.hold_id)
        path = PATHS[row.kind].replace("{id}", row.job_id)
        self._fetch(
            provider,
            path,
            gateway.settings.max_response_bytes,
            lambda status, data: self._told(row, status, data),
        )

    def _told(self, row: JobRow, status: int, data: bytes) -> None:
        self._polling.discard(row.hold_id)
        hold = self._gateway.books.hold_of(row.hold_id)
        provider = self._gateway.snapshot.providers.get(row.provider)
        if hold is None or provider is None:
            return
        if status == 404:
            self._settle(row, hold, _unknown(hold, "the provider does not know the job any more"))
            return
        job = read_job(row.kind, data) if status == 200 else None
        if job is None or not job.is_over:
            return
        body = msgspec.json.decode(row.body, type=JobBody)
        done = Done(
            self._gateway.snapshot,
            provider,
            self._gateway.price_of(hold.price_id),
            body,
            hold.nanos,
            UnixNanos(hold.placed_at),
        )
        if row.kind == "response":
            self._settle(row, hold, settle_response(done, data, job.status))
        elif row.kind == "fine_tuning":
            self._settle(row, hold, settle_training(done, job))
        elif row.kind == "message_batch":
            path = RESULTS_PATH.replace("{id}", row.job_id)
            self._read_results(row, provider, path, done)
        elif job.output_file:
            self._read_results(row, provider, FILE_PATH.replace("{id}", job.output_file), done)
        else:
            self._settle(row, hold, settle_lines(done, row.kind, b""))

    def _read_results(self, row: JobRow, provider: Provider, path: str, done: Done) -> None:
        self._polling.add(row.hold_id)

        def fetched(status: int, data: bytes) -> None:
            self._polling.discard(row.hold_id)
            hold = self._gateway.books.hold_of(row.hold_id)
            if hold is not None and status == 0 and data == TOO_LARGE:
                # asking again gives the same: what is held is booked, and `ledger resolve` corrects it
                self._settle(
                    row, hold, _unknown(hold, "the results of the job are larger than max_job_bytes")
                )
                return
            if hold is None or (status != 200 and status not in (404, 410)):
                return  # asked again at the next tick
            if status != 200:
                self._settle(row, hold, _unknown(hold, "the provider keeps no results of the job"))
                return
            self._settle(row, hold, settle_lines(done, row.kind, data))

        self._fetch(provider, path, self._gateway.settings.max_job_bytes, fetched)

    def _settle(self, row: JobRow, hold: Hold, settlement: Settlement) -> None:
        gateway = self._gateway
        if hold.is_ended:
            return
        self._asked_at.pop(row.hold_id, None)
        price_id = None if settlement.price is None else gateway.price_id(settlement.price)
        body = msgspec.json.decode(row.body, type=JobBody)
        reason = "; ".join(text for text in (body.shadow, settlement.reason) if text) or None
        gateway.books.end(
            hold,
            Ending(
                settlement.status,
                settlement.basis,
                settlement.cost_nanos,
                settlement.usage,
                None,
                price_id,
                None,
                200,
                reason,
            ),
        )
        gateway.metrics.settled((row.provider, body.model), settlement, hold.nanos)

    def _fetch(self, provider: Provider, path: str, max_bytes: int, done: FetchDone) -> None:
        pool = self._gateway.pools.get(provider.name)
        if pool is None:
            asyncio.get_running_loop().call_soon(done, 0, b"the provider is no longer configured")
            return
        Fetch(pool, path, max_bytes, done)


def _unknown(hold: Hold, reason: str) -> Settlement:
    return Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, hold.nanos, reason=reason)
