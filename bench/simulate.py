"""`policy simulate` over a month of charges: a million rows in the ledger's own schema, replayed by the real command.

The charges are drawn with a fixed seed and inserted directly; what the replay says is held against the ledger's own
totals. The command runs as a person would run it, in a process of its own; its peak memory is that process's.
"""

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import apsw

from bench.machine import Cores
from bench.measures import Effort, Table
from outlay.flow.ledger.port import ChargeRow
from outlay.flow.ledger.sqlite import SqliteStore
from outlay.lookup.operator_models import custom_price
from outlay.lookup.overrides import CustomModel
from outlay.lookup.price import with_price_id

CHARGES: Final = 1_000_000
QUICK_CHARGES: Final = 50_000
MONTH_NS: Final = 30 * 86_400 * 1_000_000_000
TEAMS: Final = 12
KEYS: Final = 60
MODELS: Final = (
    ("large", 3_000_000_000, 15_000_000_000),
    ("middle", 800_000_000, 4_000_000_000),
    ("small", 100_000_000, 400_000_000),
)
SECONDS_ALLOWED: Final = 10
CONFIG: Final = """\
org: acme
gateway: {port: 0}
providers:
  - {name: engine, dialect: openai, self_hosted: true, base_url: "http://127.0.0.1:9/v1", models: ["*"]}
prices:
  - {kind: custom, provider: engine, model: large, usd_per_mtok: {input: 3, output: 15}}
  - {kind: custom, provider: engine, model: middle, usd_per_mtok: {input: 0.8, output: 4}}
  - {kind: custom, provider: engine, model: small, usd_per_mtok: {input: 0.1, output: 0.4}}
budgets:
  - {name: company, limit_usd: 100000}
"""
POLICIES: Final = """\
budgets:
  - {name: each-team, scope: {team: "*"}, limit_usd: 550, window: month}
  - {name: each-key-a-day, scope: {key: "*"}, limit_usd: 4, window: day}
policies:
  - {name: pace, scope: {team: "*"}, requests_per_minute: 6, usd_per_hour: 5}
  - name: cheaper
    scope: {team: "*"}
    ladder:
      - {at_percent: 60, budget: each-team, use: middle, models: [large]}
      - {at_percent: 90, budget: each-team, use: small}
  - {name: nights, scope: {team: team-3}, hours: {start: "06:00", end: "22:00", timezone: Europe/Berlin}}
  - {name: dear, scope: {team: team-4}, shadow: true, max_output_usd_per_mtok: 10, max_usd_per_call: 0.05}
"""


def table(cores: Cores, effort: Effort) -> Table:
    """See the module."""
    count = CHARGES if effort.rounds > 1 else QUICK_CHARGES
    with tempfile.TemporaryDirectory(prefix="outlay-bench-simulate-") as name:
        folder = Path(name)
        since = fill(folder, count)
        return _measured(folder, cores, count, since)


def fill(folder: Path, count: int) -> int:
    """Make a ledger of so many charges over a month; the UTC ns at which it begins."""
    (folder / "outlay.yaml").write_text(CONFIG)
    (folder / "policies.yaml").write_text(POLICIES)
    since = time.time_ns() // 86_400_000_000_000 * 86_400_000_000_000 - MONTH_NS
    SqliteStore(folder / "outlay.db").close(since)
    db = apsw.Connection(str(folder / "outlay.db"))
    places = ",".join("?" * len(ChargeRow._fields))
    with db:
        db.executemany("INSERT INTO interned VALUES (?,?,?)", _interned())
        db.executemany(
            f"INSERT INTO charges ({','.join(ChargeRow._fields)}) VALUES ({places})", _charges(count, since)
        )
    db.close()
    return since


def _interned() -> Any:
    for key in range(KEYS):
        for index, (model, _, _) in enumerate(MODELS):
            identity = {
                "org": "acme",
                "team": f"team-{key % TEAMS}",
                "key": f"key-{key}",
                "model": model,
                "provider": "engine",
            }
            yield "identity", key * len(MODELS) + index, json.dumps(identity)
    for index, (model, _, _) in enumerate(MODELS):
        route = {"provider": "engine", "model": model, "served": model, "operation": "chat"}
        yield "route", index, json.dumps(route)
        usd = {"large": ("3", "15"), "middle": ("0.8", "4"), "small": ("0.1", "0.4")}[model]
        price = custom_price(
            CustomModel(provider="engine", model=model, usd_per_mtok={"input": usd[0], "output": usd[1]})
        )
        import msgspec

        yield "price", index, msgspec.json.encode(with_price_id(price, "custom")).decode()
    yield "accounts", 1, ""


def _charges(count: int, since: int) -> Any:
    chance = random.Random(4)
    step = MONTH_NS // count
    for number in range(count):
        placed_at = since + number * step + chance.randrange(step)
        who = chance.randrange(KEYS)
        which = chance.choices((0, 1, 2), (3, 2, 5))[0]
        _, input_rate, output_rate = MODELS[which]
        read, written = chance.randrange(200, 6_000), chance.randrange(20, 1_500)
        cost = round((read * input_rate + written * output_rate) / 1_000_000)
        identifier = (placed_at // 1_000_000).to_bytes(6, "big") + number.to_bytes(10, "big")
        yield ChargeRow(
            identifier, identifier, 1, who * len(MODELS) + which, which, which, 1, "settled", "metered",
            cost * 3, cost, read, 0, 0, 0, 0, written, 0, 0, placed_at, None,
            placed_at + chance.randrange(200_000_000, 20_000_000_000), 2 * number, 2 * number + 1, 200, None, None,
        )  # fmt: skip
