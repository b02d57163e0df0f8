"""The mock's Anthropic message batches: creation, life, results, and the bill.

Each message that succeeded is one entry of the meter, under the id of the call that created the batch, at the price
of `model@batch` (or the model's).
"""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import msgspec

from outlay.testing.answer import Answer, Identity, Piece
from outlay.testing.anthropic_room import error_answer, status_answer, vendor_headers
from outlay.testing.behaviour import BehaviourError
from outlay.testing.call import Ask, BookCharge, Call, Reply
from outlay.testing.jobs import Line, LineRunner, Progress, Stage, book_lines, jsonl, keep, page, plain_piece

MESSAGES_PATH = "/v1/messages"
MAX_REQUESTS = 100_000  # Anthropic's own limit
_LIFE_SECONDS = 24 * 3600


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    params: dict[str, Any]


class _Order(msgspec.Struct, gc=False):
    requests: list[_Row] = []


class _Batch(msgspec.Struct):
    id: str
    identity: Identity
    call: Call
    progress: Progress
    lines: list[Line]
    is_cancelling: bool = False


class MessageBatchesRoom:
    """Keeps batches; runs their messages when they are created and bills them when they end."""

    def __init__(self, runner: LineRunner, book: BookCharge) -> None:
        self._runner = runner
        self._book = book
        self.batches: OrderedDict[str, _Batch] = OrderedDict()

    def create(self, ask: Ask) -> Reply:
        """POST /v1/messages/batches."""
        try:
            order = msgspec.json.decode(ask.body, type=_Order)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"requests: {error}"), None
        ids = [row.custom_id for row in order.requests]
        if not 1 <= len(ids) <= MAX_REQUESTS:
            return error_answer(ask.identity, 400, f"requests: 1 to {MAX_REQUESTS} are allowed"), None
        if len(set(ids)) < len(ids):
            return error_answer(ask.identity, 400, "requests: custom_id must be unique"), None
        if any(row.params.get("stream") for row in order.requests):
            return error_answer(ask.identity, 400, "requests: stream is not supported in a batch"), None
        try:
            behaviour = ask.resolve("message_batches", "")
        except BehaviourError as error:
            return error_answer(ask.identity, 400, f"mock: {error}"), None
        if behaviour.status != 200:
            return status_answer(ask.identity, behaviour, "", None), behaviour
        rows = [(row.custom_id, row.params) for row in order.requests]
        lines = self._runner.run(ask, MESSAGES_PATH, rows)
        batch = _Batch(f"msgbatch_{ask.identity.serial}", ask.identity, ask.call, Progress(behaviour), lines)
        keep(self.batches, batch.id, batch)
        if batch.progress.settle():
            self._end(batch)
        answer = _whole(ask, _batch_object(ask, batch))
        answer.job = batch.id
        return answer, behaviour

    def list(self, ask: Ask) -> Reply:
        """GET /v1/messages/batches: does not make them go on."""
        return _whole(ask, page(ask, [_batch_object(ask, batch) for batch in self.batches.values()])), None

    def retrieve(self, ask: Ask) -> Reply:
        """GET /v1/messages/batches/{id}: the batch goes on by it."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        batch.is_cancelling = False
        if batch.progress.asked():
            self._end(batch)
        return _whole(ask, _batch_object(ask, batch)), None

    def results(self, ask: Ask) -> Reply:
        """GET /v1/messages/batches/{id}/results: JSON lines, once the batch has ended."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        if batch.progress.stage.is_open or batch.is_cancelling:
            message = f"Batch {batch.id} has no available results; it is still in progress."
            return error_answer(ask.identity, 404, message), None
        answer = _whole(ask, None)
        answer.content_type = b"application/x-jsonl"
        answer.pieces = plain_piece(jsonl(_results(batch)))
        return answer, None

    def cancel(self, ask: Ask) -> Reply:
        """POST /v1/messages/batches/{id}/cancel: `canceling` until the next GET; what is finished is billed."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        if batch.progress.stage.is_open:
            batch.progress.stage, batch.is_cancelling = Stage.CANCELLED, True
            self._end(batch)
        return _whole(ask, _batch_object(ask, batch)), None

    def delete(self, ask: Ask) -> Reply:
        """DELETE /v1/messages/batches/{id}: only after its end."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        if batch.progress.stage.is_open:
            return error_answer(ask.identity, 400, "Message Batch cannot be deleted while processing"), None
        del self.batches[batch.id]
        return _whole(ask, {"id": batch.id, "type": "message_batch_deleted"}), None

    def _end(self, batch: _Batch) -> None:
        finished = batch.progress.finished_lines(len(batch.lines))
        book_lines(self._book, batch.call, batch.id, batch.lines[:finished])


def _results(batch: _Batch) -> list[dict[str, Any]]:
    finished = batch.progress.finished_lines(len(batch.lines))
    rows = []
    for index, line in enumerate(batch.lines):
        if index < finished:
            kind, field = ("succeeded", "message") if line.is_good else ("errored", "error")
            result: dict[str, Any] = {"type": kind, field: line.body}
        elif batch.progress.stage is Stage.FAILED:
            error = {"type": "api_error", "message": "Internal server error"}
            result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
        else:
            result = {"type": "canceled" if batch.progress.stage is Stage.CANCELLED else "expired"}
        rows.append({"custom_id": line.custom_id, "result": result})
    return rows


def _batch_object(ask: Ask, batch: _Batch) -> dict[str, Any]:
    stage = batch.progress.stage
    is_ended = not stage.is_open and not batch.is_cancelling
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if is_ended:
        for row in _results(batch):
            counts[row["result"]["type"]] += 1
    else:
        counts["processing"] = len(batch.lines)
    host = ask.call.header(b"host") or "localhost"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "canceling" if batch.is_cancelling else "ended" if is_ended else "in_progress",
        "request_counts": counts,
        "created_at": _when(batch.identity.created),
        "expires_at": _when(batch.identity.created + _LIFE_SECONDS),
        "ended_at": _when(batch.identity.created) if is_ended else None,
        "cancel_initiated_at": _when(batch.identity.created) if stage is Stage.CANCELLED else None,
        "archived_at": None,
        "results_url": f"http://{host}/v1/messages/batches/{batch.id}/results" if is_ended else None,
    }


def _when(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _whole(ask: Ask, value: object) -> Answer:
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=vendor_headers(ask.identity),
        pieces=[Piece(msgspec.json.encode(value), 0)],
        request_id=f"req_011{ask.identity.serial}",
    )


def _no_batch(ask: Ask) -> Answer:
    return error_answer(ask.identity, 404, f"Message batch not found: {ask.captures['batch_id']}")
