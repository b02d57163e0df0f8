"""OpenAI requests: what is taken, what is refused, and that every refusal names its field."""

import json

import pytest

from outlay.wire.intent import CacheWrite, CallIntent, HostedTool, Modality, Operation, Rejection
from outlay.wire.openai import (
    CHAT_OVERHEAD_TOKENS,
    EMBEDDINGS_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    parse_chat,
    parse_embeddings,
)
from outlay.wire.openai_terms import IMAGE_TOKENS

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}, separators=(",", ":")).encode()


def taken(body: bytes) -> CallIntent:
    intent = parse_chat(body)
    assert isinstance(intent, CallIntent), intent
    return intent


def test_a_plain_chat() -> None:
    body = chat(max_tokens=7, n=3, service_tier="flex", stream=True, stream_options={"include_usage": True})
    intent = taken(body)
    assert (intent.model, intent.max_output_tokens, intent.output_limit_field) == ("m", 7, "max_tokens")
    assert (intent.choices, intent.service_tier, intent.stream, intent.wants_stream_usage) == (
        3,
        "flex",
        True,
        True,
    )
    assert intent.input_tokens_bound == len(body) + CHAT_OVERHEAD_TOKENS
    assert intent.cache_write is CacheWrite.DEFAULT and intent.hosted_tools == ()


def test_absent_and_null_mean_the_same() -> None:
    nulls = dict.fromkeys(
        [
            "max_tokens",
            "n",
            "stream",
            "stream_options",
            "service_tier",
            "tools",
            "modalities",
            "audio",
            "prediction",
            "web_search_options",
        ]
    )
    intent = taken(chat(**nulls))
    assert intent.max_output_tokens is None and intent.output_limit_field is None
    assert (intent.choices, intent.stream, intent.wants_stream_usage, intent.hosted_tools) == (
        1,
        False,
        False,
        (),
    )


def test_tools_add_their_overhead() -> None:
    body = chat(tools=[{"type": "function", "function": {"name": "f"}}])
    assert taken(body).input_tokens_bound == len(body) + CHAT_OVERHEAD_TOKENS + TOOLS_OVERHEAD_TOKENS


def test_text_parts_pass() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
    }
    taken(chat(messages=[message]))


def test_web_search_has_no_bound_of_uses() -> None:
    assert taken(chat(web_search_options={})).hosted_tools == (HostedTool("web_search", None),)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, CacheWrite.DEFAULT),
        ({"prompt_cache_key": "k"}, CacheWrite.DEFAULT),
        ({"prompt_cache_options": {"ttl": "30m"}}, CacheWrite.DEFAULT),
        ({"prompt_cache_options": {"ttl": "12h"}}, CacheWrite.HALF_DAY),
        ({"prompt_cache_retention": "24h"}, CacheWrite.HALF_DAY),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "text",
                                "text": "a",
                                "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"},
                            }
                        ],
                    }
                ]
            },
            CacheWrite.HALF_DAY,
        ),
    ],
)
def test_cache_write(fields: dict[str, object], expected: CacheWrite) -> None:
    assert taken(chat(**fields)).cache_write is expected


def test_an_escaped_ttl_is_not_missed() -> None:
    body = chat(prompt_cache_options={"ttl": "12h"}).replace(b"12h", b"\\u0031\\u0032h")
    assert taken(body).cache_write is CacheWrite.HALF_DAY


