"""Who works in the demo, on what: sizes and arrivals after published statistics of production traces. Deterministic.

Sizes: medians of the Azure LLM inference traces of 2023 as published in Patel et al., "Splitwise: Efficient
Generative LLM Inference Using Phase Splitting" (ISCA 2024), section III: conversation 1020 prompt and 129 output
tokens, coding 1500 and 13; spread as lognormal. Arrivals: bursts, as the same section describes them, by a gamma
process with a coefficient of variation of 2.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

SEED = 20261123
CONVERSATION = (1020, 0.8, 129, 0.7)
CODING = (1500, 0.6, 13, 0.9)
"""Median and sigma of prompt tokens, then of output tokens."""
BURSTINESS = 0.25
"""Shape of the gamma process: 1 / CV**2."""
MAX_PROMPT_TOKENS = 8_000
MAX_OUTPUT_TOKENS = 900

PRICES: dict[str, dict[str, str]] = {
    "gpt-4o": {"input": "2.5", "output": "10", "cache_read": "1.25"},
    "gpt-4o-mini": {"input": "0.15", "output": "0.6", "cache_read": "0.075"},
    "claude-sonnet-4-5": {
        "input": "3",
        "output": "15",
        "cache_read": "0.3",
        "cache_write": "3.75",
        "cache_write_1h": "6",
    },
    "claude-haiku-4-5": {
        "input": "1",
        "output": "5",
        "cache_read": "0.1",
        "cache_write": "1.25",
        "cache_write_1h": "2",
    },
}
"""USD per 1M tokens, fixed here and in the mock's meter, so that a changed price list does not change the demo."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A team's agent: what it calls and how often."""

    team: str
    agent: str
    model: str
    sizes: tuple[int, float, int, float]
    per_second: float
    streams: float
    """Share of streaming calls."""


WORKERS = (
    Worker("search", "ranker", "gpt-4o-mini", CONVERSATION, 9, 0.2),
    Worker("search", "summariser", "gpt-4o", CONVERSATION, 4, 0.8),
    Worker("support", "helpdesk", "claude-haiku-4-5", CONVERSATION, 7, 1.0),
    Worker("support", "escalation", "claude-sonnet-4-5", CONVERSATION, 3, 1.0),
    Worker("research", "crawler", "gpt-4o", CONVERSATION, 3, 0.0),
    Worker("research", "reader", "claude-sonnet-4-5", CONVERSATION, 2, 0.5),
    Worker("platform", "completion", "gpt-4o-mini", CODING, 10, 1.0),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One call to make at `at_s` seconds. `quirk` is what goes wrong: leave, error, throttle or nothing."""

    at_s: float
    worker: Worker
    body: bytes
    path: str
    headers: dict[str, str]
    quirk: str


def jobs(worker: Worker, seconds: int, seed: int) -> Iterator[Job]:
    """A worker's calls in order of time."""
    rng = random.Random(f"{seed}/{worker.agent}")
    at = rng.random()
    scale = 1 / (worker.per_second * BURSTINESS)
    while at < seconds:
        yield _job(at, worker, rng)
        at += rng.gammavariate(BURSTINESS, scale)


def _job(at: float, worker: Worker, rng: random.Random) -> Job:
    median_in, sigma_in, median_out, sigma_out = worker.sizes
    prompt = min(MAX_PROMPT_TOKENS, max(8, round(rng.lognormvariate(0, sigma_in) * median_in)))
    output = min(MAX_OUTPUT_TOKENS, max(2, round(rng.lognormvariate(0, sigma_out) * median_out)))
    is_stream = rng.random() < worker.streams
    quirk = rng.choices(("", "leave", "error", "throttle"), (94, 3, 1.5, 1.5))[0]
    headers = {"x-outlay-agent": worker.agent, "x-mock-output-tokens": str(output)}
    if quirk == "error":
        headers["x-mock-status"] = "500"
    elif quirk == "throttle":
        headers.update({"x-mock-status": "429", "x-mock-retry-after": "1"})
    elif quirk == "leave" and not is_stream:
        quirk = ""
    # about four bytes a token, as the mock counts them
    text = "lorem ipsum dolor sit amet " * (prompt * 4 // 27 + 1)
    limit = {"max_tokens": 1024} if worker.model.startswith("claude") or rng.random() < 0.7 else {}
    body = json.dumps(
        {
            "model": worker.model,
            "messages": [{"role": "user", "content": text[: prompt * 4]}],
            "stream": is_stream,
            **limit,
        }
    ).encode()
    return Job(at, worker, body, *address_of(worker.model, headers), quirk)


def address_of(model: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Path and headers of the model's dialect."""
    if model.startswith("claude"):
        return "/v1/messages", {**headers, "anthropic-version": "2023-06-01"}
    return "/v1/chat/completions", headers
