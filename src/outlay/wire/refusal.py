"""Error bodies in the shape each vendor's SDK expects, for answers that Outlay gives itself."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.intent import Dialect

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
_RESERVED: Final = frozenset({"message", "type", "code", "param"})


def error_body(  # noqa: PLR0917 - one call site a refusal, all six in the vendor's shape
    dialect: Dialect, status: int, code: str, message: str, fields: Mapping[str, object], request_id: str
) -> bytes:
    """JSON error body of one HTTP answer. `fields` (budget, limit, spent, ...) join `error`, without overriding it.

    OpenAI: `{"error": {message, type, param, code, ...}}`; `param` may be given in `fields`. Anthropic:
    `{"type": "error", "error": {type, message, code, ...}, "request_id"}`.
    """
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
    operation: object = None,
) -> bytes:
    """One server-sent event that makes the vendor's SDK raise, to end a stream that has begun with 200.

    `status` chooses the error's type. It must start on an event border; OpenAI's `[DONE]` does not follow an error.
    """
    error = _error(dialect, status, code, message, fields)
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


def error_type(dialect: Dialect, status: int) -> str:
    """The vendor's error type for an HTTP status."""
    if dialect is Dialect.ANTHROPIC:
        return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
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
