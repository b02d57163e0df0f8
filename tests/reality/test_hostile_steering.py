"""What a hostile reviewer got past kills, holds, raises, rates and runs, kept from coming back."""

import asyncio
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from outlay.app.alerting.watch import Watch
from outlay.app.cli.main import main
from outlay.app.config import load_config
from outlay.app.control import ControlClient
from outlay.flow.gateway import guard
from outlay.flow.gateway.snapshot import (
    Disclose,
    ModelRoute,
    OnClientGone,
    Progressive,
    Provider,
    Settings,
    Target,
)
from outlay.flow.gateway.stops import carry_out
from outlay.flow.ledger.audit import audit
from outlay.flow.orders import Order, OrderKind
from outlay.flow.outcome import Billing
from outlay.flow.policy import Covering, Hours, PolicySpec, Rung
from outlay.flow.runaway import RunawayAction
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import StoreError
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import CustomModel
from outlay.testing import ChildProcess, MockProvider
from outlay.wire.intent import Dialect
from tests.harness import GPT, MOCK_PRICES, SECRET, RunningGateway, budget
from tests.reality.doors import house
from tests.reality.load import post
from tests.reality.test_runaway_path import loop
from tests.world import MODELS, meter_prices, providers
from tests.world import book as world_book

LADDER = """\
org: acme
gateway: {{port: 0, wait_s: 0}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: {secret}-padded, team: search}}
budgets:
  - {{name: all, limit_usd: 0.01, window: month}}
policies:
  - {{name: half, ladder: [{{at_percent: 50, budget: all, pause: true}}]}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""
ALERTS = """\
alerts:
  targets:
    - {{name: hook, webhook: "http://127.0.0.1:{port}/hook"}}
  rules:
    - {{name: near, percent: [10]}}
