"""Between a vendor's SDK and its HTTP client: every request that the client would send goes through one function.

The wrapped HTTP client is a copy of the SDK's own (httpx, or its fork httpx2, whatever transport it has): it shares
pool, proxies, cookies and hooks, and hands out metered transports. Redirects, proxies and an SDK's retries go through
them as well, since that is where the HTTP client itself asks for a way out.
"""

import asyncio
import copy
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

from outlay.flow.gateway.refusal import Refusal
from outlay.flow.sdk.meter import Outgoing
from outlay.flow.sdk.steps import (
    Fetch,
    Incoming,
    Outcome,
    Pause,
    Read,
    ReadAll,
    ReadBody,
    Refused,
    Send,
    Step,
    Streamed,
    Tap,
    Whole,
)
from outlay.kernel.errors import ConfigError

SYNC_PATIENCE_S: Final = 0.05
"""How long a thread may block for the ledger's file before it asks again."""
_METER: Final = "_outlay_meter"
_FOLLOWED: Final = "outlay_free"
_OWN_SEND: Final = ("httpx", "httpx2")
_MAX_FETCH: Final = 256 * 1024 * 1024


class Watch(Protocol):
    """What meters (`embedded`) or marks (`remote`) the requests of one wrap."""

    def exchange(self, request: Outgoing, patience_s: float) -> Generator[Step, Any, Outcome]:
        """The steps of one request."""

    def refuse(self, request: Any, refusal: Refusal) -> Any:
        """The HTTP response (or the raised error) that a refusal is to the SDK."""


def metered_http(client: Any, watch: Watch) -> Any:
    """A copy of an HTTP client whose every request is watched. Raises ConfigError if that cannot be had."""
    if vars(client).get(_METER) is watch:
        return client
    client = vars(client).get("_outlay_original", client)
    made = copy.copy(client)
    vars(made)[_METER] = watch
    # the original closes its pool when it is collected, so it has to stay
    vars(made)["_outlay_original"] = client
    if "_loop_clients" in vars(made):
        # google-genai keeps an inner client for each event loop; the original's are not ours
        vars(made)["_loop_clients"] = {}
        vars(made)["_loop_clients_lock"] = threading.Lock()
    kind: Any = type(client)
    made.__class__ = _metered_class(kind)
    return made


