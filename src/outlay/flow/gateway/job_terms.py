"""What a job may cost and what it did cost: its lines, bounded and priced as calls at the batch price. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from outlay.flow.gateway.dialects import PARSERS, read_answer
from outlay.flow.gateway.entries import Memo, allowed_identity
from outlay.flow.gateway.fixed import total_quote
from outlay.flow.gateway.guard import Guard, LimitBook, guard_of
from outlay.flow.gateway.quoting import make_terms
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.settlement import Settlement, Terms, settle_usage
from outlay.flow.gateway.snapshot import Aim, Mode, Provider, Snapshot
from outlay.flow.ledger.charge import Basis, Status
from outlay.flow.policy import PolicyMode
from outlay.flow.shadow import PREFIX
from outlay.kernel.clock import UnixNanos
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection, Usage
from outlay.wire.jobs import (
    BatchRequest,
    FineTuningRequest,
    batch_lines,
    batch_results,
    fine_tuning_intent,
    message_batch_requests,
    message_batch_results,
    read_batch,
    read_fine_tuning,
)
from outlay.wire.routes import EXACT

BATCH_TIER: Final = "batch"
FILE_PATH: Final = "/files/{id}/content"
"""Where a batch's lines and results lie, after OpenAI's base URL."""
RESULTS_PATH: Final = "/v1/messages/batches/{id}/results"
KINDS: Final = {
    Operation.BATCH: "batch",
    Operation.MESSAGE_BATCH: "message_batch",
    Operation.FINE_TUNING: "fine_tuning",
    Operation.RESPONSES: "response",
}
"""Kinds of jobs, as they are stored."""
MAX_MODELS: Final = 16
"""Distinct models in one job."""


class JobBody(msgspec.Struct, frozen=True):
    """What settling a job needs, as it is stored with its hold."""

    model: str
    endpoint: str = ""
    """Path of a batch's calls."""
    tier: str = ""
    shadow: str = ""
    """Why enforcement would have refused it, in shadow mode."""


class JobView(msgspec.Struct, frozen=True, gc=False):
    """Where a job of any kind stands."""

    id: str
    status: str
    is_over: bool
    output_file: str | None = None
    usage: Usage | None = None
    """What it used, where its own object says so."""


class _Response(msgspec.Struct, gc=False):
    id: str = ""
    status: str = ""


_decode_response: Final = msgspec.json.Decoder(_Response).decode
_RESPONSE_ENDS: Final = frozenset({"completed", "failed", "cancelled", "incomplete"})


class Done(NamedTuple):
    """A job that is over, with what was agreed when it was submitted."""

    snapshot: Snapshot
    provider: Provider
    price: ModelPrice
    body: JobBody
    held_nanos: int
    placed_at: UnixNanos


def batch_terms(
    memo: Memo, provider: Provider, order: BatchRequest, data: bytes, now: UnixNanos
) -> tuple[Terms, JobBody] | Refusal:
    """The worst case of a batch: the sum of its lines'."""
    found = EXACT.get(("POST", order.endpoint))
    if found is None or found.route.operation not in PARSERS:
        return Refusal(
            422, "unsupported_endpoint", f"`endpoint` {order.endpoint[:100]!r} is not metered in batches", {}
        )
    parse = PARSERS[found.route.operation]

    def calls() -> Iterable[tuple[str, CallIntent | Rejection]]:
        for line in batch_lines(data):
            if isinstance(line, Rejection):
                yield "", line
            elif line.url != order.endpoint:
                text = f"`url` must be the batch's endpoint {order.endpoint}"
                yield line.custom_id, Rejection(422, "unsupported_endpoint", text, "url")
            else:
                yield line.custom_id, parse(line.body)

    return _lines_terms(memo, provider, calls(), Operation.BATCH, order.endpoint, now)


