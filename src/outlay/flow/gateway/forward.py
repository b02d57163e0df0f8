"""The bytes that go on: a request to its provider, an answer's head to its client. Pure.

A body goes on as received, but for what policy changes: the model's name behind a route, the output limit, and the
usage that an OpenAI stream must state.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from outlay.flow.accounts import UNLIMITED, Account
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.dialects import HAS_OUTPUT, with_part
from outlay.flow.gateway.disclosure import may_see
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import Progressive, Provider, Settings
from outlay.flow.ledger.directory import Chain
from outlay.kernel.ids import id_header
from outlay.kernel.money import usd_header
from outlay.wire.body import insert_field, rename_field, replace_fields, set_nested, with_stream_usage
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection
from outlay.wire.refusal import error_type


class Edits(msgspec.Struct, frozen=True, gc=False):
    """What policy decided about the output limit."""

    max_output_tokens: int
    is_default_limit: bool
    """The client stated none: the operator's default goes in."""
    is_clamped: bool


class Bound(Protocol):
    """Who is asked for which model."""

    @property
    def provider(self) -> Provider: ...
    @property
    def model(self) -> str: ...


class Target(Bound, Protocol):
    """Where a request goes."""

    @property
    def path(self) -> bytes: ...
    @property
    def stream_path(self) -> bytes: ...
    @property
    def upstream_head(self) -> bytes: ...
    @property
    def translates(self) -> bool: ...


Sign = Callable[[Provider, str, bytes, bytes, bytes], bytes]
"""(provider, method, path and query, head, body) -> header lines that sign them."""

_LIMIT_FIELDS: Final = {
    Operation.RESPONSES: "max_output_tokens",
    Operation.MESSAGES: "max_tokens",
    Operation.GENERATE: "generationConfig.maxOutputTokens",
    Operation.CONVERSE: "inferenceConfig.maxTokens",
    Operation.COMPLETIONS: "max_tokens",
    Operation.INVOKE: "max_tokens",
}
"""Where an output limit stands, of operations where that does not depend on the provider."""
_MODEL_IN_PATH: Final = frozenset(
    {
        Operation.GENERATE,
        Operation.EMBED_CONTENT,
        Operation.CONVERSE,
        Operation.INVOKE,
        Operation.FREE,
        Operation.PASSTHROUGH,
        Operation.BATCH,
        Operation.MESSAGE_BATCH,
        Operation.FINE_TUNING,
    }
)
"""Operations whose body goes on without a look for the model's name."""
_FORMS: Final = frozenset({Operation.IMAGE_EDIT, Operation.TRANSCRIPTION, Operation.AUDIO_TRANSLATION})


def upstream_request(  # noqa: PLR0917 - the hot path: a record of these would cost more than the call
    target: Target,
    intent: CallIntent,
    request: Request,
    body: bytes,
    forwarded: bytes,
    edits: Edits,
    request_id: bytes,
    sign: Sign | None = None,
) -> bytes:
    """The whole request as the provider gets it. `forwarded` are the client's own header lines that go on."""
    body = upstream_body(target, intent, body, edits, request)
    path = target.stream_path if intent.stream else target.path
    if target.translates or b"?" in request.path:
        path += _query(target, intent, request, path)
    trace = b""
    if target.provider.send_request_id:
        trace = b"x-outlay-request-id: %b\r\n" % id_header(request_id)
    method = request.method
    if sign is not None:
        trace += sign(target.provider, method.decode(), path, target.upstream_head, body)
    if not body and method != b"POST":
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (method, path, target.upstream_head, forwarded, trace)
    return b"%b %b HTTP/1.1\r\n%b%b%bcontent-length: %d\r\n\r\n%b" % (
        method,
        path,
        target.upstream_head,
        forwarded,
        trace,
        len(body),
        body,
    )


def _query(target: Target, intent: CallIntent, request: Request, path: bytes) -> bytes:
    """The query that goes on: the client's, without keys and versions that are for us."""
    own = b""
    if b"?" in request.path and not target.translates:
        parts = request.path.partition(b"?")[2].split(b"&")
        ours = _OWN_QUERY if b"?" in path else _KEY_QUERY
        own = b"&".join(part for part in parts if part.partition(b"=")[0] not in ours)
    elif target.translates and intent.operation is Operation.GENERATE and intent.stream:
        own = b"alt=sse"
    if not own:
        return b""
    return (b"&" if b"?" in path else b"?") + own