@lru_cache(maxsize=64)
def _metered_class(kind: Any) -> Any:
    if not hasattr(kind, "_transport_for_url"):
        raise ConfigError(
            f"{kind.__module__}.{kind.__name__} is no HTTP client that Outlay knows how to meter"
        )
    owner = next((base for base in kind.__mro__ if "send" in vars(base)), kind)
    has_inner = hasattr(kind, "_inner_client_cls")
    if owner.__module__.partition(".")[0] not in _OWN_SEND and not has_inner:
        raise ConfigError(
            f"{kind.__name__} has a `send` of its own, which may go past the meter; use httpx's"
        )
    is_async = hasattr(kind, "aclose")

    def transport_for_url(self: Any, url: Any) -> Any:
        inner = kind._transport_for_url(self, url)
        return (AsyncMetered if is_async else Metered)(inner, vars(self)[_METER])

    members: dict[str, Any] = {
        "_transport_for_url": transport_for_url,
        # the original's finalizer closes what both share
        "__del__": lambda self: None,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    if has_inner:
        inner_kind = kind._inner_client_cls

        def make_inner(self: Any) -> Any:
            return lambda **options: metered_http(inner_kind(**options), vars(self)[_METER])

        members["_inner_client_cls"] = property(make_inner)
    return type(kind.__name__, (kind,), members)


class Metered:
    """A transport whose requests are watched."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def handle_request(self, request: Any) -> Any:
        """See httpx's `BaseTransport`."""
        steps = self._watch.exchange(outgoing(request), SYNC_PATIENCE_S)
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return _response(self._watch, request, stop.value, is_async=False)
            value = error = None
            try:
                value = self._do(request, step)
            except BaseException as problem:  # noqa: BLE001 - it is thrown into the exchange, which ends its hold
                error = problem

    def _do(self, request: Any, step: Step) -> Any:
        match step:
            case ReadBody():
                return request.read()
            case Send():
                response = self._inner.handle_request(_changed(request, step))
                return _incoming(response)
            case Fetch():
                response = self._inner.handle_request(_fetching(request, step))
                read = _read_all(response, step.max_bytes)
                if read.rest is not None:
                    response.stream.close()
                return (response.status_code, read.body) if read.rest is None else (0, b"")
            case ReadAll():
                return _read_all(step.answer.response, step.max_bytes)
            case Pause():
                time.sleep(step.seconds_ms * 0.001)
                return None

    def close(self) -> None:
        """See httpx's `BaseTransport`."""
        self._inner.close()


class AsyncMetered:
    """A transport of an asynchronous client whose requests are watched."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    async def handle_async_request(self, request: Any) -> Any:
        """See httpx's `AsyncBaseTransport`."""
        steps = self._watch.exchange(outgoing(request), 0)
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return _response(self._watch, request, stop.value, is_async=True)
            value = error = None
            try:
                value = await self._do(request, step)
            except BaseException as problem:  # noqa: BLE001 - it is thrown into the exchange, which ends its hold
                error = problem

    async def _do(self, request: Any, step: Step) -> Any:
        match step:
            case ReadBody():
                return await request.aread()
            case Send():
                response = await self._inner.handle_async_request(_changed(request, step))
                return _incoming(response)
            case Fetch():
                response = await self._inner.handle_async_request(_fetching(request, step))
                read = await _aread_all(response, step.max_bytes)
                if read.rest is not None:
                    await response.stream.aclose()
                return (response.status_code, read.body) if read.rest is None else (0, b"")
            case ReadAll():
                return await _aread_all(step.answer.response, step.max_bytes)
            case Pause():
                await _sleep(step.seconds_ms * 0.001)
                return None

    async def aclose(self) -> None:
        """See httpx's `AsyncBaseTransport`."""
        await self._inner.aclose()


async def _sleep(seconds: Any) -> None:
    anyio = sys.modules.get("anyio")
    # httpx brings anyio, so that a client may also run under trio
    await (asyncio.sleep(seconds) if anyio is None else anyio.sleep(seconds))


# -- requests and responses of either library ---------------------------------------------------------------------


def outgoing(request: Any) -> Outgoing:
    """A request of the HTTP library as the meter reads it."""
    url = request.url
    port = url.port or (443 if url.scheme == "https" else 80)
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    target = url.raw_path.decode("latin-1")
    return Outgoing(request.method, url.host, port, target, headers, bool(request.extensions.get(_FOLLOWED)))


def _changed(request: Any, step: Send) -> Any:
    if step.is_free:
        # a provider may keep a file elsewhere: the HTTP client carries this mark along a redirect
        request.extensions[_FOLLOWED] = True
    if step.body is None and not step.changes:
        return request
    headers = request.headers.copy()
    for name, value in step.changes:
        headers[name] = value
    content = request.content if step.body is None else step.body
    if "transfer-encoding" in headers:
        del headers["transfer-encoding"]
    if content or "content-length" in headers:
        headers["content-length"] = str(len(content))
    return type(request)(
        request.method, request.url, headers=headers, content=content or None, extensions=request.extensions
    )


def _fetching(request: Any, step: Fetch) -> Any:
    headers = request.headers.copy()
    for name in ("content-length", "content-type", "transfer-encoding", "idempotency-key"):
        if name in headers:
            del headers[name]
    headers["accept-encoding"] = "identity"
    url = request.url.copy_with(raw_path=step.path.encode("latin-1"))
    return type(request)("GET", url, headers=headers, extensions=request.extensions)


def _incoming(response: Any) -> Incoming:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    return Incoming(response.status_code, headers, response)


def _response(watch: Watch, request: Any, outcome: Outcome, *, is_async: bool) -> Any:
    match outcome:
        case Refused():
            return watch.refuse(request, outcome.refusal)
        case Whole():
            stream = _stream_class(_library(request), is_async)(None, None, outcome.body)
            return _rebuilt(outcome.answer, outcome.headers, stream)
        case Streamed(tap=None):
            return outcome.answer.response
        case Streamed():
            read = outcome.read
            source = outcome.answer.response.stream if read is None else read.rest
            stream = _stream_class(_library(request), is_async)(
                source, outcome.tap, b"" if read is None else read.body, outcome.answer.response.stream
            )
            return _rebuilt(outcome.answer, outcome.headers, stream)


def _rebuilt(answer: Incoming, headers: tuple[tuple[str, str], ...], stream: Any) -> Any:
    response = answer.response
    kept = response.headers.copy()
    if answer.header(b"content-type").startswith(b"text/event-stream") and "content-length" in kept:
        # the usage that was asked for on our own account is taken out again
        del kept["content-length"]
    for name, value in headers:
        kept[name] = value
    return type(response)(
        status_code=response.status_code, headers=kept, stream=stream, extensions=response.extensions
    )


def made_response(request: Any, status: int, headers: dict[str, str], body: bytes) -> Any:
    """A response of our own, in the library of the request. Serves synchronous and asynchronous clients."""
    library = sys.modules[_library(request)]
    return library.Response(status, headers=headers, content=body, request=request)


def _library(request: Any) -> str:
    return str(type(request).__module__.partition(".")[0])


def _read_all(response: Any, max_bytes: int) -> Read:
    parts, size = [], 0
    source = iter(response.stream)
    for chunk in source:
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            return Read(b"".join(parts), source)
    response.stream.close()
    return Read(b"".join(parts))


async def _aread_all(response: Any, max_bytes: int) -> Read:
    parts, size = [], 0
    source = aiter(response.stream)
    async for chunk in source:
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            return Read(b"".join(parts), source)
    await response.stream.aclose()
    return Read(b"".join(parts))


# -- streams ------------------------------------------------------------------------------------------------------


class _Tapped:
    """Bytes read before, then a source through a tap."""

    def __init__(self, source: Any, tap: Tap | None, first: bytes, stream: Any = None) -> None:
        self._source = source
        self._tap = tap
        self._first = first
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        if self._first:
            yield self._first
        tap = self._tap
        if self._source is None or tap is None:
            return
        try:
            for chunk in self._source:
                data = tap.feed(chunk)
                if data:
                    yield data
        except BaseException as error:
            tap.broke(error)
            raise
        rest = tap.end()
        if rest:
            yield rest

    def close(self) -> None:
        """The reader wants no more."""
        try:
            if self._stream is not None:
                self._stream.close()
        finally:
            if self._tap is not None:
                self._tap.closed()

    def __del__(self) -> None:
        if self._tap is not None:
            self._tap.lost()


class _AsyncTapped:
    """`_Tapped` of an asynchronous client."""

    def __init__(self, source: Any, tap: Tap | None, first: bytes, stream: Any = None) -> None:
        self._source = source
        self._tap = tap
        self._first = first
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        tap = self._tap
        if self._source is None or tap is None:
            return
        try:
            async for chunk in self._source:
                data = tap.feed(chunk)
                if data:
                    yield data
        except BaseException as error:
            tap.broke(error)
            raise
        rest = tap.end()
        if rest:
            yield rest

    async def aclose(self) -> None:
        """The reader wants no more."""
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self._tap is not None:
                self._tap.closed()

    def __del__(self) -> None:
        if self._tap is not None:
            self._tap.lost()


@lru_cache(maxsize=8)
def _stream_class(library: str, is_async: bool) -> Any:
    module = sys.modules[library]
    if is_async:
        return type("AsyncTapped", (_AsyncTapped, module.AsyncByteStream), {})
    return type("Tapped", (_Tapped, module.SyncByteStream), {})