PARTS = ["image", "image_pil", "image_embeds", "later", ""]
MEDIA_PARTS = [
    ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, (Modality.AUDIO,)),
    ({"type": "audio_url", "audio_url": {"url": "https://x"}}, (Modality.AUDIO,)),
    ({"type": "video_url", "video_url": {"url": "https://x"}}, (Modality.AUDIO, Modality.VIDEO)),
    ({"type": "file", "file": {"file_id": "f"}}, (Modality.IMAGE,)),
]
INLINE = "data:image/jpeg;base64," + "A" * 70_000
REFUSED_FIELDS = [
    ({"modalities": ["text", "image"]}, "unsupported_modality", "modalities"),
    ({"mm_processor_kwargs": {"x": 1}}, "unsupported_modality", "mm_processor_kwargs"),
    ({"service_tier": "batch"}, "unsupported_field", "service_tier"),
    ({"prediction": {"type": "content", "content": "x"}}, "unbounded_output", "prediction"),
    ({"previous_response_id": "r"}, "unbounded_input", "previous_response_id"),
    ({"conversation": "c"}, "unbounded_input", "conversation"),
    ({"prompt": {"id": "p"}}, "unbounded_input", "prompt"),
    ({"chat_template": "{% for i in range(10**6) %}x{% endfor %}"}, "unbounded_input", "chat_template"),
    ({"best_of": 4}, "unsupported_field", "best_of"),
    ({"use_beam_search": True}, "unsupported_field", "use_beam_search"),
    ({"n_cmpl": 9}, "unsupported_field", "n_cmpl"),
    ({"n_predict": 9}, "unsupported_field", "n_predict"),
    ({"max_output_tokens": 9}, "unsupported_field", "max_output_tokens"),
    ({"models": ["a", "b"]}, "unsupported_field", "models"),
    ({"moderation": {"model": "x"}}, "unsupported_field", "moderation"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_tool", "tools"),
    ({"max_tokens": 1, "max_completion_tokens": 1}, "ambiguous_limit", "max_tokens"),
    ({"Max_Tokens": 1}, "duplicate_field", "max_tokens"),
    ({"MODEL": "dear"}, "duplicate_field", "model"),
    ({"\u017ftream": True}, "duplicate_field", "stream"),
    ({"max_to\u212aens": 1}, "duplicate_field", "max_tokens"),
]


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_unknown_kinds(part: str) -> None:
    body = chat(messages=[*MESSAGES, {"role": "user", "content": [{"type": part, part or "image_url": {}}]}])
    refused = parse_chat(body)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code, refused.param) == (
        422,
        "unsupported_modality",
        "messages[1].content",
    )


@pytest.mark.parametrize(("part", "modalities"), MEDIA_PARTS)
def test_media_without_a_bound_take_the_window(part: object, modalities: tuple[Modality, ...]) -> None:
    intent = taken(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]))
    assert intent.has_referenced_input and intent.input_modalities == modalities


def test_an_earlier_audio_answer_is_a_reference() -> None:
    intent = taken(chat(messages=[{"role": "assistant", "audio": {"id": "a"}}]))
    assert intent.has_referenced_input and intent.input_modalities == (Modality.AUDIO,)


@pytest.mark.parametrize(("model", "tokens"), [("gpt-5.4", IMAGE_TOKENS), ("gpt-4o-mini", 48_169)])
@pytest.mark.parametrize("url", [INLINE, "https://example.com/cat.png"])
def test_an_image_counts_by_its_formula(model: str, tokens: int, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    body = chat(model=model, messages=[{"role": "user", "content": [part, part]}])
    intent = taken(body)
    text = len(body) - (2 * len(INLINE) if url is INLINE else 0)
    assert intent.input_tokens_bound == text + CHAT_OVERHEAD_TOKENS + 2 * tokens
    assert intent.input_modalities == (Modality.IMAGE,) and not intent.has_referenced_input


def test_audio_that_is_asked_for() -> None:
    intent = taken(chat(modalities=["text", "audio"], audio={"voice": "x", "format": "wav"}))
    assert intent.output_modalities == (Modality.AUDIO,) and intent.input_modalities == ()


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED_FIELDS)
def test_refused_fields(fields: dict[str, object], code: str, param: str) -> None:
    refused = parse_chat(chat(**fields))
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code, refused.param) == (422, code, param)
    assert f"`{param}`" in refused.message


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", '"5"', "[]", "2147483649", "1e400", "9" * 50])
def test_amounts_out_of_range(name: str, value: str) -> None:
    refused = parse_chat(b'{"model":"m","messages":[],"%b":%b}' % (name.encode(), value.encode()))
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.param) == (400, name)
    assert name in refused.message


