"""Gemini requests: both spellings, media, tools, limits, and what is refused by name."""

import json

import pytest

from outlay.wire.body import set_nested
from outlay.wire.gemini import (
    GENERATE_OVERHEAD_TOKENS,
    IMAGE_TOKENS,
    parse_count_tokens,
    parse_embed_content,
    parse_generate,
    read_answer,
)
from outlay.wire.intent import CallIntent, HostedTool, Modality, Operation, Rejection, Usage

TEXT = [{"role": "user", "parts": [{"text": "hi"}]}]
BLOB = "A" * 50_000


def body_of(**fields: object) -> bytes:
    return json.dumps({"contents": TEXT, **fields}, separators=(",", ":")).encode()


def taken(body: bytes, model: str = "gemini-3.8-flash") -> CallIntent:
    intent = parse_generate(body, model=model, stream=False)
    assert isinstance(intent, CallIntent), intent
    return intent


def with_part(part: object) -> bytes:
    return body_of(contents=[{"parts": [{"text": "x"}, part]}])


@pytest.mark.parametrize(
    "config",
    [
        {"generationConfig": {"maxOutputTokens": 77, "candidateCount": 3, "responseModalities": ["AUDIO"]}},
        {
            "generation_config": {
                "max_output_tokens": "77",
                "candidate_count": "3",
                "response_modalities": ["audio"],
            }
        },
    ],
)
def test_either_spelling_is_read(config: dict[str, object]) -> None:
    body = body_of(**config)
    intent = parse_generate(body, model="models/gemini-3.8-flash", stream=True)
    assert isinstance(intent, CallIntent)
    assert (intent.model, intent.max_output_tokens, intent.choices) == ("gemini-3.8-flash", 77, 3)
    assert intent.output_limit_field == "generationConfig.maxOutputTokens"
    assert intent.output_modalities == (Modality.AUDIO,) and intent.stream
    assert intent.input_tokens_bound == len(body) + GENERATE_OVERHEAD_TOKENS


@pytest.mark.parametrize("names", [("inlineData", "mimeType"), ("inline_data", "mime_type")])
def test_inline_media(names: tuple[str, str]) -> None:
    image = with_part({names[0]: {names[1]: "image/png", "data": BLOB}})
    intent = taken(image)
    assert intent.input_tokens_bound == len(image) - len(BLOB) + IMAGE_TOKENS + GENERATE_OVERHEAD_TOKENS
    assert intent.input_modalities == (Modality.IMAGE,) and not intent.has_referenced_input
    for kind, modalities in (
        ("audio/wav", (Modality.AUDIO,)),
        ("video/mp4", (Modality.AUDIO, Modality.VIDEO)),
        ("application/pdf", (Modality.IMAGE,)),
        ("odd", (Modality.AUDIO, Modality.IMAGE, Modality.VIDEO)),
    ):
        intent = taken(with_part({names[0]: {names[1]: kind, "data": "AAAA"}}))
        assert intent.has_referenced_input and intent.input_modalities == modalities, kind


@pytest.mark.parametrize(
    "body",
    [
        with_part({"fileData": {"fileUri": "https://x", "mimeType": "video/mp4"}}),
        with_part({"file_data": {"file_uri": "gs://x"}}),
        body_of(cachedContent="cachedContents/1"),
        body_of(cached_content="cachedContents/1"),
        with_part(
            {
                "functionResponse": {
                    "name": "f",
                    "parts": [{"inlineData": {"mimeType": "audio/wav", "data": ""}}],
                }
            }
        ),
        body_of(systemInstruction={"parts": [{"fileData": {"fileUri": "x"}}]}),
    ],
)
def test_what_is_not_in_the_body_takes_the_window(body: bytes) -> None:
    assert taken(body).has_referenced_input


