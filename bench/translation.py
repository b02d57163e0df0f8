"""What translation costs: microseconds a request, an answer and a text delta, by pair of dialects, in one process.

The baseline of the same run is what a pass-through call pays anyway: the reading of its request's money side.
"""

import json
import statistics
import time
from collections.abc import Callable

from bench.measures import Effort, Table
from outlay.flow.gateway.dialects import PARSERS, parse_generated
from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import open_translation, translate_answer, translate_request

CHAT, RESPONSES = Operation.CHAT, Operation.RESPONSES
MESSAGES, GENERATE = Operation.MESSAGES, Operation.GENERATE
DIALECTS = (CHAT, RESPONSES, MESSAGES, GENERATE)
TURNS = 10
DELTAS = 200
_TOOL = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file of the project.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


def table(effort: Effort) -> Table:
    """See the module."""
    found = Table("translation: microseconds, by client -> provider")
    for client in DIALECTS:
        for upstream in DIALECTS:
            if client is upstream:
                continue
            request = _request(client)
            answer, stream = _answer(upstream), _stream(upstream)
            row = found.rows.setdefault(f"{client.value} -> {upstream.value}", {})
            parse = _parser(client)
            row["parse (pass-through)"] = _microseconds(effort, lambda p=parse, r=request: p(r))  # type: ignore[misc]
            row["request"] = _microseconds(
                effort, lambda c=client, u=upstream, r=request: _translated(c, u, r)
            )  # type: ignore[misc]
            row["answer"] = _microseconds(
                effort,
                lambda c=client, u=upstream, a=answer: translate_answer(c, u, a, model="m"),  # type: ignore[misc]
            )
            row["text delta"] = (
                _microseconds(effort, lambda c=client, u=upstream, s=stream: _streamed(c, u, s)) / DELTAS  # type: ignore[misc]
            )
    found.notes.append(
        f"a request: system prompt, a tool, {TURNS} turns with a tool call each; a stream: {DELTAS} deltas"
    )
    return found


def _microseconds(effort: Effort, once: Callable[[], object]) -> float:
    """Median over rounds of the mean time of one call."""
    once()
    rounds = []
    for _ in range(max(3, effort.rounds)):
        count, start = 0, time.perf_counter_ns()
        limit = start + int(effort.seconds * 30_000_000)
        while time.perf_counter_ns() < limit:
            once()
            count += 1
        rounds.append((time.perf_counter_ns() - start) / count / 1000)
    return statistics.median(rounds)


def _translated(client: Operation, upstream: Operation, body: bytes) -> bytes:
    made = translate_request(client, upstream, body, model="m", stream=False, max_output_tokens=500)
    if isinstance(made, Rejection):
        raise SystemExit(f"bench: {client.value} -> {upstream.value} is refused: {made.message}")
    return made.body


def _streamed(client: Operation, upstream: Operation, events: list[bytes]) -> None:
    translation = open_translation(client, upstream, model="m", include_usage=True)
    for event in events:
        translation.feed(event)
    translation.end()


def _parser(client: Operation) -> Callable[[bytes], object]:
    if client is GENERATE:
        return lambda body: parse_generated(body, "m", False)
    return PARSERS[client]


def _request(client: Operation) -> bytes:
    messages: list[dict[str, object]] = [{"role": "system", "content": "You are a careful engineer."}]
    for turn in range(TURNS):
        call = {
            "id": f"call_{turn}",
            "type": "function",
            "function": {"name": "read_file", "arguments": '{"path":"a"}'},
        }
        messages += [
            {"role": "user", "content": "What does this file say? " * 4},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": "line\n" * 20},
        ]
    chat = json.dumps({"model": "m", "messages": messages, "tools": [_TOOL], "max_tokens": 500}).encode()
    return chat if client is CHAT else _translated(CHAT, client, chat)


def _answer(upstream: Operation) -> bytes:
    chat = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 200}}
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300},
    }
    body = json.dumps(chat).encode()
    made = body if upstream is CHAT else translate_answer(upstream, CHAT, body, model="m")
    if made is None:
        raise SystemExit(f"bench: no answer of {upstream.value}")
    return made


def _stream(upstream: Operation) -> list[bytes]:
    """Events of a stream, one piece each, in the provider's dialect."""
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[%s],"usage":%s}'
    rows = [head % ('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}', "null")]
    rows += [head % ('{"index":0,"delta":{"content":"word "},"finish_reason":null}', "null")] * DELTAS
    rows.append(head % ('{"index":0,"delta":{},"finish_reason":"stop"}', "null"))
    rows.append(head % ("", '{"prompt_tokens":100,"completion_tokens":200,"total_tokens":300}'))
    events = [f"data: {row}\n\n".encode() for row in [*rows, "[DONE]"]]
    if upstream is CHAT:
        return events
    translation = open_translation(upstream, CHAT, model="m", include_usage=True)
    made = [translation.feed(event) for event in events] + [translation.end()]
    return [event for event in made if event]
