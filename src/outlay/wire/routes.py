"""Which path is which operation in which dialect. A closed table: what is not in it is not found, so not forwarded.

A template holds `{model}` (a model's name, percent-decoded) or `{id}` (a provider's id, never decoded). OpenAI's
routes also stand under `/openai/v1` (Azure's newer form) and without `/v1` (as some gateways take them), and those
that name a model under `/openai/deployments/{model}` (Azure's older form).
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

import msgspec

from outlay.wire.intent import Dialect, Operation


class Metering(StrEnum):
    """How the money of a route is watched."""

    HELD = "held"
    """Worst case held before the call leaves, settled from its answer."""
    FREE = "free"
    """The provider bills nothing: held and booked at zero."""
    DEFERRED = "deferred"
    """Held when a job is submitted, settled when the provider has done it."""
    SESSION = "session"
    """A WebSocket: held and settled response by response."""
    LOCAL = "local"
    """Answered by the gateway itself."""


class BodyKind(StrEnum):
    """What a request's body is."""

    JSON = "json"
    FORM = "form"
    """multipart/form-data."""
    NONE = "none"


class Route(msgspec.Struct, frozen=True):
    """One line of the table."""

    method: str
    path: str
    """Template as the vendor documents it."""
    dialect: Dialect
    operation: Operation
    metering: Metering = Metering.HELD
    body: BodyKind = BodyKind.JSON
    streams: bool = False
    """Whether it can answer with a stream."""
    is_stream: bool = False
    """The path itself asks for a stream."""
    lists: bool = False
    """Its answer lists objects of the whole account: only the caller's own are shown."""
    sdk: str = ""
    """Vendor's SDK that tests reach it with."""


class Match(msgspec.Struct, frozen=True, gc=False):
    """A request line's place in the table."""

    route: Route
    model: str = ""
    """From the path, decoded; "" where the body names it."""
    resource: str = ""
    """`{id}` of the path."""
    path: str = ""
    """The vendor's own path (aliases resolved), with its values, as it goes upstream."""


_O, _A, _G = Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.GOOGLE
_FORM, _NONE = BodyKind.FORM, BodyKind.NONE
_FREE, _DEFERRED, _LOCAL = Metering.FREE, Metering.DEFERRED, Metering.LOCAL


def _free(method: str, path: str, dialect: Dialect, **more: object) -> Route:
    body = _NONE if method != "POST" or path.endswith("/cancel") else BodyKind.JSON
    sdk = "openai" if dialect is _O else "anthropic"
    return msgspec.structs.replace(Route(method, path, dialect, Operation.FREE, _FREE, body, sdk=sdk), **more)


def _openai() -> Iterator[Route]:
    op = Operation
    yield Route("POST", "/v1/chat/completions", _O, op.CHAT, streams=True, sdk="openai")
    yield Route("POST", "/v1/completions", _O, op.COMPLETIONS, streams=True, sdk="openai")
    yield Route("POST", "/v1/embeddings", _O, op.EMBEDDINGS, sdk="openai")
    yield Route("POST", "/v1/responses", _O, op.RESPONSES, streams=True, sdk="openai")
    yield Route("GET", "/v1/responses", _O, op.RESPONSES, Metering.SESSION, _NONE, streams=True, sdk="codex")
    yield _free("GET", "/v1/responses/{id}", _O)
    yield _free("DELETE", "/v1/responses/{id}", _O)
    yield _free("POST", "/v1/responses/{id}/cancel", _O)
    yield _free("GET", "/v1/responses/{id}/input_items", _O)
    yield Route("POST", "/v1/images/generations", _O, op.IMAGES, streams=True, sdk="openai")
    yield Route("POST", "/v1/images/edits", _O, op.IMAGE_EDIT, body=_FORM, streams=True, sdk="openai")
    yield Route("POST", "/v1/audio/speech", _O, op.SPEECH, streams=True, sdk="openai")
    yield Route(
        "POST", "/v1/audio/transcriptions", _O, op.TRANSCRIPTION, body=_FORM, streams=True, sdk="openai"
    )
    yield Route("POST", "/v1/audio/translations", _O, op.AUDIO_TRANSLATION, body=_FORM, sdk="openai")
    yield Route("POST", "/v1/moderations", _O, op.MODERATION, _FREE, sdk="openai")
    yield _free("POST", "/v1/files", _O, body=_FORM)
    yield _free("GET", "/v1/files", _O, lists=True)
    yield _free("GET", "/v1/files/{id}", _O)
    yield _free("GET", "/v1/files/{id}/content", _O)
    yield _free("DELETE", "/v1/files/{id}", _O)
    yield Route("POST", "/v1/batches", _O, op.BATCH, _DEFERRED, sdk="openai")
    yield _free("GET", "/v1/batches", _O, lists=True)
    yield _free("GET", "/v1/batches/{id}", _O)
    yield _free("POST", "/v1/batches/{id}/cancel", _O)
    yield Route("POST", "/v1/fine_tuning/jobs", _O, op.FINE_TUNING, _DEFERRED, sdk="openai")
    yield _free("GET", "/v1/fine_tuning/jobs", _O, lists=True)
    yield _free("GET", "/v1/fine_tuning/jobs/{id}", _O)
    yield _free("GET", "/v1/fine_tuning/jobs/{id}/events", _O)
    yield _free("GET", "/v1/fine_tuning/jobs/{id}/checkpoints", _O)
    yield _free("POST", "/v1/fine_tuning/jobs/{id}/cancel", _O)
    yield Route("GET", "/v1/realtime", _O, op.REALTIME, Metering.SESSION, _NONE, streams=True, sdk="openai")
    yield Route("GET", "/v1/models", _O, op.MODELS, _LOCAL, _NONE, sdk="openai")
    yield Route("GET", "/v1/models/{model}", _O, op.MODELS, _LOCAL, _NONE, sdk="openai")


