"""Streams: what is forwarded, what vanishes, and what makes usage unknown."""

import pytest

from outlay.wire import sse
from outlay.wire.anthropic import MessagesStream
from outlay.wire.openai import ChatStream

CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
START = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
)


def run(reader: ChatStream | MessagesStream, *chunks: bytes) -> bytes:
    return b"".join(reader.feed(chunk) for chunk in chunks) + reader.end()


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_usage_chunk_vanishes_with_its_framing(line_end: bytes) -> None:
    stream = (CONTENT + USAGE + DONE).replace(b"\n", line_end)
    expected = (CONTENT + DONE).replace(b"\n", line_end)
    reader = ChatStream(True)
    assert run(reader, stream) == expected
    assert reader.usage is not None and reader.is_done
    assert run(ChatStream(True), *[stream[i : i + 1] for i in range(len(stream))]) == expected


def test_a_client_that_asked_gets_the_very_same_bytes() -> None:
    reader = ChatStream(False)
    for chunk in (CONTENT, USAGE[:20], USAGE[20:], b": half a comm", b"ent\n\n", DONE):
        assert reader.feed(chunk) is chunk
    assert reader.usage is not None and reader.deltas == 1


def test_anthropic_bytes_pass_at_once() -> None:
    reader = MessagesStream()
    for chunk in (START[:40], START[40:], b"event: pi", b"ng\n"):
        assert reader.feed(chunk) is chunk
    assert reader.end() == b""


def test_content_with_usage_is_not_cut() -> None:
    both = CONTENT.replace(b"null", b'{"prompt_tokens":3,"completion_tokens":1}')
    reader = ChatStream(True)
    assert run(reader, both) == both
    assert reader.usage is not None and not reader.usage_is_final
    reader.feed(DONE)
    assert reader.usage_is_final


def test_a_running_count_is_not_final_when_one_of_two_choices_ends() -> None:
    running = b'"usage":{"prompt_tokens":3,"completion_tokens":4}'
    ended = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],' + running + b"}\n\n"
    reader = ChatStream(True)
    run(reader, CONTENT, ended)
    assert reader.finish_reason == "stop" and not reader.usage_is_final


def test_an_empty_choices_chunk_without_usage_stays() -> None:
    azure = b'data: {"choices":[],"prompt_filter_results":[],"usage":null}\n\n'
    assert run(ChatStream(True), azure) == azure


def test_an_error_with_usage_stays() -> None:
    failed = USAGE.replace(b'"choices":[]', b'"error":{"message":"x"}')
    reader = ChatStream(True)
    assert run(reader, failed) == failed
    assert reader.error_seen


def test_a_broken_stream_knows_input_and_counts_output() -> None:
    delta = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"abc"}}\n\n'
    reader = MessagesStream()
    cut = b'data: {"type":"message_delta","usage":{"output_tok'
    run(reader, START, delta, delta, cut)
    assert reader.usage is not None and reader.usage.input_tokens == 3
    assert not reader.usage_is_final and not reader.is_done
    # an event that was cut counts as if all of it were output: never too little
    assert (reader.deltas, reader.output_bytes) == (3, 6 + len(cut) - len("data: "))


def test_usage_of_an_unknown_shape_is_unknown() -> None:
    reader = ChatStream(False)
    run(reader, USAGE, USAGE.replace(b"3", b'"three"'))
    assert reader.usage is None
    messages = MessagesStream()
    run(messages, START, b'data: {"type":"message_delta","usage":{"output_tokens":"x"}}\n\n')
    assert messages.usage is None


def test_null_never_clears_what_was_stated() -> None:
    reader = MessagesStream()
    run(reader, START, b'data: {"type":"message_delta","usage":{"input_tokens":null,"output_tokens":9}}\n\n')
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (3, 9)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("strip", [True, False])
def test_an_endless_event_is_forwarded_unread(
    monkeypatch: pytest.MonkeyPatch, size: int, strip: bool
) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 200)
    stream = CONTENT + USAGE + b"data: " + b"x" * 300 + b"\n\n" + USAGE
    reader = ChatStream(strip)
    forwarded = run(reader, *[stream[i : i + size] for i in range(0, len(stream), size)])
    assert forwarded == (stream if not strip else stream.replace(USAGE, b"", 1))
    assert reader.usage is None
