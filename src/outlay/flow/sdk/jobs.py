"""Jobs of wrapped clients: held at their worst case when submitted, settled when a look-up shows that they are done.

Nobody polls in the background: a look (`batches.retrieve`, `responses.retrieve`) through a wrapped client on the same
ledger settles, also in another process and after a restart.
"""

from collections.abc import Generator
from typing import Any, Final

import msgspec

from outlay.flow.gateway.job_terms import (
    FILE_PATH,
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
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.settlement import Settlement, Terms
from outlay.flow.ledger.charge import Basis, Ending, Status
from outlay.flow.ledger.port import JobRow, StoreBusy
from outlay.flow.sdk.meter import Found, Meter
from outlay.flow.sdk.runs import current_run
from outlay.flow.sdk.settler import Finish
from outlay.flow.sdk.steps import Fetch, Pause, Step
from outlay.kernel.clock import UnixNanos
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Operation, Rejection
from outlay.wire.jobs import BatchRequest, parse_batch, parse_fine_tuning

KEEP_TRIES: Final = 500
"""A second or more of a busy file; then the next look settles."""
_GONE: Final = (404, 410)


def agree(meter: Meter, found: Found, body: bytes) -> Generator[Step, Any, tuple[Terms, JobBody] | Refusal]:
    """The worst case of a job; reads the file that it will work on."""
    operation, now, memo = found.match.route.operation, meter.clock.now(), meter.memo(current_run())
    if operation is Operation.MESSAGE_BATCH:
        return message_batch_terms(memo, found.provider, body, now)
    order = parse_batch(body) if operation is Operation.BATCH else parse_fine_tuning(body)
    if isinstance(order, Rejection):
        return Refusal(order.status, order.code, order.message, {"param": order.param})
    file_id = order.input_file_id if isinstance(order, BatchRequest) else order.training_file
    path = found.base + FILE_PATH.replace("{id}", file_id)
    status, data = yield Fetch(path, meter.settings.max_job_bytes)
    if status != 200:
        return Refusal(502, "file_unreadable", f"The provider did not give the job's file: status {status}.")
    if isinstance(order, BatchRequest):
        return batch_terms(memo, found.provider, order, data, now)
    return training_terms(memo, found.provider, order, data, now)


def keep(meter: Meter, row: JobRow) -> Generator[Step, Any, None]:
    """A provider has taken a job: its hold stays open."""
    for _ in range(KEEP_TRIES):
        try:
            meter.ledger.defer(row)
        except StoreBusy:
            yield Pause(2)
        else:
            return


def looked_at(meter: Meter, found: Found, body: bytes) -> Generator[Step, Any, None]:
    """Somebody has looked at an object: if it is a job of ours and done, settle it."""
    kept = None
    for _ in range(KEEP_TRIES):
        try:
            kept = meter.ledger.job(found.provider.name, found.match.resource)
        except StoreBusy:
            yield Pause(2)
        else:
            break
    if kept is None:
        return
    row, hold, price = kept
    job = read_job(row.kind, body)
    if job is None or not job.is_over:
        return
    done = Done(
        meter.snapshot,
        found.provider,
        msgspec.json.decode(price, type=ModelPrice),
        msgspec.json.decode(row.body, type=JobBody),
        hold.nanos,
        UnixNanos(hold.placed_at),
    )
    if row.kind == "response":
        settlement = settle_response(done, body, job.status)
    elif row.kind == "fine_tuning":
        settlement = settle_training(done, job)
    else:
        data = b""
        path = RESULTS_PATH.replace("{id}", row.job_id) if row.kind == "message_batch" else ""
        if row.kind == "batch" and job.output_file:
            path = FILE_PATH.replace("{id}", job.output_file)
        if path:
            status, data = yield Fetch(found.base + path, meter.settings.max_job_bytes)
            if status != 200 and status not in _GONE:
                return
            if status != 200:
                text = "the provider keeps no results of the job"
                unknown = Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, hold.nanos, reason=text)
                _end(meter, hold, unknown)
                return
        settlement = settle_lines(done, row.kind, data)
    _end(meter, hold, settlement)


def _end(meter: Meter, hold: Any, settlement: Settlement) -> None:
    price = None if settlement.price is None else meter.price_body(settlement.price)
    ending = Ending(
        settlement.status,
        settlement.basis,
        settlement.cost_nanos,
        settlement.usage,
        http_status=200,
        reason=settlement.reason,
    )
    meter.settler.finish(Finish(hold, ending, None, price), 0)
