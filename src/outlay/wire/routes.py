"""Which path is which operation in which dialect. An exact table: what is not in it is not found."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from outlay.wire.intent import Dialect, Operation

Route = tuple[Dialect, Operation]

ROUTES: Final[Mapping[tuple[str, str], Route]] = MappingProxyType(
    {
        ("POST", "/v1/chat/completions"): (Dialect.OPENAI, Operation.CHAT),
        ("POST", "/v1/embeddings"): (Dialect.OPENAI, Operation.EMBEDDINGS),
        ("GET", "/v1/models"): (Dialect.OPENAI, Operation.MODELS),
        ("POST", "/v1/messages"): (Dialect.ANTHROPIC, Operation.MESSAGES),
        ("POST", "/v1/messages/count_tokens"): (Dialect.ANTHROPIC, Operation.COUNT_TOKENS),
    }
)
MODEL_PATH: Final = "/v1/models/"
_OPENAI_MODELS: Final[Route] = (Dialect.OPENAI, Operation.MODELS)
_ANTHROPIC_MODELS: Final[Route] = (Dialect.ANTHROPIC, Operation.MODELS)


def find_route(method: str, target: str, *, has_anthropic_version: bool = False) -> Route | None:
    """The dialect and operation of a request line, or None if there is no such route.

    `target` is the origin-form target; its query string is ignored. Nothing is normalised: `//v1`, `..`, `%2e`, a
    trailing slash or another case are other paths, since the upstream might read them differently from us.
    `/v1/models` exists in both dialects; the header `anthropic-version` tells them apart.
    """
    path = target.partition("?")[0] if "?" in target else target
    route = ROUTES.get((method, path))
    if route is None and method == "GET" and path.startswith(MODEL_PATH) and _is_model_id(path):
        route = _OPENAI_MODELS
    if has_anthropic_version and route == _OPENAI_MODELS:
        return _ANTHROPIC_MODELS
    return route


def dialect_of(target: str, *, has_anthropic_version: bool = False) -> Dialect:
    """The dialect in which to answer a path that has no route: by header, else by the path's look."""
    if has_anthropic_version or target.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI


def _is_model_id(path: str) -> bool:
    """Whether what follows `/v1/models/` is one model id (which may hold `/`, as `org/name`) and no path trick."""
    segments = path[len(MODEL_PATH) :].split("/")
    if not all(segments) or "." in segments or ".." in segments:
        return False
    return "%" not in path and "\\" not in path and path.isascii() and path.isprintable() and " " not in path