def _others() -> Iterator[Route]:
    op = Operation
    yield Route("POST", "/v1/messages", _A, op.MESSAGES, streams=True, sdk="anthropic")
    yield Route("POST", "/v1/messages/count_tokens", _A, op.COUNT_TOKENS, _FREE, sdk="anthropic")
    yield Route("POST", "/v1/messages/batches", _A, op.MESSAGE_BATCH, _DEFERRED, sdk="anthropic")
    yield _free("GET", "/v1/messages/batches", _A, lists=True)
    yield _free("GET", "/v1/messages/batches/{id}", _A)
    yield _free("GET", "/v1/messages/batches/{id}/results", _A)
    yield _free("POST", "/v1/messages/batches/{id}/cancel", _A)
    yield _free("DELETE", "/v1/messages/batches/{id}", _A)
    for version in ("/v1beta", "/v1"):
        at = version + "/models/{model}"
        yield Route("POST", at + ":generateContent", _G, op.GENERATE, sdk="google-genai")
        yield Route(
            "POST",
            at + ":streamGenerateContent",
            _G,
            op.GENERATE,
            streams=True,
            is_stream=True,
            sdk="google-genai",
        )
        yield Route("POST", at + ":embedContent", _G, op.EMBED_CONTENT, sdk="google-genai")
        yield Route("POST", at + ":batchEmbedContents", _G, op.EMBED_CONTENT, sdk="google-genai")
        yield Route("POST", at + ":countTokens", _G, op.COUNT_TOKENS, _FREE, sdk="google-genai")
    yield Route("GET", "/v1beta/models", _G, op.MODELS, _LOCAL, _NONE, sdk="google-genai")
    yield Route("GET", "/v1beta/models/{model}", _G, op.MODELS, _LOCAL, _NONE, sdk="google-genai")
    for path in ("/v2/rerank", "/v1/rerank"):
        yield Route("POST", path, Dialect.COHERE, op.RERANK, sdk="cohere")
    for operation, name in ((op.CONVERSE, "converse"), (op.INVOKE, "invoke")):
        stream_name = "converse-stream" if operation is op.CONVERSE else "invoke-with-response-stream"
        at = "/model/{model}/"
        yield Route("POST", at + name, Dialect.BEDROCK, operation, sdk="boto3")
        yield Route(
            "POST", at + stream_name, Dialect.BEDROCK, operation, streams=True, is_stream=True, sdk="boto3"
        )


ROUTES: Final[tuple[Route, ...]] = (*_openai(), *_others())
"""Every route that a client may call, once each; aliases are made of them."""

MODEL_PATH: Final = "/v1/models/"
BARE_PREFIXES: Final = ("/openai/v1", "")
"""What may stand in the place of `/v1` before OpenAI's routes."""
DEPLOYMENTS: Final = "/openai/deployments/"
DEPLOYED: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.IMAGES,
        Operation.IMAGE_EDIT,
        Operation.SPEECH,
        Operation.TRANSCRIPTION,
        Operation.AUDIO_TRANSLATION,
    }
)
"""Operations of Azure's older form, where the path names the deployment."""


