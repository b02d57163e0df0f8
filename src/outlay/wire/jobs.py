"""Work that is handed in now and billed later: batches (OpenAI), message batches (Anthropic), fine-tuning. No I/O.

Each line of a batch is a call of its own: it comes out as bytes for that call's parser, and its result as bytes for
that call's `read_answer`. Lines are cut one at a time, so that a file of hundreds of megabytes is never held twice.
The gateway marks a line's intent with `service_tier` `batch`, the name of its price.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from outlay.wire.fields import (
    Fields,
    decode_or_refuse,
    find_case_variant,
    is_null,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
)
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection, Units, Usage

MAX_LINES: Final = 100_000
"""Anthropic takes 100,000 requests in a batch, OpenAI 50,000."""
MAX_ID_CHARS: Final = 512
AUTO_EPOCHS: Final = 25
"""Most epochs that `auto` chooses, by OpenAI's guide for fine-tuning (1 to 25, by the number of examples)."""
MAX_EPOCHS: Final = 50
MAX_TOKENS: Final = 2**40

_LINE_NAMES: Final = frozenset({"custom_id", "method", "url", "body", "params"})
_BATCH_ENDS: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_JOB_ENDS: Final = frozenset({"succeeded", "failed", "cancelled"})
_FINE_TUNING_NAMES: Final = frozenset(
    {"model", "training_file", "validation_file", "method", "hyperparameters", "integrations"}
)


class BatchLine(msgspec.Struct, frozen=True, gc=False):
    """One call of a batch. `url` is empty in a message batch, where all are messages."""

    custom_id: str
    url: str
    body: bytes


class BatchResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one line. `status_code` None: it was not run (expired, cancelled), and costs nothing."""

    custom_id: str
    """Empty: the line cannot be read, and which call it belongs to is not known."""
    status_code: int | None
    body: bytes
    """The answer, for `read_answer` of the line's operation."""


class BatchRequest(msgspec.Struct, frozen=True, gc=False):
    """A batch as asked for."""

    input_file_id: str
    endpoint: str
    completion_window: str


class BatchState(msgspec.Struct, frozen=True, gc=False):
    """Where a batch stands (`validating`, ..., `completed`; a message batch is `in_progress` ... `ended`)."""

    batch_id: str
    status: str
    is_final: bool
    """Nothing more will be run: what the files hold is all that is billed."""
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    results_url: str | None = None
    total: int = 0
    done: int = 0
    failed: int = 0


class FineTuningRequest(msgspec.Struct, frozen=True, gc=False):
    """A fine-tuning job as asked for."""

    model: str
    training_file: str
    validation_file: str | None
    method: str
    epochs_bound: int
    """`n_epochs`, or the most that `auto` chooses."""


class FineTuningState(msgspec.Struct, frozen=True, gc=False):
    """Where a fine-tuning job stands."""

    job_id: str
    model: str
    status: str
    is_final: bool
    trained_tokens: int | None
    """Billed tokens: of the file times epochs; None as long as they are not stated."""
    n_epochs: int | None

    @property
    def usage(self) -> Usage | None:
        """What was billed, None if it is not known (yet): a cancelled job is billed for what it had trained."""
        if self.trained_tokens is None:
            return None
        return Usage(0, 0, units=(Units("training_token", self.trained_tokens),), model=self.model)


