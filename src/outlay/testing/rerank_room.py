"""The mock's rerank room: Cohere's v1 and v2 rerank, billed by search units."""

from typing import Any

import msgspec

from outlay.testing.answer import Answer, Identity, Piece
from outlay.testing.behaviour import Behaviour, BehaviourError, UsageReport, split_model
from outlay.testing.call import Ask, Reply
from outlay.testing.meter import NOTHING, Tokens

DOCUMENTS_PER_UNIT = 100
MAX_DOCUMENTS = 10_000
_MESSAGES = {
    401: "invalid api token",
    404: "model '{model}' not found, make sure the correct model ID was used",
    429: "You are using a Trial key, which is limited to 10 API calls / minute.",
}


class _Rerank(msgspec.Struct, gc=False):
    model: str | None = None
    query: str | None = None
    documents: list[str | dict[str, Any]] | None = None
    top_n: int | None = None
    return_documents: bool | None = None


class RerankRoom:
    """Builds answers; keeps nothing between requests."""

    def rerank(self, ask: Ask) -> Reply:
        """POST /v2/rerank and /v1/rerank."""
        try:
            request = msgspec.json.decode(ask.body, type=_Rerank)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"invalid request: {error}"), None
        documents = request.documents or []
        problem = _problem(request, documents)
        if problem is not None:
            return error_answer(ask.identity, 400, problem), None
        model, directive = split_model(request.model or "")
        try:
            behaviour = ask.resolve(model, directive)
        except BehaviourError as error:
            return error_answer(ask.identity, 400, f"mock: {error}"), None
        served = behaviour.served_model or model
        units = behaviour.search_units
        tokens = Tokens(search_units=-(-len(documents) // DOCUMENTS_PER_UNIT) if units is None else units)
        if behaviour.status != 200:
            return _status_answer(ask.identity, behaviour, served, tokens), behaviour
        tokens = NOTHING if behaviour.usage is UsageReport.ZERO else tokens
        version = ask.call.path[len("/v") : len("/v1")]
        meta: dict[str, Any] = {"api_version": {"version": version}}
        if behaviour.usage is not UsageReport.OMIT:
            is_null = behaviour.usage is UsageReport.NULL
            meta["billed_units"] = None if is_null else {"search_units": tokens.search_units}
        answer = _whole(ask.identity, {"id": ask.identity.serial, "results": _results(request), "meta": meta})
        answer.model, answer.tokens = served, tokens
        return answer, behaviour


def error_answer(identity: Identity, status: int, message: str) -> Answer:
    """Cohere's error object for `status`."""
    answer = _whole(identity, {"id": identity.serial, "message": message})
    answer.status = status
    return answer


def _status_answer(identity: Identity, behaviour: Behaviour, model: str, tokens: Tokens) -> Answer:
    message = _MESSAGES.get(behaviour.status, "internal server error").format(model=model)
    answer = error_answer(identity, behaviour.status, message)
    if behaviour.retry_after is not None:
        answer.headers += f"retry-after: {behaviour.retry_after}\r\n".encode()
    answer.model, answer.tokens = model, tokens
    return answer


def _problem(request: _Rerank, documents: list[str | dict[str, Any]]) -> str | None:
    if not request.model:
        return "model is required"
    if not request.query:
        return "query is required"
    if not 1 <= len(documents) <= MAX_DOCUMENTS:
        return f"documents must hold 1 to {MAX_DOCUMENTS} entries"
    if request.top_n is not None and request.top_n < 1:
        return "top_n must be at least 1"
    return None


def _results(request: _Rerank) -> list[dict[str, Any]]:
    """Best first: by how many of the query's words a document holds, then by order."""
    words = (request.query or "").lower().split()
    scored = []
    for index, document in enumerate(request.documents or ()):
        text = document if isinstance(document, str) else str(document.get("text", ""))
        hits = sum(word in text.lower() for word in words)
        row: dict[str, Any] = {
            "index": index,
            "relevance_score": round(0.01 + 0.98 * hits / max(1, len(words)), 6),
        }
        if request.return_documents:
            row["document"] = {"text": text}
        scored.append(row)
    scored.sort(key=lambda row: (-row["relevance_score"], row["index"]))
    return scored[: request.top_n]


def _whole(identity: Identity, value: object) -> Answer:
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=b"x-debug-trace-id: %b\r\n" % identity.serial.encode(),
        pieces=[Piece(msgspec.json.encode(value), 0)],
        request_id=identity.serial,
    )
