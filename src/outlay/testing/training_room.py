"""The mock's OpenAI fine-tuning jobs: billed by trained tokens, once, when a job has succeeded."""

from collections import OrderedDict
from typing import Any

import msgspec

from outlay.testing import content
from outlay.testing.answer import Answer, Identity
from outlay.testing.batches_room import FilesRoom
from outlay.testing.behaviour import split_model
from outlay.testing.call import Ask, BookCharge, Call, Charge, Reply
from outlay.testing.jobs import Progress, Stage, keep, page
from outlay.testing.meter import Tokens
from outlay.testing.openai_replies import directed, error_answer, status_answer, whole_answer

AUTO_EPOCHS = 3
"""Epochs where the request leaves them to the provider."""
MAX_EPOCHS = 50
_STATUS = {
    Stage.WAITING: "validating_files",
    Stage.RUNNING: "running",
    Stage.DONE: "succeeded",
    Stage.FAILED: "failed",
    Stage.EXPIRED: "failed",
    Stage.CANCELLED: "cancelled",
}


class _Order(msgspec.Struct, gc=False):
    model: str | None = None
    training_file: str | None = None
    validation_file: str | None = None
    hyperparameters: dict[str, Any] | None = None
    method: dict[str, Any] | None = None
    suffix: str | None = None
    seed: int | None = None
    metadata: dict[str, Any] | None = None


class _Job(msgspec.Struct):
    id: str
    order: _Order
    model: str
    epochs: int
    file_tokens: int
    identity: Identity
    call: Call
    progress: Progress

    @property
    def trained_tokens(self) -> int:
        return self.file_tokens * self.epochs


class TrainingRoom:
    """Keeps jobs."""

    def __init__(self, files: FilesRoom, book: BookCharge) -> None:
        self._files = files
        self._book = book
        self.jobs: OrderedDict[str, _Job] = OrderedDict()

    def create(self, ask: Ask) -> Reply:
        """POST /v1/fine_tuning/jobs."""
        try:
            order = msgspec.json.decode(ask.body, type=_Order)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        file = self._files.files.get(order.training_file or "")
        if file is None:
            message = f"File '{order.training_file}' does not exist."
            return error_answer(ask.identity, 400, message, param="training_file"), None
        epochs = _epochs(order)
        if epochs is None:
            message = f"Invalid 'n_epochs': 'auto' or 1 to {MAX_EPOCHS}."
            return error_answer(ask.identity, 400, message, param="n_epochs"), None
        opened = directed(ask, order.model, str((order.metadata or {}).get("mock", "")))
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        if behaviour.status != 200:
            return status_answer(ask.identity, behaviour, model, None), behaviour
        job = _Job(
            f"ftjob-{ask.identity.serial}",
            order,
            model,
            epochs,
            file_tokens(file.data),
            ask.identity,
            ask.call,
            Progress(behaviour),
        )
        keep(self.jobs, job.id, job)
        if job.progress.settle():
            self._end(job)
        answer = whole_answer(ask.identity, _job_object(job), model=model)
        answer.job = job.id
        return answer, behaviour

    def list(self, ask: Ask) -> Reply:
        """GET /v1/fine_tuning/jobs: does not make them go on."""
        rows = [_job_object(job) for job in self.jobs.values()]
        return whole_answer(ask.identity, {"object": "list", **page(ask, rows)}), None

    def retrieve(self, ask: Ask) -> Reply:
        """GET /v1/fine_tuning/jobs/{id}: the job goes on by it."""
        job = self.jobs.get(ask.captures["job_id"])
        if job is None:
            return _no_job(ask), None
        if job.progress.asked():
            self._end(job)
        return whole_answer(ask.identity, _job_object(job)), None

    def cancel(self, ask: Ask) -> Reply:
        """POST /v1/fine_tuning/jobs/{id}/cancel: nothing is billed."""
        job = self.jobs.get(ask.captures["job_id"])
        if job is None:
            return _no_job(ask), None
        if not job.progress.stage.is_open:
            return error_answer(ask.identity, 400, f"Job has already {_STATUS[job.progress.stage]}."), None
        job.progress.stage = Stage.CANCELLED
        return whole_answer(ask.identity, _job_object(job)), None

    def events(self, ask: Ask) -> Reply:
        """GET /v1/fine_tuning/jobs/{id}/events."""
        job = self.jobs.get(ask.captures["job_id"])
        if job is None:
            return _no_job(ask), None
        told = [f"Created fine-tuning job: {job.id}", f"Status: {_STATUS[job.progress.stage]}"]
        rows = [
            {
                "id": f"ftevent-{index}{job.identity.serial}",
                "object": "fine_tuning.job.event",
                "created_at": job.identity.created,
                "level": "info",
                "message": message,
                "data": None,
                "type": "message",
            }
            for index, message in enumerate(told)
        ]
        return whole_answer(ask.identity, {"object": "list", **page(ask, rows)}), None

    def _end(self, job: _Job) -> None:
        if job.progress.stage is not Stage.DONE:
            return
        answer = whole_answer(job.identity, None, model=job.model)
        self._book(Charge(job.call, answer, Tokens(training=job.trained_tokens), job.id))


def file_tokens(data: bytes) -> int:
    """Tokens of a training file: of each line's messages as a chat counts them, else of the line's text."""
    total = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except msgspec.MsgspecError:
            row = None
        messages = row.get("messages") if isinstance(row, dict) else None
        if not isinstance(messages, list):
            total += content.text_tokens(line.decode("utf-8", "replace"))
            continue
        for message in messages:
            total += content.content_tokens(message.get("content")) + content.TOKENS_PER_MESSAGE
    return total


def _epochs(order: _Order) -> int | None:
    """How often the file is read; None if the request's number is not one."""
    found = (order.hyperparameters or {}).get("n_epochs")
    method = order.method or {}
    of_method = method.get(str(method.get("type")))
    if isinstance(of_method, dict):
        found = (of_method.get("hyperparameters") or {}).get("n_epochs", found)
    if found is None or found == "auto":
        return AUTO_EPOCHS
    return found if isinstance(found, int) and 1 <= found <= MAX_EPOCHS else None


def _job_object(job: _Job) -> dict[str, Any]:
    stage, created, order = job.progress.stage, job.identity.created, job.order
    is_done = stage is Stage.DONE
    error = {"code": "server_error", "message": "The job failed.", "param": None}
    base, _ = split_model(order.model or "")
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": created,
        "error": error if _STATUS[stage] == "failed" else None,
        "fine_tuned_model": f"ft:{base}:org-mock:{order.suffix or ''}:{job.identity.serial}"
        if is_done
        else None,
        "finished_at": created if is_done else None,
        "hyperparameters": {"n_epochs": job.epochs, "batch_size": "auto", "learning_rate_multiplier": "auto"},
        "method": order.method,
        "model": job.model,
        "organization_id": "org-mock",
        "result_files": [],
        "seed": order.seed or 0,
        "status": _STATUS[stage],
        "trained_tokens": job.trained_tokens if is_done else None,
        "training_file": order.training_file,
        "validation_file": order.validation_file,
        "metadata": order.metadata,
    }


def _no_job(ask: Ask) -> Answer:
    return error_answer(ask.identity, 404, f"Could not find fine tune: {ask.captures['job_id']}")
