"""The mock's OpenAI files and batches: uploads, a batch's life, its output files, and its bill.

Each good line is one entry of the meter, under the id of the call that created the batch, at the price of
`model@batch` (or the model's); it is booked when the batch ends or is cancelled.
"""

from collections import OrderedDict
from typing import Any

import msgspec

from outlay.testing.answer import Answer, Identity
from outlay.testing.call import Ask, BookCharge, Call, Reply
from outlay.testing.forms import FormError, read_form
from outlay.testing.jobs import Line, LineRunner, Progress, Stage, book_lines, jsonl, keep, page, plain_piece
from outlay.testing.openai_replies import directed, error_answer, status_answer, whole_answer

MAX_LINES = 50_000  # OpenAI's own limit
_PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
)
_STATUS = {
    Stage.WAITING: "validating",
    Stage.RUNNING: "in_progress",
    Stage.DONE: "completed",
    Stage.FAILED: "failed",
    Stage.EXPIRED: "expired",
    Stage.CANCELLED: "cancelled",
}
_LIFE_SECONDS = 24 * 3600


class File(msgspec.Struct):
    """An uploaded or written file."""

    id: str
    name: str
    purpose: str
    data: bytes
    created: int


class _Order(msgspec.Struct, gc=False):
    input_file_id: str | None = None
    endpoint: str | None = None
    completion_window: str | None = None
    metadata: dict[str, Any] | None = None


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    method: str
    url: str
    body: dict[str, Any]


class _Batch(msgspec.Struct):
    id: str
    order: _Order
    identity: Identity
    call: Call
    progress: Progress
    lines: list[Line]
    problems: list[dict[str, Any]]
    """What is wrong with the input file; the batch fails by it."""
    is_cancelling: bool = False
    output_file: str | None = None
    error_file: str | None = None


class FilesRoom:
    """Keeps files."""

    def __init__(self) -> None:
        self.files: OrderedDict[str, File] = OrderedDict()
        self._written = 0

    def upload(self, ask: Ask) -> Reply:
        """POST /v1/files."""
        try:
            form = read_form(ask.call)
        except FormError as error:
            return error_answer(ask.identity, 400, str(error)), None
        uploads, purpose = form.files("file"), form.text("purpose")
        if not uploads or not purpose:
            return error_answer(ask.identity, 400, "'file' and 'purpose' are required properties"), None
        opened = directed(ask, "files")
        if isinstance(opened, Answer):
            return opened, None
        _, behaviour = opened
        if behaviour.status != 200:
            return status_answer(ask.identity, behaviour, "", None), behaviour
        file = self.write(ask.identity, uploads[0].filename or "file", purpose, uploads[0].data)
        return whole_answer(ask.identity, _file_object(file)), behaviour

    def write(self, identity: Identity, name: str, purpose: str, data: bytes) -> File:
        """Keep a new file."""
        self._written += 1
        file = File(f"file-{identity.serial}{self._written:04x}", name, purpose, data, identity.created)
        keep(self.files, file.id, file)
        return file

    def list(self, ask: Ask) -> Reply:
        """GET /v1/files."""
        wanted = ask.call.parameter("purpose")
        rows = [_file_object(file) for file in self.files.values() if wanted in (None, file.purpose)]
        return whole_answer(ask.identity, {"object": "list", **page(ask, rows)}), None

    def retrieve(self, ask: Ask) -> Reply:
        """GET /v1/files/{id}."""
        file = self.files.get(ask.captures["file_id"])
        return (_no_file(ask) if file is None else whole_answer(ask.identity, _file_object(file))), None

    def content(self, ask: Ask) -> Reply:
        """GET /v1/files/{id}/content."""
        file = self.files.get(ask.captures["file_id"])
        if file is None:
            return _no_file(ask), None
        answer = whole_answer(ask.identity, None)
        answer.content_type, answer.pieces = b"application/octet-stream", plain_piece(file.data)
        return answer, None

    def delete(self, ask: Ask) -> Reply:
        """DELETE /v1/files/{id}."""
        file_id = ask.captures["file_id"]
        if self.files.pop(file_id, None) is None:
            return _no_file(ask), None
        return whole_answer(ask.identity, {"id": file_id, "object": "file", "deleted": True}), None


