"""The gateway on PostgreSQL: all of it by one line of outlay.yaml, a standby that takes over, kills of either side."""

import asyncio
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outlay.app import opening
from outlay.app.config import load_config
from outlay.app.control import open_operations
from outlay.flow.ledger import postgres
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.place import Database
from outlay.flow.ledger.port import StoreInUse, StoreUnreachable
from outlay.flow.ledger.postgres import PostgresStore
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.kernel.clock import SystemClock
from outlay.kernel.ids import parse_id
from outlay.testing import MockProvider
from outlay.testing.processes import ChildProcess
from tests.harness import MOCK_PRICES
from tests.postgres import Server, fresh_ledger
from tests.reality import test_kill9
from tests.reality.load import post
from tests.reality.test_kill9 import SECRET

KILLS = int(os.environ.get("OUTLAY_PG_KILLS", "50"))
AT_ONCE = 12
PASSWORD = "hunter2-of-the-ledger"
CONFIG = test_kill9.CONFIG.replace("org: acme", 'org: acme\nledger: "{ledger}"', 1)
REQUEST = {"model": "gpt-test", "messages": [{"role": "user", "content": "x" * 50}]}


class Nodes:
    """Gateway processes on one ledger, each with a folder and an outlay.yaml of its own."""

    def __init__(self, folder: Path, ledger: str, mock: MockProvider, limit: str = "1") -> None:
        self._folder = folder
        self._text = CONFIG.format(ledger=ledger, url=mock.url, secret=SECRET, port=0, limit=limit)
        self.running: list[ChildProcess] = []
        self._told: set[int] = set()
        self.recovered = 0

    def config(self, name: str) -> Path:
        path = self._folder / name / "outlay.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(self._text)
        path.chmod(0o600)
        return path

    def start(self, name: str) -> ChildProcess:
        child = ChildProcess([sys.executable, "-m", "outlay.app.serve", str(self.config(name))])
        self.running.append(child)
        return child

    def active(self, seconds: float = 60) -> tuple[ChildProcess, str]:
        """The process that serves, and its address, as soon as there is one."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for child in list(self.running):
                for event in _events(child):
                    if event.get("event") == "listening" and child.exit_status is None:
                        if child.pid not in self._told:
                            self._told.add(child.pid)
                            self.recovered += event["recovered_holds"]
                        return child, f"http://127.0.0.1:{event['port']}"
                if child.exit_status is not None:
                    self.running.remove(child)
                    child.end()
            time.sleep(0.02)
        raise AssertionError([child.output for child in self.running])

    def kill(self, child: ChildProcess) -> None:
        self.running.remove(child)
        child.kill()

    def stop(self) -> None:
        for child in self.running:
            child.end()
        self.running.clear()


def _events(child: ChildProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(child.output) if line.startswith("{")]


def cli(config: Path, *words: str) -> str:
    command = [sys.executable, "-m", "outlay.app.cli.main", *words, "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert PASSWORD not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_address_is_the_only_change(tmp_path: Path) -> None:
    """Calls, commands and the audit, with a gateway and without one; the password is in nothing that is said."""
    ledger = fresh_ledger().replace("postgres:@", f"postgres:{PASSWORD}@")
    assert PASSWORD in ledger
    with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 40, "input_tokens": 30}) as mock:
        nodes = Nodes(tmp_path, ledger, mock)
        nodes.start("a")
        _, url = nodes.active()
        config = tmp_path / "a" / "outlay.yaml"
        for stream in (False, True):
            assert asyncio.run(post(url, {**REQUEST, "stream": stream}, secret=SECRET)).status == 200
        cost = mock.meter.total_nanos / 1e9
        for is_running in (True, False):
            spent = json.loads(cli(config, "spend", "--json"))
            assert float(spent["total"]["cost_usd"]) == pytest.approx(cost)
            assert "the books are right" in cli(config, "ledger", "verify")
            cli(config, "budget", "set", f"set-{is_running}", "--limit", "5", "--scope", "team=search")
            assert f"set-{is_running}" in cli(config, "budget", "list")
            assert "postgresql://" in cli(config, "config", "check")
            cli(config, "run", "list")
            cli(config, "policy", "list")
            if is_running:
                assert "postgresql://" in cli(config, "status")
                killed = cli(config, "kill", "team", "search", "--reason", "test")
                assert "search" in killed
                assert asyncio.run(post(url, REQUEST, secret=SECRET)).status == 403
                nodes.stop()
        assert not list((tmp_path / "a").glob("outlay.db*"))


def test_long_and_odd_words_stop_nothing(tmp_path: Path) -> None:
    """Tags of kilobytes, or a served model's name, were more than a row of an index takes: nobody got through again."""
    chance = random.Random(5)

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters, k=128))

    with MockProvider(prices=MOCK_PRICES) as mock:
        nodes = Nodes(tmp_path, ledger := fresh_ledger(), mock)
        nodes.start("a")
        _, url = nodes.active()
        tags = json.dumps({word(): word() for _ in range(16)})
        assert asyncio.run(post(url, REQUEST, secret=SECRET, headers={"x-outlay-tags": tags})).status == 200
        mock.queue({"served_model": "".join(chance.choices(string.printable[:62], k=4_000))})
        for _ in range(2):
            assert asyncio.run(post(url, REQUEST, secret=SECRET)).status == 200
        nodes.stop()
        found = audit(Database(ledger))
        assert (found.findings, found.charges, found.open_holds) == ((), 3, 0)


