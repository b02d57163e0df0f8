"""docs/translation.md is what the tables say; and each hint that is left out is known to its reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.wire.translate.samples import PNG, chat, generate, messages, parts, responses, user

from outlay.wire.intent import Operation
from outlay.wire.translate import Translated, translate_request
from outlay.wire.translate.table import CHAT, DROPPED_HINTS, GENERATE, MESSAGES, PAIRS, RESPONSES, render

PAGE = Path(__file__).parents[3] / "docs" / "translation.md"
CACHE = {"type": "ephemeral"}

# a request with every hint of its dialect, and the words that must not arrive where they are left out
HINTED: dict[Operation, tuple[dict[str, Any], tuple[str, ...]]] = {
    CHAT: (
        chat(
            user(
                [
                    {
                        "type": "text",
                        "text": "Hi",
                        "cache_control": CACHE,
                        "prompt_cache_breakpoint": {"mode": "explicit"},
                    },
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
                    },
                ]
            ),
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "HINT",
                "annotations": [],
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "name": "HINT", "content": "ok"},
            prompt_cache_retention="24h",
            prompt_cache_options={"mode": "implicit"},
            stream_options={"include_obfuscation": False},
        ),
        ("HINT", "24h", "implicit", "obfuscation", "ephemeral", "explicit"),
    ),
    RESPONSES: (
        responses(
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "HINT"},
            {
                "type": "message",
                "id": "msg_HINT",
                "status": "completed",
                "phase": "final_answer",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
            },
            {"type": "message", "role": "user", "content": "Go on"},
            prompt_cache_retention="24h",
            client_metadata={"a": "HINT"},
            stream_options={"include_obfuscation": False},
            include=["reasoning.encrypted_content"],
            max_tool_calls=3,
            reasoning={"context": "all_turns"},
        ),
        ("HINT", "24h", "obfuscation", "encrypted_content", "all_turns", "final_answer"),
    ),
    MESSAGES: (
        messages(
            user([{"type": "text", "text": "Hi", "cache_control": CACHE, "citations": []}]),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "HINT", "signature": "HINT"},
                    {"type": "redacted_thinking", "data": "HINT"},
                    {"type": "text", "text": "Hello"},
                ],
            },
            user("Go on"),
            cache_control=CACHE,
            diagnostics={"previous_message_id": "HINT"},
            context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
            tools=[{"name": "f", "input_schema": {"type": "object"}, "eager_input_streaming": True}],
        ),
        ("HINT", "ephemeral", "clear_tool_uses", "eager"),
    ),
    GENERATE: (
        generate(
            parts({"text": "Hi"}),
            parts(
                {"text": "HINT", "thought": True, "thoughtSignature": "SElOVA=="},
                {"text": "Yo"},
                role="model",
            ),
            parts({"text": "Go on"}),
            config={"mediaResolution": "MEDIA_RESOLUTION_LOW"},
            safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
            labels={"a": "HINT"},
            model="models/HINT",
        ),
        ("HINT", "SElOVA", "RESOLUTION", "HARM"),
    ),
}


def test_the_page_is_current() -> None:
    """Else: `python -m outlay.wire.translate.table > docs/translation.md`."""
    assert PAGE.read_text("utf-8") == render()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_hints_are_left_out(source: Operation, target: Operation) -> None:
    body, words = HINTED[source]
    result = translate_request(
        source, target, json.dumps(body).encode(), model="m", stream=False, max_output_tokens=None
    )
    assert isinstance(result, Translated), result
    text = result.body.decode()
    assert [word for word in words if word in text] == []
    assert "Hi" in text
    assert "Go on" in text or source is CHAT


def test_every_dialect_has_hints_and_each_says_why() -> None:
    assert {hint.source for hint in DROPPED_HINTS} == set(HINTED)
    for hint in DROPPED_HINTS:
        assert hint.reason
        assert hint.source not in hint.targets