class BatchesRoom:
    """Keeps batches; runs their lines when they are created and bills them when they end."""

    def __init__(self, files: FilesRoom, runner: LineRunner, book: BookCharge) -> None:
        self._files = files
        self._runner = runner
        self._book = book
        self.batches: OrderedDict[str, _Batch] = OrderedDict()

    def create(self, ask: Ask) -> Reply:
        """POST /v1/batches."""
        try:
            order = msgspec.json.decode(ask.body, type=_Order)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        path = order.endpoint or ""
        path = path if path.startswith("/v1/") else f"/v1{path}"
        file = self._files.files.get(order.input_file_id or "")
        if path not in _PATHS:
            return error_answer(ask.identity, 400, "Invalid 'endpoint'.", param="endpoint"), None
        if not order.completion_window:
            message = "Missing required parameter: 'completion_window'."
            return error_answer(ask.identity, 400, message, param="completion_window"), None
        if file is None or file.purpose != "batch":
            message = f"No batch input file with id '{order.input_file_id}'."
            return error_answer(ask.identity, 400, message, param="input_file_id"), None
        opened = directed(ask, "batches", str((order.metadata or {}).get("mock", "")))
        if isinstance(opened, Answer):
            return opened, None
        _, behaviour = opened
        if behaviour.status != 200:
            return status_answer(ask.identity, behaviour, "", None), behaviour
        rows, problems = _rows(file.data, path)
        lines = [] if problems else self._runner.run(ask, path, rows)
        progress = Progress(behaviour)
        batch = _Batch(
            f"batch_{ask.identity.serial}", order, ask.identity, ask.call, progress, lines, problems
        )
        keep(self.batches, batch.id, batch)
        if problems:
            progress.stage = Stage.FAILED
        elif progress.settle():
            self._end(batch)
        answer = whole_answer(ask.identity, _batch_object(batch))
        answer.job = batch.id
        return answer, behaviour

    def list(self, ask: Ask) -> Reply:
        """GET /v1/batches: does not make them go on."""
        rows = [_batch_object(batch) for batch in self.batches.values()]
        return whole_answer(ask.identity, {"object": "list", **page(ask, rows)}), None

    def retrieve(self, ask: Ask) -> Reply:
        """GET /v1/batches/{id}: the batch goes on by it."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        batch.is_cancelling = False
        if batch.progress.asked():
            self._end(batch)
        return whole_answer(ask.identity, _batch_object(batch)), None

    def cancel(self, ask: Ask) -> Reply:
        """POST /v1/batches/{id}/cancel: `cancelling` until the next GET; finished lines are billed at once."""
        batch = self.batches.get(ask.captures["batch_id"])
        if batch is None:
            return _no_batch(ask), None
        if not batch.progress.stage.is_open:
            message = f"Cannot cancel a batch with status '{_STATUS[batch.progress.stage]}'."
            return error_answer(ask.identity, 409, message), None
        batch.progress.stage, batch.is_cancelling = Stage.CANCELLED, True
        self._end(batch)
        return whole_answer(ask.identity, _batch_object(batch)), None

    def _end(self, batch: _Batch) -> None:
        """Write the files and bill what is finished."""
        if batch.progress.stage is Stage.FAILED:
            return
        finished = batch.progress.finished_lines(len(batch.lines))
        done, left = batch.lines[:finished], batch.lines[finished:]
        good = [_row_object(line) for line in done if line.is_good]
        bad = [_row_object(line) for line in done if not line.is_good]
        bad += [_unfinished(line, batch.progress.stage) for line in left]
        write = self._files.write
        if good:
            batch.output_file = write(
                batch.identity, f"{batch.id}_output.jsonl", "batch_output", jsonl(good)
            ).id
        if bad:
            batch.error_file = write(batch.identity, f"{batch.id}_error.jsonl", "batch_output", jsonl(bad)).id
        book_lines(self._book, batch.call, batch.id, done)


def _file_object(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.data),
        "created_at": file.created,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _rows(data: bytes, path: str) -> tuple[list[tuple[str, object]], list[dict[str, Any]]]:
    """The lines of a batch file, or what is wrong with it."""
    rows: list[tuple[str, object]] = []
    problems: list[dict[str, Any]] = []
    seen: set[str] = set()

    def complain(number: int, code: str, message: str) -> None:
        problems.append({"code": code, "line": number, "message": message, "param": None})

    lines = [line for line in data.split(b"\n") if line.strip()]
    for number, text in enumerate(lines, 1):
        try:
            row = msgspec.json.decode(text, type=_Row)
        except msgspec.MsgspecError as error:
            complain(number, "invalid_json_line", f"This line is not a batch request: {error}")
            continue
        url = row.url if row.url.startswith("/v1/") else f"/v1{row.url}"
        if url != path or row.method != "POST":
            complain(number, "mismatched_url", "The URL does not match the batch's endpoint.")
        elif row.custom_id in seen:
            complain(number, "duplicate_custom_id", "The custom_id is a duplicate of another request.")
        elif row.body.get("stream"):
            complain(number, "invalid_request", "Streaming is not supported in a batch.")
        else:
            seen.add(row.custom_id)
            rows.append((row.custom_id, row.body))
    if not lines:
        complain(0, "empty_file", "The batch file is empty.")
    if len(lines) > MAX_LINES:
        complain(MAX_LINES, "too_many_tasks", f"The batch file has more than {MAX_LINES} lines.")
    return rows, problems


def _row_object(line: Line) -> dict[str, Any]:
    return {
        "id": f"batch_req_{line.answer.request_id}",
        "custom_id": line.custom_id,
        "response": {
            "status_code": line.answer.status,
            "request_id": line.answer.request_id,
            "body": line.body,
        },
        "error": None,
    }


def _unfinished(line: Line, stage: Stage) -> dict[str, Any]:
    code, message = "batch_cancelled", "This request was not executed because the batch was cancelled."
    if stage is Stage.EXPIRED:
        code = "batch_expired"
        message = "This request could not be executed before the completion window expired."
    return {
        "id": f"batch_req_{line.answer.request_id}",
        "custom_id": line.custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }


def _batch_object(batch: _Batch) -> dict[str, Any]:
    stage, created = batch.progress.stage, batch.identity.created
    finished = batch.lines[: batch.progress.finished_lines(len(batch.lines))]
    good = [line for line in finished if line.is_good]
    is_shown = not stage.is_open and not batch.is_cancelling
    status = "cancelling" if batch.is_cancelling else _STATUS[stage]
    value: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.order.endpoint,
        "errors": {"object": "list", "data": batch.problems} if batch.problems else None,
        "input_file_id": batch.order.input_file_id,
        "completion_window": batch.order.completion_window,
        "status": status,
        "output_file_id": batch.output_file if is_shown else None,
        "error_file_id": batch.error_file if is_shown else None,
        "created_at": created,
        "expires_at": created + _LIFE_SECONDS,
        "request_counts": {
            "total": len(batch.lines),
            "completed": len(good),
            "failed": len(finished) - len(good),
        },
        "metadata": batch.order.metadata,
    }
    if stage is not Stage.WAITING:
        value["in_progress_at"] = created
    value[f"{status}_at"] = created
    if stage is Stage.DONE:
        stated = [line.answer.tokens for line in good]
        value["usage"] = {
            "input_tokens": sum(tokens.input for tokens in stated),
            "input_tokens_details": {"cached_tokens": sum(tokens.cached for tokens in stated)},
            "output_tokens": sum(tokens.output for tokens in stated),
            "output_tokens_details": {"reasoning_tokens": sum(tokens.reasoning for tokens in stated)},
            "total_tokens": sum(tokens.input + tokens.output for tokens in stated),
        }
    return value


def _no_file(ask: Ask) -> Answer:
    return error_answer(ask.identity, 404, f"No such File object: {ask.captures['file_id']}", param="id")


def _no_batch(ask: Ask) -> Answer:
    return error_answer(ask.identity, 404, f"No batch found with id '{ask.captures['batch_id']}'.")