def test_a_command_does_not_take_a_silent_gateways_place(tmp_path: Path) -> None:
    """A list ended the only gateway, which had only been paused."""
    with MockProvider() as mock:
        nodes = Nodes(tmp_path, ledger := fresh_ledger(), mock)
        store = PostgresStore(ledger)
        store.load(1)
        with psycopg.connect(ledger, autocommit=True) as db:
            db.execute("UPDATE writer SET renewed_at = renewed_at - INTERVAL '60 seconds'")
        with pytest.raises(StoreInUse, match="where the gateway runs"), open_operations(nodes.config("a")):
            pass
        store.close(2)
        with open_operations(nodes.config("a")) as operations:
            assert operations.objects()


def test_a_gateway_that_fails_in_its_takeover_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It owned the ledger and did not know it: to itself, another gateway was alive for ever."""
    monkeypatch.setattr(postgres, "LEASE_S", 0.5)
    monkeypatch.setattr(postgres, "RENEW_S", 0.1)
    failed: list[bool] = []

    def flaky(store: Any, clock: Any, timers: Any) -> Books:
        if not failed:
            failed.append(True)
            store.load(clock.now())
            raise StoreUnreachable("the connection was lost")
        return Books(store, clock, timers)

    monkeypatch.setattr(opening, "Books", flaky)

    async def begin(config: Path) -> int:
        loop = asyncio.get_running_loop()
        found = await opening.stand_by(
            load_config(config, {}),
            SystemClock(),
            loop,
            loop.call_soon_threadsafe,
            log=lambda *_, **__: None,
            stopping=asyncio.Event(),
        )
        assert found is not None
        store, books = found
        books.close()
        assert isinstance(store, PostgresStore)
        return store._epoch

    with MockProvider() as mock:
        config = Nodes(tmp_path, fresh_ledger(), mock).config("a")
        assert asyncio.run(asyncio.wait_for(begin(config), 30)) == 2


def test_a_standby_takes_over_and_says_why_it_waits(tmp_path: Path) -> None:
    with MockProvider(prices=MOCK_PRICES, behaviour={"first_byte_ms": 3_000}) as mock:
        nodes = Nodes(tmp_path, fresh_ledger(), mock)
        first = nodes.start("a")
        _, url = nodes.active()
        second = nodes.start("b")
        assert second.wait_for_json()["event"] == "standby"
        command = [
            sys.executable,
            "-m",
            "outlay.app.cli.main",
            "budget",
            "set",
            "x",
            "--limit",
            "1",
            "--scope",
            "team=a",
        ]
        elsewhere = [*command, "-c", str(tmp_path / "b" / "outlay.yaml")]
        done = subprocess.run(elsewhere, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 5 and "where the gateway runs that owns it" in done.stderr

        async def left_alone() -> None:
            call = asyncio.create_task(post(url, REQUEST, secret=SECRET))
            await asyncio.sleep(0.5)
            nodes.kill(first)
            with pytest.raises((OSError, IndexError, ValueError)):
                await call

        asyncio.run(left_alone())
        child, url = nodes.active()
        assert child is second
        assert nodes.recovered == 1
        mock.behave(first_byte_ms=0)
        assert asyncio.run(post(url, REQUEST, secret=SECRET)).status == 200
        third = nodes.start("c")
        assert third.wait_for_json()["event"] == "standby"
        assert third.end() == 0, "a standby stops when it is told to"
        nodes.stop()


def test_whose_place_was_taken_ends_though_it_streams(tmp_path: Path) -> None:
    """A machine that stood still wakes up: what it streams was booked by the one that took over."""
    ledger = fresh_ledger()
    with MockProvider(prices=MOCK_PRICES, behaviour={"chunk_ms": 100, "output_tokens": 2_000}) as mock:
        nodes = Nodes(tmp_path, ledger, mock)
        first = nodes.start("a")
        _, url = nodes.active()
        second = nodes.start("b")
        assert second.wait_for_json()["event"] == "standby"

        async def stream() -> None:
            with pytest.raises((OSError, IndexError, ValueError)):
                await post(url, {**REQUEST, "stream": True, "max_tokens": 2_000}, secret=SECRET)

        async def both() -> None:
            call = asyncio.create_task(stream())
            await asyncio.sleep(1)
            with psycopg.connect(ledger, autocommit=True) as db:
                # beside its signs of life, as long as it takes the other to look
                while second.exit_status is None and len(_events(second)) < 2:
                    db.execute("UPDATE writer SET renewed_at = renewed_at - INTERVAL '60 seconds'")
                    await asyncio.sleep(0.05)
            call.cancel()

        asyncio.run(both())
        deadline = time.monotonic() + 20
        while first.exit_status is None:
            assert time.monotonic() < deadline, first.output
            time.sleep(0.05)
        assert first.exit_status == 70
        nodes.stop()
        found = audit(Database(ledger))
        assert (found.findings, found.open_holds) == ((), 0)
        assert found.unknown_nanos > 0


def charges_of(ledger: str) -> dict[str, ChargeView]:
    found: dict[str, ChargeView] = {}
    with LedgerReader(Database(ledger)) as reader:
        before: bytes | None = None
        while page := reader.charges(10_000, before=before):
            found.update((charge.id, charge) for charge in page)
            before = bytes.fromhex(page[-1].id)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_gateways_and_the_server_are_killed_under_load(tmp_path: Path) -> None:
    """`OUTLAY_PG_KILLS` kills -9 (50 by default) of the gateway that serves or of the server, a standby beside it."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    behaviour = {"first_byte_ms": 8, "chunk_ms": 2, "chunks": 4, "output_tokens": 40, "input_tokens": 30}
    with (
        tempfile.TemporaryDirectory(prefix="pg-") as folder,
        Server(Path(folder)) as server,
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
    ):
        nodes = Nodes(tmp_path, server.url, mock, limit="%.2f" % (KILLS * 0.06))
        nodes.start("a")
        nodes.active()
        answered = down = 0

        async def caller(url: str, until: float) -> None:
            nonlocal answered, down
            while time.monotonic() < until:
                try:
                    reply = await post(url, {**REQUEST, "stream": rng.random() < 0.5}, secret=SECRET)
                except (OSError, IndexError, ValueError):
                    return
                assert reply.status in (200, 402, 429, 502, 503), reply.body
                answered += reply.status == 200
                down += reply.status == 503
                if reply.status != 200:
                    await asyncio.sleep(0.01)

        async def round_of_load(url: str, kill: Any, after: float) -> None:
            until = time.monotonic() + after + 0.3
            calls = [asyncio.create_task(caller(url, until)) for _ in range(AT_ONCE)]
            await asyncio.sleep(after)
            await asyncio.to_thread(kill)
            await asyncio.gather(*calls)

        for number in range(KILLS):
            child, url = nodes.active()
            if len(nodes.running) < 2:
                nodes.start("b" if number % 2 else "a")
            if rng.random() < 0.2:
                asyncio.run(round_of_load(url, server.kill, rng.uniform(0.05, 0.6)))
                server.start()
            else:
                asyncio.run(round_of_load(url, lambda child=child: nodes.kill(child), rng.uniform(0.05, 0.6)))
        _, url = nodes.active()
        deadline = time.monotonic() + 30
        while asyncio.run(post(url, REQUEST, secret=SECRET)).status == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        nodes.stop()
        until = time.monotonic() + 10
        while mock.meter.open_requests and time.monotonic() < until:
            time.sleep(0.02)
        found = audit(Database(server.url))
        assert found.findings == ()
        assert found.most_over_limit_nanos <= 0
        assert found.open_holds == found.overrun_nanos == 0
        charges = charges_of(server.url)
        assert answered > 0 < nodes.recovered
        for entry in mock.meter.entries:
            attempt = parse_id(entry.outlay_request_id or "")
            assert attempt is not None
            charge = charges.pop(attempt.hex())
            assert charge.cost_nanos >= entry.cost_nanos
            if charge.cost_nanos != entry.cost_nanos:
                assert charge.basis == "outcome_unknown"
        assert {charge.basis for charge in charges.values()} <= {"void", "outcome_unknown"}
        print(
            f"{KILLS} kills, {answered} answered, {down} told that it is down, {nodes.recovered} holds recovered"
        )
