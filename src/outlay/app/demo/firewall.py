"""Run (a): teams, agents and one runaway, through the real gateway process, against the mock provider's own meter."""

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlay.app.demo.http import Answer, Caller
from outlay.app.demo.main import InvariantBroken
from outlay.app.demo.screen import Screen
from outlay.app.demo.workload import PRICES, SEED, WORKERS, Job, Worker, address_of, jobs
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.clock import SystemClock
from outlay.kernel.money import format_usd, usd_to_nanos
from outlay.testing import ChildProcess

MAX_AT_ONCE = 64
RUNAWAY_STEPS = 200
RUNAWAY_RUN = "nightly-refactor-17"
LATENCY_CALLS = 500
SETTLE_S = 15
CONFIG = """
version: 1
org: acme
gateway: {{host: 127.0.0.1, port: 0, disclose: all, default_max_output_tokens: 1024, wait_s: 2}}
providers:
  - {{name: openai, base_url: "{url}/v1", api_key: mock, send_request_id: true}}
  - {{name: anthropic, base_url: "{url}", api_key: mock, send_request_id: true}}
keys:
{keys}
budgets:
  - {{name: company, scope: {{org: acme}}, limit_usd: 40, window: month}}
  - {{name: team-search, scope: {{team: search}}, limit_usd: 12, window: month}}
  - {{name: team-support, scope: {{team: support}}, limit_usd: {support}, window: month}}
  - {{name: team-research, scope: {{team: research}}, limit_usd: 10, window: month}}
  - {{name: team-platform, scope: {{team: platform}}, limit_usd: 5, window: month}}
  - {{name: each-run, scope: {{run: "*"}}, limit_usd: 0.50, window: lifetime}}
  - {{name: crawler-minute, scope: {{agent: crawler}}, limit_usd: 0.06, window: 60s}}
prices:
{prices}
"""


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    calls: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(code, budget) -> times."""
    sentence: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.calls += 1
        self.by_status[answer.status] += 1
        error = answer.error or {}
        if answer.status in (402, 429) and "budget" in error:
            key = (str(error["code"]), str(error["budget"]))
            self.refused[key] += 1
            self.sentence.setdefault(key, str(error["message"]))


def run_firewall(folder: Path, seconds: int, screen: Screen) -> dict[str, Any]:
    """Run it; returns the figures. Raises InvariantBroken."""
    screen.heading(
        f"(a) the firewall: {len(WORKERS)} agents of four teams and one runaway, {seconds} s, mock provider"
    )
    mock_config = json.dumps({"prices": {model: _mock_rates(rates) for model, rates in PRICES.items()}})
    with ChildProcess([sys.executable, "-m", "outlay.testing.mock", "--json-config", mock_config]) as mock:
        url = mock.wait_for_json()["url"]
        config = folder / "outlay.yaml"
        config.write_text(_config(url, seconds))
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
            started = gateway.wait_for_json()
            if started.get("event") != "listening":
                raise InvariantBroken(f"the gateway did not start: {started}")
            through = f"http://127.0.0.1:{started['port']}"
            tally = asyncio.run(_work(through, seconds, screen))
            runaway = asyncio.run(_run_away(through, screen))
            with ChildProcess(
                [sys.executable, "-m", "outlay.testing.mock", "--json-config", mock_config]
            ) as other:
                # the direct calls go to a mock of their own: the first one's meter is the ledger's counterpart
                direct = other.wait_for_json()["url"]
                added = asyncio.run(_added_latency(through, direct, screen))
            _wait_until_settled(folder / "outlay.db")
            meter = _meter(url)
            gateway.end()
    return _report(folder / "outlay.db", meter, tally, runaway, added, screen)


def _config(url: str, seconds: int) -> str:
    keys = "\n".join(
        f"  - {{name: {team}, secret: {_secret(team)}, team: {team}}}"
        for team in sorted({worker.team for worker in WORKERS})
    )
    prices = "\n".join(
        f"  - {{kind: custom, provider: {'anthropic' if model.startswith('claude') else 'openai'}, model: {model},"
        f" usd_per_mtok: {json.dumps(rates)}}}"
        for model, rates in PRICES.items()
    )
    # support runs out two thirds of the way, whatever the length of the run
    return CONFIG.format(url=url, keys=keys, prices=prices, support=f"{0.0205 * seconds:.2f}")


def _secret(team: str) -> str:
    return f"sk-outlay-demo-key-of-{team}"


def _mock_rates(rates: dict[str, str]) -> dict[str, int]:
    names = {"cache_read": "cached", "cache_write_1h": "cache_write_long"}
    return {names.get(name, name): usd_to_nanos(usd) for name, usd in rates.items()}


# -- the work -------------------------------------------------------------------------------------------------------


async def _work(url: str, seconds: int, screen: Screen) -> Tally:
    tally = Tally()
    gate = asyncio.Semaphore(MAX_AT_ONCE)
    idle: list[Caller] = []
    began = time.monotonic()

    async def one(job: Job) -> None:
        async with gate:
            caller = idle.pop() if idle else Caller(url)
            leave = 300 if job.quirk == "leave" else None
            headers = {**job.headers, "authorization": f"Bearer {_secret(job.worker.team)}"}
            answer = await caller.post(job.path, job.body, headers, leave_after_bytes=leave)
            tally.add(answer)
            idle.append(caller)

    async def worker_life(worker: Worker) -> None:
        tasks = []
        for job in jobs(worker, seconds, SEED):
            await asyncio.sleep(max(0, began + job.at_s - time.monotonic()))
            tasks.append(asyncio.create_task(one(job)))
        await asyncio.gather(*tasks)

    async def show() -> None:
        while True:
            await asyncio.sleep(0.5)
            passed = time.monotonic() - began
            text = (
                f"  {min(passed, seconds):4.0f} s  {tally.calls} calls, {sum(tally.refused.values())} refused"
            )
            screen.progress(text, is_milestone=round(passed * 2) % 10 == 0)

    shower = asyncio.create_task(show())
    await asyncio.gather(*(worker_life(worker) for worker in WORKERS))
    shower.cancel()
    for caller in idle:
        caller.close()
    return tally


async def _run_away(url: str, screen: Screen) -> dict[str, Any]:
    """An agent that sends its whole, growing context again with every step, until its run's budget stops it."""
    caller = Caller(url)
    path, headers = address_of("gpt-4o", {"x-outlay-agent": "refactorer", "x-outlay-run": RUNAWAY_RUN})
    headers["authorization"] = f"Bearer {_secret('platform')}"
    context, steps = "plan the change. ", 0
    answer = Answer(200)
    planned = 0
    for step in range(RUNAWAY_STEPS):
        context += "read the next file and try again. " * 60
        planned += (len(context) // 4 + 3) * 2_500 + 80 * 10_000
        if answer.status != 200:
            continue
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": context}], "max_tokens": 200}
        answer = await caller.post(path, json.dumps(body).encode(), headers)
        steps = step + (answer.status == 200)
        screen.progress(f"  runaway agent: step {steps}")
    caller.close()
    return {"steps": steps, "planned_steps": RUNAWAY_STEPS, "planned_nanos": planned, "error": answer.error}


async def _added_latency(url: str, direct: str, screen: Screen) -> dict[str, float]:
    """The same call through the gateway and straight to the mock, in turns; milliseconds."""
    screen.progress("  measuring added latency", is_milestone=True)
    body = json.dumps(
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    ).encode()
    headers = {"authorization": f"Bearer {_secret('platform')}", "x-mock-output-tokens": "8"}
    took: dict[str, list[float]] = {url: [], direct: []}
    callers = {address: Caller(address) for address in took}
    for call in range(LATENCY_CALLS + 50):
        for address, caller in callers.items():
            before = time.perf_counter()
            answer = await caller.post("/v1/chat/completions", body, headers)
            if answer.status != 200:
                raise InvariantBroken(f"a call with money enough was refused: {answer.error}")
            if call >= 50:
                took[address].append((time.perf_counter() - before) * 1000)
    for caller in callers.values():
        caller.close()
    ranks = {address: statistics.quantiles(values, n=100) for address, values in took.items()}
    return {
        "p50_ms": round(ranks[url][49] - ranks[direct][49], 3),
        "p99_ms": round(ranks[url][98] - ranks[direct][98], 3),
        "direct_p50_ms": round(ranks[direct][49], 3),
    }


# -- the proof ------------------------------------------------------------------------------------------------------


def _wait_until_settled(ledger: Path) -> None:
    until = time.monotonic() + SETTLE_S
    while True:
        with LedgerReader(ledger) as reader:
            if not reader.totals()["open_holds"]:
                return
        if time.monotonic() > until:
            raise InvariantBroken(f"money is still held {SETTLE_S} s after the last call")
        time.sleep(0.1)


def _meter(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url + "/_mock/meter", timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _report(  # noqa: PLR0917 - everything the run came to
    ledger: Path,
    meter: dict[str, Any],
    tally: Tally,
    runaway: dict[str, Any],
    added: dict[str, float],
    screen: Screen,
) -> dict[str, Any]:
    found = audit(ledger)
    with LedgerReader(ledger) as reader:
        by_team = reader.spend(["team"])
        by_model = reader.spend(["model"])
        accounts = reader.accounts(SystemClock().now())
        run = reader.spend(["run"])
    statuses = tally.by_status
    screen.line(
        f"  {tally.calls:,} calls: {statuses[200]:,} answered, {statuses[402] + statuses[429]} refused or throttled,"
        f" {statuses[500]} failed at the provider, {statuses[0]} left in mid-stream"
    )
    for name, rows in (("team", by_team), ("model", by_model)):
        screen.heading(f"spend by {name}")
        screen.table(
            (name, "calls", "input tokens", "output tokens", "USD"),
            [
                (
                    row.group[name],
                    f"{row.charges:,}",
                    f"{row.input_tokens:,}",
                    f"{row.output_tokens:,}",
                    format_usd(row.cost_nanos, 6),
                )
                for row in rows
            ],
        )
    screen.heading("who was refused, and why")
    for key, count in tally.refused.most_common():
        screen.line(f"  {count:4} x {key[0]} by {key[1]}")
        screen.line(f"         {tally.sentence[key]}")
    screen.heading("the runaway agent")
    spent = next(row.cost_nanos for row in run if row.group["run"] == RUNAWAY_RUN)
    screen.line(
        f"  stopped after {runaway['steps']} of {runaway['planned_steps']} steps at ${format_usd(spent, 4)};"
        f" unstopped it would have cost ${format_usd(runaway['planned_nanos'], 2)}"
    )
    screen.line(f"  {(runaway['error'] or {}).get('message', '')}")
    over = max(
        [0, *(view.spent_nanos - view.limit_nanos for view in accounts if view.limit_nanos is not None)]
    )
    screen.heading("the proof")
    screen.line(f"  overspend        ${format_usd(over)}")
    screen.line(f"  ledger           ${format_usd(found.spend_nanos)}  in {found.charges:,} charges")
    difference = abs(found.spend_nanos - meter["total_nanos"])
    screen.line(
        f"  provider's meter ${format_usd(meter['total_nanos'])}  difference ${format_usd(difference)}"
    )
    screen.line(f"  open holds       {found.open_holds}")
    screen.line(
        f"  added latency    p50 {added['p50_ms']} ms, p99 {added['p99_ms']} ms (this machine, both processes busy)"
    )
    _check(found, meter, over, tally, runaway)
    return {
        "calls": tally.calls,
        "by_status": dict(tally.by_status),
        "spend_nanos": found.spend_nanos,
        "meter_nanos": meter["total_nanos"],
        "overspend_nanos": over,
        "open_holds": found.open_holds,
        "charges": found.charges,
        "by_team": {row.group["team"]: row.cost_nanos for row in by_team},
        "by_model": {row.group["model"]: row.cost_nanos for row in by_model},
        "refused": {f"{code} {budget}": count for (code, budget), count in tally.refused.items()},
        "runaway": {
            "steps": runaway["steps"],
            "spent_nanos": spent,
            "unstopped_nanos": runaway["planned_nanos"],
        },
        "added_latency": added,
    }


def _check(found: Audit, meter: dict[str, Any], over: int, tally: Tally, runaway: dict[str, Any]) -> None:
    error = runaway["error"] or {}
    for holds, what in (
        (not found.findings, f"the audit of the ledger found: {'; '.join(found.findings[:3])}"),
        (found.most_over_limit_nanos <= 0, "a hold was admitted past a limit"),
        (over == 0, f"a budget is ${format_usd(over)} past its limit"),
        (found.open_holds == 0, f"{found.open_holds} holds are open"),
        (
            found.spend_nanos == meter["total_nanos"],
            f"the ledger says {found.spend_nanos} nanos, the provider's meter {meter['total_nanos']}",
        ),
        (runaway["steps"] < runaway["planned_steps"], "the runaway agent was not stopped"),
        (error.get("budget") == "each-run", f"the runaway agent was stopped by {error.get('budget')}"),
        (bool(tally.refused), "nobody was refused"),
        (tally.by_status[200] > tally.calls // 2, "most calls were refused"),
        (not set(tally.by_status) - {0, 200, 402, 429, 500}, f"unexpected answers: {dict(tally.by_status)}"),
    ):
        if not holds:
            raise InvariantBroken(what)
