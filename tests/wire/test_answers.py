"""Usage from odd answers: absent is unknown, zero is zero, nonsense is unknown, and nothing raises."""

import json

import pytest

from outlay.wire import anthropic, openai
from outlay.wire.intent import Operation, Usage


def openai_usage(**usage: object) -> Usage | None:
    return openai.read_answer(Operation.CHAT, json.dumps({"choices": [], "usage": usage}).encode()).usage


def anthropic_usage(**usage: object) -> Usage | None:
    return anthropic.read_answer(
        Operation.MESSAGES, json.dumps({"type": "message", "usage": usage}).encode()
    ).usage


def totals(usage: Usage | None) -> tuple[int, int, int] | None:
    return None if usage is None else (usage.input_tokens, usage.output_tokens, usage.reasoning_output_tokens)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": None}, None),
        ({"completion_tokens": 5}, None),
        ({}, None),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": 1, "completion_tokens": -5}, None),
        ({"prompt_tokens": 2**41, "completion_tokens": 5}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 5}, None),
        ({"prompt_tokens": "5", "completion_tokens": 5}, None),
        ({"prompt_tokens": 5.5, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        # reasoning left out of completion: shown by the total, or only by the detail
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "total_tokens": 18,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            (5, 13, 3),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 18}, (5, 13, 0)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            (5, 40, 30),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 10},
            },
            (5, 10, 10),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 2}, (5, 10, 0)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "completion_tokens_details": {"reasoning_tokens": -1},
            },
            None,
        ),
        ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": 6}}, None),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"audio_tokens": 2}},
            None,
        ),
        ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}, None),
        ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -6}}, None),
    ],
)
def test_openai_totals(usage: dict[str, object], expected: tuple[int, int, int] | None) -> None:
    assert totals(openai_usage(**usage)) == expected


def test_openai_audio() -> None:
    usage = openai_usage(
        prompt_tokens=50,
        completion_tokens=30,
        prompt_tokens_details={"audio_tokens": 40, "cached_tokens": 8},
        completion_tokens_details={"audio_tokens": 25},
    )
    assert usage is not None
    assert (usage.input_tokens, usage.input_audio_tokens, usage.cache_read_input_tokens) == (50, 40, 8)
    assert (usage.output_tokens, usage.output_audio_tokens) == (30, 25)


def test_openai_cache_classes_never_exceed_the_total() -> None:
    usage = openai_usage(
        prompt_tokens=10,
        completion_tokens=1,
        prompt_tokens_details={
            "cached_tokens": 7,
            "cache_write_tokens": 6,
            "cache_write_tokens_details": {"ttl_12h_tokens": 4, "ttl_30m_tokens": 2},
        },
    )
    assert usage is not None
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (4, 6)
    assert usage.cache_creation_12h_input_tokens == 4


def test_openai_cache_writes_of_claude_behind_litellm() -> None:
    """As LiteLLM 1.110 answers: the hour's writes cost more, and are told apart only here."""
    details = {
        "cached_tokens": 0,
        "cache_write_tokens": 3000,
        "cache_creation_tokens": 3000,
        "cache_creation_token_details": {
            "ephemeral_5m_input_tokens": 1000,
            "ephemeral_1h_input_tokens": 2000,
        },
    }
    usage = openai_usage(prompt_tokens=6000, completion_tokens=80, prompt_tokens_details=details)
    assert usage is not None
    assert usage.cache_creation_input_tokens == 3000
    assert usage.cache_creation_1h_input_tokens == 2000


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 0, "output_tokens": 0}, (0, 0, 0)),
        ({"input_tokens": 1}, None),
        ({"output_tokens": 1}, None),
        ({"input_tokens": -1, "output_tokens": 1}, None),
        ({"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": -1}, None),
        ({"input_tokens": 1, "output_tokens": 2**41}, None),
        (
            {
                "input_tokens": 1,
                "output_tokens": 4,
                "cache_read_input_tokens": 2,
                "cache_creation_input_tokens": 3,
            },
            (6, 4, 0),
        ),
        ({"input_tokens": 1, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 3}}, (1, 4, 3)),
        # sub-inferences that the totals leave out, or that another model served
        ({"input_tokens": 1, "output_tokens": 4, "iterations": [{"type": "message"}]}, (1, 4, 0)),
        ({"input_tokens": 1, "output_tokens": 4, "iterations": [{"type": "compaction"}]}, None),
        ({"input_tokens": 1, "output_tokens": 4, "iterations": [{"type": "advisor_message"}]}, None),
        ({"input_tokens": 1, "output_tokens": 4, "iterations": [{"type": "fallback_message"}]}, None),
    ],
)
def test_anthropic_totals(usage: dict[str, object], expected: tuple[int, int, int] | None) -> None:
    assert totals(anthropic_usage(**usage)) == expected


@pytest.mark.parametrize(
    ("total", "five_minutes", "hour", "written", "written_1h"),
    [(None, 3, 4, 7, 4), (7, 3, 4, 7, 4), (9, 3, 4, 9, 6), (9, 3, 0, 9, 0), (5, None, None, 5, 0)],
)
def test_anthropic_cache_writes(
    total: int | None, five_minutes: int | None, hour: int | None, written: int, written_1h: int
) -> None:
    usage = anthropic_usage(
        input_tokens=1,
        output_tokens=1,
        cache_creation_input_tokens=total,
        cache_creation={"ephemeral_5m_input_tokens": five_minutes, "ephemeral_1h_input_tokens": hour},
    )
    assert usage is not None
    assert (usage.cache_creation_input_tokens, usage.cache_creation_1h_input_tokens) == (written, written_1h)
    assert usage.input_tokens == 1 + written


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[1]", b"{}", b'{"usage":7}', b"[" * 100_000, b"\xff"]
)
def test_garbage_has_no_usage(body: bytes) -> None:
    assert openai.read_answer(Operation.CHAT, body).usage is None
    assert anthropic.read_answer(Operation.MESSAGES, body).usage is None


def test_vendor_errors_are_seen() -> None:
    openai_error = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'
    assert openai.read_answer(Operation.CHAT, openai_error).is_error
    assert openai.read_answer(Operation.CHAT, b'{"error":"no","usage":3}').is_error
    anthropic_error = b'{"type":"error","error":{"type":"api_error","message":"no"}}'
    assert anthropic.read_answer(Operation.MESSAGES, anthropic_error).is_error


def test_output_is_counted_when_usage_is_missing() -> None:
    body = {"choices": [{"message": {"content": "Größe", "reasoning": "ab"}}], "usage": None}
    assert openai.read_answer(Operation.CHAT, json.dumps(body).encode()).output_bytes == 7 + 2
    message = {
        "type": "message",
        "content": [{"type": "text", "text": "Größe"}, {"type": "tool_use", "name": "f"}],
    }
    assert anthropic.read_answer(Operation.MESSAGES, json.dumps(message).encode()).output_bytes == 7 + 1


def test_counting_tokens_served_nothing() -> None:
    assert anthropic.read_answer(Operation.COUNT_TOKENS, b'{"input_tokens":7}').usage == Usage(0, 0)
    assert anthropic.read_answer(Operation.COUNT_TOKENS, b"{}").usage is None