def message_batch_terms(
    memo: Memo, provider: Provider, body: bytes, now: UnixNanos
) -> tuple[Terms, JobBody] | Refusal:
    """The worst case of a message batch: the sum of its requests'."""
    requests = message_batch_requests(body)
    if isinstance(requests, Rejection):
        return _refusal(requests)
    parse = PARSERS[Operation.MESSAGES]
    calls = ((request.custom_id, parse(request.body)) for request in requests)
    return _lines_terms(memo, provider, calls, Operation.MESSAGE_BATCH, "/v1/messages", now)


def _lines_terms(  # noqa: PLR0917 - two call sites, above
    memo: Memo,
    provider: Provider,
    calls: Iterable[tuple[str, CallIntent | Rejection]],
    operation: Operation,
    endpoint: str,
    now: UnixNanos,
) -> tuple[Terms, JobBody] | Refusal:
    total = 0
    first: Terms | None = None
    guards: dict[str, Guard | None] = {}
    shadow = ""
    for count, (custom_id, call) in enumerate(calls, 1):
        where = f"line {count}" + (f" ({custom_id[:64]})" if custom_id else "")
        if isinstance(call, Rejection):
            return _refusal(call, where)
        if call.model not in guards:
            if len(guards) >= MAX_MODELS:
                return Refusal(
                    422, "too_many_models", f"{where}: more than {MAX_MODELS} models in one job", {}
                )
            aim = Aim(provider, call.model, call.operation)
            allowed = allowed_identity(memo.snapshot, memo.key, memo.caller, aim, call.model)
            if isinstance(allowed, Refusal):
                return allowed
            guards[call.model] = guard_of(memo.snapshot.policies, allowed, LimitBook(lambda: now))
        call = msgspec.structs.replace(call, service_tier=BATCH_TIER, stream=False)
        terms = make_terms(memo.snapshot, provider, call.model, call, now, can_insert=False)
        if isinstance(terms, Refusal):
            return Refusal(terms.status, terms.code, f"{where}: {terms.message}", terms.fields)
        dear = _too_dear(guards[call.model], terms, memo.snapshot)
        if isinstance(dear, Refusal):
            return Refusal(dear.status, dear.code, f"{where}: {dear.message}", dear.fields)
        shadow = shadow or dear
        total += terms.quote.total_nanos
        first = first or terms
    if first is None:
        return Refusal(422, "empty_job", "the job holds no request", {})
    intent = CallIntent(first.intent.dialect, operation, first.model, 0, 0, None, service_tier=BATCH_TIER)
    quote = total_quote(first.price.price_id, total)
    terms = Terms(provider, first.model, intent, first.price, quote, first.book)
    return terms, JobBody(first.model, endpoint, BATCH_TIER, shadow)


def _too_dear(guard: Guard | None, terms: Terms, snapshot: Snapshot) -> Refusal | str:
    """The refusal of a line that is above a policy's ceiling; in shadow mode what its charge says of it, or ""."""
    found = None if guard is None else guard.too_dear(terms, terms.quote)
    if found is None:
        return ""
    refusal, mode = found
    if mode is PolicyMode.ENFORCE and snapshot.settings.mode is not Mode.SHADOW:
        return refusal
    return f"{PREFIX}{refusal.code}: {refusal.fields['policy']}"


def training_terms(
    memo: Memo, provider: Provider, order: FineTuningRequest, content: bytes, now: UnixNanos
) -> tuple[Terms, JobBody] | Refusal:
    """The worst case of a fine-tuning job: a token is at least a byte of its file, each epoch reads it again."""
    intent = fine_tuning_intent(order, len(content))
    terms = make_terms(memo.snapshot, provider, order.model, intent, now)
    if isinstance(terms, Refusal):
        return terms
    return terms, JobBody(order.model)


def read_job(kind: str, body: bytes) -> JobView | None:
    """A job's own object; None for anything else. Never raises."""
    if kind in ("batch", "message_batch"):
        batch = read_batch(body)
        if batch is None:
            return None
        return JobView(batch.batch_id, batch.status, batch.is_final, batch.output_file_id)
    if kind == "fine_tuning":
        job = read_fine_tuning(body)
        return None if job is None else JobView(job.job_id, job.status, job.is_final, usage=job.usage)
    try:
        response = _decode_response(body)
    except (ValueError, RecursionError):
        return None
    return JobView(response.id, response.status, response.status in _RESPONSE_ENDS)


