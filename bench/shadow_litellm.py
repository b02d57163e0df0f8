"""Outlay in shadow in front of a real LiteLLM proxy: `python -m bench.shadow_litellm --calls 10000`.

Clients call Outlay, Outlay passes each call to LiteLLM with the client's own key, LiteLLM calls the mock provider.
Each call's charge in Outlay's ledger is set against the cost that LiteLLM states in its answer, by model and feature.
Loopback only; ends what it started. LiteLLM runs from wheels in an environment of its own, made once (`--venv`).
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.harness import RunningGateway, budget, key

from outlay.flow.gateway.snapshot import ClientAuth, Mode, Provider, Settings
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import load_feed
from outlay.testing import MockProvider, free_port
from outlay.wire.intent import Dialect, Operation

KEY = "sk-litellm-master"
LITELLM = "1.110.2"
WHEELS = (
    f"litellm=={LITELLM}",
    *(
        "litellm-proxy-extras",
        "litellm-enterprise",
        "gunicorn<24",
        "uvicorn<1",
        "granian<3",
        "uvloop",
        "fastapi<1",
    ),
    *(
        "starlette<2",
        "backoff",
        "pyyaml",
        "rq<3",
        "orjson",
        "apscheduler<4",
        "fastapi-sso",
        "pyjwt",
        "soundfile",
    ),
    *("python-multipart", "cryptography", "pynacl", "websockets<16", "mcp<3", "httpx2", "rich", "inquirerpy"),
    *("tomlkit", "restrictedpython", "expression", "backports-zstd", "semver", "boto3", "azure-identity"),
    *("azure-storage-blob", "polars", "hiredis"),
)
"""What `litellm[proxy]` asks for, by name: the extra itself names a package that is only its user interface."""
VENV = Path.home() / ".cache" / "outlay-bench" / f"litellm-{LITELLM}"
OPENAI_MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-5-mini", "o4-mini", "gpt-5.4", "text-embedding-3-small")
CLAUDE_MODELS = ("claude-haiku-4-5", "claude-sonnet-4-5")
START_S = 60
WORKERS = 16
PAGE = 5000


class Case(NamedTuple):
    """One kind of call."""

    model: str
    feature: str
    path: str
    body: dict[str, Any]
    knobs: str = ""
    """Directive to the mock, carried in `user` or `metadata.user_id`."""


class Seen(NamedTuple):
    """One answer."""

    case: Case
    request_id: str
    status: int
    litellm: Decimal | None


def cases() -> list[Case]:
    """The mix, one of each."""
    found: list[Case] = []
    hello = [{"role": "user", "content": "hello there"}]
    for model in OPENAI_MODELS[:5]:
        is_reasoning = model[0] == "o" or model.startswith("gpt-5")

        def add(feature: str, knobs: str = "", model: str = model, **body: Any) -> None:
            full = {"model": model, "messages": hello, **body}
            found.append(Case(model, feature, "/v1/chat/completions", full, knobs))

        add("plain")
        add("stream", stream=True, stream_options={"include_usage": True})
        add("cached", "input_tokens=5000;cached_tokens=4000")
        add(
            "cached stream",
            "input_tokens=5000;cached_tokens=4000",
            stream=True,
            stream_options={"include_usage": True},
        )
        add("error 400", "status=400")
        add("priority tier", service_tier="priority")
        if is_reasoning:
            add("reasoning", "output_tokens=900;reasoning_tokens=700")
            add("flex tier", service_tier="flex")
        if model == "gpt-5.4":
            add("above 272k", "input_tokens=300000;cached_tokens=100000")
            add("above 272k, priority", "input_tokens=300000", service_tier="priority")
    found.append(
        Case(
            "text-embedding-3-small",
            "embedding",
            "/v1/embeddings",
            {"model": "text-embedding-3-small", "input": ["hello there", "and again"]},
        )
    )
    for model in CLAUDE_MODELS:
        for path, api in (("/v1/chat/completions", "chat"), ("/v1/messages", "messages")):
            for feature, knobs in (
                ("plain", ""),
                ("stream", ""),
                ("cached", "input_tokens=6000;cached_tokens=4000"),
                ("cache write", "input_tokens=6000;cached_tokens=1000;cache_write_tokens=3000"),
                (
                    "cache write 1 h",
                    "input_tokens=6000;cache_write_tokens=3000;cache_write_long_tokens=2000",
                ),
                ("web search", "web_searches=2"),
                ("error 400", "status=400"),
                ("above 200k", "input_tokens=250000;cached_tokens=50000"),
            ):
                body: dict[str, Any] = {"model": model, "max_tokens": 200, "messages": hello}
                if feature == "stream":
                    body |= {"stream": True}
                    if api == "chat":
                        body |= {"stream_options": {"include_usage": True}}
                if feature == "web search" and api == "messages":
                    body["tools"] = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]
                elif feature == "web search":
                    continue
                found.append(Case(model, f"{api}: {feature}", path, body, knobs))
    return found


def environment(folder: Path, seconds: int = 600) -> Path:
    """LiteLLM's program, in an environment made on first use. Raises `subprocess.SubprocessError`."""
    program = folder / "bin" / "litellm"
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [str(folder / "bin" / "pip"), "install", "-q", "--only-binary=:all:", *WHEELS],
            check=True,
            timeout=seconds,
        )
    return program


