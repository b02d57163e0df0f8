"""The mock provider as an object: starts and stops the server in a thread of its own, on 127.0.0.1 only."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from outlay.testing.behaviour import Behaviour, changed
from outlay.testing.call import Call
from outlay.testing.connection import Connection
from outlay.testing.meter import Meter, MeterEntry
from outlay.testing.service import Changes, Service

HOST = "127.0.0.1"
DEFAULT_MODELS = (
    "gpt-4o-mini",
    "gpt-5-mini",
    "text-embedding-3-small",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
    "gemini-2.5-flash",
    "gpt-image-1",
    "whisper-1",
    "tts-1",
)
_START_SECONDS = 10.0
_POLL_SECONDS = 0.002
_BACKLOG = 4096
"""Connections waiting to be accepted: a storm of a few thousand clients must not see a reset."""


class MockProvider:
    """A provider that speaks OpenAI's, Anthropic's, Google's, Cohere's, Azure's and AWS's dialects, with a meter.

    ```python
    with MockProvider(prices={"gpt-4o-mini": {"input": 150_000_000, "output": 600_000_000}}) as provider:
        client = openai.OpenAI(base_url=provider.url + "/v1", api_key="any")
        ...
        provider.queue({"status": 429, "retry_after": "1"}, {"failure": "cut", "after_chunks": 3})
        assert provider.meter.total_nanos == 48_450
    ```
    `async with` does the same without blocking the caller's loop. A stopped provider cannot be started again.
    """

    def __init__(
        self,
        *,
        prices: Mapping[str, Mapping[str, int]] | None = None,
        behaviour: Behaviour | Changes | None = None,
        port: int = 0,
        models: Iterable[str] = DEFAULT_MODELS,
        api_keys: Iterable[str] | None = None,
        aws_keys: Mapping[str, str] | None = None,
        keep_entries: bool = True,
        keep_calls: int = 64,
        meter_file: str | Path | None = None,
    ) -> None:
        """`prices`: model, `model@tier` or `*` -> nanos per million tokens, fields as in `meter.Rates`.

        `api_keys`: the only keys that are let in (any, if None). `aws_keys`: access key -> secret key by which
        Bedrock's signatures are recomputed (only their shape is checked, if None). `keep_entries=False` bounds
        the meter's memory to totals; `keep_calls` is how many received requests stay readable in `calls`.
        `meter_file` is appended one JSON line a request. Port 0 takes a free one. Raises `BehaviourError`.
        """
        self._file: IO[bytes] | None = None
        self._meter_path = None if meter_file is None else Path(meter_file)
        if self._meter_path is not None:
            self._file = self._meter_path.open("ab")
        self.meter = Meter(prices, keep_entries=keep_entries, file=self._file)
        if not isinstance(behaviour, Behaviour):
            behaviour = changed(Behaviour(), behaviour or {})
        self.service = Service(
            self.meter,
            behaviour,
            models=models,
            api_keys=api_keys,
            keep_calls=keep_calls,
            aws_keys=aws_keys,
        )
        self.port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._problem: BaseException | None = None
        self._connections: set[Connection] = set()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`; OpenAI's SDK wants `/v1` after it, Anthropic's does not."""
        return f"http://{HOST}:{self.port}"

    @property
    def calls(self) -> list[Call]:
        """The last metered or listing requests as received, oldest first."""
        return list(self.service.calls)

    @property
    def connection_count(self) -> int:
        """Client connections open now."""
        return len(self._connections)

    def behave(self, **changes: object) -> None:
        """Change the default behaviour from the next request on. Raises `BehaviourError`."""
        self.service.change(changes)

    def behave_model(self, model: str, **changes: object) -> None:
        """Set what differs for one requested model. Raises `BehaviourError`."""
        self.service.change_model(model, changes)

    def queue(self, *changes: Changes) -> None:
        """Set what differs for the next requests, one mapping each. Raises `BehaviourError`."""
        self.service.enqueue(*changes)

    def wait_for(self, entries: int, *, seconds: float = 10.0) -> list[MeterEntry]:
        """Wait until at least `entries` requests are booked and none is open; raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while self.meter.all.requests < entries or self.meter.open_requests:
            if time.monotonic() > deadline:
                meter = self.meter
                raise TimeoutError(
                    f"{meter.all.requests} booked, {meter.open_requests} open, wanted {entries}"
                )
            time.sleep(_POLL_SECONDS)
        return self.meter.entries

    def wait_for_open(self, count: int, *, seconds: float = 10.0) -> None:
        """Wait until exactly `count` requests are received and not ended; raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while self.meter.open_requests != count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.meter.open_requests} open, wanted {count}")
            time.sleep(_POLL_SECONDS)

    def start(self) -> Self:
        """Listen; returns once connections are accepted. Raises `OSError` if the port is taken."""
        self._thread = threading.Thread(target=self._run, name="mock-provider", daemon=True)
        self._thread.start()
        if not self._is_up.wait(_START_SECONDS):
            raise TimeoutError("the mock provider did not start")
        if self._problem is not None:
            problem, self._problem = self._problem, None
            self.stop()
            raise problem
        return self

    def stop(self) -> None:
        """Drop every connection and end the thread; open requests are booked as `client_gone`."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits in start()
            self._problem = error
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._stop = loop, asyncio.Event()
        server = await loop.create_server(
            lambda: Connection(self.service, self._connections), HOST, self.port, backlog=_BACKLOG
        )
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._stop.wait()
        server.close()
        await asyncio.gather(*[connection.drop() for connection in list(self._connections)])
        await server.wait_closed()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it exists: the mock must not be what a measurement measures."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
