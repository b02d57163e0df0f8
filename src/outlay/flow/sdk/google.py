"""Wrapped clients of google-genai: a copy whose HTTP clients are metered, for synchronous and asynchronous calls.

Its other ways out (aiohttp, google-auth's sessions) are closed in the copy: calls take the metered HTTP clients, and
live connections are refused where they are opened.
"""

import copy
import sys
from typing import Any

import msgspec

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.sdk.clients import WRAPPED, guarded_class
from outlay.flow.sdk.errors import joined, plain
from outlay.flow.sdk.transport import Watch, made_response, metered_http
from outlay.kernel.errors import ConfigError
from outlay.wire.intent import Dialect
from outlay.wire.refusal import error_body


def wrap_google(client: Any, watch: Watch, *, base_url: str = "", api_key: str = "") -> Any:
    """The wrapped copy of a client; the given one stays as it is. Raises ConfigError for sessions past httpx."""
    old = client._api_client
    api = copy.copy(old)
    http, async_http = api._httpx_client, api._async_httpx_client
    if http is None or async_http is None:
        raise ConfigError("this client sends through google-auth's own sessions, which Outlay cannot meter")
    api._httpx_client = metered_http(http, watch)
    api._async_httpx_client = metered_http(async_http, watch)
    api._aiohttp_sessions = {}
    api._outlay_original = old
    api.__class__ = _api_class(type(old))
    if base_url:
        api.api_key = api_key
        headers = {**(old._http_options.headers or {}), "x-goog-api-key": api_key}
        api._http_options = old._http_options.model_copy(update={"base_url": base_url, "headers": headers})
    known: dict[int, Any] = {id(old): api}
    return _rebound(client, known)


def refuse_google(request: Any, refusal: Refusal, request_id: str) -> Any:
    """Raise the SDK's error of a refusal, joined with ours: it goes through the HTTP client as it is."""
    errors = sys.modules.get("google.genai.errors")
    body = error_body(
        Dialect.GOOGLE, refusal.status, refusal.code, refusal.message, refusal.fields, request_id
    )
    if errors is None:
        raise plain(refusal.status, refusal.code, refusal.message, refusal.fields)
    response = made_response(
        request, refusal.status, {"content-type": "application/json", "x-outlay-request-id": request_id}, body
    )
    kind = errors.ClientError if refusal.status < 500 else errors.ServerError
    error = kind(refusal.status, msgspec.json.decode(body), response)
    raise joined(error, refusal.status, refusal.code, refusal.message, refusal.fields)


def _api_class(kind: type[Any]) -> type[Any]:
    def no(self: Any) -> bool:
        return False

    members: dict[str, Any] = {
        WRAPPED: True,
        "_use_aiohttp": no,
        "_use_google_auth_sync": no,
        "_use_google_auth_async": no,
        # the original's finalizer closes what both share
        "__del__": lambda self: None,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return type(kind.__name__, (kind,), members)


def _rebound(value: Any, known: dict[int, Any]) -> Any:
    """A copy of an object of the SDK in which everything that leads to the old API client leads to the new one."""
    if id(value) in known:
        return known[id(value)]
    if not type(value).__module__.startswith("google.genai") or not hasattr(value, "__dict__"):
        return value
    if not any(_leads_out(part) for part in vars(value).values()):
        return value
    made = copy.copy(value)
    known[id(value)] = made
    for name, part in vars(value).items():
        if name.startswith("_nextgen") or _is_generated(part):
            # made anew when it is asked for, of the new API client
            vars(made)[name] = None
        else:
            vars(made)[name] = _rebound(part, known)
    kind: Any = type(value)
    made.__class__ = guarded_class(kind)
    return made


def _leads_out(part: Any) -> bool:
    return type(part).__module__.startswith("google.genai") and hasattr(part, "__dict__")


def _is_generated(part: Any) -> bool:
    return "._gaos" in type(part).__module__