@contextmanager
def proxy(program: Path, folder: Path, mock_url: str) -> Iterator[str]:
    """LiteLLM without a database, at its own prices."""
    models = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": mock_url + "/v1", "api_key": "k"},
        }
        for model in OPENAI_MODELS
    ] + [
        {
            "model_name": model,
            "litellm_params": {"model": f"anthropic/{model}", "api_base": mock_url, "api_key": "k"},
        }
        for model in CLAUDE_MODELS
    ]
    config = {
        "model_list": models,
        "litellm_settings": {"num_retries": 0, "telemetry": False, "include_cost_in_streaming_usage": True},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": KEY},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    with (folder / "litellm.log").open("wb") as log:
        child = subprocess.Popen(
            [str(program), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)],
            env={**_plain_environment(), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, child, folder / "litellm.log")
            yield url
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DATABASE_URL")}


def _wait(url: str, child: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        try:
            if httpx.get(url + "/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"LiteLLM did not start:\n{log.read_text()[-2000:]}")


async def drive(url: str, count: int) -> list[Seen]:
    """`count` calls over the mix, in turn."""
    mix = cases()
    queue = iter([mix[index % len(mix)] for index in range(count)])
    seen: list[Seen] = []

    async def work(client: httpx.AsyncClient) -> None:
        for case in queue:
            seen.append(await _call(client, url, case))

    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.gather(*[work(client) for _ in range(WORKERS)])
    return seen


async def _call(client: httpx.AsyncClient, url: str, case: Case) -> Seen:
    body = dict(case.body)
    if case.knobs and case.path == "/v1/messages":
        body["metadata"] = {"user_id": f"mock:{case.knobs}"}
    elif case.knobs:
        body["user"] = f"mock:{case.knobs}"
    headers = {"authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"}
    if not case.path.endswith("messages"):
        del headers["anthropic-version"]
    answer = await client.post(url + case.path, json=body, headers=headers)
    stated = answer.headers.get("x-litellm-response-cost")
    cost = Decimal(stated) if stated not in (None, "", "None") else None
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        cost = _streamed_cost(answer.text)
    return Seen(case, answer.headers.get("x-outlay-request-id", ""), answer.status_code, cost)


def _streamed_cost(text: str) -> Decimal | None:
    """`usage.cost` of the last chunk that has one."""
    found = None
    for line in text.splitlines():
        if line.startswith("data: {"):
            usage = json.loads(line[6:]).get("usage") or {}
            found = usage.get("cost", found)
    return None if found is None else Decimal(str(found))


class Row(NamedTuple):
    """What the two said of one kind of call."""

    outlay: Counter[int]
    litellm: Counter[str]
    statuses: Counter[int]
    bases: Counter[str]


def compare(seen: list[Seen], ledger: Path) -> dict[tuple[str, str], Row]:
    """By model and feature."""
    with LedgerReader(ledger) as reader:
        charges: dict[str, ChargeView] = {}
        page = reader.charges(PAGE)
        while page:
            charges.update((f"req_{charge.request_id}", charge) for charge in page)
            page = reader.charges(PAGE, before=bytes.fromhex(page[-1].id))
    rows: dict[tuple[str, str], Row] = defaultdict(lambda: Row(Counter(), Counter(), Counter(), Counter()))
    for one in seen:
        row = rows[one.case.model, one.case.feature]
        row.statuses[one.status] += 1
        row.litellm["none" if one.litellm is None else f"{one.litellm * 10**9:.1f}"] += 1
        charge = charges.get(one.request_id)
        row.outlay[-1 if charge is None else charge.cost_nanos] += 1
        row.bases["missing" if charge is None else charge.basis] += 1
    return dict(rows)


def main() -> int:
    """Run, print the table, and the totals of all three."""
    parser = argparse.ArgumentParser(prog="python -m bench.shadow_litellm", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--venv", type=Path, default=VENV)
    options = parser.parse_args()
    program = environment(options.venv)
    with (
        tempfile.TemporaryDirectory(prefix="outlay-shadow-") as name,
        MockProvider(models=(*OPENAI_MODELS, *CLAUDE_MODELS), keep_calls=1) as mock,
        proxy(program, Path(name), mock.url) as url,
    ):
        folder = Path(name)
        shared: dict[str, Any] = {"client_auth": ClientAuth.SAME}
        providers = (
            Provider(
                name="openai",
                dialect=Dialect.OPENAI,
                base_url=url + "/v1",
                models=OPENAI_MODELS,
                apis=(Operation.CHAT,),
                **shared,
            ),
            Provider(
                name="anthropic",
                dialect=Dialect.ANTHROPIC,
                base_url=url,
                models=CLAUDE_MODELS,
                # LiteLLM serves Claude on OpenAI's route, too: each client's call goes on as it is
                apis=(Operation.MESSAGES, Operation.CHAT),
                **shared,
            ),
        )
        with RunningGateway(
            folder / "l.db",
            "",
            [budget("all", "0.01")],
            settings=Settings(mode=Mode.SHADOW),
            keys=[key(secret=KEY)],
            price_book=PriceBook.build(load_feed(None)),
            upstreams=providers,
        ) as gateway:
            began = time.monotonic()
            seen = asyncio.run(drive(gateway.url, options.calls))
            seconds = time.monotonic() - began
            gateway.call(gateway.books.flush)
            rows = compare(seen, folder / "l.db")
        total = mock.meter.all
    _print(rows, len(seen), seconds)
    print(f"the mock billed {total.billed_requests} of {total.requests} requests:", end=" ")
    print(f"{total.input_tokens} input tokens, {total.output_tokens} output tokens")
    return 0


def _print(rows: dict[tuple[str, str], Row], count: int, seconds: float) -> None:
    print(
        f"{count} calls in {seconds:.0f} s, Outlay in shadow, LiteLLM {LITELLM}, Python {sys.version.split()[0]}"
    )
    print(f"{'model':24}{'feature':30}{'calls':>6}  {'Outlay USD/call':>16} {'LiteLLM USD/call':>17}  note")
    outlay_sum, litellm_sum, same = 0, Decimal(0), 0
    for (model, feature), row in sorted(rows.items()):
        calls = sum(row.statuses.values())
        ours, theirs = sorted(row.outlay), sorted(row.litellm)
        outlay_sum += sum(nanos * n for nanos, n in row.outlay.items() if nanos > 0)
        litellm_sum += sum(
            (Decimal(text) * n for text, n in row.litellm.items() if text != "none"), Decimal(0)
        )
        is_same = (
            len(ours) == len(theirs) == 1 and theirs[0] != "none" and abs(Decimal(theirs[0]) - ours[0]) < 1
        )
        same += calls if is_same else 0
        note = "" if is_same else "DIFFERS"
        if set(row.bases) != {"metered"}:
            note += f" {dict(row.bases)}"
        if set(row.statuses) != {200}:
            note += f" {dict(row.statuses)}"
        print(f"{model:24}{feature:30}{calls:>6}  {_usd(ours):>16} {_usd(theirs):>17}  {note}")
    print(
        f"{same} of {count} calls equal; Outlay ${Decimal(outlay_sum) / 10**9:.6f}, LiteLLM ${litellm_sum / 10**9:.6f}"
    )


def _usd(values: list[Any]) -> str:
    if len(values) > 1:
        return f"{len(values)} values"
    return "none" if values[0] in ("none", -1) else f"{Decimal(values[0]) / 10**9:.9f}"


if __name__ == "__main__":
    sys.exit(main())
