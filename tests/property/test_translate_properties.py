"""Translation there and back keeps meaning, any byte split of a stream gives the same bytes, nothing ever raises."""

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.translate.meaning import meaning
from tests.wire.translate.samples import CLOSED, PDF, PNG
from tests.wire.translate.upstreams import EXPECTED, stream

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import (
    StreamTranslation,
    Translated,
    open_translation,
    translate_answer,
    translate_error,
    translate_request,
)
from outlay.wire.translate.conversation import (
    Choice,
    Conversation,
    File,
    Image,
    OutputFormat,
    Role,
    Stop,
    Target,
    Text,
    Thinking,
    Tokens,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from outlay.wire.translate.events import (
    CallDelta,
    CallEnded,
    CallStarted,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
)
from outlay.wire.translate.request import READERS, WRITERS
from outlay.wire.translate.stream import DECODERS, encoder
from outlay.wire.translate.table import CHAT, DIALECTS, GENERATE, MESSAGES, PAIRS, RESPONSES

MODEL = "gemini-3-pro"
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
names = st.sampled_from(["weather", "time", "place"])
objects = st.dictionaries(texts, st.one_of(texts, st.integers(-9, 9), st.none(), st.booleans()), max_size=3)


@st.composite
def histories(draw: st.DrawFn, dialects: set[Operation]) -> list[Turn]:
    """User and assistant in turns; every call is answered at once."""
    turns: list[Turn] = []
    pending: list[ToolCall] = []
    for number in range(draw(st.integers(1, 4))):
        parts: list[Any] = [draw(results(call.id, dialects)) for call in pending]
        media = [Text(draw(texts)), Image("image/png", PNG), File("application/pdf", PDF)]
        if GENERATE not in dialects:
            media.append(Image(url="https://example.com/a.png"))
        if not parts or draw(st.booleans()):
            parts += draw(st.lists(st.sampled_from(media), min_size=1, max_size=3))
        turns.append(Turn(Role.USER, tuple(parts)))
        pending = [
            ToolCall(f"call_{number}_{index}", name, json.dumps(draw(objects)))
            for index, name in enumerate(draw(st.lists(names, max_size=3)))
        ]
        said = [Text(draw(texts))] if not pending or draw(st.booleans()) else []
        turns.append(Turn(Role.ASSISTANT, (*said, *pending)))
    if pending:
        turns.append(Turn(Role.USER, tuple(draw(results(call.id, dialects)) for call in pending)))
    else:
        turns.append(Turn(Role.USER, (Text(draw(texts)),)))
    return turns


@st.composite
def results(draw: st.DrawFn, call_id: str, dialects: set[Operation]) -> ToolResult:
    content: list[Any] = [Text(draw(texts))]
    if CHAT not in dialects and draw(st.booleans()):
        content.append(Image("image/png", PNG))
    has_flag = dialects <= {MESSAGES, GENERATE}
    return ToolResult(call_id, tuple(content), is_error=has_flag and draw(st.booleans()))


@st.composite
def conversations(draw: st.DrawFn, dialects: set[Operation]) -> Conversation:
    """What all of these dialects can say."""

    def maybe(values: st.SearchStrategy[Any], *carriers: Operation) -> Any:
        return draw(st.none() | values) if dialects <= set(carriers or DIALECTS) else None

    schema = msgspec.Raw(json.dumps(CLOSED).encode())
    tools = [
        Tool(
            name, draw(st.none() | texts), schema, (GENERATE not in dialects and draw(st.booleans())) or None
        )
        for name in draw(st.lists(names, unique=True))
    ]
    choice = draw(st.none() | st.sampled_from(list(Choice))) if tools else None
    allowed: tuple[str, ...] = ()
    if choice is Choice.REQUIRED and draw(st.booleans()):
        few = 1 if MESSAGES in dialects else len(tools)
        allowed = tuple(tool.name for tool in tools[:few])
    fraction = st.sampled_from([0.0, 0.1, 0.25, 0.7, 0.99])
    return Conversation(
        source=draw(st.sampled_from(sorted(dialects))),
        turns=draw(histories(dialects)),
        system=draw(st.lists(texts, max_size=2)),
        tools=tools,
        choice=choice,
        allowed=allowed,
        parallel=False
        if tools and choice is None and GENERATE not in dialects and draw(st.booleans())
        else None,
        format=maybe(st.just(OutputFormat(schema, "place", strict=True))),
        max_tokens=draw(st.integers(4100, 9999)),  # 4096 is what Anthropic gets if nothing is stated
        temperature=maybe(fraction),
        top_p=maybe(fraction),
        top_k=maybe(st.integers(1, 99), MESSAGES, GENERATE),
        seed=maybe(st.integers(0, 2**31 - 1), CHAT, GENERATE),
        presence_penalty=maybe(fraction, CHAT, GENERATE),
        frequency_penalty=maybe(fraction, CHAT, GENERATE),
        stop=tuple(maybe(st.lists(texts, max_size=3), CHAT, MESSAGES, GENERATE) or ()),
        thinking=maybe(st.sampled_from(["none", "low", "medium", "high"]).map(Thinking)),
        user=maybe(texts, CHAT, RESPONSES, MESSAGES),
        service_tier=maybe(st.just("default")),
    )


def written(dialect: Operation, conversation: Conversation) -> bytes:
    body = WRITERS[dialect](conversation, Target(MODEL, False, None))
    fields = json.loads(body)
    # OpenAI's default is to store; a client's body that says nothing stores nothing elsewhere
    fields.pop("store", None)
    return msgspec.json.encode(fields)


@given(st.data())
def test_written_and_read_is_the_same(data: st.DataObject) -> None:
    dialect = data.draw(st.sampled_from(DIALECTS))
    conversation = data.draw(
        conversations({dialect}).filter(lambda said: dialect is not CHAT or said.top_k is None)
    )
    assert meaning(READERS[dialect](written(dialect, conversation))) == meaning(conversation)


@given(st.data())
def test_there_and_back_is_the_same(data: st.DataObject) -> None:
    near, far = data.draw(st.sampled_from(PAIRS))
    conversation = data.draw(conversations({near, far}))
    sent = written(near, conversation)
    there = translate_request(near, far, sent, model=MODEL, stream=False, max_output_tokens=None)
    assert isinstance(there, Translated), there
    back = translate_request(far, near, there.body, model=MODEL, stream=False, max_output_tokens=None)
    assert isinstance(back, Translated), back
    assert meaning(READERS[near](back.body)) == meaning(READERS[near](sent)) == meaning(conversation)


# ---- streams


@st.composite
def event_lists(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = [Started(draw(st.sampled_from(["Abc", "x-1_y"])), 0)]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "call"]), max_size=6)):
        if kind == "text":
            events += [TextDelta(text) for text in draw(st.lists(texts, min_size=1, max_size=3))]
        elif kind == "reasoning":
            events += [ReasoningDelta(text) for text in draw(st.lists(texts, min_size=1, max_size=3))]
        else:
            arguments = json.dumps(draw(objects), indent=draw(st.sampled_from([None, 1])))
            cut = draw(st.integers(0, len(arguments)))
            events.append(CallStarted(f"call_{calls}", draw(names)))
            events += [CallDelta(piece) for piece in (arguments[:cut], arguments[cut:]) if piece]
            events.append(CallEnded())
            calls += 1
    stop = draw(st.sampled_from([Stop.LENGTH, Stop.CONTENT_FILTER, Stop.TOOL_CALLS if calls else Stop.END]))
    used = draw(st.integers(0, 999))
    tokens = Tokens(used + draw(st.integers(0, 99)), used + draw(st.integers(0, 99)), used, 0, used)
    return [*events, Finished(stop, None, tokens)]


