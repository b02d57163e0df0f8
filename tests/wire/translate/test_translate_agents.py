"""Whole sessions: the requests of Claude Code and Codex towards the other dialects, and what comes back next turn."""

import json
from typing import Any

import pytest
from tests.wire.translate.clients import anthropic_client, datas
from tests.wire.translate.samples import CLOSED, PNG, encoded, message, messages, parts, responses, user
from tests.wire.translate.upstreams import EXPECTED, answer, stream
from tests.wire.translate.vendors import check_request

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import Translated, open_translation, translate_answer, translate_request
from outlay.wire.translate.gemini_writer import FOREIGN_SIGNATURE
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES

EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
CLAUDE_CODE: dict[str, Any] = {
    "model": "claude-sonnet-x",
    "max_tokens": 32000,
    "stream": True,
    "system": [
        {"type": "text", "text": "You are Claude Code.", **EPHEMERAL},
        {"type": "text", "text": "Be careful.", **EPHEMERAL},
    ],
    "metadata": {"user_id": "user_0a_account_1b_session_2c"},
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "tools": [
        {"name": "Read", "description": "Read a file", "input_schema": CLOSED, "eager_input_streaming": True},
        {"name": "Bash", "description": "Run", "input_schema": CLOSED, **EPHEMERAL},
    ],
    "messages": [
        user(
            [
                {"type": "text", "text": "<system-reminder>Hi</system-reminder>"},
                {"type": "text", "text": "Look at a.png", **EPHEMERAL},
            ]
        ),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I read it.", "signature": "EqQBCgIY"},
                {"type": "text", "text": "Reading."},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"city": "a.png"}},
                {
                    "type": "tool_use",
                    "id": "toolu_2",
                    "name": "Bash",
                    "input": {},
                    "caller": {"type": "direct"},
                },
            ],
        },
        user(
            [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        {"type": "text", "text": "an image"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        },
                    ],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": "exit 1",
                    "is_error": True,
                    **EPHEMERAL,
                },
                {"type": "text", "text": "<system-reminder>Go on</system-reminder>"},
            ]
        ),
    ],
}
CODEX: dict[str, Any] = {
    "model": "gpt-x-codex",
    "instructions": "You are Codex.",
    "input": [
        message("developer", [{"type": "input_text", "text": "Sandbox: read-only"}]),
        message("user", [{"type": "input_text", "text": "<environment_context/>"}]),
        message("user", [{"type": "input_text", "text": "List the files"}]),
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "I list."}],
            "content": None,
            "encrypted_content": "gAAAAABo",
        },
        {
            "type": "function_call",
            "name": "shell",
            "arguments": '{"command":["ls"]}',
            "call_id": "call_1",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "a.py\nb.py"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Two files."}],
            "phase": "final_answer",
        },
        message("user", [{"type": "input_text", "text": "Thanks"}]),
    ],
    "tools": [
        {"type": "function", "name": "shell", "description": "Run", "strict": False, "parameters": CLOSED}
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0198-session",
    "text": {"verbosity": "medium"},
    "client_metadata": {"originator": "codex_cli_rs"},
}


def sent(source: Operation, target: Operation, body: dict[str, Any], model: str = "m") -> dict[str, Any]:
    result = translate_request(
        source, target, encoded(body), model=model, stream=True, max_output_tokens=None
    )
    assert isinstance(result, Translated), result
    return check_request(target, result.body, stream=True)


def test_claude_code_to_chat() -> None:
    body = sent(MESSAGES, CHAT, CLAUDE_CODE)
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert body["messages"][0]["content"] == "You are Claude Code.\n\nBe careful."
    assert body["messages"][3]["content"] == "an image"
    assert body["messages"][4]["content"] == "Error: exit 1"
    kinds = [part["type"] for part in body["messages"][5]["content"]]
    assert kinds == ["text", "image_url", "text"]
    assert body["max_completion_tokens"] == 32000
    assert body["reasoning_effort"] == "high"
    assert body["user"] == "user_0a_account_1b_session_2c"
    assert body["stream_options"] == {"include_usage": True}


def test_claude_code_to_responses() -> None:
    body = sent(MESSAGES, RESPONSES, CLAUDE_CODE)
    assert [item["type"] for item in body["input"]] == [
        "message",
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
    ]
    assert [part["type"] for part in body["input"][4]["output"]] == ["input_text", "input_image"]
    assert body["input"][5]["output"] == "Error: exit 1"
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["store"] is False


