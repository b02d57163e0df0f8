"""A real gateway on a real socket for tests: its own thread and loop, a SQLite ledger, the mock provider behind it."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from outlay.flow.budgets import AccessRule, BudgetSpec
from outlay.flow.gateway.keys import KeySpec, Tokens
from outlay.flow.gateway.server import Gateway
from outlay.flow.gateway.snapshot import Disclose, ModelRoute, Provider, Settings, Snapshot
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.flow.tags import TagSpec
from outlay.flow.windows import parse_window
from outlay.kernel.clock import SystemClock
from outlay.kernel.money import usd_to_nanos
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import CustomModel
from outlay.wire.intent import Dialect

T = TypeVar("T")

SECRET = "sk-outlay-test"
GPT = {"input": "2.5", "output": "10", "cache_read": "1.25"}
CLAUDE = {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75", "cache_write_1h": "6"}
MOCK_PRICES: dict[str, Any] = {
    "gpt-test": {"input": 2_500_000_000, "output": 10_000_000_000, "cached": 1_250_000_000},
    "claude-test": {
        "input": 3_000_000_000,
        "output": 15_000_000_000,
        "cached": 300_000_000,
        "cache_write": 3_750_000_000,
        "cache_write_long": 6_000_000_000,
    },
    "embed-test": {"input": 20_000_000},
}


def book() -> PriceBook:
    """Prices of the test models, as the mock's meter knows them from `MOCK_PRICES`."""
    return PriceBook.build(
        feed_of([]),
        overrides=[
            CustomModel(provider="openai", model="gpt-test", usd_per_mtok=GPT, context_window=128_000),
            CustomModel(provider="openai", model="embed-test", usd_per_mtok={"input": "0.02"}),
            CustomModel(
                provider="anthropic", model="claude-test", usd_per_mtok=CLAUDE, context_window=200_000
            ),
        ],
    )


def budget(
    name: str,
    usd: str | None,
    scope: dict[str, str] | None = None,
    window: str = "lifetime",
    *,
    hard: bool = True,
) -> BudgetSpec:
    """A budget in one line."""
    limit = None if usd is None else usd_to_nanos(usd)
    return BudgetSpec(
        name, scope if scope is not None else {"org": "acme"}, limit, parse_window(window), hard
    )


def key(name: str = "test", secret: str = SECRET, **changes: Any) -> KeySpec:
    """A virtual key of org acme."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return KeySpec(**{"name": name, "secret_sha256": digest, "org": "acme", "team": "search", **changes})


def providers(url: str, **changes: Any) -> tuple[Provider, ...]:
    """The mock as both vendors."""
    shared = {"models": ("*",), "api_key": "mock-key", "send_request_id": True, **changes}
    return (
        Provider(name="openai", dialect=Dialect.OPENAI, base_url=url + "/v1", **shared),
        Provider(name="anthropic", dialect=Dialect.ANTHROPIC, base_url=url, **shared),
    )


class RunningGateway:
    """`with RunningGateway(tmp_path / "l.db", mock.url, [budget(...)]) as gateway: gateway.url`."""

    def __init__(
        self,
        path: Path,
        upstream: str,
        budgets: Iterable[BudgetSpec] = (),
        *,
        settings: Settings | None = None,
        keys: Iterable[KeySpec] | None = None,
        rules: Iterable[AccessRule] = (),
        models: Iterable[ModelRoute] = (),
        price_book: PriceBook | None = None,
        upstreams: tuple[Provider, ...] | None = None,
        tags: Iterable[TagSpec] = (),
        tokens: Tokens | None = None,
        **provider_changes: Any,
    ) -> None:
        self.path = path
        self.snapshot = Snapshot(
            settings=settings or Settings(disclose=Disclose.ALL),
            providers=upstreams or providers(upstream, **provider_changes),
            models=tuple(models),
            keys=tuple(keys) if keys is not None else (key(),),
            budgets=tuple(budgets),
            rules=tuple(rules),
            book=price_book or book(),
            tags=tuple(tags),
            tokens=tokens,
        )
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> "RunningGateway":
        self._thread.start()
        assert self._started.wait(10), "the gateway did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if self._failure is None:
            self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the gateway did not stop"
        if self._failure is not None:
            raise self._failure

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the gateway's loop and return its result."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def swap(self, **changes: Any) -> None:
        """Swap to a snapshot that differs in the named fields."""
        old = self.snapshot
        fields = {
            "settings": old.settings,
            "providers": tuple(old.providers.values()),
            "models": old._models,
            "keys": tuple(old.named.values()),
            "budgets": old.budgets,
            "rules": (),
            "book": old.book,
            "tags": old.tag_rules.specs,
            "tokens": old.tokens,
        }
        self.snapshot = Snapshot(**{**fields, **changes})
        self.call(lambda: self.gateway.swap(self.snapshot))

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        clock = SystemClock()
        store = SqliteStore(self.path)
        self.books = Books(store, clock, self.loop)
        self.gateway = Gateway(self.books, store, clock, self.snapshot, self.loop)
        port = await self.gateway.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        self._started.set()
        await self._stopping.wait()
        await self.gateway.drain()
        self.books.close()
