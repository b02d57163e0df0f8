"""Whole answers and streams between every two dialects, as the client's own SDK understands them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as google_errors
from tests.wire.translate.clients import read_stream, read_whole
from tests.wire.translate.upstreams import EXPECTED, Said, answer, stream

from outlay.wire.intent import Operation
from outlay.wire.translate import VendorError, open_translation, translate_answer
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, PAIRS, RESPONSES

CASES = [
    pytest.param(client, upstream, name, id=f"{name}: {client} from {upstream}")
    for client, upstream in PAIRS
    for name in EXPECTED
]
RECORDED = [
    path
    for path in sorted((Path(__file__).parents[2] / "recorded").glob("*.sse"))
    if not path.name.startswith(("images", "speech", "transcript", "openai_responses_stream"))
]
REFUSED = Said(refusal="I cannot help with that.", input=12, output=4)


def streamed(client: Operation, upstream: Operation, body: bytes, size: int = 10**6) -> bytes:
    translation = open_translation(client, upstream, model="asked", include_usage=True)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(translation.feed(chunk) for chunk in chunks) + translation.end()


@pytest.mark.parametrize(("client", "upstream", "name"), CASES)
def test_whole_answer(client: Operation, upstream: Operation, name: str) -> None:
    body = translate_answer(client, upstream, answer(upstream, EXPECTED[name]), model="asked")
    assert body is not None
    assert read_whole(client, body) == EXPECTED[name]


@pytest.mark.parametrize(("client", "upstream", "name"), CASES)
def test_stream(client: Operation, upstream: Operation, name: str) -> None:
    sent = stream(upstream, EXPECTED[name])
    whole = streamed(client, upstream, sent)
    assert read_stream(client, whole) == EXPECTED[name]
    assert streamed(client, upstream, sent, size=1) == whole
    assert streamed(client, upstream, sent, size=7) == whole


@pytest.mark.parametrize("client", [RESPONSES, MESSAGES, GENERATE])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_refusal_of_a_chat_model(client: Operation, is_streamed: bool) -> None:
    """Where a dialect has no field for it, its words are the text and the end says that it is a refusal."""
    if is_streamed:
        said = read_stream(client, streamed(client, CHAT, stream(CHAT, REFUSED)))
    else:
        body = translate_answer(client, CHAT, answer(CHAT, REFUSED), model="asked")
        assert body is not None
        said = read_whole(client, body)
    if client is RESPONSES:
        assert said == REFUSED
    else:
        assert said == replace(REFUSED, text=REFUSED.refusal, refusal="", stop="filter")


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_a_stream_that_breaks_off_does_not_look_whole(client: Operation, upstream: Operation) -> None:
    """Cut anywhere before the end mark, the client gets a prefix of the whole stream, without its end, and an error."""
    sent = stream(upstream, EXPECTED["tools"])
    whole = streamed(client, upstream, sent)
    ends = {
        CHAT: b'"finish_reason":"',
        RESPONSES: b"response.completed",
        MESSAGES: b"message_delta",
        GENERATE: b"finishReason",
    }
    end_mark = {
        CHAT: b"[DONE]",
        RESPONSES: b'"response.completed"',
        MESSAGES: b"message_stop",
        GENERATE: b"STOP",
    }
    limit = sent.rindex(end_mark[upstream])
    for cut in range(0, limit, 37):
        translation = open_translation(client, upstream, model="asked", include_usage=True)
        fed = translation.feed(sent[:cut])
        last = translation.end()
        assert whole.startswith(fed)
        assert ends[client] not in fed + last
        assert b"ended before its answer did" in last
        assert translation.end() == translation.fail(502, VendorError("again")) == b""


@pytest.mark.parametrize("upstream", [RESPONSES, MESSAGES, GENERATE])
def test_usage_chunk_only_if_asked(upstream: Operation) -> None:
    translation = open_translation(CHAT, upstream, model="asked", include_usage=False)
    out = translation.feed(stream(upstream, EXPECTED["plain"])) + translation.end()
    assert b"usage" not in out
    assert out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("upstream", [CHAT, RESPONSES, MESSAGES, GENERATE])
def test_unreadable_answers_are_none(upstream: Operation) -> None:
    client = MESSAGES if upstream is CHAT else CHAT
    for body in (b"", b"<html>", b"[]", b"{}", b'{"choices":[]}', b'{"status":"failed"}', b"\xff"):
        assert translate_answer(client, upstream, body, model="m") is None


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: str(path.name))
@pytest.mark.parametrize("client", [CHAT, RESPONSES, MESSAGES, GENERATE])
def test_recorded_streams(client: Operation, path: Path) -> None:
    """Line ends, comments, split data lines, continuous usage: each vendor's habits, read by each client's SDK."""
    upstream = MESSAGES if path.name.startswith("anthropic") else CHAT
    if path.name.startswith("gemini"):
        upstream = GENERATE
    elif "responses" in path.name:
        upstream = RESPONSES
    if client is upstream:
        return
    sent = path.read_bytes()
    out = streamed(client, upstream, sent)
    assert streamed(client, upstream, sent, size=1) == out
    if "error" in path.name or "failed" in path.name:
        with pytest.raises((openai.APIError, anthropic.APIError, google_errors.APIError)):
            read_stream(client, out)
        return
    said = read_stream(client, out)
    assert said.text or said.calls
    assert said.output > 0


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, 5),
        # xAI: reasoning is in the total only
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            35,
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            35,
        ),
    ],
)
def test_reasoning_outside_the_completion_is_output(usage: dict[str, Any], output: int) -> None:
    message = {"role": "assistant", "content": "Hi"}
    body = {"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    translated = translate_answer(MESSAGES, CHAT, json.dumps(body).encode(), model="asked")
    assert translated is not None
    assert read_whole(MESSAGES, translated).output == output


def test_cache_writes_are_input() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 2000,
    }
    content = [{"type": "text", "text": "Hi"}]
    body = {"id": "msg_a", "content": content, "stop_reason": "end_turn", "usage": usage}
    for client in (CHAT, RESPONSES, GENERATE):
        translated = translate_answer(client, MESSAGES, json.dumps(body).encode(), model="asked")
        assert translated is not None
        said = read_whole(client, translated)
        assert (said.input, said.cached, said.output) == (2310, 300, 5)


@pytest.mark.parametrize(
    "reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "MALFORMED_FUNCTION_CALL", "OTHER", "NEW_REASON"]
)
def test_answers_that_google_withheld_do_not_look_whole(reason: str) -> None:
    body = {
        "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": reason}],
        "responseId": "a",
    }
    translated = translate_answer(CHAT, GENERATE, json.dumps(body).encode(), model="asked")
    assert translated is not None
    assert json.loads(translated)["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("client", [CHAT, RESPONSES, MESSAGES])
def test_a_prompt_that_google_blocked_is_an_empty_filtered_answer(client: Operation) -> None:
    usage = {"promptTokenCount": 7, "totalTokenCount": 7}
    body = json.dumps(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage, "responseId": "a"}
    )
    translated = translate_answer(client, GENERATE, body.encode(), model="asked")
    assert translated is not None
    expected = Said(stop="filter", input=7)
    assert read_whole(client, translated) == expected
    assert read_stream(client, streamed(client, GENERATE, f"data: {body}\n\n".encode())) == expected


def test_arguments_that_are_no_json_are_not_lost() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    body = {"id": "a", "choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage}
    for client in (MESSAGES, GENERATE):
        translated = translate_answer(client, CHAT, json.dumps(body).encode(), model="asked")
        assert translated is not None
        assert read_whole(client, translated).calls == (("f", {"invalid_arguments": '{"a": '}),)


def test_servers_that_number_every_call_zero_or_repeat_names() -> None:
    def chunk(**call: Any) -> bytes:
        delta = {"tool_calls": [{"index": 0, **call}]}
        return (
            b"data: " + json.dumps({"id": "a", "choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
        )

    end = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1},
    }
    sent = (
        chunk(id="c1", function={"name": "f", "arguments": '{"a":'})
        + chunk(id="c1", function={"name": "f", "arguments": "1}"})
        + chunk(id="c2", function={"name": "f", "arguments": "{}"})
        + b"data: "
        + json.dumps(end).encode()
        + b"\n\ndata: [DONE]\n\n"
    )
    for client in (RESPONSES, MESSAGES, GENERATE):
        assert read_stream(client, streamed(client, CHAT, sent)).calls == (("f", {"a": 1}), ("f", {}))


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
def test_a_call_without_arguments_is_an_empty_object(client: Operation, upstream: Operation) -> None:
    said = replace(EXPECTED["tools"], text="", reasoning="", calls=(("now", {}),), thought=0)
    sent = stream(upstream, said)
    sent = sent.replace(b'"arguments": "{"', b'"arguments": ""').replace(
        b'"arguments": "}"', b'"arguments": ""'
    )
    sent = sent.replace(b'"partial_json": "{"', b'"partial_json": ""').replace(
        b'"partial_json": "}"', b'"partial_json": ""'
    )
    sent = sent.replace(b'"delta": "{"', b'"delta": ""').replace(b'"delta": "}"', b'"delta": ""')
    assert read_stream(client, streamed(client, upstream, sent)) == said