def _exact() -> dict[tuple[str, str], Match]:
    found: dict[tuple[str, str], Match] = {}
    for route in ROUTES:
        if "{" in route.path:
            continue
        found[route.method, route.path] = Match(route, path=route.path)
    for route in ROUTES:
        if route.dialect is _O and "{" not in route.path:
            for prefix in BARE_PREFIXES:
                found.setdefault(
                    (route.method, prefix + route.path.removeprefix("/v1")), Match(route, path=route.path)
                )
    found.setdefault(("POST", "/rerank"), Match(_route_of("/v1/rerank"), path="/v1/rerank"))
    return found


def _route_of(path: str) -> Route:
    return next(route for route in ROUTES if route.path == path)


def _pattern(path: str) -> str:
    escaped = (
        re.escape(path).replace(r"\{model\}", "(?P<model>.+)").replace(r"\{id\}", "(?P<id>[A-Za-z0-9._-]+)")
    )
    return escaped + r"\Z"


EXACT: Final[Mapping[tuple[str, str], Match]] = MappingProxyType(_exact())
"""Paths without values, aliases included."""
_TEMPLATES: Final[tuple[tuple[str, re.Pattern[str], Route], ...]] = tuple(
    (route.method, re.compile(_pattern(route.path)), route) for route in ROUTES if "{" in route.path
)
_ALIASED: Final = tuple(
    (route.method, re.compile(_pattern(prefix + route.path.removeprefix("/v1"))), route)
    for prefix in BARE_PREFIXES
    for route in ROUTES
    if "{id}" in route.path and route.dialect is _O
)
_DEPLOYED: Final[Mapping[str, Route]] = MappingProxyType(
    {route.path.removeprefix("/v1/"): route for route in ROUTES if route.operation in DEPLOYED}
)


def find_route(method: str, target: str, *, has_anthropic_version: bool = False) -> Match | None:
    """The route of a request line, or None if there is no such route.

    `target` is the origin-form target; its query string is ignored. Nothing is normalised: `//v1`, `..`, `%2e`, a
    trailing slash or another case are other paths, since the upstream might read them differently from us.
    `/v1/models` exists in several dialects; the header `anthropic-version` tells them apart.
    """
    path = target.partition("?")[0] if "?" in target else target
    found = EXACT.get((method, path)) or _templated(method, path)
    if found is not None and has_anthropic_version and found.route.operation is Operation.MODELS:
        return msgspec.structs.replace(found, route=msgspec.structs.replace(found.route, dialect=_A))
    return found


def _templated(method: str, path: str) -> Match | None:
    if method == "POST" and path.startswith(DEPLOYMENTS):
        return _deployed(path)
    for wanted, pattern, route in (*_TEMPLATES, *_ALIASED):
        if wanted != method:
            continue
        match = pattern.match(path)
        if match is None:
            continue
        values = match.groupdict()
        if "id" in values:
            if set(values["id"]) <= {"."}:
                return None
            return Match(route, resource=values["id"], path=route.path.replace("{id}", values["id"]))
        model = _model_of(values["model"])
        if model is None:
            return None
        return Match(route, model=model, path=path)
    return None


def _deployed(path: str) -> Match | None:
    name, _, rest = path.removeprefix(DEPLOYMENTS).partition("/")
    route, model = _DEPLOYED.get(rest), _model_of(name)
    if route is None or model is None:
        return None
    return Match(route, model=model, path=route.path)


def _model_of(text: str) -> str | None:
    """A model's name from a path: it may hold `/` (as `org/name`) and escapes, but no path trick."""
    if not text.isascii() or not text.isprintable() or "\\" in text or " " in text:
        return None
    name = unquote(text)
    if (
        "%" in name
        or not name.isprintable()
        or not all(part not in ("", ".", "..") for part in name.split("/"))
    ):
        return None
    return name


def dialect_of(target: str, *, has_anthropic_version: bool = False) -> Dialect:
    """The dialect in which to answer a path that has no route: by header, else by the path's look."""
    if has_anthropic_version or target.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    if target.startswith("/v1beta/") or ":generateContent" in target or ":streamGenerateContent" in target:
        return Dialect.GOOGLE
    if target.startswith("/model/"):
        return Dialect.BEDROCK
    if target.endswith("/rerank"):
        return Dialect.COHERE
    return Dialect.OPENAI