def test_n_is_bounded() -> None:
    assert taken(chat(n=128)).choices == 128
    assert isinstance(parse_chat(chat(n=129)), Rejection)


@pytest.mark.parametrize(
    "name", ["model", "n", "max_tokens", "stream", "messages", "tools", "seed", "x_unknown"]
)
@pytest.mark.parametrize("style", [(",", ":"), (", ", ": "), (" ,\n", ":\t")])
@pytest.mark.parametrize("is_escaped", [False, True])
def test_a_field_given_twice(name: str, style: tuple[str, str], is_escaped: bool) -> None:
    pairs = {"model": '"m"', "messages": "[]", "n": "1", "max_tokens": "5", "stream": "false", "tools": "[]"}
    pairs |= {"seed": "1", "x_unknown": "1"}
    second = "".join(f"\\u{ord(letter):04x}" for letter in name) if is_escaped else name
    members = [f'"{key}"{style[1]}{value}' for key, value in pairs.items()]
    body = "{" + style[0].join([*members, f'"{second}"{style[1]}{pairs[name]}']) + "}"
    refused = parse_chat(body.encode())
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code, refused.param) == (422, "duplicate_field", name)
    assert isinstance(parse_chat(("{" + style[0].join(members) + "}").encode()), CallIntent)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b'{"model":"m","messages":[],"temperature":NaN}',
        b'{"model":"m","messages":[],"temperature":Infinity}',
        b'{"model":"m","messages":[]} {}',
        b'\xef\xbb\xbf{"model":"m","messages":[]}',
        b'{"model":"m","messages":[],"user":"\xff"}',
        b'{"model":"m","messages":[],"user":"\xc0\xaf"}',
        b'{"model":"m","messages":[],"user":"\\ud800"}',
        b'{"model":"m","messages":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","messages":[],}',
        b"{'model':'m'}",
        '{"model":"m","messages":[]}'.encode("utf-16"),
    ],
)
def test_what_is_not_one_json_object(body: bytes) -> None:
    refused = parse_chat(body)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":3,"messages":[]}', "model"),
        (b'{"model":"","messages":[]}', "model"),
        (b'{"model":"' + b"m" * 257 + b'","messages":[]}', "model"),
        (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"m","messages":null}', "messages"),
    ],
)
def test_malformed_fields_are_named(body: bytes, param: str) -> None:
    refused = parse_chat(body)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.param) == (400, param)


@pytest.mark.parametrize("given", ['"text"', '["a","b"]', "[1,2,3]", "[[1,2],[3]]", "[]"])
def test_embeddings(given: str) -> None:
    body = b'{"model":"e","input":' + given.encode() + b"}"
    intent = parse_embeddings(body)
    assert isinstance(intent, CallIntent)
    assert intent.operation is Operation.EMBEDDINGS
    assert intent.input_tokens_bound == len(body) + EMBEDDINGS_OVERHEAD_TOKENS
    assert (intent.max_output_tokens, intent.output_limit_field, intent.cache_write) == (
        0,
        None,
        CacheWrite.NONE,
    )


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"model":"e"}', 400, "input"),
        (b'{"input":"x"}', 400, "model"),
        (b'{"model":"e","input":[{"image":"x"}]}', 400, "input[0]"),
        (b'{"model":"e","input":7}', 400, "input"),
        (b'{"model":"e","input":"a","input":"b"}', 422, "input"),
        (b'{"model":"e","input":"a","INPUT":"b"}', 422, "input"),
        (b'{"model":"e","input":"a","messages":[]}', 422, "messages"),
        (b'{"model":"e","input":"a","prompt_name":"query"}', 422, "prompt_name"),
    ],
)
def test_refused_embeddings(body: bytes, status: int, param: str) -> None:
    refused = parse_embeddings(body)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.param) == (status, param)
