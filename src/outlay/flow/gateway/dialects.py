"""What the gateway asks of each dialect, as a table: parse a body, read an answer, follow a stream. No I/O."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from outlay.flow.gateway.client import Request
from outlay.wire import (
    anthropic,
    anthropic_answer,
    audio,
    bedrock,
    bedrock_answer,
    completions,
    gemini,
    gemini_answer,
    images,
    moderation,
    openai,
    openai_answer,
    openai_responses,
    openai_responses_answer,
    rerank,
)
from outlay.wire.body import replace_fields
from outlay.wire.intent import Answer, CallIntent, Dialect, Operation, Rejection, Usage
from outlay.wire.multipart import read_form, replace_part
from outlay.wire.routes import EXACT, Match, Metering, Route
from outlay.wire.stream import StreamReader

PARSERS: Final[Mapping[Operation, Callable[[bytes], CallIntent | Rejection]]] = {
    Operation.CHAT: openai.parse_chat,
    Operation.EMBEDDINGS: openai.parse_embeddings,
    Operation.RESPONSES: openai_responses.parse_responses,
    Operation.COMPLETIONS: completions.parse_completion,
    Operation.IMAGES: images.parse_image_generation,
    Operation.SPEECH: audio.parse_speech,
    Operation.MODERATION: moderation.parse_moderation,
    Operation.RERANK: rerank.parse_rerank,
    Operation.MESSAGES: anthropic.parse_messages,
    Operation.COUNT_TOKENS: anthropic.parse_count_tokens,
}
"""Operations whose body says everything."""

PATH_PARSERS: Final[
    Mapping[tuple[Dialect, Operation], Callable[[bytes, str, bool], CallIntent | Rejection]]
] = {
    (Dialect.GOOGLE, Operation.GENERATE): lambda body, model, stream: gemini.parse_generate(
        body, model=model, stream=stream
    ),
    (Dialect.GOOGLE, Operation.EMBED_CONTENT): lambda body, model, _: gemini.parse_embed_content(
        body, model=model
    ),
    (Dialect.BEDROCK, Operation.CONVERSE): lambda body, model, stream: bedrock.parse_converse(
        body, model=model, stream=stream
    ),
    (Dialect.BEDROCK, Operation.INVOKE): lambda body, model, stream: bedrock.parse_invoke(
        body, model=model, stream=stream
    ),
    (Dialect.GOOGLE, Operation.COUNT_TOKENS): lambda body, model, _: gemini.parse_count_tokens(
        body, model=model
    ),
}
"""Operations whose path names the model, and asks for a stream."""

FORM_PARSERS: Final[Mapping[Operation, Callable[[str, bytes], CallIntent | Rejection]]] = {
    Operation.IMAGE_EDIT: images.parse_image_edit,
    Operation.TRANSCRIPTION: audio.parse_transcription,
    Operation.AUDIO_TRANSLATION: audio.parse_audio_translation,
}
"""Operations whose body is a form."""

FAST_ROUTES: Final[Mapping[tuple[bytes, bytes], Match]] = {
    (method.encode(), path.encode()): match
    for (method, path), match in EXACT.items()
    if match.route.operation in PARSERS and match.route.metering in (Metering.HELD, Metering.FREE)
}
"""The plain metered routes as they come off the wire."""

HAS_OUTPUT: Final = frozenset(
    {
        Operation.CHAT,
        Operation.MESSAGES,
        Operation.RESPONSES,
        Operation.GENERATE,
        Operation.COMPLETIONS,
        Operation.CONVERSE,
        Operation.INVOKE,
        Operation.REALTIME,
    }
)
"""Operations with a limit of output tokens, which goes in where the client states none."""

STREAMS: Final[Mapping[Operation, Callable[[CallIntent], StreamReader]]] = {
    Operation.CHAT: lambda intent: openai_answer.ChatStream(strip_usage=not intent.wants_stream_usage),
    Operation.MESSAGES: lambda intent: anthropic_answer.MessagesStream(),
    Operation.RESPONSES: lambda intent: openai_responses_answer.ResponsesStream(),
    Operation.GENERATE: lambda intent: gemini_answer.GenerateStream(),
    Operation.CONVERSE: lambda intent: bedrock_answer.ConverseStream(),
    Operation.INVOKE: lambda intent: bedrock_answer.InvokeStream(),
    Operation.COMPLETIONS: lambda intent: openai_answer.ChatStream(strip_usage=not intent.wants_stream_usage),
    Operation.IMAGES: lambda intent: images.ImageStream(),
    Operation.IMAGE_EDIT: lambda intent: images.ImageStream(),
    Operation.SPEECH: lambda intent: audio.SpeechStream(),
    Operation.TRANSCRIPTION: lambda intent: audio.TranscriptStream(),
}

ANSWERS: Final[Mapping[Operation, Callable[[Operation, bytes], Answer]]] = {
    Operation.CHAT: openai_answer.read_answer,
    Operation.EMBEDDINGS: openai_answer.read_answer,
    Operation.RESPONSES: openai_responses_answer.read_answer,
    Operation.MESSAGES: anthropic_answer.read_answer,
    Operation.COUNT_TOKENS: anthropic_answer.read_answer,
    Operation.GENERATE: gemini_answer.read_answer,
    Operation.EMBED_CONTENT: gemini_answer.read_answer,
    Operation.CONVERSE: bedrock_answer.read_answer,
    Operation.INVOKE: bedrock_answer.read_answer,
    Operation.IMAGES: images.read_answer,
    Operation.IMAGE_EDIT: images.read_answer,
    Operation.SPEECH: audio.read_answer,
    Operation.TRANSCRIPTION: audio.read_answer,
    Operation.AUDIO_TRANSLATION: audio.read_answer,
    Operation.MODERATION: moderation.read_answer,
    Operation.RERANK: rerank.read_answer,
}

_EVENT_TYPES: Final = (b"text/event-stream", b"application/vnd.amazon.eventstream")
_OPAQUE_PATHS: Final = ("/content", "/results")


def parse_call(match: Match, request: Request) -> CallIntent | Rejection:
    """The money side of a call; never raises. A model that the path names is put into a body that has none."""
    route = match.route
    by_form = FORM_PARSERS.get(route.operation)
    if by_form is not None:
        if sum(name == b"content-type" for name, _ in request.headers) > 1:
            return Rejection(400, "invalid_form", "the request has more than one content type")
        if match.model:
            named = with_part(request.content_type, request.body, "model", match.model)
            if isinstance(named, Rejection):
                return named
            request.body = named
        return by_form(request.content_type, request.body)
    by_path = PATH_PARSERS.get((route.dialect, route.operation))
    if by_path is not None:
        return by_path(request.body, match.model, route.is_stream)
    if match.model:
        # Azure's older form: the path names what is deployed, whatever the body says
        renamed = with_model(request.body, match.model)
        if isinstance(renamed, Rejection):
            return renamed
        request.body = renamed
    return PARSERS[route.operation](request.body)


def parse_generated(body: bytes, model: str, stream: bool) -> CallIntent | Rejection:
    """The money side of a body made for Google's dialect."""
    return gemini.parse_generate(body, model=model, stream=stream)


