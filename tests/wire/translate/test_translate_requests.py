"""Every feature of the table between every two dialects: the target's SDK takes the body and it reads back the same,
or the 422 names the field."""

import json
from typing import Any

import msgspec
import pytest
from tests.wire.translate.meaning import meaning
from tests.wire.translate.samples import SAMPLES, encoded
from tests.wire.translate.vendors import check_request

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import Translated, translate_request
from outlay.wire.translate.request import READERS
from outlay.wire.translate.table import FEATURES, PAIRS, Feature, cell

CASES = [
    pytest.param(feature, source, target, id=f"{feature.name}: {source} to {target}")
    for feature in FEATURES
    for source, target in PAIRS
    if source in feature.fields
]
# the target says the same in other words, or cannot say it at all and needs not (see the table's notes and hints)
SAID_OTHERWISE = {
    ("failed tool result", Operation.CHAT),
    ("failed tool result", Operation.RESPONSES),
    ("image in a tool result", Operation.CHAT),
    ("thinking budget in tokens", Operation.CHAT),
    ("thinking budget in tokens", Operation.RESPONSES),
    ("end user's id", Operation.GENERATE),
}


def translated(source: Operation, target: Operation, body: dict[str, Any], **options: Any) -> Any:
    given = {"model": "gemini-3-pro", "stream": False, "max_output_tokens": None, **options}
    return translate_request(source, target, encoded(body), **given)


def test_every_feature_has_a_sample_of_every_dialect_that_can_say_it() -> None:
    assert {feature.name: set(feature.fields) for feature in FEATURES} == {
        name: set(bodies) for name, bodies in SAMPLES.items()
    }


@pytest.mark.parametrize(("feature", "source", "target"), CASES)
@pytest.mark.parametrize("stream", [False, True])
def test_matrix(feature: Feature, source: Operation, target: Operation, stream: bool) -> None:
    body = SAMPLES[feature.name][source]
    result = translated(source, target, body, stream=stream)
    stated = cell(feature, source, target)
    if stated != "yes":
        assert isinstance(result, Rejection), result
        assert (result.status, result.code) == (422, "untranslatable")
        assert result.param is not None
        assert result.param.startswith(feature.fields[source])
        assert result.param in result.message
        return
    assert isinstance(result, Translated), result
    given = check_request(target, result.body, stream=stream)
    assert given.get("model") == (None if target is Operation.GENERATE else "gemini-3-pro")
    assert given.get("stream", False) is (stream and target is not Operation.GENERATE)
    if (feature.name, target) not in SAID_OTHERWISE:
        assert meaning(READERS[target](with_model(result.body))) == meaning(READERS[source](encoded(body)))


def with_model(body: bytes) -> bytes:
    fields = json.loads(body)
    fields.pop("stream", None)
    return msgspec.json.encode({"model": "m", **fields, "store": None} if "store" in fields else fields)


@pytest.mark.parametrize(
    ("source", "body"),
    [
        (Operation.GENERATE, {"contents": [], "generationConfig": {"topK": 1.5}}),
        (Operation.GENERATE, {"contents": [{"role": "user", "parts": [{}]}]}),
        (Operation.GENERATE, {"contents": [{"role": "boss", "parts": []}]}),
        (Operation.CHAT, {"model": "m", "messages": [{"role": "user", "content": 7}]}),
        (Operation.CHAT, {"model": "m", "messages": [{"role": "user"}]}),
        (Operation.CHAT, {"model": "m"}),
        (Operation.CHAT, {"model": "m", "messages": [], "reasoning_effort": "enormous"}),
    ],
)
def test_values_without_meaning_are_a_400(source: Operation, body: dict[str, Any]) -> None:
    target = Operation.CHAT if source is Operation.GENERATE else Operation.GENERATE
    result = translated(source, target, body)
    assert isinstance(result, Rejection), result
    assert result.status == 400


