"""Wrapped clients of the OpenAI and Anthropic SDKs, which are built alike; their subclasses (Azure, ...) too.

A wrapped client is a copy whose class is a subclass made for this wrap: whatever HTTP client is put into it, by
`with_options`, `copy` or assignment, is metered, and so is every client it makes. Connections that are no HTTP requests
(realtime, WebSockets) are refused where they are opened.
"""

from functools import cached_property, lru_cache
from typing import Any, Final

from outlay.flow.sdk.errors import joined
from outlay.flow.sdk.transport import Watch, metered_http
from outlay.flow.sdk.watches import refused_connection, stated_refusal

OPENERS: Final = ("connect",)
"""Methods that open a connection of their own."""
_HTTP: Final = "_outlay_http"
WRAPPED: Final = "_outlay_wrapped"
"""Marks the class of a client that came from a wrap."""


def is_wrapped(client: Any) -> bool:
    """Whether a client came from a wrap, itself or by `with_options` and the like; of google-genai, its inner one."""
    return hasattr(type(client), WRAPPED)


def wrap_client(client: Any, watch: Watch, **changes: Any) -> Any:
    """The wrapped copy of a client; the given one stays as it is. `changes` are those of its `copy`."""
    made = client.copy(**changes)
    http = vars(made).pop("_client")
    for name in _cached(type(made)):
        # resources made by now belong to the unwrapped client
        vars(made).pop(name, None)
    made.__class__ = _client_class(type(client), watch)
    made._client = http
    # the given client's finalizer may close what both share
    vars(made)["_outlay_original"] = client
    return made


def _client_class(kind: Any, watch: Watch) -> type[Any]:
    def get_http(self: Any) -> Any:
        try:
            return vars(self)[_HTTP]
        except KeyError:
            raise AttributeError("_client") from None

    def set_http(self: Any, client: Any) -> None:
        vars(self)[_HTTP] = metered_http(client, watch)

    def make_status_error(self: Any, message: str, *, body: object, response: Any) -> Any:
        error = kind._make_status_error(self, message, body=body, response=response)
        refusal = stated_refusal(body, response.headers.get("x-outlay-request-id"))
        if refusal is None:
            return error
        code, text, fields = refusal
        return joined(error, response.status_code, code, text, fields)

    members: dict[str, Any] = {
        WRAPPED: True,
        "_client": property(get_http, set_http),
        "_make_status_error": make_status_error,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        **_guards(kind),
    }
    return type(kind.__name__, (kind,), members)


def _cached(kind: type[Any]) -> list[str]:
    return [name for name in dir(kind) if isinstance(_member(kind, name), cached_property)]


def _member(kind: type[Any], name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _guards(kind: type[Any]) -> dict[str, Any]:
    """What a guarded subclass overrides: its resources are guarded, its openers refuse."""
    members: dict[str, Any] = {}
    for name in dir(kind):
        member = _member(kind, name)
        if isinstance(member, cached_property):
            members[name] = _guarded_property(member)
        elif isinstance(member, property) and not name.startswith("_") and member.fget is not None:
            members[name] = property(_guarding(member.fget), member.fset, member.fdel)
    for name in OPENERS:
        if callable(getattr(kind, name, None)):
            members[name] = _refusing(f"{kind.__name__}.{name}")
    return members


def _guarded_property(member: "cached_property[Any]") -> "cached_property[Any]":
    return cached_property(_guarding(member.func))


def _guarding(get: Any) -> Any:
    def guarded(self: Any) -> Any:
        return guard(get(self))

    return guarded


def _refusing(name: str) -> Any:
    def refuse(self: Any, *args: object, **more: object) -> Any:
        raise refused_connection(name)

    return refuse


def guard(value: Any) -> Any:
    """A resource of a client whose openers refuse, and whose own resources do so too; other values as they are."""
    kind: Any = type(value)
    if not _is_resource(kind):
        return value
    if not getattr(kind, "_outlay_guarded", False):
        value.__class__ = guarded_class(kind)
    return value


def _is_resource(kind: type[Any]) -> bool:
    root = kind.__module__
    if not root.startswith(("openai.resources", "anthropic.resources", "google.genai")):
        return False
    return not kind.__name__.endswith(("WithRawResponse", "WithStreamingResponse", "Response"))


@lru_cache(maxsize=1024)
def guarded_class(kind: Any) -> Any:
    """The guarded subclass of a resource's class."""
    members = {
        "_outlay_guarded": True,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        **_guards(kind),
    }
    return type(kind.__name__, (kind,), members)