def with_model(body: bytes, model: str) -> bytes | Rejection:
    """A JSON body with its `model` set."""
    try:
        return replace_fields(body, {"model": model})
    except (ValueError, RecursionError):
        return Rejection(400, "invalid_json", "the body must be one JSON object in UTF-8")


def with_part(content_type: str, body: bytes, name: str, value: str) -> bytes | Rejection:
    """A form with a text part set: in place, or before the others."""
    form = read_form(content_type, body)
    if isinstance(form, Rejection):
        return form
    if form.files(name):
        try:
            return replace_part(form, name, value)
        except KeyError:
            return Rejection(400, "invalid_value", f"`{name}` must be one plain field", name)
    boundary = body[: body.index(b"\r\n")]
    head = b'%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n' % (boundary, name.encode())
    return head + value.encode() + b"\r\n" + body


def read_answer(intent: CallIntent, body: bytes) -> Answer:
    """What a whole answer says; never raises."""
    return ANSWERS.get(intent.operation, openai_answer.read_answer)(intent.operation, body)


def header_usage(headers: list[tuple[bytes, bytes]]) -> Usage | None:
    """What Bedrock says of a call's tokens in the answer's head, where the model's own body says nothing."""
    return bedrock_answer.usage_of_headers(
        {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name.startswith(b"x-amzn")
        }
    )


def open_stream(intent: CallIntent, headers: list[tuple[bytes, bytes]]) -> StreamReader | None:
    """A reader for the answer of a streaming call; None if it is no stream after all."""
    make = STREAMS.get(intent.operation)
    if make is None:
        return None
    for name, value in headers:
        if name == b"content-type":
            return make(intent) if value.lower().startswith(_EVENT_TYPES) else None
    return None


def is_opaque(route: Route) -> bool:
    """Whether a successful answer goes on as it comes: nothing in it says what it cost."""
    operation = route.operation
    if operation is Operation.FREE:
        return route.path.endswith(_OPAQUE_PATHS)
    return operation is Operation.SPEECH or operation is Operation.PASSTHROUGH


class OpaqueStream:
    """A `StreamReader` of bytes that say nothing about money."""

    usage: Usage | None = None
    usage_is_final = False
    error_seen = False
    response_id: str | None = None
    finish_reason: str | None = None
    saw_output = False
    is_between_events = False
    deltas = 0

    def __init__(self) -> None:
        self.is_done = False
        self.output_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """See `StreamReader`."""
        self.output_bytes += len(chunk)
        return chunk

    def end(self) -> bytes:
        """See `StreamReader`."""
        self.is_done = True
        return b""


def models_body(dialect: Dialect, names: list[str]) -> bytes:
    """The model list in the dialect's shape."""
    if dialect is Dialect.ANTHROPIC:
        data = [_anthropic_model(name) for name in names]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return msgspec.json.encode({"data": data, "has_more": False, **ends})
    if dialect is Dialect.GOOGLE:
        return msgspec.json.encode({"models": [_google_model(name) for name in names]})
    return msgspec.json.encode({"object": "list", "data": [_openai_model(name) for name in names]})


def model_body(dialect: Dialect, name: str) -> bytes:
    """One model in the dialect's shape."""
    make = {Dialect.ANTHROPIC: _anthropic_model, Dialect.GOOGLE: _google_model}.get(dialect, _openai_model)
    return msgspec.json.encode(make(name))


def _openai_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "outlay"}


def _anthropic_model(name: str) -> dict[str, object]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


def _google_model(name: str) -> dict[str, object]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