def settle_lines(done: Done, kind: str, data: bytes) -> Settlement:
    """Book a batch by its results: each line that succeeded, at the price of the model that served it."""
    if kind == "batch":
        found = EXACT.get(("POST", done.body.endpoint))
        operation = found.route.operation if found is not None else Operation.CHAT
        dialect, results = Dialect.OPENAI, batch_results(data)
    else:
        operation, dialect, results = Operation.MESSAGES, Dialect.ANTHROPIC, message_batch_results(data)
    intent = CallIntent(dialect, operation, done.body.model, 0, 0, None, service_tier=BATCH_TIER)
    quote = total_quote(done.price.price_id, done.held_nanos)
    terms = Terms(done.provider, done.body.model, intent, done.price, quote, done.snapshot.book)
    total, failed, usages = 0, 0, []
    basis = Basis.CEILING if done.price.is_ceiling else Basis.METERED
    for line in results:
        if not line.custom_id and line.body:
            return _unknown(done, "a line of the results cannot be read")
        if line.status_code != 200:
            failed += 1
            continue
        usage = read_answer(intent, line.body).usage
        if usage is None:
            return _unknown(done, "a line of the results does not state its usage")
        usage = msgspec.structs.replace(usage, service_tier=BATCH_TIER)
        settled = settle_usage(terms, usage, done.placed_at)
        if settled.basis is Basis.OUTCOME_UNKNOWN:
            return _unknown(done, settled.reason or "a line has no price")
        if settled.basis is Basis.SERVED_UNPRICED:
            basis = settled.basis
        total += settled.cost_nanos
        usages.append(usage)
    reason = f"{len(usages)} lines, {failed} failed"
    return Settlement(Status.SETTLED, basis, total, _sum(usages), reason=reason)


def settle_training(done: Done, job: JobView) -> Settlement:
    """Book a fine-tuning job by what it says it trained."""
    if job.usage is None:
        if job.status == "failed":
            return Settlement(Status.VOID, Basis.VOID, 0, reason="the job failed")
        return _unknown(done, f"the job is {job.status} and does not say what it trained")
    intent = CallIntent(Dialect.OPENAI, Operation.FINE_TUNING, done.body.model, 0, 0, None)
    quote = total_quote(done.price.price_id, done.held_nanos)
    terms = Terms(done.provider, done.body.model, intent, done.price, quote, done.snapshot.book)
    return settle_usage(terms, msgspec.structs.replace(job.usage, model=None), done.placed_at)


def settle_response(done: Done, data: bytes, status: str) -> Settlement:
    """Book a background response by its final state."""
    intent = CallIntent(
        Dialect.OPENAI, Operation.RESPONSES, done.body.model, 0, 0, None, service_tier=done.body.tier or None
    )
    quote = total_quote(done.price.price_id, done.held_nanos)
    terms = Terms(done.provider, done.body.model, intent, done.price, quote, done.snapshot.book)
    usage = read_answer(intent, data).usage
    if usage is not None:
        return settle_usage(terms, usage, done.placed_at)
    if status == "failed":
        return Settlement(Status.VOID, Basis.VOID, 0, reason="the response failed")
    return _unknown(done, f"the response is {status} and does not state its usage")


def _unknown(done: Done, reason: str) -> Settlement:
    return Settlement(Status.SETTLED, Basis.OUTCOME_UNKNOWN, done.held_nanos, reason=reason)


def _sum(usages: list[Usage]) -> Usage:
    totals = {
        name: sum(getattr(usage, name) for usage in usages)
        for name in Usage.__struct_fields__
        if name.endswith(("_tokens", "_requests"))
    }
    return Usage(**totals)


def _refusal(rejection: Rejection, where: str = "") -> Refusal:
    text = f"{where}: {rejection.message}" if where else rejection.message
    return Refusal(rejection.status, rejection.code, text, {"param": rejection.param})