def test_claude_code_to_gemini() -> None:
    body = sent(MESSAGES, GENERATE, CLAUDE_CODE, "gemini-3-pro")
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    calls = body["contents"][1]["parts"]
    assert calls[1]["thoughtSignature"] == FOREIGN_SIGNATURE
    assert "thoughtSignature" not in calls[2]
    results = body["contents"][2]["parts"]
    assert results[0]["functionResponse"]["name"] == "Read"
    assert results[0]["functionResponse"]["parts"][0]["inlineData"]["data"] == PNG
    assert results[1]["functionResponse"]["response"] == {"error": "exit 1"}
    assert results[2] == {"text": "<system-reminder>Go on</system-reminder>"}
    assert body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 31999}


def test_gemini_before_3_gets_no_signature_of_ours() -> None:
    body = sent(MESSAGES, GENERATE, CLAUDE_CODE, "gemini-2.5-pro")
    assert FOREIGN_SIGNATURE not in json.dumps(body)


def test_codex_to_chat() -> None:
    body = sent(RESPONSES, CHAT, CODEX)
    assert [message["role"] for message in body["messages"]] == [
        "system",
        "user",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert body["messages"][0]["content"] == "You are Codex.\n\nSandbox: read-only"
    assert body["messages"][3]["tool_calls"][0]["function"]["arguments"] == '{"command":["ls"]}'
    assert body["reasoning_effort"] == "medium"
    # what a server that is not OpenAI's may refuse, and changes nothing
    assert {"prompt_cache_key", "verbosity", "metadata", "include", "store"}.isdisjoint(body)


def test_codex_to_messages() -> None:
    body = sent(RESPONSES, MESSAGES, CODEX)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert body["system"] == [
        {"type": "text", "text": "You are Codex."},
        {"type": "text", "text": "Sandbox: read-only"},
    ]
    assert body["messages"][1]["content"][0]["input"] == {"command": ["ls"]}
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "medium"}
    assert "encrypted" not in json.dumps(body)


def test_codex_to_gemini() -> None:
    body = sent(RESPONSES, GENERATE, CODEX, "gemini-3-pro")
    assert body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingLevel": "MEDIUM"}
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"output": "a.py\nb.py"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tools": [{"type": "custom", "name": "apply_patch"}]}, "tools[0]"),
        ({"tools": [{"type": "local_shell"}]}, "tools[0]"),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, "input[0]"),
        ({"input": [{"type": "local_shell_call", "id": "1"}]}, "input[0]"),
        ({"reasoning": {"effort": "high", "mode": "pro"}}, "reasoning.mode"),
        ({"truncation": "auto"}, "truncation"),
    ],
)
def test_what_codex_cannot_have_at_anthropic_is_named(changes: dict[str, Any], field: str) -> None:
    body = encoded({**CODEX, **changes})
    result = translate_request(RESPONSES, MESSAGES, body, model="m", stream=True, max_output_tokens=None)
    assert isinstance(result, Rejection)
    assert (result.status, result.code, result.param) == (422, "untranslatable", field)


# ---- reasoning that its vendor signed goes through a client of another dialect and back


def next_turn(client: Operation, body: bytes) -> dict[str, Any]:
    """The client's next request: its history with the answer as the client got it, and the tools' results."""
    given = json.loads(body)
    match client:
        case Operation.CHAT:
            said = given["choices"][0]["message"]
            results = [
                {"role": "tool", "tool_call_id": call["id"], "content": "2 C"} for call in said["tool_calls"]
            ]
            kept = {key: value for key, value in said.items() if value is not None}
            return {"model": "m", "messages": [user("Hi"), kept, *results]}
        case Operation.RESPONSES:
            calls = [item for item in given["output"] if item["type"] == "function_call"]
            outputs = [
                {"type": "function_call_output", "call_id": call["call_id"], "output": "2 C"}
                for call in calls
            ]
            return responses(message("user", "Hi"), *given["output"], *outputs)
        case Operation.MESSAGES:
            uses = [block for block in given["content"] if block["type"] == "tool_use"]
            replies = [{"type": "tool_result", "tool_use_id": use["id"], "content": "2 C"} for use in uses]
            return messages(user("Hi"), {"role": "assistant", "content": given["content"]}, user(replies))
        case _:
            content = given["candidates"][0]["content"]
            called = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            answers = [
                {"functionResponse": {"id": call["id"], "name": call["name"], "response": {"output": "2 C"}}}
                for call in called
            ]
            return {"contents": [parts({"text": "Hi"}), content, parts(*answers)]}


