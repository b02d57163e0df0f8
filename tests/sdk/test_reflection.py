"""Nothing reachable from a wrapped client sends a request unmetered: its whole public surface is walked and called.

The truth is a server that takes down all that arrives, and a hook below every library that stops connections to any
other place. Each request that arrived must have had a hold of its own in the ledger, or be of a route that is free.
"""

import asyncio
import collections
import gc
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai

import outlay
from outlay.lookup.overrides import Ceiling
from outlay.wire.intent import Dialect
from outlay.wire.routes import Metering, find_route
from tests.sdk import walk
from tests.sdk.shop import billed_rows
from tests.sdk.sink import Sink, guard

FREE = (Metering.FREE, Metering.LOCAL)
ANY_MODEL = [
    Ceiling(provider=name, usd_per_mtok={"input": "1", "output": "1"})
    for name in ("openai", "anthropic", "google")
]


def sync_openai(url: str) -> Any:
    return openai.OpenAI(base_url=url + "/v1", api_key="key", admin_api_key="key", max_retries=0, timeout=5)


def async_openai(url: str) -> Any:
    return openai.AsyncOpenAI(
        base_url=url + "/v1", api_key="key", admin_api_key="key", max_retries=0, timeout=5
    )


def sync_anthropic(url: str) -> Any:
    return anthropic.Anthropic(base_url=url, api_key="key", max_retries=0, timeout=5)


def async_anthropic(url: str) -> Any:
    return anthropic.AsyncAnthropic(base_url=url, api_key="key", max_retries=0, timeout=5)


def google(url: str) -> Any:
    return genai.Client(api_key="key", http_options={"base_url": url, "timeout": 5000})


class Slept(Exception):
    """A helper polls: once is enough."""


def short_sleep(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """The sleep of a walk."""
    if seconds >= 0.1:
        raise Slept
    sleep(seconds)


class Tally:
    """What became of the calls of a walk."""

    def __init__(self) -> None:
        self.methods = 0
        self.refused: set[str] = set()
        self.arrived: set[str] = set()
        self.failed: collections.Counter[str] = collections.Counter()
        self.silent: dict[str, str] = {}


@pytest.mark.parametrize(
    ("make", "provider", "dialect", "least"),
    [
        (sync_openai, "openai", Dialect.OPENAI, 95),
        (async_openai, "openai", Dialect.OPENAI, 95),
        (sync_anthropic, "anthropic", Dialect.ANTHROPIC, 95),
        (async_anthropic, "anthropic", Dialect.ANTHROPIC, 95),
        # much of its surface wants objects that are made by other calls; those that matter are called below
        (google, "google", Dialect.GOOGLE, 45),
    ],
)
@pytest.mark.timeout(600)
def test_no_method_sends_a_request_unmetered(
    tmp_path: Path,
    make: Callable[[str], Any],
    provider: str,
    dialect: Dialect,
    least: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", short_sleep)
    with Sink() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = make(sink.url)
        ledger = tmp_path / "sdk.db"
        client = outlay.wrap(
            raw, budget_usd=1000, budget="all", ledger=ledger, provider=provider, prices=ANY_MODEL
        )
        tally = Tally()
        with guard(sink.port) as escapes:
            asyncio.run(walked(client, sink, tally))
            assert escapes == []
        gc.collect()
        requests = sink.requests
        assert not [request for request in requests if request[2]], "a connection was upgraded"
        # each that arrived is of a known route, and of the SDK's own dialect
        unknown = [request for request in requests if not is_known(request, dialect)]
        assert unknown == []
        billed = [request for request in requests if metering(request, dialect) not in FREE]
        held = billed_rows(ledger)
        assert held == len(billed), collections.Counter(billed)
        assert billed
        reached = tally.refused | tally.arrived
        # the rest fails on its made-up arguments before anything is sent
        assert 100 * len(reached) >= least * tally.methods, tally.silent


async def walked(client: Any, sink: Sink, tally: Tally) -> None:
    for name, method in walk.surface(client):
        tally.methods += 1
        for given in walk.arguments(method):
            before = len(sink.requests)
            error: BaseException | None = None
            try:
                if ".aio." in name or "Async" in name:
                    await walk.acall(method, given)
                else:
                    walk.call_in_time(method, given)
            except Exception as problem:
                error = problem
            if is_refusal(error):
                tally.refused.add(name)
            elif len(sink.requests) > before:
                tally.arrived.add(name)
            else:
                cause = getattr(error, "__cause__", None)
                tally.silent[name] = f"{type(error).__name__} {str(error)[:80]} {cause!r:.150}"


GOOGLE_CALLS: list[Callable[[Any], object]] = [
    lambda client: client.chats.create(model="gpt-test").send_message("hello"),
    lambda client: list(client.chats.create(model="gpt-test").send_message_stream("hello")),
    lambda client: list(client.models.generate_content_stream(model="gpt-test", contents="hello")),
    lambda client: client.batches.get(name="batches/one"),
    lambda client: client.batches.cancel(name="batches/one"),
    lambda client: client.batches.create(model="gpt-test", src=[{"contents": "hello"}]),
    lambda client: client.files.upload(file=__file__, config={"mime_type": "text/plain"}),
    lambda client: client.files.download(file="files/one"),
    lambda client: client.interactions.create(model="gpt-test", input="hello"),
    lambda client: client.interactions.create(model="gpt-test", input="hello", stream=True),
    lambda client: client.caches.create(model="gpt-test", config={"contents": "hello"}),
    lambda client: client.tunings.tune(base_model="gpt-test", training_dataset={"examples": []}),
    lambda client: client.webhooks.list(),
    lambda client: client.aio.live.connect(model="gpt-test"),
    lambda client: client.aio.live.music.connect(model="gpt-test"),
]


@pytest.mark.parametrize("number", range(len(GOOGLE_CALLS)))
@pytest.mark.timeout(60)
def test_google_calls_that_a_walk_cannot_make_up(tmp_path: Path, number: int) -> None:
    with Sink() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ledger = tmp_path / "sdk.db"
        client = outlay.wrap(
            google(sink.url),
            budget_usd=1000,
            budget="all",
            ledger=ledger,
            provider="google",
            prices=ANY_MODEL,
        )
        error: Exception | None = None
        with guard(sink.port) as escapes:
            try:
                GOOGLE_CALLS[number](client)
            except Exception as problem:
                error = problem
        assert escapes == []
        assert is_refusal(error) or sink.requests, error
        assert [request for request in sink.requests if not is_known(request, Dialect.GOOGLE)] == []
        billed = [one for one in sink.requests if metering(one, Dialect.GOOGLE) not in FREE]
        gc.collect()
        assert billed_rows(ledger) == len(billed)
        client.close()
        gc.collect()


def is_refusal(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, outlay.CallRefused):
            return True
        error = error.__cause__ or error.__context__
    return False


def metering(request: tuple[str, str, bool], dialect: Dialect) -> Metering:
    match = find_route(request[0], request[1], has_anthropic_version=dialect is Dialect.ANTHROPIC)
    assert match is not None
    return match.route.metering


def is_known(request: tuple[str, str, bool], dialect: Dialect) -> bool:
    match = find_route(request[0], request[1], has_anthropic_version=dialect is Dialect.ANTHROPIC)
    return match is not None and match.route.dialect is dialect
