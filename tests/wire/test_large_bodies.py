"""Bodies that are large because of media pass; bodies that would block the event loop do not."""

import json

from outlay.wire.anthropic import parse_messages
from outlay.wire.fields import MAX_NESTED_BYTES, MAX_NESTED_MARKS
from outlay.wire.gemini import parse_generate
from outlay.wire.intent import CallIntent, Rejection
from outlay.wire.openai import parse_chat

PICTURE = "A" * (MAX_NESTED_BYTES + 1000)


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def test_a_large_picture_is_no_unusual_body() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    message = {"role": "user", "content": [{"type": "image", "source": source}]}
    claude = parse_messages(compact({"model": "m", "max_tokens": 5, "messages": [message]}))
    assert isinstance(claude, CallIntent), claude
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PICTURE}}
    chat = parse_chat(compact({"model": "m", "messages": [{"role": "user", "content": [part]}]}))
    assert isinstance(chat, CallIntent), chat
    inline = {"inlineData": {"mimeType": "image/png", "data": PICTURE}}
    gemini = parse_generate(compact({"contents": [{"parts": [inline]}]}), model="m", stream=False)
    assert isinstance(gemini, CallIntent), gemini
    # the image's formula counts, not its eight million bytes
    assert max(claude.input_tokens_bound, chat.input_tokens_bound, gemini.input_tokens_bound) < 30_000


def test_many_small_things_cannot_be_checked_in_time() -> None:
    # whatever is many: values in quotes, or numbers
    for value in ("x" * 10, 1_000_000_000):
        body = compact({"model": "m", "messages": [], "image_url": [value] * MAX_NESTED_MARKS})
        assert len(body) > MAX_NESTED_BYTES
        refused = parse_chat(body)
        assert isinstance(refused, Rejection) and refused.code == "unusual_json"