def test_an_image_that_is_no_base64_data_url_is_a_400() -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    result = translated(Operation.CHAT, Operation.MESSAGES, body)
    assert isinstance(result, Rejection)
    assert (result.status, result.param) == (400, "messages[0].content[0]")


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_fields_that_are_null_or_say_the_default_are_fine(source: Operation, target: Operation) -> None:
    defaults: dict[Operation, dict[str, Any]] = {
        Operation.CHAT: {
            "n": 1,
            "store": False,
            "logprobs": False,
            "logit_bias": None,
            "temperature": None,
            "presence_penalty": 0 if target not in {Operation.RESPONSES} else None,
            "service_tier": "auto",
            "tool_choice": None,
            "response_format": {"type": "text"},
            "modalities": ["text"],
        },
        Operation.RESPONSES: {
            "store": False,
            "background": False,
            "truncation": "disabled",
            "previous_response_id": None,
            "top_logprobs": 0,
            "text": {"format": {"type": "text"}},
            "service_tier": "auto",
            "reasoning": None,
        },
        Operation.MESSAGES: {"service_tier": "auto", "speed": "standard", "thinking": None, "system": None},
        Operation.GENERATE: {
            "generationConfig": {
                "candidateCount": 1,
                "responseMimeType": "text/plain",
                "responseModalities": ["TEXT"],
                "responseLogprobs": False,
            },
            "cachedContent": None,
        },
    }
    plain = SAMPLES["text"][source]
    result = translated(source, target, {**plain, **defaults[source]})
    assert isinstance(result, Translated), result
    given = check_request(target, result.body, stream=False)
    extra = {"presence_penalty", "generationConfig"}
    expected = json.loads(translated(source, target, plain).body)
    assert {key: value for key, value in given.items() if key not in extra} == {
        key: value for key, value in expected.items() if key not in extra
    }


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (Operation.CHAT, "max_completion_tokens"),
        (Operation.RESPONSES, "max_output_tokens"),
        (Operation.MESSAGES, "max_tokens"),
    ],
)
def test_the_gateways_limit_replaces_the_clients(target: Operation, field: str) -> None:
    for limit, expected in ((None, 77), (50, 50)):
        body = SAMPLES["output limit"][Operation.GENERATE]
        result = translated(Operation.GENERATE, target, body, max_output_tokens=limit)
        assert json.loads(result.body)[field] == expected


def test_anthropic_gets_a_limit_in_any_case() -> None:
    result = translated(Operation.CHAT, Operation.MESSAGES, SAMPLES["text"][Operation.CHAT])
    assert json.loads(result.body)["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True, "enum": ["x"]}}},
            {"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": ["x", None]}}},
        ),
        (
            {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2", "propertyOrdering": ["a"]},
            {"type": "array", "items": {"type": "integer"}, "minItems": 2},
        ),
        (
            {"anyOf": [{"type": "NUMBER"}], "nullable": True},
            {"anyOf": [{"type": "number"}, {"type": "null"}]},
        ),
        (
            {"ref": "#/defs/Pet", "defs": {"Pet": {"type": "OBJECT"}}},
            {"$ref": "#/$defs/Pet", "$defs": {"Pet": {"type": "object"}}},
        ),
        # a property may be called like a keyword
        (
            {"type": "OBJECT", "properties": {"nullable": {"type": "BOOLEAN"}, "type": {"type": "STRING"}}},
            {"type": "object", "properties": {"nullable": {"type": "boolean"}, "type": {"type": "string"}}},
        ),
    ],
)
def test_googles_schemas_become_json_schemas(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    tools = [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]
    result = translated(
        Operation.GENERATE, Operation.CHAT, {**SAMPLES["text"][Operation.GENERATE], "tools": tools}
    )
    assert json.loads(result.body)["tools"][0]["function"]["parameters"] == expected


def test_url_safe_base64_of_googles_sdk_becomes_standard() -> None:
    parts = [{"inlineData": {"mimeType": "image/png", "data": "_-8="}}]
    body = {"contents": [{"role": "user", "parts": parts}]}
    result = translated(Operation.GENERATE, Operation.CHAT, body)
    url = json.loads(result.body)["messages"][0]["content"][0]["image_url"]["url"]
    assert url == "data:image/png;base64,/+8="


def test_google_responses_without_ids_find_their_calls_in_order() -> None:
    def call(city: str) -> dict[str, Any]:
        return {"functionCall": {"name": "weather", "args": {"city": city}}}

    def response(output: Any) -> dict[str, Any]:
        return {"functionResponse": {"name": "weather", "response": output}}

    body = {
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [call("Oslo"), call("Rome")]},
            {"role": "user", "parts": [response({"result": 2}), response({"output": "21 C"})]},
        ]
    }
    messages = json.loads(translated(Operation.GENERATE, Operation.CHAT, body).body)["messages"]
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in messages[2:]] == ids
    assert [message["content"] for message in messages[2:]] == ['{"result": 2}', "21 C"]
    body["contents"][2]["parts"].append(response({}))  # one too many
    assert translated(Operation.GENERATE, Operation.CHAT, body).status == 400