def test_hosted_tools_are_billed_by_query_or_by_prompt() -> None:
    tools = [
        {"googleSearch": {}},
        {"url_context": {}},
        {"codeExecution": {}},
        {"googleMaps": {}},
        {"functionDeclarations": []},
    ]
    assert taken(body_of(tools=tools)).hosted_tools == (
        HostedTool("web_search", None),
        HostedTool("url_context", None),
        HostedTool("code_execution", None),
        HostedTool("google_maps", 1),
    )
    old = taken(body_of(tools=[{"google_search": {}}]), "gemini-2.5-pro")
    assert old.hosted_tools == (HostedTool("web_search", 1),)
    assert taken(body_of(tools=[{"functionDeclarations": [{"name": "f"}]}])).hosted_tools == ()


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        (b"{}", "missing_field", "contents"),
        (
            body_of(
                generationConfig={"maxOutputTokens": 1}, generation_config={"max_output_tokens": 100_000}
            ),
            "duplicate_field",
            "generationConfig",
        ),
        (
            body_of(generationConfig={"maxOutputTokens": 1, "max_output_tokens": 100_000}),
            "duplicate_field",
            "maxOutputTokens",
        ),
        (b'{"contents":[],"contents":[]}', "duplicate_field", "contents"),
        (
            b'{"contents":[],"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":9}}',
            "duplicate_field",
            "maxOutputTokens",
        ),
        (
            with_part({"inlineData": {"mimeType": "image/png"}, "inline_data": {"mime_type": "audio/wav"}}),
            "duplicate_field",
            "part",
        ),
        (body_of(GenerationConfig={}, generationconfig={}), "duplicate_field", "generationConfig"),
        (body_of(generationConfig={"maxOutputTokens": 0}), "invalid_value", "maxOutputTokens"),
        (body_of(generationConfig={"maxOutputTokens": "-3"}), "invalid_value", "maxOutputTokens"),
        (body_of(generationConfig={"candidateCount": 1000}), "invalid_value", "candidateCount"),
        (
            body_of(generationConfig={"responseModalities": ["SMELL"]}),
            "unsupported_modality",
            "responseModalities",
        ),
        (
            body_of(generationConfig={"modelSelectionConfig": {}}),
            "unsupported_field",
            "modelSelectionConfig",
        ),
        (body_of(tools=[{"enterpriseWebSearch": {}}]), "unsupported_tool", "enterpriseWebSearch"),
        (body_of(serviceTier="BATCH"), "unsupported_field", "service_tier"),
    ],
)
def test_refusals_name_the_field(body: bytes, code: str, word: str) -> None:
    refused = parse_generate(body, model="m", stream=False)
    assert isinstance(refused, Rejection) and refused.code == code, refused
    assert word.lower() in refused.message.lower()


def test_embeddings() -> None:
    single = json.dumps({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "x"}]}})
    batch = json.dumps(
        {
            "requests": [
                {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "x"}]}},
                {"content": {"parts": [{"fileData": {"fileUri": "x", "mimeType": "audio/wav"}}]}},
            ]
        }
    )
    plain = parse_embed_content(single.encode(), model="gemini-embedding-001")
    assert isinstance(plain, CallIntent) and plain.operation is Operation.EMBED_CONTENT
    assert (plain.max_output_tokens, plain.has_referenced_input) == (0, False)
    many = parse_embed_content(batch.encode(), model="models/gemini-embedding-001")
    assert isinstance(many, CallIntent)
    assert many.has_referenced_input and many.input_modalities == (Modality.AUDIO,)
    other = parse_embed_content(batch.encode(), model="gemini-embedding-2")
    assert isinstance(other, Rejection) and "model" in other.message


def test_counting_is_free() -> None:
    intent = parse_count_tokens(body_of(), model="gemini-3.8-flash")
    assert isinstance(intent, CallIntent) and intent.operation is Operation.COUNT_TOKENS
    answer = read_answer(Operation.COUNT_TOKENS, b'{"totalTokens":31}')
    assert answer.usage == Usage(0, 0)


def test_an_array_of_chunks_is_read_as_the_stream_it_is() -> None:
    chunk = '{"candidates":[{"content":{"parts":[{"text":"a"}]}%s}],"usageMetadata":{"promptTokenCount":5%s}}'
    more = ',"candidatesTokenCount":9'
    last = chunk % (',"finishReason":"STOP"', more)
    body = f"[{chunk % ('', '')},{last}]"
    answer = read_answer(Operation.GENERATE, body.encode())
    assert answer.usage == Usage(5, 9) and answer.finish_reason == "STOP"


def test_an_embedding_without_a_count_is_unknown_not_free() -> None:
    assert read_answer(Operation.EMBED_CONTENT, b'{"embedding":{"values":[1]}}').usage is None
    assert read_answer(Operation.EMBED_CONTENT, b'{"usageMetadata":{}}').usage is None
    stated = read_answer(Operation.EMBED_CONTENT, b'{"usageMetadata":{"promptTokenCount":7}}')
    assert stated.usage == Usage(7, 0)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"contents":[]}', b'{"contents":[],"generationConfig":{"maxOutputTokens":9}}'),
        (
            b'{"generationConfig":{"temperature": 1.0},"x":[1, 2]}',
            b'{"generationConfig":{"temperature": 1.0,"maxOutputTokens":9},"x":[1, 2]}',
        ),
        (b'{"generation_config":{"max_output_tokens":5}}', b'{"generation_config":{"max_output_tokens":9}}'),
        (b'{"generationConfig":{}}', b'{"generationConfig":{"maxOutputTokens":9}}'),
        (b'{"generationConfig":null}', b'{"generationConfig":{"maxOutputTokens":9}}'),
    ],
)
def test_a_nested_limit_is_set_and_nothing_else(body: bytes, expected: bytes) -> None:
    assert set_nested(body, ("generationConfig", "maxOutputTokens"), 9) == expected