def put_together(client: Operation, out: bytes) -> bytes:
    """The answer that a client makes of a stream."""
    match client:
        case Operation.RESPONSES:
            return json.dumps(datas(out)[-1]["response"]).encode()
        case Operation.MESSAGES:
            sdk = anthropic_client(out, 200, "text/event-stream")
            with sdk.messages.stream(model="m", messages=[], max_tokens=9) as events:
                return events.get_final_message().to_json().encode()
        case _:
            chunks = [data["candidates"][0]["content"]["parts"] for data in datas(out)]
            said = [part for chunk in chunks for part in chunk if part != {"text": ""}]
            return json.dumps({"candidates": [{"content": {"role": "model", "parts": said}}]}).encode()


@pytest.mark.parametrize(
    ("client", "upstream"),
    [
        (RESPONSES, MESSAGES),
        (GENERATE, MESSAGES),
        (MESSAGES, RESPONSES),
        (GENERATE, RESPONSES),
        (MESSAGES, GENERATE),
        (RESPONSES, GENERATE),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_seals_come_back_to_their_vendor_and_to_no_other(
    client: Operation, upstream: Operation, is_streamed: bool
) -> None:
    translated = translate_answer(client, upstream, answer(upstream, EXPECTED["tools"]), model="m")
    if is_streamed:
        translation = open_translation(client, upstream, model="m", include_usage=True)
        out = translation.feed(stream(upstream, EXPECTED["tools"])) + translation.end()
        translated = put_together(client, out)
    assert translated is not None
    following = next_turn(client, translated)
    seals = {MESSAGES: "EqQB", RESPONSES: "gAAAA", GENERATE: "CiQB"}
    seal = seals[upstream]
    model = "gemini-3-pro"
    back = sent(client, upstream, following, model)
    match upstream:
        case Operation.MESSAGES:
            expected = {"type": "thinking", "thinking": "Hm, two.", "signature": seal}
            assert back["messages"][1]["content"][0] == expected
        case Operation.RESPONSES:
            item = next(item for item in back["input"] if item["type"] == "reasoning")
            assert (item["id"], item["encrypted_content"]) == ("rs_1", seal)
        case _:
            signed = [part for part in back["contents"][1]["parts"] if "thoughtSignature" in part]
            assert [(part["thoughtSignature"], "functionCall" in part) for part in signed] == [(seal, True)]
    for other in {CHAT, RESPONSES, MESSAGES, GENERATE} - {client, upstream}:
        assert seal not in json.dumps(sent(client, other, following, model))


def test_through_a_chat_client_gemini_gets_googles_own_word() -> None:
    translated = translate_answer(CHAT, GENERATE, answer(GENERATE, EXPECTED["tools"]), model="m")
    assert translated is not None
    back = sent(CHAT, GENERATE, next_turn(CHAT, translated), "gemini-3-pro")
    calls = [part for part in back["contents"][1]["parts"] if "functionCall" in part]
    assert [call.get("thoughtSignature") for call in calls] == [FOREIGN_SIGNATURE, None]


def test_a_gemini_answer_without_ids_gets_the_same_ids_again() -> None:
    body = answer(GENERATE, EXPECTED["tools"])
    first, second = (translate_answer(CHAT, GENERATE, body, model="m") for _ in range(2))
    assert first == second
    assert first is not None
    calls = json.loads(first)["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["call_Abc_0", "call_Abc_1"]


def test_a_signature_behind_the_text_comes_back_behind_the_text() -> None:
    """Google streams it in a last part without text."""
    said = [{"text": "Hello"}, {"text": "", "thoughtSignature": "CiQB"}]
    body = {"candidates": [{"content": {"parts": said}, "finishReason": "STOP"}], "responseId": "A"}
    translated = translate_answer(MESSAGES, GENERATE, json.dumps(body).encode(), model="m")
    assert translated is not None
    turn = {"role": "assistant", "content": json.loads(translated)["content"]}
    back = sent(MESSAGES, GENERATE, messages(user("Hi"), turn, user("Go on")), "gemini-3-pro")
    assert back["contents"][1]["parts"] == said


def test_items_of_one_answer_are_one_message_and_answers_stay_apart() -> None:
    calls = [
        {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}"}
        for number in range(2)
    ]
    outputs = [
        {"type": "function_call_output", "call_id": f"c{number}", "output": "ok"} for number in range(2)
    ]
    body = responses(
        message("user", "Hi"), message("assistant", "One."), message("assistant", "Two."), *calls, *outputs
    )
    said = sent(RESPONSES, CHAT, body)["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "assistant", "tool", "tool"]
    assert [turn["content"] for turn in said[1:3]] == ["One.", "Two."]
    assert len(said[2]["tool_calls"]) == 2
