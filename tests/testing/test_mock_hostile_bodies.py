"""Bodies of odd shapes: the mock answers each, never drops the connection, and never leaves a request open."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from outlay.testing import MockProvider

ODD = (None, True, 0, -1, 1.5, "", "odd", [], [None], ["odd"], [[]], {}, {"type": "odd"}, [{"type": 7}])
TOOL = {
    "name": "t",
    "description": "d",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
}
TEXT = [{"role": "user", "content": "use the tool"}]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "use the tool"}, {"type": "image", "source": {}}]}
]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "m",
        "messages": PARTS,
        "tools": [{"type": "function", "function": TOOL}],
        "tool_choice": {"type": "function", "function": {"name": "t"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "modalities": ["audio"],
        "metadata": {"mock": "output_tokens=2"},
    },
    "/v1/responses": {
        "model": "m",
        "input": PARTS,
        "tools": [{"type": "function", **TOOL}],
        "tool_choice": {"type": "function", "name": "t"},
        "text": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"},
    },
    "/v1/messages": {
        "model": "m",
        "max_tokens": 5,
        "messages": PARTS,
        "tools": [{"name": "t", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "t"},
        "system": [{"type": "text", "text": "x"}],
    },
    "/v1/embeddings": {"model": "m", "input": ["a", "b"], "dimensions": 4},
    "/v1/completions": {"model": "m", "prompt": ["a", [1, 2]], "n": 2},
    "/v1/images/generations": {"model": "gpt-image-1", "prompt": "x", "n": 1},
    "/v1/audio/speech": {"model": "tts-1", "input": "x", "voice": "alloy"},
    "/v1/moderations": {"input": ["x"]},
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]},
    "/v1beta/models/m:streamGenerateContent": {
        "contents": [
            {"role": "user", "parts": [{"text": "use the tool"}, {"inlineData": {"mimeType": "audio/x"}}]}
        ],
        "tools": [{"functionDeclarations": [TOOL]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["t"]}},
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 3}, "responseSchema": {"type": "OBJECT"}},
        "systemInstruction": {"parts": [{"text": "x"}]},
    },
    "/v1beta/models/m:batchEmbedContents": {"requests": [{"content": {"parts": [{"text": "x"}]}}]},
    "/model/m/converse": {
        "messages": [{"role": "user", "content": [{"text": "x"}, {"image": {}}]}],
        "system": [{"text": "x"}],
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}],
            "toolChoice": {"tool": {"name": "t"}},
        },
        "inferenceConfig": {"maxTokens": 5},
    },
    "/v1/messages/batches": {"requests": [{"custom_id": "a", "params": {"model": "m", "messages": TEXT}}]},
    "/v1/batches": {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h"},
    "/v1/fine_tuning/jobs": {"model": "m", "training_file": "f", "method": {"type": "supervised"}},
}
HEADERS = {
    "anthropic-version": "2023-06-01",
    "authorization": "Bearer any",
    "content-type": "application/json",
}


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(behaviour={"output_tokens": 6}) as running:
        yield running


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


def bent(body: dict[str, Any], path: tuple[Any, ...], odd: object) -> dict[str, Any]:
    """The body with one value replaced."""
    changed = copy.deepcopy(body)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = odd
    return changed


@pytest.mark.parametrize("path", BODIES)
def test_every_place_bent_to_every_odd_value_gets_an_answer(provider, raw, path):
    sent = 0
    for place in places(BODIES[path]):
        for odd in ODD:
            raw.send(bent(BODIES[path], place, odd), path=path, headers=HEADERS)
            reply = raw.read_answer()
            assert reply.status in (200, 400, 404), (place, odd, reply.body)
            sent += 1
    assert provider.meter.all.requests == sent
    assert provider.meter.open_requests == 0


@pytest.mark.parametrize(
    ("path", "events"),
    [
        ("/v1/responses", [{"type": "response.create", **BODIES["/v1/responses"]}]),
        (
            "/v1/realtime",
            [
                {
                    "type": "response.create",
                    "response": {
                        "instructions": "x",
                        "tools": [{"type": "function", **TOOL}],
                        "tool_choice": "auto",
                        "conversation": "none",
                        "input": [{"type": "message", "content": [{"type": "input_audio", "audio": "AAAA"}]}],
                    },
                },
                {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "x"}}}}},
                {
                    "type": "conversation.item.create",
                    "item": {"content": [{"type": "input_text", "text": "x"}]},
                },
            ],
        ),
    ],
)
def test_a_socket_outlives_odd_events(provider, path, events):
    """After each odd event an unknown one is sent: the answer to that shows that the socket still talks."""
    chooser = random.Random(7)
    with connect(f"ws://127.0.0.1:{provider.port}{path}?model=m") as socket:
        for event in events:
            for place in places(event):
                # all odd values at every place would be thousands of turns; each run of three is another mix
                for odd in chooser.sample(ODD, 3):
                    socket.send(json.dumps(bent(event, place, odd)))
                    socket.send(json.dumps({"type": "are-you-there"}))
                    while "are-you-there" not in socket.recv(timeout=10):
                        pass
    assert provider.meter.open_requests == 0
