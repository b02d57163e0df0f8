"""The bytes that go on: a request to its provider, an answer's head to its client. Pure.

A body goes on as received, but for what policy changes: the model's name behind a route, the output limit, and the
usage that an OpenAI stream must state.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from outlay.flow.accounts import UNLIMITED, Account
from outlay.flow.gateway.client import Request
from outlay.flow.gateway.dialects import HAS_OUTPUT
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import Disclose, Provider, Settings
from outlay.flow.ledger.directory import Chain
from outlay.kernel.ids import id_header
from outlay.kernel.money import usd_header
from outlay.wire.body import insert_field, rename_field, replace_fields, with_stream_usage
from outlay.wire.intent import CallIntent, Operation


class Edits(msgspec.Struct, frozen=True, gc=False):
    """What policy decided about the output limit."""

    max_output_tokens: int
    is_default_limit: bool
    """The client stated none: the operator's default goes in."""
    is_clamped: bool


class Target(Protocol):
    """Where a request goes."""

    @property
    def provider(self) -> Provider: ...
    @property
    def model(self) -> str: ...
    @property
    def upstream_path(self) -> bytes: ...
    @property
    def upstream_head(self) -> bytes: ...


def upstream_request(  # noqa: PLR0917 - the hot path: a record of these would cost more than the call
    target: Target, intent: CallIntent, request: Request, forwarded: bytes, edits: Edits, request_id: bytes
) -> bytes:
    """The whole request as the provider gets it."""
    body = _upstream_body(target, intent, request.body, edits)
    path, query, trace = request.path, b"", b""
    if b"?" in path:
        query = path[path.index(b"?") :]
    if target.provider.send_request_id:
        trace = b"x-outlay-request-id: %b\r\n" % id_header(request_id)
    return b"POST %b%b HTTP/1.1\r\n%b%b%bcontent-length: %d\r\n\r\n%b" % (
        target.upstream_path,
        query,
        target.upstream_head,
        forwarded,
        trace,
        len(body),
        body,
    )


def _upstream_body(target: Target, intent: CallIntent, body: bytes, edits: Edits) -> bytes:
    changes: dict[str, object] = {}
    if target.model != intent.model:
        changes["model"] = target.model
    if intent.operation in HAS_OUTPUT:
        stated, known = intent.output_limit_field, target.provider.output_limit_field
        if edits.is_default_limit or edits.is_clamped:
            field = stated or known
            if edits.is_default_limit and not changes:
                body = insert_field(body, field, edits.max_output_tokens)
            else:
                changes[field] = edits.max_output_tokens
        if stated == "max_completion_tokens" and known == "max_tokens":
            # a server that does not know the client's name for the limit would generate without one
            limit = edits.max_output_tokens if edits.is_clamped else intent.max_output_tokens
            body = rename_field(body, stated, known, limit)
            changes.pop(stated, None)
    if changes:
        body = replace_fields(body, changes)
    if intent.operation is Operation.CHAT and intent.stream and not intent.wants_stream_usage:
        body = with_stream_usage(body)
    return body


def answer_head(headers: list[tuple[bytes, bytes]], request_id: bytes, edits: Edits) -> bytes:
    """The provider's header lines, and ours."""
    parts = [b"%b: %b\r\n" % header for header in headers]
    parts.append(b"x-outlay-request-id: %b\r\n" % id_header(request_id))
    if edits.is_default_limit or edits.is_clamped:
        why = b"clamped" if edits.is_clamped else b"default"
        parts.append(b"x-outlay-output-limit: %d (%b)\r\n" % (edits.max_output_tokens, why))
    return b"".join(parts)


def cost_head(chain: Chain, visible: Sequence[Account], cost_nanos: int) -> bytes:
    """What the call cost, what its run has cost, and what the caller's tightest visible budget has left."""
    head = b"x-outlay-cost-usd: %b\r\n" % usd_header(cost_nanos)
    if chain.run_account is not None:
        head += b"x-outlay-run-cost-usd: %b\r\n" % usd_header(max(0, chain.run_account.spent))
    if visible:
        left = min([account.cap - account.spent - account.held for account in visible])
        head += b"x-outlay-remaining-usd: %b\r\n" % usd_header(max(0, left))
    return head


def visible_accounts(chain: Chain, settings: Settings) -> tuple[Account, ...]:
    """Hard budgets whose remainder the caller may see."""
    return tuple(
        account
        for account in chain.accounts
        if account.cap < UNLIMITED and (settings.disclose is Disclose.ALL or account.budget.is_own)
    )


def refusal_head(request_id: bytes, refusal: Refusal) -> bytes:
    """Header lines of a refusal: SDKs retry 408, 409, 429 and 5xx unless told not to."""
    head = b"content-type: application/json\r\nx-outlay-request-id: %b\r\n" % id_header(request_id)
    if refusal.retry_after_s is not None:
        head += b"retry-after: %d\r\n" % refusal.retry_after_s
    elif refusal.status < 500:
        head += b"x-should-retry: false\r\n"
    return head