_KEY_QUERY: Final = frozenset((b"key",))
_OWN_QUERY: Final = frozenset((b"key", b"api-version"))
"""Where the operator states Azure's version, the client's does not go on."""


def upstream_body(target: Bound, intent: CallIntent, body: bytes, edits: Edits, request: Request) -> bytes:
    """The body as the provider gets it: the client's own, but for what policy changes."""
    changes: dict[str, object] = {}
    operation = intent.operation
    if target.model != intent.model and operation not in _MODEL_IN_PATH:
        if operation in _FORMS:
            renamed = with_part(request.content_type, body, "model", target.model)
            return body if isinstance(renamed, Rejection) else renamed
        changes["model"] = target.model
    if operation in HAS_OUTPUT:
        stated, known = intent.output_limit_field, target.provider.output_limit_field
        if edits.is_default_limit or edits.is_clamped:
            field = stated or _LIMIT_FIELDS.get(operation) or known
            if "." in field:
                body = set_nested(body, tuple(field.split(".")), edits.max_output_tokens)
            elif edits.is_default_limit and not changes:
                body = insert_field(body, field, edits.max_output_tokens)
            else:
                changes[field] = edits.max_output_tokens
        if stated == "max_completion_tokens" and known == "max_tokens":
            # a server that does not know the client's name for the limit would generate without one
            limit = edits.max_output_tokens if edits.is_clamped else intent.max_output_tokens
            changes.pop(stated, None)
            body = rename_field(body, stated, known, limit)
    if changes:
        body = replace_fields(body, changes)
    if operation is Operation.COMPLETIONS and intent.max_output_tokens is not None:
        body = _with_stated_limit(body, intent.max_output_tokens)
    if intent.stream and operation in _STREAM_OPTIONS:
        continuous = target.provider.progressive is Progressive.USAGE
        if continuous or not intent.wants_stream_usage:
            body = with_stream_usage(body, continuous=continuous)
    return body


def _with_stated_limit(body: bytes, limit: int) -> bytes:
    """Old completions have a default limit at OpenAI and none elsewhere: what is held is what is asked for."""
    return body if b'"max_tokens"' in body else insert_field(body, "max_tokens", limit)


_STREAM_OPTIONS: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})


def answer_head(headers: list[tuple[bytes, bytes]], request_id: bytes, edits: Edits) -> bytes:
    """The provider's header lines, and ours."""
    parts = [b"%b: %b\r\n" % header for header in headers]
    parts.append(b"x-outlay-request-id: %b\r\n" % id_header(request_id))
    if edits.is_default_limit or edits.is_clamped:
        why = b"clamped" if edits.is_clamped else b"default"
        parts.append(b"x-outlay-output-limit: %d (%b)\r\n" % (edits.max_output_tokens, why))
    return b"".join(parts)


def header_text(text: str) -> bytes:
    """A name that may hold anything, as it may stand in a header."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:128]).encode("ascii")


def cost_head(chain: Chain, visible: Sequence[Account], cost_nanos: int) -> bytes:
    """What the call cost, what its run has cost, and what the caller's tightest visible budget has left."""
    head = b"x-outlay-cost-usd: %b\r\n" % usd_header(cost_nanos)
    if chain.run_account is not None:
        head += b"x-outlay-run-cost-usd: %b\r\n" % usd_header(max(0, chain.run_account.spent))
    if visible:
        left = min([account.cap - account.spent - account.held for account in visible])
        head += b"x-outlay-remaining-usd: %b\r\n" % usd_header(max(0, left))
    return head


def visible_accounts(chain: Chain, settings: Settings, key: KeySpec) -> tuple[Account, ...]:
    """Hard budgets whose remainder the caller may see."""
    return tuple(
        account
        for account in chain.accounts
        if account.cap < UNLIMITED and may_see(account.budget, key, settings)
    )


def refusal_head(request_id: bytes, refusal: Refusal, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """Header lines of a refusal: SDKs retry 408, 409, 429 and 5xx unless told not to."""
    head = b"content-type: application/json\r\nx-outlay-request-id: %b\r\n" % id_header(request_id)
    if dialect is Dialect.BEDROCK:
        head += b"x-amzn-errortype: %b\r\n" % error_type(dialect, refusal.status).encode()
    if refusal.retry_after_s is not None:
        head += b"retry-after: %d\r\n" % refusal.retry_after_s
    elif refusal.is_final:
        head += b"x-should-retry: false\r\n"
    return head
