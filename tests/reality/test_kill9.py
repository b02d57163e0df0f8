"""`kill -9` of the gateway process at random moments under load: nothing open, nothing lost, nothing past a limit.

`OUTLAY_KILLS` sets how many kills (200 by default); each restart is the next round's gateway.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from outlay.app.control import open_operations
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.kernel.ids import parse_id
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES
from tests.reality.load import post

KILLS = int(os.environ.get("OUTLAY_KILLS", "200"))
SEED = 20261123
AT_ONCE = 24
SECRET = "sk-outlay-kill-0123456789abcdef"
CONFIG = """
version: 1
org: acme
gateway: {{port: {port}, disclose: all, default_max_output_tokens: 200, wait_s: 1}}
providers:
  - {{name: openai, dialect: openai, base_url: "{url}/v1", api_key: mock, models: ["*"], send_request_id: true}}
keys:
  - {{name: app, secret: {secret}, team: search}}
budgets:
  - {{name: all, scope: {{org: acme}}, limit_usd: {limit}, window: lifetime}}
  - {{name: team, scope: {{team: "*"}}, limit_usd: 1000, window: month}}
  - {{name: minute, scope: {{key: "*"}}, limit_usd: 1000, window: 60s}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10, cache_read: 1.25}}}}
"""


class Gateway:
    """The gateway as a process of its own."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "outlay.app.serve", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        started = msgspec.json.decode(line)
        assert started["event"] == "listening", line
        self.url = f"http://127.0.0.1:{started['port']}"
        self.recovered = started["recovered_holds"]

    def stop(self) -> None:
        self.process.terminate()
        self.reap()
        assert self.process.returncode == 0

    def reap(self) -> None:
        """Wait for its end."""
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


async def load_until(url: str, stop_at: float, rng: random.Random) -> int:
    """Calls that go on until the gateway is gone or the time is up; returns how many were answered."""
    answered = 0

    async def caller(stream: bool) -> None:
        nonlocal answered
        while time.monotonic() < stop_at:
            request = {
                "model": "gpt-test",
                "messages": [{"role": "user", "content": "x" * 50}],
                "stream": stream,
            }
            try:
                reply = await post(url, request, secret=SECRET)
            except (OSError, IndexError, ValueError):
                return
            assert reply.status in (200, 402, 429, 502, 503), reply.body
            answered += 1
            if reply.status != 200:
                await asyncio.sleep(0.01)

    await asyncio.gather(*(caller(rng.random() < 0.5) for _ in range(AT_ONCE)))
    return answered


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hundred_kills(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    config = tmp_path / "outlay.yaml"
    ledger = tmp_path / "outlay.db"
    behaviour = {"first_byte_ms": 8, "chunk_ms": 2, "chunks": 4, "output_tokens": 40, "input_tokens": 30}
    with MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock:
        # the limit is reached about half way, so that kills hit a nearly spent and a spent budget too
        limit = "%.2f" % (KILLS * 0.12)
        config.write_text(CONFIG.format(url=mock.url, secret=SECRET, port=0, limit=limit))
        gateway = Gateway(config)
        recovered = answered = 0
        for _ in range(KILLS):
            stop_at = time.monotonic() + rng.uniform(0.02, 0.5)

            async def round_of_load(running: Gateway = gateway, until: float = stop_at) -> int:
                calls = asyncio.create_task(load_until(running.url, until + 1, rng))
                await asyncio.sleep(max(0, until - time.monotonic()))
                os.kill(running.process.pid, signal.SIGKILL)
                return await calls

            answered += asyncio.run(round_of_load())
            gateway.reap()
            gateway = Gateway(config)
            recovered += gateway.recovered
            with LedgerReader(ledger) as reader:
                assert reader.totals()["open_holds"] == 0
        gateway.stop()
        until = time.monotonic() + 10
        while mock.meter.open_requests and time.monotonic() < until:
            time.sleep(0.02)
        found = audit(ledger)
        assert found.findings == ()
        assert found.most_over_limit_nanos <= 0
        assert found.open_holds == 0
        assert found.overrun_nanos == 0
        charges = all_charges(ledger)
        assert answered > 0 < recovered
        differing = 0
        for entry in mock.meter.entries:
            attempt = parse_id(entry.outlay_request_id or "")
            assert attempt is not None
            charge = charges.pop(attempt.hex())
            assert charge.cost_nanos >= entry.cost_nanos
            if charge.cost_nanos != entry.cost_nanos:
                differing += 1
                assert charge.basis == "outcome_unknown"
        for charge in charges.values():
            # held, and never seen by the provider: void, or unknown to whoever only sees the ledger
            assert charge.basis in ("void", "outcome_unknown")
        print(f"{KILLS} kills, {answered} answered, {recovered} holds recovered, {differing} above the meter")
        resolve_one(config, ledger)


def all_charges(ledger: Path) -> dict[str, ChargeView]:
    found: dict[str, ChargeView] = {}
    with LedgerReader(ledger) as reader:
        before: bytes | None = None
        while page := reader.charges(10_000, before=before):
            found.update((charge.id, charge) for charge in page)
            before = bytes.fromhex(page[-1].id)
    return found


def resolve_one(config: Path, ledger: Path) -> None:
    """What an operator knows was not billed comes free again."""
    with LedgerReader(ledger) as reader:
        charge = reader.unknown(1)[0]
        spent = reader.totals()["spend_nanos"]
    with open_operations(config, os.environ) as operations:
        answer = operations.resolve(charge.id, 0, "test", "the provider's log does not know it")
        assert answer["adjustment_nanos"] == -charge.cost_nanos
    with LedgerReader(ledger) as reader:
        assert reader.totals()["spend_nanos"] == spent - charge.cost_nanos
        assert charge.id not in {row.id for row in reader.unknown()}
    assert audit(ledger).findings == ()