"""
HELLO = [{"role": "user", "content": "hello"}]
SLOW: dict[str, Any] = {"output_tokens": 400, "tokens_per_chunk": 1, "chunk_ms": 20, "on_client_gone": "sent"}


async def until(gateway: RunningGateway, holds: int, waiting: int) -> None:
    """Until so many holds are open and so many calls wait for money."""
    for _ in range(500):
        seen = await asyncio.to_thread(
            gateway.call, lambda: (gateway.books.open_holds, gateway.gateway.room.count)
        )
        if seen == (holds, waiting):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{seen} instead of {(holds, waiting)}")


def test_a_killed_model_is_not_reached_behind_its_other_name_by_a_call_that_waited(tmp_path: Path) -> None:
    """The kill frees the money that the call waits for: it must not go to the killed model with it."""
    body = {"model": "fast", "messages": HELLO, "max_tokens": 400, "stream": True}
    kill = Order(OrderKind.KILL, {"model": "gpt-test"}, "it ran away", "test", 1)

    async def scene(gateway: RunningGateway) -> tuple[Any, Any]:
        first = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 0)
        second = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 1)
        await asyncio.to_thread(gateway.call, lambda: carry_out(gateway.gateway, kill, (kill,)))
        return await first, await second

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=SLOW) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "0.0055")],
            models=[ModelRoute("fast", targets=(Target("openai", "gpt-test"),))],
            settings=Settings(disclose=Disclose.ALL, wait_s=20),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
        ) as gateway,
    ):
        cut, refused = asyncio.run(scene(gateway))
        assert b'"code":"killed"' in cut.body
        assert (refused.status, refused.error["code"]) == (403, "killed")
        assert len(mock.calls) == 1


def test_a_target_that_was_passed_over_leaves_nothing_of_its_growing_hold(tmp_path: Path) -> None:
    """The first target's budget is spent: the second's hold is its own, and so is what a cut stream is booked at."""
    shared: dict[str, Any] = {
        "dialect": Dialect.OPENAI,
        "api_key": "k",
        "billing": Billing.SELF_HOSTED,
        "on_client_gone": OnClientGone.CANCEL,
    }
    body = {"model": "fast", "messages": HELLO, "stream": True}
    kill = Order(OrderKind.KILL, {"team": "search"}, "enough", "test", 1)
    cheap = CustomModel(provider="cheap", model="gpt-test", usd_per_mtok={"input": "0.1", "output": "0.1"})
    dear = CustomModel(provider="dear", model="gpt-test", usd_per_mtok=GPT)

    async def scene(gateway: RunningGateway) -> int:
        stream = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 0)
        held = await asyncio.to_thread(gateway.call, lambda: gateway.books.held_nanos)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(gateway.call, lambda: carry_out(gateway.gateway, kill, (kill,)))
        await stream
        return held

    with (
        MockProvider(prices=MOCK_PRICES, behaviour={**SLOW, "chunk_ms": 2}) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "10"), budget("cheap", "0", {"provider": "cheap"})],
            models=[ModelRoute("fast", targets=(Target("cheap", "gpt-test"), Target("dear", "gpt-test")))],
            price_book=PriceBook.build(feed_of([]), overrides=[cheap, dear]),
            settings=Settings(disclose=Disclose.ALL, default_max_output_tokens=1_000, first_slice_tokens=40),
            upstreams=(
                Provider("cheap", base_url=mock.url + "/v1", progressive=Progressive.EVENTS, **shared),
                Provider("dear", base_url=mock.url + "/v1", **shared),
            ),
        ) as gateway,
    ):
        held = asyncio.run(scene(gateway))
        assert held > 1_000 * 10_000
        mock.wait_for(0)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert 0 < mock.meter.total_nanos <= found.spend_nanos


def test_a_stream_that_is_left_is_booked_with_what_its_engine_makes_ahead(tmp_path: Path) -> None:
    """The operator says how far the engine runs ahead; that much may be billed of a stream that is cut."""
    body = {"model": "gpt-test", "messages": HELLO, "stream": True}
    kill = Order(OrderKind.KILL, {"team": "search"}, "enough", "test", 1)

    async def scene(gateway: RunningGateway) -> None:
        stream = asyncio.create_task(post(gateway.url, body))
        await until(gateway, 1, 0)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(gateway.call, lambda: carry_out(gateway.gateway, kill, (kill,)))
        await stream

    ahead = {**SLOW, "on_client_gone": "ahead", "run_ahead_tokens": 300}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=ahead) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "10")],
            settings=Settings(disclose=Disclose.ALL, default_max_output_tokens=2_000, first_slice_tokens=700),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
            progressive=Progressive.EVENTS,
            run_ahead_tokens=300,
        ) as gateway,
    ):
        asyncio.run(scene(gateway))
        mock.wait_for(0)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert 300 * 10_000 < mock.meter.total_nanos <= found.spend_nanos


def test_a_stream_that_states_usage_at_its_start_only_is_counted_all_the_same(tmp_path: Path) -> None:
    """Anthropic's format states one token at the start and all at the end: between them, what passes is counted."""
    body = {"model": "claude-test", "messages": HELLO, "stream": True}
    engine = {**SLOW, "output_tokens": 900, "chunk_ms": 4, "on_client_gone": "ahead", "run_ahead_tokens": 8}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=engine) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "0.006")],
            settings=Settings(disclose=Disclose.ALL, default_max_output_tokens=4_000, first_slice_tokens=100),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
            progressive=Progressive.USAGE,
        ) as gateway,
    ):
        reply = asyncio.run(post(gateway.url, body))
        assert reply.status == 200
        mock.wait_for(0)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert b'"code":"budget_spent"' in reply.body
        assert found.most_over_limit_nanos <= 0
        assert mock.meter.total_nanos <= found.spend_nanos <= 6_000_000