class _Response(msgspec.Struct, gc=False):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _ResultLine(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response | None = None
    error: Any = None


class _MessageResult(msgspec.Struct, gc=False):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _MessageResultLine(msgspec.Struct, gc=False):
    custom_id: str
    result: _MessageResult


class _Counts(msgspec.Struct, gc=False):
    total: int = 0
    completed: int = 0
    failed: int = 0
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _Batch(msgspec.Struct, gc=False):
    id: str
    status: str | None = None
    processing_status: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    results_url: str | None = None
    request_counts: _Counts | None = None


class _BatchCreate(msgspec.Struct, gc=False):
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"


class _Hyperparameters(msgspec.Struct, gc=False):
    n_epochs: int | Literal["auto"] | None = None


class _Tuning(msgspec.Struct, gc=False):
    hyperparameters: _Hyperparameters | None = None


class _Method(msgspec.Struct, gc=False):
    type: str
    supervised: _Tuning | None = None
    dpo: _Tuning | None = None


class _JobCreate(msgspec.Struct, gc=False):
    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: _Hyperparameters | None = None
    method: _Method | None = None


class _Job(msgspec.Struct, gc=False):
    id: str
    model: str
    status: str
    trained_tokens: int | None = None
    hyperparameters: _Hyperparameters | None = None


_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_result: Final = msgspec.json.Decoder(_ResultLine).decode
_decode_message_result: Final = msgspec.json.Decoder(_MessageResultLine).decode
_decode_batch: Final = msgspec.json.Decoder(_Batch).decode
_decode_batch_create: Final = msgspec.json.Decoder(_BatchCreate).decode
_decode_job_create: Final = msgspec.json.Decoder(_JobCreate).decode
_decode_job: Final = msgspec.json.Decoder(_Job).decode


def batch_lines(data: bytes) -> Iterator[BatchLine | Rejection]:
    """The calls of an OpenAI batch file, one at a time; the first that cannot be taken is the last that comes.

    A `Rejection` names its line, counted from 1. Ids must differ: a result is told apart by nothing else.
    """
    seen: set[str] = set()
    number = 0
    for line in _lines(data):
        number += 1
        if number > MAX_LINES:
            yield Rejection(422, "too_many", f"a batch has at most {MAX_LINES} lines here")
            return
        read = _batch_line(line)
        if isinstance(read, BatchLine) and read.custom_id in seen:
            read = Rejection(400, "duplicate_field", "`custom_id` was given to an earlier line", "custom_id")
        if isinstance(read, Rejection):
            yield Rejection(read.status, read.code, f"line {number}: {read.message}", read.param)
            return
        seen.add(read.custom_id)
        yield read
    if not number:
        yield Rejection(400, "missing_field", "the batch file has no line")


def message_batch_requests(body: bytes) -> list[BatchLine] | Rejection:
    """The calls of an Anthropic message batch. Never raises; a `Rejection` names the request, counted from 0."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("requests",)) or find_case_variant(fields, frozenset({"requests"}))
    if refused is not None:
        return refused
    given = decode_or_refuse(_decode_list, bytes(fields["requests"]))
    if isinstance(given, Rejection):
        return given
    if not 0 < len(given) <= MAX_LINES:
        return Rejection(400, "invalid_value", f"`requests` must have 1 to {MAX_LINES} entries", "requests")
    lines: list[BatchLine] = []
    seen: set[str] = set()
    for index, raw in enumerate(given):
        read = _message_line(bytes(raw))
        if isinstance(read, BatchLine) and read.custom_id in seen:
            read = Rejection(
                400, "duplicate_field", "`custom_id` was given to an earlier request", "custom_id"
            )
        if isinstance(read, Rejection):
            return Rejection(read.status, read.code, f"requests[{index}]: {read.message}", read.param)
        seen.add(read.custom_id)
        lines.append(read)
    return lines


def batch_results(data: bytes) -> Iterator[BatchResult]:
    """The results in an OpenAI batch's output or error file, one at a time. Never raises."""
    for line in _lines(data):
        try:
            read = _decode_result(line)
        except (ValueError, RecursionError):
            yield BatchResult("", None, bytes(line))
            continue
        response = read.response
        if response is None:
            yield BatchResult(read.custom_id, None, b"")
        else:
            yield BatchResult(read.custom_id, response.status_code, bytes(response.body))


def message_batch_results(data: bytes) -> Iterator[BatchResult]:
    """The results of an Anthropic message batch, one at a time. Never raises.

    What succeeded has status 200, what failed 400; what was cancelled or expired was not run. Only successes cost.
    """
    for line in _lines(data):
        try:
            read = _decode_message_result(line)
        except (ValueError, RecursionError):
            yield BatchResult("", None, bytes(line))
            continue
        match read.result.type:
            case "succeeded":
                yield BatchResult(read.custom_id, 200, bytes(read.result.message))
            case "errored":
                yield BatchResult(read.custom_id, 400, bytes(read.result.error))
            case _:
                yield BatchResult(read.custom_id, None, b"")


def parse_batch(body: bytes) -> BatchRequest | Rejection:
    """A batch to be made from a file. Never raises."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    names = ("input_file_id", "endpoint")
    refused = refuse_missing(fields, names) or find_case_variant(fields, frozenset(names))
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode_batch_create, body)
    if isinstance(asked, Rejection):
        return asked
    return BatchRequest(asked.input_file_id, asked.endpoint, asked.completion_window)


def read_batch(body: bytes) -> BatchState | None:
    """A batch or message batch object; None for anything else. Never raises."""
    try:
        batch = _decode_batch(body)
    except (ValueError, RecursionError):
        return None
    counts = batch.request_counts or _Counts()
    if batch.processing_status is not None:
        total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
        return BatchState(
            batch.id,
            batch.processing_status,
            batch.processing_status == "ended",
            results_url=batch.results_url,
            total=total,
            done=counts.succeeded,
            failed=counts.errored,
        )
    if batch.status is None:
        return None
    return BatchState(
        batch.id,
        batch.status,
        batch.status in _BATCH_ENDS,
        batch.input_file_id,
        batch.output_file_id,
        batch.error_file_id,
        None,
        counts.total,
        counts.completed,
        counts.failed,
    )


def parse_fine_tuning(body: bytes) -> FineTuningRequest | Rejection:
    """A fine-tuning job to be made. Never raises. Reinforcement is billed by the hour, which nothing here bounds."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model", "training_file")) or find_case_variant(
        fields, _FINE_TUNING_NAMES
    )
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode_job_create, body)
    if isinstance(asked, Rejection):
        return asked
    method = "supervised" if asked.method is None else asked.method.type
    if method not in {"supervised", "dpo"}:
        return Rejection(
            422, "unsupported_field", f"`method`: `{method[:64]}` is billed by time without a bound", "method"
        )
    given = [asked.hyperparameters]
    if asked.method is not None:
        given += [tuning.hyperparameters for tuning in (asked.method.supervised, asked.method.dpo) if tuning]
    epochs = {entry.n_epochs for entry in given if entry is not None and entry.n_epochs is not None}
    numbers = [value for value in epochs if isinstance(value, int)]
    if len(epochs) > 1:
        return Rejection(422, "duplicate_field", "`n_epochs` is given more than once", "hyperparameters")
    for number in numbers:
        refused = refuse_count("n_epochs", number, most=MAX_EPOCHS)
    refused = refused or refuse_model(asked.model)
    if refused is not None:
        return refused
    return FineTuningRequest(
        asked.model,
        asked.training_file,
        asked.validation_file,
        method,
        numbers[0] if numbers else AUTO_EPOCHS,
    )


