"""Error bodies in the shape each vendor's SDK expects, for answers that Outlay gives itself."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.eventstream import encode_frame
from outlay.wire.intent import Dialect, Operation

# https://platform.openai.com/docs/guides/error-codes; 402 is ours: OpenAI has no such status for API calls, and its
# own `insufficient_quota` would tell a person to top up the wrong account
_OPENAI_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "authentication_error",
        402: "budget_exceeded",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }
)
# anthropic SDK, types/shared/error_type.py
_ANTHROPIC_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
# google.rpc.Code, as the Gemini API writes it; its SDK retries by the number alone, and not 402
_GOOGLE_STATUSES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        402: "RESOURCE_EXHAUSTED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        409: "ABORTED",
        413: "INVALID_ARGUMENT",
        422: "INVALID_ARGUMENT",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
        501: "UNIMPLEMENTED",
        502: "UNAVAILABLE",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
)
# botocore's bedrock-runtime model; 402 has none, and the gateway's own status is what its SDK does not retry
_BEDROCK_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        401: "AccessDeniedException",
        402: "ServiceQuotaExceededException",
        403: "AccessDeniedException",
        404: "ResourceNotFoundException",
        429: "ThrottlingException",
        503: "ServiceUnavailableException",
    }
)
_RESERVED: Final = frozenset({"message", "type", "code", "param"})


def error_body(  # noqa: PLR0917 - one call site a refusal, all six in the vendor's shape
    dialect: Dialect, status: int, code: str, message: str, fields: Mapping[str, object], request_id: str
) -> bytes:
    """JSON error body of one HTTP answer. `fields` (budget, limit, spent, ...) join it, without overriding it.

    OpenAI: `{"error": {message, type, param, code, ...}}`; `param` may be given in `fields`. Anthropic:
    `{"type": "error", "error": {type, message, code, ...}, "request_id"}`. Google: `{"error": {code, message, status,
    details: [{"@type", reason, metadata}]}}`. Cohere and Bedrock: `{message, code, ...}`; for Bedrock the header
    `x-amzn-errortype` must say `error_type`.
    """
    if dialect is Dialect.GOOGLE:
        return msgspec.json.encode({"error": _google_error(status, code, message, fields, request_id)})
    if dialect in {Dialect.COHERE, Dialect.BEDROCK}:
        return msgspec.json.encode(_flat_error(code, message, fields) | {"request_id": request_id})
    error = _error(dialect, status, code, message, fields)
    if dialect is Dialect.ANTHROPIC:
        return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
    error["request_id"] = request_id
    return msgspec.json.encode({"error": error})


def stream_error_event(
    dialect: Dialect,
    code: str,
    message: str,
    fields: Mapping[str, object],
    *,
    status: int = 402,
    operation: Operation | None = None,
) -> bytes:
    """One event that makes the vendor's SDK raise, to end a stream that has begun with 200.

    `status` chooses the error's type. It must start on an event border (a frame's, in Bedrock's binary streams);
    OpenAI's `[DONE]` does not follow an error. `operation` tells OpenAI's routes apart: the events of responses,
    images and audio have a type each, those of chats have none.
    """
    if dialect is Dialect.BEDROCK:
        kind = error_type(dialect, status)
        headers = {
            ":exception-type": kind[0].lower() + kind[1:],
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return encode_frame(headers, msgspec.json.encode(_flat_error(code, message, fields)))
    if dialect is Dialect.GOOGLE:
        # the SDK raises for a chunk that begins with `{"error":`, and takes its `code` for the status
        return _event(None, {"error": _google_error(status, code, message, fields, None)})
    if dialect is Dialect.COHERE:
        return _event(None, _flat_error(code, message, fields))
    error = _error(dialect, status, code, message, fields)
    if dialect is Dialect.ANTHROPIC:
        return _event("error", {"type": "error", "error": error})
    if operation is Operation.RESPONSES:
        # the SDK raises for the event's name, Codex for `error` in it; its own shape has the fields at the top
        flat = {name: value for name, value in error.items() if name != "type"}
        return _event("error", {"type": "error", **flat, "error": error, "sequence_number": 0})
    return _event(None, {"error": error})


def socket_error(
    status: int, code: str, message: str, fields: Mapping[str, object], *, lane: str | None = None
) -> bytes:
    """The text message that tells of an error over a WebSocket of OpenAI's dialect.

    What its SDK reads stands both flat, as in an event of a stream, and under `error`, as in an HTTP answer.
    """
    error = _error(Dialect.OPENAI, status, code, message, fields)
    event: dict[str, object] = {
        **error,
        "type": "error",
        "status": status,
        "sequence_number": 0,
        "error": error,
    }
    if lane is not None:
        event["stream_id"] = lane
    return msgspec.json.encode(event)


def error_type(dialect: Dialect, status: int) -> str:
    """The vendor's error type for an HTTP status."""
    if dialect is Dialect.ANTHROPIC:
        return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    if dialect is Dialect.GOOGLE:
        return _GOOGLE_STATUSES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    if dialect is Dialect.BEDROCK:
        fallback = "InternalServerException" if status >= 500 else "ValidationException"
        return _BEDROCK_TYPES.get(status) or fallback
    return _OPENAI_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


def _error(
    dialect: Dialect, status: int, code: str, message: str, fields: Mapping[str, object]
) -> dict[str, object]:
    error: dict[str, object] = {"message": message, "type": error_type(dialect, status)}
    if dialect is Dialect.OPENAI or fields.get("param") is not None:
        error["param"] = fields.get("param")
    error["code"] = code
    error.update((name, value) for name, value in fields.items() if name not in _RESERVED)
    return error


def _google_error(
    status: int, code: str, message: str, fields: Mapping[str, object], request_id: str | None
) -> dict[str, object]:
    """google.rpc.Status in JSON; our fields stand in an ErrorInfo, whose metadata is text by its definition."""
    metadata = {name: _text(value) for name, value in fields.items() if value is not None}
    if request_id is not None:
        metadata["request_id"] = request_id
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": code.upper(),
        "domain": "outlay",
        "metadata": metadata,
    }
    return {
        "code": status,
        "message": message,
        "status": error_type(Dialect.GOOGLE, status),
        "details": [info],
    }


def _flat_error(code: str, message: str, fields: Mapping[str, object]) -> dict[str, object]:
    error: dict[str, object] = {"message": message, "code": code}
    error.update((name, value) for name, value in fields.items() if name not in _RESERVED)
    return error


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _event(name: str | None, data: object) -> bytes:
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