def test_a_run_that_is_over_submits_no_job(tmp_path: Path) -> None:
    """A run's calls and time hold for jobs too: a batch is many calls."""
    one = {"model": "claude-test", "max_tokens": 8, "messages": HELLO}
    batch = {"requests": [{"custom_id": "a", "params": one}]}
    version = {"anthropic-version": "2023-06-01", "x-outlay-run": "r", "x-outlay-run-max-calls": "2"}
    with (
        MockProvider(prices=meter_prices(), models=MODELS) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "10")],
            price_book=world_book(),
            upstreams=providers(mock.url),
        ) as gateway,
    ):

        def submit() -> Any:
            return asyncio.run(post(gateway.url, batch, "/v1/messages/batches", headers=version))

        assert submit().status == 200
        assert asyncio.run(post(gateway.url, one, "/v1/messages", headers=version)).status == 200
        refused = submit()
        assert refused.status == 402
        assert b"run_calls_spent" in refused.body
        assert len([call for call in mock.calls if call.path == "/v1/messages/batches"]) == 1


def ask(url: str, path: str, body: Any) -> tuple[int, Any]:
    """POST, off any event loop."""
    reply = asyncio.run(post(url, body, path, f"{SECRET}-padded"))
    return reply.status, json.loads(reply.body)


def test_a_pause_of_a_ladder_ends_when_somebody_approves(tmp_path: Path) -> None:
    """A rung far below the limit: what is asked for by itself must be enough to get under it again."""
    config = tmp_path / "outlay.yaml"
    body = {"model": "gpt-test", "messages": HELLO, "max_tokens": 50}
    with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 50}) as mock:
        config.write_text(LADDER.format(url=mock.url, secret=SECRET))
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
            url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
            for _ in range(40):
                status, said = ask(url, "/v1/chat/completions", body)
                if status != 200:
                    break
            assert (status, said["error"]["code"]) == (402, "paused")
            request_id = said["error"]["request_id"]
            status, asked = ask(url, "/outlay/v1/raises", {"request_id": request_id, "reason": "the release"})
            assert status == 201
            assert main(["approve", "grant", asked["id"], "-c", str(config)]) == 0
            assert ask(url, "/v1/chat/completions", body)[0] == 200
            assert gateway.end() == 0, gateway.output


