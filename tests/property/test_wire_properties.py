"""Any byte split of a stream gives the same usage and the same bytes; the fast reading of a body agrees with the exact
one; nothing raises, whatever comes in."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.wire import (
    anthropic,
    audio,
    completions,
    gemini,
    images,
    moderation,
    openai,
    openai_responses,
    rerank,
)
from outlay.wire.body import insert_field, replace_fields
from outlay.wire.fields import first_duplicate, read_fields
from outlay.wire.intent import CallIntent, Operation, Rejection
from outlay.wire.stream import EventReader

RECORDED = sorted((Path(__file__).parents[1] / "recorded").glob("*.sse"))
Reader = EventReader


def readers_of(name: str) -> list[Reader]:
    for start, make in (
        ("anthropic", anthropic.MessagesStream),
        ("openai_responses", openai_responses.ResponsesStream),
        ("gemini", gemini.GenerateStream),
        ("images", images.ImageStream),
        ("transcript", audio.TranscriptStream),
        ("speech", audio.SpeechStream),
    ):
        if name.startswith(start):
            return [make()]
    return [openai.ChatStream(True), openai.ChatStream(False)]


def outcome(reader: Reader, chunks: list[bytes]) -> tuple[object, ...]:
    forwarded = b"".join(reader.feed(chunk) for chunk in chunks) + reader.end()
    return (
        forwarded,
        reader.usage,
        reader.usage_is_final,
        reader.is_done,
        reader.error_seen,
        reader.deltas,
        reader.output_bytes,
        reader.finish_reason,
        reader.response_id,
    )


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
@pytest.mark.parametrize("line_end", [None, b"\n", b"\r\n", b"\r"])
@given(places=st.lists(st.integers(min_value=0), max_size=40))
def test_any_split_reads_the_same(path: Path, line_end: bytes | None, places: list[int]) -> None:
    stream = path.read_bytes()
    if line_end is not None:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", line_end)
    for whole, split in zip(readers_of(path.name), readers_of(path.name), strict=True):
        assert outcome(split, cut(stream, places)) == outcome(whole, [stream])


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_every_single_cut_and_every_byte_alone(path: Path) -> None:
    stream = path.read_bytes()
    expected = [outcome(reader, [stream]) for reader in readers_of(path.name)]
    for place in range(len(stream)):
        assert [
            outcome(reader, [stream[:place], stream[place:]]) for reader in readers_of(path.name)
        ] == expected
    single = [stream[i : i + 1] for i in range(len(stream))]
    assert [outcome(reader, single) for reader in readers_of(path.name)] == expected


PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"data: x",
    b"data",
    b":",
    b" ",
    b": comment",
    b"event: error",
    b"\xef\xbb\xbf",
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    b'data: {"choices":[{"delta":{"content":"a"}}]}',
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":2}}}',
    b'data: {"type":"response.completed","response":{"id":"r","usage":{"input_tokens":1,"output_tokens":2}}}',
    b'data: {"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}',
    b"data: [DONE]",
    b'"usage"',
    b"\xff",
]


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=30),
    places=st.lists(st.integers(min_value=0), max_size=60),
)
def test_any_split_of_any_soup_reads_the_same(pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)
    for name in ("openai", "anthropic", "openai_responses", "gemini", "images", "transcript", "speech"):
        for whole, split in zip(readers_of(name), readers_of(name), strict=True):
            expected = outcome(whole, [stream])
            assert outcome(split, cut(stream, places)) == expected
            if not isinstance(whole, openai.ChatStream) or not whole._holds_back:
                assert expected[0] == stream


READS = [
    openai.read_answer,
    anthropic.read_answer,
    openai_responses.read_answer,
    gemini.read_answer,
    images.read_answer,
    audio.read_answer,
    moderation.read_answer,
    rerank.read_answer,
]
NAMES = [
    "model",
    "messages",
    "n",
    "max_tokens",
    "Max_Tokens",
    "stream",
    "tools",
    "x",
    "é",
    "user",
    "input",
    "max_uses",
    "contents",
    "generationConfig",
    "candidates",
    "usageMetadata",
    "usage",
    "output",
    "prompt",
    "query",
    "documents",
    "meta",
    "data",
    "images",
]
INNER_NAMES = ["type", "content", "text", "image", "parts", "inlineData", "usage", "output", "response"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**33),
    st.text(max_size=8),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NAMES, *INNER_NAMES]), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(
    pairs=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8),
    style=st.sampled_from([(",", ":"), (", ", ": "), (",", ": "), (" , ", ":")]),
    is_ascii=st.booleans(),
    pad=st.sampled_from(["", " ", "\n"]),
)
def test_the_fast_reading_agrees_with_the_exact_one(
    pairs: list[tuple[str, object]], style: tuple[str, str], is_ascii: bool, pad: str
) -> None:
    members = [
        json.dumps(name, ensure_ascii=is_ascii)
        + style[1]
        + json.dumps(value, ensure_ascii=is_ascii, separators=style)
        for name, value in pairs
    ]
    body = ("{" + pad + style[0].join(members) + "}").encode("utf-8", "surrogatepass")
    has_duplicate = len({name for name, _ in pairs}) < len(pairs)
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        assert has_duplicate or fields.code == "invalid_json"
    else:
        assert not has_duplicate
        assert first_duplicate(body) is None
        assert {name: json.loads(bytes(value)) for name, value in fields.items()} == dict(pairs)


@given(body=st.one_of(st.binary(max_size=200), VALUES.map(lambda value: json.dumps(value).encode())))
def test_nothing_raises(body: bytes) -> None:
    for parse in (
        openai.parse_chat,
        openai.parse_embeddings,
        anthropic.parse_messages,
        anthropic.parse_count_tokens,
        openai_responses.parse_responses,
        lambda data: gemini.parse_generate(data, model="m", stream=False),
        lambda data: gemini.parse_embed_content(data, model="m"),
        completions.parse_completion,
        images.parse_image_generation,
        lambda data: images.parse_image_edit("application/json", data),
        lambda data: images.parse_image_edit("multipart/form-data; boundary=x", data),
        audio.parse_speech,
        lambda data: audio.parse_transcription("multipart/form-data; boundary=x", data),
        moderation.parse_moderation,
        rerank.parse_rerank,
    ):
        assert isinstance(parse(body), CallIntent | Rejection)
    for operation in Operation:
        for read in READS:
            read(operation, body)


@given(fields=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1), value=st.integers(0, 10**6))
def test_what_is_taken_is_what_an_ordinary_parser_reads(fields: dict[str, object], value: int) -> None:
    body = json.dumps({**fields, "model": "m", "messages": [], "max_tokens": value + 1}).encode()
    intent = openai.parse_chat(body)
    if isinstance(intent, CallIntent):
        read = json.loads(body)
        assert (intent.model, intent.max_output_tokens) == (read["model"], read["max_tokens"])
        assert intent.choices == (read.get("n") or 1) and intent.stream is bool(read.get("stream"))
        assert intent.input_tokens_bound >= len(body)


@given(
    fields=st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1),
    changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    indent=st.sampled_from([None, 1]),
)
def test_changes_keep_the_meaning(
    fields: dict[str, object], changes: dict[str, object], indent: int | None
) -> None:
    body = json.dumps(fields, indent=indent).encode()
    assert json.loads(replace_fields(body, changes)) == {**fields, **changes}
    assert json.loads(insert_field(body, "new", changes)) == {**fields, "new": changes}
    if b"\\u00" not in body:  # an escaped ASCII letter may hide the name: then the body is written anew
        assert insert_field(body, "new", 1).startswith(body.rstrip(b"}\n"))