def test_ids_that_anthropic_refuses_are_made_safe_on_both_sides() -> None:
    call = {"id": "functions.bash:0", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "functions.bash:0", "content": "ok"},
        ],
    }
    turns = json.loads(translated(Operation.CHAT, Operation.MESSAGES, body).body)["messages"]
    assert turns[1]["content"][0]["id"] == turns[2]["content"][0]["tool_use_id"] == "functions_bash_0"


def test_a_broken_tool_call_in_the_history_is_named() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "bash", "arguments": '{"a": '}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}],
    }
    result = translated(Operation.CHAT, Operation.MESSAGES, body)
    assert isinstance(result, Rejection)
    assert (result.status, result.param) == (422, "messages[1]")


def test_a_later_system_message_stands_behind_a_users_turn_at_anthropic() -> None:
    roles = ["user", "assistant", "system", "user"]
    body = {"model": "m", "messages": [{"role": role, "content": role} for role in roles]}
    turns = json.loads(translated(Operation.CHAT, Operation.MESSAGES, body).body)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "system"]


@pytest.mark.parametrize("source", [Operation.CHAT, Operation.RESPONSES, Operation.GENERATE])
def test_an_assistants_last_message_is_no_prefill(source: Operation) -> None:
    body = json.loads(json.dumps(SAMPLES["several turns"][source]))
    turns = body.get("messages") or body.get("input") or body["contents"]
    turns.pop()
    result = translated(source, Operation.MESSAGES, body)
    assert isinstance(result, Rejection)
    assert (result.status, result.code) == (422, "untranslatable")
    assert result.param is not None
    assert result.param.endswith("[1]")
    for target in {Operation.CHAT, Operation.RESPONSES, Operation.GENERATE} - {source}:
        assert isinstance(translated(source, target, body), Translated)


