"""The end of a conversation in each dialect: the same work gives the same hashes, whatever its ids and history."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.wire.intent import Operation
from outlay.wire.tail import MAX_OBJECTS, MAX_SHAPED, Tail, read_tail, sketch_of


def test_a_body_of_countless_objects_is_not_looked_at() -> None:
    """To decode them took the loop seconds."""
    end = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    for count, is_read in ((MAX_OBJECTS - 2, True), (MAX_OBJECTS, False)):
        body = json.dumps({"messages": [{}] * (count - 2) + end}).encode()
        assert (read_tail(Operation.CHAT, body) is not None) is is_read


def chat(path: str, result: str, call_id: str, before: int = 3) -> dict[str, Any]:
    history = [{"role": "user", "content": f"turn {number}"} for number in range(before)]
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": "read", "arguments": json.dumps({"p": path})},
    }
    return {
        "messages": [
            *history,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call_id, "content": result},
        ]
    }


def messages(path: str, result: str, call_id: str, before: int = 3, **changes: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": f"turn {number}"} for number in range(before)]
    answer = {"type": "tool_result", "tool_use_id": call_id, "content": result, **changes}
    return {
        "messages": [
            *history,
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I read."},
                    {"type": "tool_use", "id": call_id, "name": "read", "input": {"p": path}},
                ],
            },
            {"role": "user", "content": [answer]},
        ]
    }


def responses(path: str, result: str, call_id: str, before: int = 3) -> dict[str, Any]:
    history = [{"role": "user", "content": f"turn {number}"} for number in range(before)]
    return {
        "input": [
            *history,
            {"type": "reasoning", "id": f"rs_{call_id}", "summary": []},
            {
                "type": "function_call",
                "call_id": call_id,
                "name": "read",
                "arguments": json.dumps({"p": path}),
            },
            {"type": "function_call_output", "call_id": call_id, "output": result},
        ]
    }


def gemini(path: str, result: str, call_id: str, before: int = 3) -> dict[str, Any]:
    history = [{"role": "user", "parts": [{"text": f"turn {number}"}]} for number in range(before)]
    return {
        "contents": [
            *history,
            {
                "role": "model",
                "parts": [{"functionCall": {"id": call_id, "name": "read", "args": {"p": path}}}],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": call_id, "name": "read", "response": {"text": result}}}
                ],
            },
        ]
    }


DIALECTS = {
    Operation.CHAT: chat,
    Operation.MESSAGES: messages,
    Operation.RESPONSES: responses,
    Operation.GENERATE: gemini,
}


def tail(operation: Operation, *asked: Any, **more: Any) -> Tail:
    found = read_tail(operation, json.dumps(DIALECTS[operation](*asked, **more)).encode())
    assert found is not None
    return found


@pytest.mark.parametrize("operation", DIALECTS)
def test_the_same_call_is_the_same_and_another_is_another(operation: Operation) -> None:
    one = tail(operation, "a.py", "import os", "call_1")
    assert one.has_tool_result
    assert one.action != 0
    assert one == tail(operation, "a.py", "import os", "call_2", before=9)
    assert one.action != tail(operation, "b.py", "import os", "call_1").action
    other = tail(operation, "a.py", "import sys", "call_1")
    assert (other.action, other.result == one.result) == (one.action, False)


@pytest.mark.parametrize("operation", DIALECTS)
def test_what_a_person_says_is_no_tools_result(operation: Operation) -> None:
    body: dict[str, Any] = {
        Operation.CHAT: {"messages": [{"role": "user", "content": "hello"}]},
        Operation.MESSAGES: {"messages": [{"role": "user", "content": "hello"}]},
        Operation.RESPONSES: {"input": "hello"},
        Operation.GENERATE: {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
    }[operation]
    found = read_tail(operation, json.dumps(body).encode())
    assert found is not None
    assert (found.action, found.sketch, found.has_tool_result) == (0, (), False)
    assert found.result != 0


def test_a_tool_that_failed_says_so() -> None:
    assert tail(Operation.MESSAGES, "a", "no such file", "c", is_error=True).is_error
    assert not tail(Operation.MESSAGES, "a", "no such file", "c").is_error


def test_several_tools_of_one_turn_all_count() -> None:
    body = chat("a.py", "one", "c1")
    second = {"id": "c2", "type": "function", "function": {"name": "list", "arguments": "{}"}}
    body["messages"][-2]["tool_calls"].append(second)
    body["messages"].append({"role": "tool", "tool_call_id": "c2", "content": "two"})
    both = read_tail(Operation.CHAT, json.dumps(body).encode())
    assert both is not None
    one = tail(Operation.CHAT, "a.py", "one", "c1")
    assert both.action != one.action
    assert both.result != one.result


@pytest.mark.parametrize("operation", [*DIALECTS, Operation.EMBEDDINGS])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"messages": 3}', b'{"input": [3]}', b'{"contents": {}}', b"\xff"]
)
def test_what_cannot_be_read_has_no_tail(operation: Operation, body: bytes) -> None:
    found = read_tail(operation, body)
    assert found is None or not found.has_tool_result


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_it(body: bytes) -> None:
    for operation in DIALECTS:
        read_tail(operation, body)


COUNTED = [
    ({"path": "a.txt", "attempt": 7}, {"path": "a.txt", "attempt": 12}),
    ({"attempt": 7, "path": "a.txt"}, {"attempt": 12, "path": "a.txt"}),
    ({"tries": [1, 2], "at": 1.5}, {"tries": [7, 19], "at": 12.25}),
    ({"attempt": "7"}, {"attempt": "12"}),
    ({"since": "2026-07-28T09:58:59Z"}, {"since": "2026-07-29T10:00:03Z"}),
]
OTHER = [
    ({"path": "a1.txt"}, {"path": "a2.txt"}),
    ({"attempt": 7, "path": "a"}, {"attempt": 7, "path": "b"}),
    ({"attempt": 7}, {"number": 7}),
    ({"text": "take 7 of them"}, {"text": "take 8 of them"}),
    ({"n": 1, "text": "x" * MAX_SHAPED}, {"n": 2, "text": "x" * MAX_SHAPED}),
]


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("spaces", [(", ", ": "), (",", ":")], ids=["spaced", "dense"])
def test_a_number_in_the_arguments_is_not_in_the_shape(operation: Operation, spaces: tuple[str, str]) -> None:
    def shape(arguments: dict[str, Any]) -> int:
        body = DIALECTS[operation]("PATH", "x", "c")
        text = json.dumps(body, separators=spaces)
        inner = json.dumps({"p": "PATH"})
        if operation in (Operation.CHAT, Operation.RESPONSES):
            text = text.replace(json.dumps(inner), json.dumps(json.dumps(arguments, separators=spaces)))
        else:
            text = text.replace(
                json.dumps({"p": "PATH"}, separators=spaces), json.dumps(arguments, separators=spaces)
            )
        assert "PATH" not in text
        found = read_tail(operation, text.encode())
        assert found is not None
        return found.shape

    for one, other in COUNTED:
        assert shape(one) == shape(other) != 0
    for one, other in OTHER:
        assert shape(one) != shape(other)


@pytest.mark.parametrize("operation", DIALECTS)
def test_a_time_of_day_is_no_news(operation: Operation) -> None:
    def result(text: str) -> int:
        return tail(operation, "a", text, "c").result

    assert result("queued at 9:58") == result("queued at 10:02")
    assert result("queued, 2026-07-28T09:58:59.1Z") == result("queued, 2026-07-29T10:00:03.25Z")
    assert result("queued since 1785241000") == result("queued since 1785241077123")
    assert result("queued, 9 before") != result("queued, 8 before")
    assert result("id 17852410001") != result("id 17852410002")
    assert result("1.0.3") != result("1.0.4")


def test_sketches_of_what_has_no_spaces_and_of_what_is_long() -> None:
    rows = [{"name": f"word{number}", "is_new": True} for number in range(100)]
    dense = json.dumps({"at": "12:31:07", "rows": rows}, separators=(",", ":")).encode()
    later = dense.replace(b"12:31:07", b"12:31:59")
    assert len(set(sketch_of(dense)) & set(sketch_of(later))) >= 28
    ends = " ".join(f"menu{number}" for number in range(400))
    pages = [f"{ends} {' '.join(f'{page}{number}' for number in range(2000))} {ends}" for page in "ab"]
    one, other = (set(sketch_of(page.encode())) for page in pages)
    assert len(one & other) <= 20
    assert len(set(sketch_of(pages[0].replace("a1000 ", "a1001 ").encode())) & one) >= 28


def test_sketches_of_like_texts_share_most_hashes() -> None:
    words = [f"word{number}" for number in range(200)]
    text = " ".join(words).encode()
    changed = " ".join([*words[:100], "12:31:07", *words[101:]]).encode()
    other = " ".join(reversed(words)).encode()
    assert len(set(sketch_of(text)) & set(sketch_of(changed))) >= 28
    assert len(set(sketch_of(text)) & set(sketch_of(other))) <= 4
