"""Whole answers and streams between every two dialects, as the client's own SDK understands them."""

from dataclasses import replace
from pathlib import Path

import anthropic
import openai
import pytest
from google.genai import errors as google_errors
from tests.wire.translate.clients import read_stream, read_whole
from tests.wire.translate.upstreams import EXPECTED, Said, answer, stream

from outlay.wire.intent import Operation
from outlay.wire.translate import open_translation, translate_answer
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, PAIRS, RESPONSES

CASES = [
    pytest.param(client, upstream, name, id=f"{name}: {client} from {upstream}")
    for client, upstream in PAIRS
    for name in EXPECTED
]
RECORDED = sorted((Path(__file__).parents[2] / "recorded").glob("*.sse"))
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
    """Cut anywhere before the end mark, the client gets a prefix of the whole stream, without its end."""
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
        out = streamed(client, upstream, sent[:cut])
        assert whole.startswith(out)
        assert ends[client] not in out


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
