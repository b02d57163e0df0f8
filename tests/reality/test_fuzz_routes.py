"""F4: over methods, paths and bodies there is no answer of success that is not in the books."""

import asyncio
import json
import random
from pathlib import Path

from outlay.flow.ledger.reader import LedgerReader
from outlay.wire.routes import BARE_PREFIXES, ROUTES, Metering, find_route
from tests.harness import SECRET
from tests.reality.doors import house

SEED = 20261124
TRIES = 3000
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
PIECES = (
    "v1", "v2", "v1beta", "openai", "deployments", "chat", "completions", "responses", "messages", "batches", "files",
    "images", "generations", "edits", "variations", "audio", "speech", "transcriptions", "models", "embeddings",
    "fine_tuning", "jobs", "moderations", "realtime", "rerank", "model", "converse", "invoke", "assistants", "threads",
    "vector_stores", "uploads", "containers", "gpt-test", "claude-test", "gemini-test:generateContent", "..", ".", "",
    "%2e%2e", "gpt-test:streamGenerateContent", "_mock", "meter", "organization", "usage", "evals", "skills",
)  # fmt: skip
BODIES = (
    {"model": "gpt-test", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    {"model": "gpt-test", "input": "x"},
    {"model": "claude-test", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
    {"model": "dall-e-test", "prompt": "x"},
    {"model": "tts-test", "input": "x", "voice": "alloy"},
    {"model": "rerank-test", "query": "x", "documents": ["a"]},
    {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
    {"requests": []},
    {},
)


FITTING = {
    "/v1/chat/completions": 0,
    "/v1/responses": 1,
    "/v1/messages": 2,
    ":generateContent": 3,
    ":streamGenerateContent": 3,
    "/v1/images/generations": 4,
    "/v1/audio/speech": 5,
    "rerank": 6,
    "/converse": 7,
}
"""End of a path -> the body that it takes."""


def bodies(dice: random.Random, path: str) -> bytes:
    """Mostly the body that fits, else any."""
    fitting = [at for end, at in FITTING.items() if path.partition("?")[0].endswith(end)]
    at = fitting[0] if fitting and dice.random() < 0.7 else dice.randrange(len(BODIES))
    return json.dumps(BODIES[at]).encode()


def paths(dice: random.Random) -> str:
    """A route, a route bent a little, or pieces of routes in any order."""
    route = dice.choice(ROUTES).path
    filled = route.replace(
        "{model}", dice.choice(("gpt-test", "gemini-test", "bedrock.claude-test-v1:0"))
    ).replace("{id}", "x1")
    match dice.randrange(6):
        case 0:
            return filled
        case 1:
            return dice.choice(BARE_PREFIXES) + filled.removeprefix("/v1")
        case 2:
            at = dice.randrange(len(filled) + 1)
            return (
                filled[:at]
                + dice.choice(("/", "//", "%2f", "?", ";", "A", "/../", "\\", "%00", "#"))
                + filled[at:]
            )
        case 3:
            return filled.upper() if dice.random() < 0.5 else filled + "/"
        case 4:
            return (
                filled
                + "?"
                + dice.choice(("alt=sse", "key=x", "model=gpt-test", "stream=true", "api-version=1"))
            )
        case _:
            return "/" + "/".join(dice.choice(PIECES) for _ in range(dice.randrange(1, 5)))


async def ask(port: int, method: str, path: str, body: bytes) -> int:
    """Status of one raw request; 0 if the connection was closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\nconnection: close\r\n"
        )
        head += "anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode("latin-1") + body)
        line = await asyncio.wait_for(reader.readline(), 20)
        await asyncio.wait_for(reader.read(-1), 20)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


def test_no_unmetered_success(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with house(tmp_path, keep_calls=TRIES) as (mock, gateway):
        mock.behave(output_tokens=3)
        port = int(gateway.url.rpartition(":")[2])
        asked = [
            (dice.choice(METHODS if dice.random() < 0.4 else ("POST",)), path, bodies(dice, path))
            for path in (paths(dice) for _ in range(TRIES))
        ]

        async def all_of_them() -> list[int]:
            gate = asyncio.Semaphore(50)

            async def one(method: str, path: str, body: bytes) -> int:
                async with gate:
                    return await ask(port, method, path, body)

            return list(await asyncio.gather(*(one(*request) for request in asked)))

        statuses = asyncio.run(all_of_them())
        mock.wait_for(0)
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            booked = reader.charges(10_000)
        successes = [
            (method, path)
            for (method, path, _), status in zip(asked, statuses, strict=True)
            if 200 <= status < 300 and not _is_own(method, path)
        ]
        # each success is one charge, and each call that reached the provider is one charge, errors included
        assert len(successes) == sum(1 for charge in booked if 200 <= (charge.http_status or 0) < 300)
        assert len(mock.calls) == sum(1 for charge in booked if charge.http_status is not None) == len(booked)
        # Gemini's embeddings and speech by tokens state no usage: what is booked is no less than what was billed
        silent = [charge for charge in booked if charge.basis in ("counted", "outcome_unknown")]
        assert {charge.operation for charge in silent} <= {"embed_content", "speech"}
        metered = sum(charge.cost_nanos for charge in booked if charge.basis == "metered")
        unsaid = {"req_" + charge.request_id for charge in silent}
        billed = sum(entry.cost_nanos for entry in mock.meter.entries if entry.outlay_request_id in unsaid)
        assert metered == mock.meter.total_nanos - billed
        assert sum(charge.cost_nanos for charge in silent) >= billed
        assert len(successes) > 100
        assert len({charge.operation for charge in booked if charge.cost_nanos}) > 8


def _is_own(method: str, path: str) -> bool:
    """Whether the gateway answers this itself."""
    found = find_route(method, path)
    return method == "GET" and found is not None and found.route.metering is Metering.LOCAL
