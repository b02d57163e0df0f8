"""What an embedded wrap costs a call: the SDK alone, and wrapped, against a transport that answers at once.

No network and no provider: the difference is what Outlay adds (parse, price, hold, settle: two transactions). The
contended figure is of four processes that write one ledger at the same time.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

import outlay
from bench.measures import Effort, Table
from outlay.flow.authorize import Denied
from outlay.flow.ledger.charge import Basis, Ending, Status
from outlay.flow.ledger.direct import DirectLedger, Order
from outlay.flow.ledger.port import StoreBusy
from outlay.flow.scope import Identity
from outlay.kernel.clock import SystemClock
from outlay.kernel.money import Nanos
from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Quote
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import CustomModel
from outlay.lookup.price import PriceId

CALLS = 300
PROCESSES = 4
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-test",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 80}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90},
    }
).encode()


def table(effort: Effort) -> Table:
    """See the module."""
    found = Table(
        "sdk: milliseconds a call of the openai SDK, embedded, against a transport that answers at once"
    )
    with tempfile.TemporaryDirectory(prefix="outlay-bench-") as name:
        folder = Path(name)
        plain = [_call_ms(_client(), effort) for _ in range(effort.rounds)]
        capped = [_call_ms(_wrapped(folder, budget_usd=1000), effort) for _ in range(effort.rounds)]
        budgets = [outlay.budget(f"b{number}", 1000) for number in range(4)]
        many = [_call_ms(_wrapped(folder, budgets=budgets), effort) for _ in range(effort.rounds)]
        with outlay.run(budget_usd=1000), outlay.run(budget_usd=500):
            nested = [_call_ms(_wrapped(folder, budget_usd=1000), effort) for _ in range(effort.rounds)]
        base = statistics.median(plain)
        for label, figures in (
            ("the SDK alone", plain),
            ("wrapped, one budget", capped),
            ("wrapped, four budgets", many),
            ("wrapped, one budget, run in a run", nested),
        ):
            value = statistics.median(figures)
            found.rows[label] = {"ms a call": value, "added": value - base}
        alone = _pairs_ms(folder / "pairs.db")
        found.rows["hold + settle, one process"] = {"ms a call": alone}
        with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            busy = pool.map(_pairs_ms, [folder / "shared.db"] * PROCESSES)
        found.rows[f"hold + settle, {PROCESSES} processes on one file"] = {
            "ms a call": statistics.median(busy)
        }
    return found


def _client() -> openai.OpenAI:
    import httpx2

    def answer(_: Any) -> Any:
        return httpx2.Response(200, content=ANSWER, headers={"content-type": "application/json"})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="key", base_url="http://127.0.0.1:9/v1", http_client=http)


def _wrapped(folder: Path, **more: Any) -> openai.OpenAI:
    price = CustomModel(
        provider="openai",
        model="gpt-test",
        usd_per_mtok={"input": "2.5", "output": "10"},
        context_window=128_000,
    )
    book = PriceBook.build(feed_of([]), overrides=[price])
    return outlay.wrap(_client(), ledger=folder / "sdk.db", provider="openai", book=book, **more)


def _call_ms(client: openai.OpenAI, effort: Effort) -> float:
    said: Any = [{"role": "user", "content": "hello " * 20}]
    calls = CALLS if effort.rounds > 1 else CALLS // 10
    client.chat.completions.create(model="gpt-test", messages=said, max_tokens=100)
    began = time.perf_counter()
    for _ in range(calls):
        client.chat.completions.create(model="gpt-test", messages=said, max_tokens=100)
    return (time.perf_counter() - began) / calls * 1000


def _pairs_ms(path: Path) -> float:
    ledger = DirectLedger(path, SystemClock())
    budgets = (outlay.budget("all", 1_000_000),)
    ledger.declare(budgets)
    nanos = Nanos(1_000_000)
    quote = Quote(PriceId("p"), 100, nanos, 0, 1, 0, Nanos(0), Nanos(0), nanos)
    route = '{"provider":"openai","model":"m","served":"m","operation":"chat"}'
    order = Order(Identity(org="bench"), budgets, (), quote, 0, False, route, '{"price_id":"p"}')
    began = time.perf_counter()
    for _ in range(CALLS):
        placed = _until_free(lambda: ledger.place(order, 0.05))
        if isinstance(placed, Denied):
            raise SystemExit("the bench's budget is too small")
        ending = Ending(Status.SETTLED, Basis.METERED, 500_000)
        _until_free(lambda: ledger.end(placed.hold, ending, None, None, 0.05))  # noqa: B023 - called at once
    took = (time.perf_counter() - began) / CALLS * 1000
    ledger.close()
    return took


def _until_free(work: Any) -> Any:
    while True:
        try:
            return work()
        except StoreBusy:
            continue