def test_counters_of_callers_who_are_gone_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy for each run makes counters for each: a minute after its last call they count nothing."""
    monkeypatch.setattr(guard, "MAX_LIMITS", 100)
    now = 10**18
    book = guard.LimitBook(lambda: now)
    policy = PolicySpec(name="each-run", scope={"run": "*"}, requests_per_minute=5)
    for number in range(5_000):
        limits = book.of(Covering(policy, (("run", f"r{number}"),)))
        limits.begin(10, now, is_first=True)
        limits.end(10, 7, now)
        now += 10**9
    assert len(book._limits) <= 300
    # what still counts is not forgotten
    assert book.of(Covering(policy, (("run", "r4999"),))).requests.posted == 1
    # nor is what a remembered caller still counts in: two counters would let twice the limit pass
    kept = book.of(Covering(policy, (("run", "kept"),)))
    for number in range(5_000, 6_000):
        book.of(Covering(policy, (("run", f"r{number}"),)))
    assert ("each-run", (("run", "kept"),)) not in book._limits
    assert book.of(Covering(policy, (("run", "kept"),))) is kept


class _Failing:
    """A store whose `submit` is another."""

    def __init__(self, store: Any, submit: Any) -> None:
        self._inner = store
        self.submit = submit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_slice_that_cannot_be_written_ends_its_stream_where_there_is_no_budget(tmp_path: Path) -> None:
    """No budget, no run: there is no account to name, and the stream is told what is wrong."""

    async def scene(gateway: RunningGateway) -> Any:
        stream = asyncio.create_task(
            post(gateway.url, {"model": "gpt-test", "messages": HELLO, "stream": True})
        )
        await until(gateway, 1, 0)
        store = gateway.books._store

        def failing(batch: Any, done: Any) -> None:
            if batch.extensions:
                done(StoreError("down (test)"))
            else:
                store.submit(batch, done)

        def break_it() -> None:
            gateway.books._store = _Failing(store, failing)

        await asyncio.to_thread(gateway.call, break_it)
        return await asyncio.wait_for(stream, 20)

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=SLOW) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            settings=Settings(default_max_output_tokens=2_000, first_slice_tokens=60),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
            progressive=Progressive.EVENTS,
        ) as gateway,
    ):
        reply = asyncio.run(scene(gateway))
        assert b"[DONE]" not in reply.body
        assert b'"code":"ledger_down"' in reply.body
        mock.wait_for(1)
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert (found.findings, found.open_holds) == ((), 0)
        assert mock.meter.total_nanos <= found.spend_nanos


def test_a_growing_hold_counts_whole_in_tokens_a_minute(tmp_path: Path) -> None:
    """A slice is what is held in money; a rate counts all that the stream may use, or many small slices pass it."""
    body = {"model": "gpt-test", "messages": HELLO, "stream": True}
    rate = PolicySpec(name="slow", tokens_per_minute=3_000)

    async def scene(gateway: RunningGateway) -> list[Any]:
        return await asyncio.gather(*(post(gateway.url, body) for _ in range(8)))

    with (
        MockProvider(prices=MOCK_PRICES, behaviour={**SLOW, "output_tokens": 900, "chunk_ms": 1}) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "10")],
            settings=Settings(disclose=Disclose.ALL, default_max_output_tokens=1_000, first_slice_tokens=40),
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
            progressive=Progressive.EVENTS,
        ) as gateway,
    ):
        gateway.swap(policies=(rate,))
        replies = asyncio.run(scene(gateway))
        assert sum(reply.status == 200 for reply in replies) == 2
        assert {reply.error["code"] for reply in replies if reply.status != 200} == {"rate_limited"}


def talk(url: str, turns: int) -> list[str]:
    """A realtime session of so many turns: how each ended."""
    ends = []
    with (
        openai.OpenAI(base_url=url + "/v1", api_key=SECRET, max_retries=0) as client,
        client.realtime.connect(model="talk-test") as connection,
    ):
        for _ in range(turns):
            connection.response.create()
            for event in connection:
                if event.type == "response.done":
                    ends.append("done")
                    break
                if event.type == "error":
                    ends.append(str(event.error.code))
                    return ends
    return ends


def test_policies_hold_for_realtime_sessions(tmp_path: Path) -> None:
    """Rates, hours and ceilings count responses of a socket as they count calls."""
    with house(tmp_path) as (mock, gateway):
        gateway.swap(policies=(PolicySpec(name="slow", requests_per_minute=3),))
        assert talk(gateway.url, 9) == ["done", "done", "done", "rate_limited"]
        for policy in (
            PolicySpec(name="closed", hours=Hours((), 0, 1)),
            PolicySpec(name="cheap", max_nanos_per_call=1_000_000),
            PolicySpec(name="cheaper", max_output_nanos_per_mtok=1),
            PolicySpec(name="halt", ladder=(Rung(0, "all", ""),)),
        ):
            gateway.swap(policies=(policy,))
            with pytest.raises(Exception, match=r"40[23]"):
                talk(gateway.url, 1)
        # what was counted is given back: as many sessions as one at a time
        gateway.swap(policies=(PolicySpec(name="one", parallel=1),))
        for _ in range(3):
            assert talk(gateway.url, 2) == ["done", "done"]
            for _ in range(500):
                if not gateway.call(lambda: gateway.books.open_holds):
                    break
                time.sleep(0.01)
        mock.wait_for(0)
        assert audit(gateway.path).findings == ()


def test_a_runaway_is_stopped_again_after_a_persons_order_took_the_rules_place(tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 5}) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "10")],
            settings=Settings(disclose=Disclose.ALL, runaway=RunawayAction.PAUSE),
        ) as gateway,
    ):
        assert loop(gateway, 12)[-1].status == 402
        (rule,) = gateway.call(lambda: gateway.gateway.snapshot.orders)
        # somebody pauses the run that the rule has paused, by the same name, and lets it go on
        mine = Order(OrderKind.PAUSE, rule.scope, "let me look", "ada", 2)
        assert mine.name == rule.name

        def lift() -> None:
            gateway.gateway.take_orders((mine,))
            gateway.gateway.take_orders(())
            gateway.gateway.watching.lifted(mine)

        gateway.call(lift)
        replies = loop(gateway, 12)
        assert (replies[0].status, replies[-1].status) == (200, 402)


def test_orders_of_different_scopes_have_different_names() -> None:
    """A client names its runs: a name that reads like another scope must not take the place of that scope's order."""
    theirs = Order(OrderKind.PAUSE, {"org": "acme", "run": "r", "team": "search"}, "it ran away", "ada", 1)
    mine = Order(OrderKind.PAUSE, {"org": "acme", "run": "r,team=search"}, "a loop", "outlay:runaway", 1)
    assert theirs.name == "pause:org=acme,run=r,team=search"
    assert mine.name != theirs.name
    quoted = Order(OrderKind.PAUSE, {"org": "acme", "run": '"r,team=search"'}, "a loop", "outlay:runaway", 1)
    assert quoted.name not in (mine.name, theirs.name)


