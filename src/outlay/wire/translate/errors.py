"""A provider's error in the client's shape: its message is kept, its type follows from the HTTP status."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.intent import Dialect, Operation
from outlay.wire.refusal import error_body, error_type, stream_error_event

MAX_MESSAGE_CHARS: Final = 4096
"""A provider's error page is cut to this."""

# google.rpc.Code, as Google maps it to HTTP
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
        499: "CANCELLED",
        500: "INTERNAL",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
        529: "UNAVAILABLE",
    }
)
_DIALECTS: Final[Mapping[Operation, Dialect]] = MappingProxyType(
    {
        Operation.CHAT: Dialect.OPENAI,
        Operation.RESPONSES: Dialect.OPENAI,
        Operation.MESSAGES: Dialect.ANTHROPIC,
        Operation.GENERATE: Dialect.GOOGLE,
    }
)


class VendorError(msgspec.Struct, frozen=True):
    """What a vendor says went wrong."""

    message: str
    code: str | None = None
    """The vendor's own word: OpenAI's `code` or `type`, Anthropic's `type`, Google's `status`."""
    param: str | None = None
    status: int | None = None
    """The HTTP status that the vendor states itself."""


TOO_LONG: Final = "context_length_exceeded"
"""OpenAI's code for an input above the context window; agents that see it shorten their history."""
# what an error event inside a stream would have been as an HTTP status
_STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "invalid_prompt": 400,
        TOO_LONG: 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "rate_limit_exceeded": 429,
        "insufficient_quota": 429,
        "timeout_error": 504,
        "overloaded_error": 529,
        "INVALID_ARGUMENT": 400,
        "RESOURCE_EXHAUSTED": 429,
        "UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
    }
)
_TOO_LONG_WORDS: Final = (
    "prompt is too long",
    "maximum context length",
    "exceeds the maximum number of tokens",
)
"""How Anthropic, OpenAI (and engines after it) and Google say so."""
_RESPONSE_CODES: Final = frozenset(
    ["server_error", "rate_limit_exceeded", "invalid_prompt", "insufficient_quota", TOO_LONG]
)

_decode: Final = msgspec.json.Decoder().decode


def read_error(body: bytes) -> VendorError | None:
    """The error in a body or an event's data, in any vendor's shape; None if it has none."""
    try:
        given = _decode(body)
    except (ValueError, RecursionError):
        return None
    return error_of(given[0] if isinstance(given, list) and given else given)


def error_of(given: Any) -> VendorError | None:
    """The error in a decoded object."""
    if not isinstance(given, dict):
        return None
    error = given.get("error", given)
    if isinstance(error, str):
        return VendorError(error[:MAX_MESSAGE_CHARS])
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    code = next(
        (error[name] for name in ("code", "status", "type") if isinstance(error.get(name), str)), None
    )
    param = error.get("param")
    message = error["message"][:MAX_MESSAGE_CHARS]
    if any(words in message for words in _TOO_LONG_WORDS):
        code = TOO_LONG
    number = error.get("code")
    status = number if type(number) is int and 400 <= number < 600 else None
    return VendorError(message, code, param if isinstance(param, str) else None, status)


def status_of(error: VendorError) -> int:
    """The HTTP status that an error inside a stream would have had."""
    return error.status or _STATUSES.get(error.code or "", 500)


def translate_error(
    client: Operation, upstream: Operation, status: int, body: bytes, request_id: str
) -> bytes:
    """The body of a provider's error answer in the client's shape. `upstream` is for symmetry: shapes are tried."""
    error = read_error(body)
    if error is None:
        text = body[: MAX_MESSAGE_CHARS * 4].decode("utf-8", "replace").strip()[:MAX_MESSAGE_CHARS]
        error = VendorError(text or f"the provider answered with status {status}")
    dialect = _DIALECTS[client]
    if dialect is Dialect.GOOGLE:
        details = [{"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": request_id}]
        return msgspec.json.encode({"error": {**_google_error(status, error.message), "details": details}})
    code = error.code or error_type(dialect, status)
    return error_body(dialect, status, code, _message(client, error), {"param": error.param}, request_id)


def error_event(client: Operation, status: int, error: VendorError, sequence_number: int) -> bytes:
    """One server-sent event that makes the client's SDK raise. `sequence_number` is for Responses."""
    dialect = _DIALECTS[client]
    code = error.code or error_type(dialect, status)
    if client is Operation.RESPONSES:
        stated = {
            "message": error.message,
            "type": error_type(dialect, status),
            "param": error.param,
            "code": code,
        }
        # the SDK's event type has the fields on top, its stream reader raises for `error`
        event = {
            "type": "error",
            "code": code,
            "message": error.message,
            "param": error.param,
            "sequence_number": sequence_number,
            "error": stated,
        }
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    if dialect is Dialect.GOOGLE:
        return b"data: " + msgspec.json.encode({"error": _google_error(status, error.message)}) + b"\n\n"
    return stream_error_event(dialect, code, _message(client, error), {"param": error.param}, status=status)


def response_error(status: int, error: VendorError) -> dict[str, object]:
    """`error` of a failed response; its codes are a closed list."""
    code = error.code
    if code not in _RESPONSE_CODES:
        code = {429: "rate_limit_exceeded", 400: "invalid_prompt"}.get(status, "server_error")
    return {"code": code, "message": error.message}


def _message(client: Operation, error: VendorError) -> str:
    """Anthropic has no code for an input that is too long: its clients know it by these words."""
    words = _TOO_LONG_WORDS[0]
    if client is Operation.MESSAGES and error.code == TOO_LONG and words not in error.message:
        return f"{words}: {error.message}"
    return error.message


def _google_error(status: int, message: str) -> dict[str, object]:
    name = _GOOGLE_STATUSES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return {"code": status, "message": message, "status": name}
