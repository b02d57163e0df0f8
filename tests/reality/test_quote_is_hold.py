"""`outlay quote` and the request path are one function: for 100 generated requests the quote equals the hold."""

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec

from outlay.flow.gateway.quoting import Preview, preview
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget, key
from tests.reality.load import post

OPENAI, ANTHROPIC, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"


def generated(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A request of any shape: dialect, sizes, limits, choices, cache marks, tools."""
    path = rng.choice([OPENAI, OPENAI, ANTHROPIC, ANTHROPIC, EMBEDDINGS])
    text = "".join(rng.choice("abc äß漢🌊 \n") for _ in range(rng.randrange(1, 3000)))
    if path == EMBEDDINGS:
        return path, {"model": "embed-test", "input": rng.choice([text, [text, "b"]])}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "stream": rng.random() < 0.3}
    if rng.random() < 0.4:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        if path == OPENAI:
            body["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
        else:
            body["tools"] = [{"name": "weather", "input_schema": schema}]
    if path == OPENAI:
        body["model"] = "gpt-test"
        if rng.random() < 0.6:
            body[rng.choice(["max_tokens", "max_completion_tokens"])] = rng.randrange(1, 5000)
        if rng.random() < 0.3:
            body["n"] = rng.randrange(1, 4)
    else:
        body["model"] = "claude-test"
        body["max_tokens"] = rng.randrange(1, 5000)
        if rng.random() < 0.4:
            mark: dict[str, Any] = {"type": "ephemeral"}
            if rng.random() < 0.5:
                mark["ttl"] = "1h"
            body["system"] = [{"type": "text", "text": "be brief", "cache_control": mark}]
    return path, body


def test_a_hundred_generated_requests(tmp_path: Path) -> None:
    rng = random.Random(7)
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1000")]) as gateway,
    ):
        for _ in range(100):
            path, body = generated(rng)

            def quote(path: str = path, body: dict[str, Any] = body) -> Any:
                import json

                now = gateway.gateway.clock.now()
                return preview(gateway.snapshot, gateway.books, now, key(), path, json.dumps(body).encode())

            found = gateway.call(quote)
            assert isinstance(found, Preview), found
            reply = asyncio.run(post(gateway.url, body, path, headers={"anthropic-version": "2023-06-01"}))
            assert reply.status == 200, reply.body
            gateway.call(gateway.books.flush)
            with LedgerReader(gateway.path) as reader:
                charge = reader.charges(1)[0]
            assert charge.hold_nanos == found.quote.total_nanos
            assert charge.cost_nanos <= charge.hold_nanos
            assert charge.price_id == found.price_id
        assert msgspec.to_builtins(found)["passes"]
        with LedgerReader(gateway.path) as reader:
            assert reader.totals()["spend_nanos"] == mock.meter.total_nanos