def test_an_alert_is_kept_as_untold_while_it_is_told(tmp_path: Path) -> None:
    """A watch that is killed in the middle of telling must leave the alert to be told at the next look."""
    config = tmp_path / "outlay.yaml"
    body = {"model": "gpt-test", "messages": HELLO, "max_tokens": 50}
    seen: list[Any] = []

    def alerts() -> list[Any]:
        operations = ControlClient(load_config(config, {}).local_path)
        try:
            return operations.alerts()
        finally:
            operations.close()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.extend(alerts())
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    sink = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=sink.serve_forever, daemon=True)
    thread.start()
    try:
        with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 50}) as mock:
            text = LADDER.format(url=mock.url, secret=SECRET) + ALERTS.format(port=sink.server_address[1])
            config.write_text(text)
            with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
                url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
                while ask(url, "/v1/chat/completions", body)[0] == 200:
                    pass
                time.sleep(0.1)  # settlements are on disk a moment after their answer
                operations = ControlClient(load_config(config, {}).local_path)
                try:
                    (told,) = Watch(pause_s=0.01).look(
                        load_config(config, {}), operations, SystemClock().now()
                    )
                finally:
                    operations.close()
                assert [alert["undelivered"] for alert in seen] == [["hook"]]
                assert told.undelivered == ()
                assert [alert["undelivered"] for alert in alerts()] == [[]]
                assert gateway.end() == 0, gateway.output
    finally:
        sink.shutdown()
        sink.server_close()
        thread.join(5)


def test_one_key_does_not_take_everybodys_place_among_the_asks(tmp_path: Path) -> None:
    config = tmp_path / "outlay.yaml"
    body = {"model": "gpt-test", "messages": HELLO, "max_tokens": 50}
    with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 50}) as mock:
        config.write_text(LADDER.format(url=mock.url, secret=SECRET))
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
            url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
            taken = 0
            for _ in range(250):
                status, said = ask(url, "/v1/chat/completions", body)
                if status == 200:
                    continue
                asked = {"request_id": said["error"]["request_id"], "reason": "again"}
                status, said = ask(url, "/outlay/v1/raises", asked)
                taken += status == 201
                if status != 201:
                    break
            assert taken == 100
            assert "wait for what is decided" in said["error"]["message"]
            assert gateway.end() == 0, gateway.output


def test_what_would_fit_is_told_only_to_those_who_may_see_the_amounts(tmp_path: Path) -> None:
    """Tokens that fit, times their price, are what is left of a budget above the caller's own scope."""
    body = {"model": "gpt-test", "messages": HELLO, "max_tokens": 4_000}
    for disclose, is_told in ((Disclose.OWN, False), (Disclose.ALL, True)):
        with (
            MockProvider(prices=MOCK_PRICES) as mock,
            RunningGateway(
                tmp_path / f"{disclose.value}.db",
                mock.url,
                [budget("all", "0.01")],
                settings=Settings(disclose=disclose),
            ) as gateway,
        ):
            refused = asyncio.run(post(gateway.url, body))
            assert (refused.status, refused.error["code"]) == (402, "call_too_large")
            assert ("fits_max_tokens" in refused.error) is is_told
            assert ("It fits" in refused.error["message"]) is is_told