@pytest.mark.parametrize(
    ("source", "changes", "field"),
    [
        (Operation.CHAT, {"tool_choice": "sometimes"}, "tool_choice"),
        (Operation.MESSAGES, {"thinking": {"type": "between_tools"}}, "thinking"),
        (Operation.MESSAGES, {"max_tokens": 0}, "max_tokens"),
        (Operation.MESSAGES, {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        (
            Operation.MESSAGES,
            {"context_management": {"edits": [{"type": "compact_1"}]}},
            "context_management.edits[0]",
        ),
        (Operation.MESSAGES, {"tools": [{"name": "a", "defer_loading": True}]}, "tools[0].defer_loading"),
        (
            Operation.MESSAGES,
            {"messages": [{"role": "system", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
            "messages[0]",
        ),
        (
            Operation.RESPONSES,
            {
                "input": [
                    {
                        "role": "developer",
                        "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA"}],
                    }
                ]
            },
            "input[0]",
        ),
        (
            Operation.GENERATE,
            {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA"}}]}},
            "systemInstruction.parts",
        ),
        (Operation.GENERATE, {"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
        (
            Operation.GENERATE,
            {"contents": [{"parts": [{"executableCode": {"code": "1"}}]}]},
            "contents[0].parts[0].executableCode",
        ),
    ],
)
def test_more_that_is_named(source: Operation, changes: dict[str, Any], field: str) -> None:
    target = Operation.CHAT if source is not Operation.CHAT else Operation.GENERATE
    result = translated(source, target, {**SAMPLES["text"][source], **changes})
    assert isinstance(result, Rejection), result
    assert (result.status, result.code, result.param) == (422, "untranslatable", field)


def test_a_part_of_google_holds_one_thing() -> None:
    part = {"text": "a", "inlineData": {"mimeType": "image/png", "data": "AA"}}
    result = translated(Operation.GENERATE, Operation.CHAT, {"contents": [{"parts": [part]}]})
    assert isinstance(result, Rejection)
    assert (result.status, result.param) == (400, "contents[0].parts[0]")


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(1024, "low"), (4095, "low"), (4096, "medium"), (16383, "medium"), (16384, "high"), (31999, "high")],
)
def test_budgets_become_the_nearest_effort(budget: int, effort: str) -> None:
    body = {**SAMPLES["text"][Operation.MESSAGES], "thinking": {"type": "enabled", "budget_tokens": budget}}
    chat = json.loads(translated(Operation.MESSAGES, Operation.CHAT, body).body)
    responses = json.loads(translated(Operation.MESSAGES, Operation.RESPONSES, body).body)
    assert chat["reasoning_effort"] == responses["reasoning"]["effort"] == effort


@pytest.mark.parametrize(
    ("effort", "model", "expected"),
    [
        ("low", "gemini-2.5-flash", {"thinkingBudget": 1024}),
        ("medium", "models/gemini-2.5-pro", {"thinkingBudget": 8192}),
        ("high", "gemini-2.5-pro", {"thinkingBudget": 24576}),
        ("none", "gemini-3-flash", {"thinkingBudget": 0}),
        ("minimal", "gemini-3-flash", {"thinkingLevel": "MINIMAL"}),
        ("xhigh", "gemini-3-pro", {"thinkingLevel": "XHIGH"}),
        ("xhigh", "gemini-2.5-pro", None),
    ],
)
def test_efforts_at_google(effort: str, model: str, expected: dict[str, Any] | None) -> None:
    body = {**SAMPLES["text"][Operation.CHAT], "reasoning_effort": effort}
    result = translated(Operation.CHAT, Operation.GENERATE, body, model=model)
    if expected is None:
        assert isinstance(result, Rejection)
        assert result.param == "reasoning_effort"
    else:
        assert json.loads(result.body)["generationConfig"]["thinkingConfig"] == expected


@pytest.mark.parametrize(("budget", "limit"), [(512, 2000), (2000, 2000), (8192, None)])
def test_a_budget_that_anthropic_cannot_have_is_named(budget: int, limit: int | None) -> None:
    config: dict[str, Any] = {"thinkingConfig": {"thinkingBudget": budget}, "maxOutputTokens": limit}
    body = {**SAMPLES["text"][Operation.GENERATE], "generationConfig": config}
    result = translated(Operation.GENERATE, Operation.MESSAGES, body)
    assert isinstance(result, Rejection)
    assert (result.status, result.param) == (422, "generationConfig.thinkingConfig")


def test_google_names_are_read_in_both_spellings() -> None:
    arguments = {"some_key": {"inner_key": 1}}
    body = {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}]},
            {"role": "model", "parts": [{"function_call": {"name": "f", "args": arguments}}]},
            {"role": "user", "parts": [{"function_response": {"name": "f", "response": {"my_key": 1}}}]},
        ],
        "generation_config": {"max_output_tokens": 7, "stop_sequences": ["a_b"]},
        "tools": [
            {"function_declarations": [{"name": "f", "parameters": {"any_of": [{"type": "OBJECT"}]}}]},
        ],
    }
    sent = json.loads(translated(Operation.GENERATE, Operation.CHAT, body).body)
    assert sent["max_completion_tokens"] == 7
    assert sent["stop"] == ["a_b"]
    assert json.loads(sent["messages"][2]["tool_calls"][0]["function"]["arguments"]) == arguments
    assert json.loads(sent["messages"][3]["content"]) == {"my_key": 1}
    assert sent["tools"][0]["function"]["parameters"] == {"anyOf": [{"type": "object"}]}
    body["systemInstruction"] = body["system_instruction"]
    result = translated(Operation.GENERATE, Operation.CHAT, body)
    assert isinstance(result, Rejection)
    assert (result.status, result.param) == (400, "systemInstruction")


@pytest.mark.parametrize(
    ("source", "body"),
    [
        (
            Operation.CHAT,
            {"model": "m", "messages": [{"role": "user", "content": "Hi", "x": None}], "y": None},
        ),
        (
            Operation.RESPONSES,
            {
                "model": "m",
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi", "z": None}]}],
            },
        ),
        (
            Operation.MESSAGES,
            {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "y": None},
        ),
        (
            Operation.GENERATE,
            {"contents": [{"parts": [{"text": "Hi", "x": None}]}], "generationConfig": {"y": None}},
        ),
    ],
)
def test_an_unknown_field_that_is_null_says_nothing(source: Operation, body: dict[str, Any]) -> None:
    target = Operation.CHAT if source is not Operation.CHAT else Operation.GENERATE
    assert isinstance(translated(source, target, body), Translated)
    many = {**body, **{f"unknown{number}": None for number in range(40)}}
    assert isinstance(translated(source, target, many), Rejection)


def test_nulls_in_a_tools_schema_and_arguments_stay() -> None:
    arguments = {"a": None}
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"], "default": None}}}
    body = {
        **SAMPLES["text"][Operation.MESSAGES],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": arguments}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]},
        ],
        "tools": [{"name": "f", "input_schema": schema}],
        "unknown": None,
    }
    sent = json.loads(translated(Operation.MESSAGES, Operation.GENERATE, body).body)
    assert sent["contents"][1]["parts"][0]["functionCall"]["args"] == arguments
    assert sent["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == schema
