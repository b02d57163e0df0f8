"""What OpenAI answers besides generated content: errors, model lists, and the headers of every answer."""

import json

import msgspec

from outlay.testing.answer import Answer, Identity, Piece
from outlay.testing.behaviour import Behaviour, BehaviourError, split_model
from outlay.testing.call import Ask


def models_answer(identity: Identity, models: list[str], one: str | None) -> Answer:
    """GET /v1/models, or one of them (404 if it is not there)."""
    rows = [
        {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "mock"}
        for name in models
        if one is None or name == one
    ]
    if one is not None and not rows:
        return error_answer(
            identity, 404, f"The model '{one}' does not exist", param="model", code="model_not_found"
        )
    value: object = {"object": "list", "data": rows} if one is None else rows[0]
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=vendor_headers(identity),
        pieces=[Piece(msgspec.json.encode(value), 0)],
        request_id=request_id(identity),
    )


def error_answer(
    identity: Identity, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> Answer:
    """OpenAI's error object for `status`."""
    kind = {401: "invalid_request_error", 403: "permission_error", 429: "requests"}.get(status)
    if kind is None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    return Answer(
        status=status,
        content_type=b"application/json",
        headers=vendor_headers(identity),
        pieces=[Piece(error_text(message, kind, param, code).encode(), 0)],
        request_id=request_id(identity),
    )


def status_answer(identity: Identity, behaviour: Behaviour, model: str, tier: str | None) -> Answer:
    """The error that `behaviour.status` asks for."""
    message, code = {
        401: (
            "Incorrect API key provided: sk-mock. You can find your API key in your account.",
            "invalid_api_key",
        ),
        404: (f"The model `{model}` does not exist or you do not have access to it.", "model_not_found"),
        429: (f"Rate limit reached for {model} on requests per min (RPM).", "rate_limit_exceeded"),
        503: ("The engine is currently overloaded, please try again later", "overloaded"),
    }.get(
        behaviour.status, ("The server had an error while processing your request. Sorry about that!", None)
    )
    answer = error_answer(identity, behaviour.status, message, code=code)
    if behaviour.retry_after is not None:
        answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
    answer.model, answer.service_tier = model, tier
    return answer


def vendor_headers(identity: Identity) -> bytes:
    """The headers that OpenAI adds to every answer."""
    return (
        f"x-request-id: {request_id(identity)}\r\nopenai-organization: org-mock\r\nopenai-processing-ms: 12\r\n"
        "openai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 30000\r\n"
        "x-ratelimit-remaining-requests: 29999\r\n"
    ).encode()


def error_text(message: str, kind: str, param: str | None = None, code: str | None = None) -> str:
    """OpenAI's error object as JSON text; also what an event of a broken stream holds."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def request_id(identity: Identity) -> str:
    """Value of `x-request-id`."""
    return f"req_{identity.serial}"


def directed(ask: Ask, model: str | None, directive: str = "") -> tuple[str, Behaviour] | Answer:
    """The model served and the behaviour for a named model (the path's wins); or OpenAI's refusal."""
    named = ask.deployment or model
    if not named:
        return error_answer(ask.identity, 400, "you must provide a model parameter")
    name, in_model = split_model(named)
    try:
        behaviour = ask.resolve(name, in_model or directive)
    except BehaviourError as error:
        return error_answer(ask.identity, 400, f"mock: {error}", code="mock_directive")
    return behaviour.served_model or name, behaviour


def whole_answer(identity: Identity, value: object, *, model: str = "", output_tokens: int = 0) -> Answer:
    """A JSON answer that says `value`."""
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=vendor_headers(identity),
        pieces=[Piece(msgspec.json.encode(value), output_tokens)],
        model=model,
        request_id=request_id(identity),
    )


def event(value: object) -> bytes:
    """One server-sent event without a name, as most of OpenAI's older streams have them."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def named_event(value: dict[str, object]) -> bytes:
    """One server-sent event under the name that its `type` says."""
    return f"event: {value['type']}\n".encode() + event(value)