def told(events: list[Event]) -> list[Any]:
    """What a list of events tells: neighbouring pieces joined, arguments decoded."""
    parts: list[list[Any]] = []
    for event in events:
        match event:
            case TextDelta() | ReasoningDelta():
                kind = type(event).__name__
                if parts and parts[-1][0] == kind:
                    parts[-1][1] += event.text
                else:
                    parts.append([kind, event.text])
            case CallStarted():
                parts.append(["call", event.id, event.name, ""])
            case CallDelta():
                parts[-1][3] += event.arguments
            case Finished():
                # a filter is a refusal where a dialect has no other word
                stop = Stop.CONTENT_FILTER if event.stop is Stop.REFUSAL else event.stop
                parts.append([stop, event.tokens])
            case _:
                pass
    return [[*part[:3], json.loads(part[3])] if part[0] == "call" else part for part in parts]


def encode(dialect: Operation, events: list[Event]) -> bytes:
    writer = encoder(dialect, MODEL, include_usage=True)
    return b"".join(writer.write(event) for event in events)


class Recorder:
    """An encoder that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> bytes:
        self.events.append(event)
        return b""


def decode(dialect: Operation, body: bytes) -> list[Event]:
    recorder = Recorder()
    translation = StreamTranslation(DECODERS[dialect](), recorder)
    translation.feed(body)
    translation.end()
    return recorder.events


@given(event_lists(), st.sampled_from(DIALECTS))
def test_decode_of_encode_tells_the_same(events: list[Event], dialect: Operation) -> None:
    assert told(decode(dialect, encode(dialect, events))) == told(events)


@given(event_lists(), st.sampled_from(PAIRS))
def test_a_translated_stream_tells_the_same(events: list[Event], pair: tuple[Operation, Operation]) -> None:
    client, upstream = pair
    translation = open_translation(client, upstream, model=MODEL, include_usage=True)
    out = translation.feed(encode(upstream, events)) + translation.end()
    assert told(decode(client, out)) == told(events)


@given(st.data())
def test_any_split_gives_the_same_bytes(data: st.DataObject) -> None:
    client, upstream = data.draw(st.sampled_from(PAIRS))
    sent = stream(upstream, EXPECTED[data.draw(st.sampled_from(sorted(EXPECTED)))])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    whole = open_translation(client, upstream, model="m", include_usage=True)
    expected = whole.feed(sent) + whole.end()
    split = open_translation(client, upstream, model="m", include_usage=True)
    bounds = [0, *cuts, len(sent)]
    pieces = [split.feed(sent[start:end]) for start, end in pairwise(bounds)]
    assert b"".join(pieces) + split.end() == expected


# ---- nothing raises

WORDS = [
    *(
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "tools",
        "function",
        "name",
        "input",
        "user",
        "id",
    ),
    *("contents", "parts", "generationConfig", "image_url", "url", "tool_use", "tool_result", "assistant"),
    *("choices", "delta", "candidates", "output", "usage", "error", "message", "event", "response", "index"),
    *(
        "thinking",
        "source",
        "data",
        "item",
        "content_block",
        "functionCall",
        "args",
        "arguments",
        "tool_calls",
    ),
    *(
        "system",
        "max_tokens",
        "data:image/png,x",
        "data:;base64,",
        "response_format",
        "json_schema",
        "schema",
    ),
    *(
        "message_start",
        "content_block_delta",
        "input_json_delta",
        "response.output_item.done",
        "thoughtSignature",
    ),
]
words = st.sampled_from(WORDS) | texts
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=25,
)
bodies = st.binary(max_size=60) | junk.map(lambda value: json.dumps(value).encode())


@st.composite
def damaged(draw: st.DrawFn, near: Operation) -> bytes:
    """A request with something in it replaced by junk."""
    body = json.loads(written(near, draw(conversations({near}))))
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return json.dumps(body).encode()
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
            place = place[key]
        else:
            place[key] = draw(junk)
            return json.dumps(body).encode()


@given(st.data())
def test_requests_never_raise(data: st.DataObject) -> None:
    near, far = data.draw(st.sampled_from(PAIRS))
    body = data.draw(bodies | damaged(near))
    result = translate_request(near, far, body, model="m", stream=True, max_output_tokens=5)
    if isinstance(result, Rejection):
        assert result.status in {400, 422}
        assert result.message
    else:
        json.loads(result.body)


@given(bodies, st.sampled_from(PAIRS))
def test_answers_and_errors_never_raise(body: bytes, pair: tuple[Operation, Operation]) -> None:
    translated = translate_answer(*pair, body, model="m")
    assert translated is None or json.loads(translated)
    assert json.loads(translate_error(*pair, 500, body, "r"))


@given(st.lists(bodies, max_size=6), st.sampled_from(PAIRS))
def test_streams_never_raise(events: list[bytes], pair: tuple[Operation, Operation]) -> None:
    translation = open_translation(*pair, model="m", include_usage=True)
    for event in events:
        translation.feed(b"data: " + event + b"\n\n")
    translation.end()