def fine_tuning_intent(request: FineTuningRequest, training_bytes: int) -> CallIntent:
    """What a job may cost: each byte of the training file is at most one token, trained in every epoch."""
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.FINE_TUNING,
        model=request.model,
        input_tokens_bound=0,
        max_output_tokens=0,
        output_limit_field=None,
        is_background=True,
        units=(Units("training_token", training_bytes * request.epochs_bound),),
    )


def read_fine_tuning(body: bytes) -> FineTuningState | None:
    """A fine-tuning job object; None for anything else. Never raises."""
    try:
        job = _decode_job(body)
    except (ValueError, RecursionError):
        return None
    tokens = job.trained_tokens
    epochs = job.hyperparameters.n_epochs if job.hyperparameters is not None else None
    return FineTuningState(
        job.id,
        job.model,
        job.status,
        job.status in _JOB_ENDS,
        tokens if tokens is not None and 0 <= tokens <= MAX_TOKENS else None,
        epochs if isinstance(epochs, int) else None,
    )


def _lines(data: bytes) -> Iterator[bytes]:
    """The lines that are not blank, cut one at a time."""
    start, size = 0, len(data)
    while start < size:
        end = data.find(b"\n", start)
        end = size if end < 0 else end
        line = data[start:end].strip()
        if line:
            yield line
        start = end + 1


def _batch_line(line: bytes) -> BatchLine | Rejection:
    fields = _line_fields(line, ("custom_id", "url", "body"))
    if isinstance(fields, Rejection):
        return fields
    custom_id, url = _text(fields, "custom_id"), _text(fields, "url")
    if isinstance(custom_id, Rejection):
        return custom_id
    if isinstance(url, Rejection):
        return url
    if not is_null(fields.get("method")) and bytes(fields["method"]) != b'"POST"':
        return Rejection(400, "invalid_value", "`method` must be POST", "method")
    return BatchLine(custom_id, url, bytes(fields["body"]))


def _message_line(line: bytes) -> BatchLine | Rejection:
    fields = _line_fields(line, ("custom_id", "params"))
    if isinstance(fields, Rejection):
        return fields
    custom_id = _text(fields, "custom_id")
    if isinstance(custom_id, Rejection):
        return custom_id
    return BatchLine(custom_id, "", bytes(fields["params"]))


def _line_fields(line: bytes, required: tuple[str, ...]) -> Fields | Rejection:
    fields = read_fields(line)
    if isinstance(fields, Rejection):
        return fields
    return refuse_missing(fields, required) or find_case_variant(fields, _LINE_NAMES) or fields


def _text(fields: Fields, name: str) -> str | Rejection:
    text = decode_or_refuse(_decode_text, bytes(fields[name]))
    if isinstance(text, str) and not 0 < len(text) <= MAX_ID_CHARS:
        return Rejection(400, "invalid_value", f"`{name}` must have 1 to {MAX_ID_CHARS} characters", name)
    return text
