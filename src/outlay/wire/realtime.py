"""OpenAI's realtime sessions: what single events, from either side, mean for money. No I/O, no prices, no state.

A session has no request to bound: each response is bounded alone, by the model's input limit and `max_output_tokens`
(`inf`: the model's own limit). Its usage comes in `response.done`; a transcription of what was said is billed by the
transcribing model, and its usage comes with the transcript. Both spellings are read: the present one, and that of the
beta (`max_response_output_tokens`, `modalities`, `input_audio_transcription`); one event may not hold both.
"""

from typing import Any, Final, Literal

import msgspec

from outlay.wire.audio import HEARD_TOKENS_PER_SECOND, milliseconds
from outlay.wire.fields import MAX_COUNT, first_duplicate, read_fields
from outlay.wire.intent import CallIntent, Dialect, Modality, Operation, Rejection, Units, Usage

MAX_TOKENS: Final = 2**40
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""Largest event that is looked into; OpenAI takes 15 MiB of audio in one."""
MIN_TURN_TOKENS: Final = 256
"""Held for a turn at least, on each side of its transcription."""
_CLIENT_TOOLS: Final = frozenset({"function"})
_UNBOUNDED: Final = "inf"
_NO_RESPONSE: Final = frozenset({"conversation_already_has_active_response"})
"""Codes of errors that only a `response.create` meets."""
_SPEAKS: Final = frozenset({"session.update", "transcription_session.update", "response.create"})


class ClientEvent(msgspec.Struct, frozen=True, gc=False):
    """What a client's event changes. None: the event says nothing about it."""

    type: str
    max_output_tokens: int | None = None
    """Of the session from now on, or of the one response that is created."""
    is_output_unlimited: bool = False
    """The event sets the limit to `inf`."""
    transcription_model: str | None = None
    """A model that is billed for each turn that is heard."""
    has_transcription: bool = False
    """The event says whether turns are transcribed; with `transcription_model` None they are not (any more)."""
    output_modalities: tuple[Modality, ...] | None = None
    responds_unasked: bool | None = None
    """Whether the server starts responses by itself when a turn has ended."""
    event_id: str | None = None
    """The client's own name of a `response.create`, which an error about it repeats."""

    @property
    def starts_response(self) -> bool:
        """Whether a response will be made, and billed, because of this event."""
        return self.type == "response.create"


class ServerEvent(msgspec.Struct, frozen=True, gc=False):
    """What a server's event says. `usage` is of a response, `transcription_usage` of what was heard."""

    type: str
    session_model: str | None = None
    max_output_tokens: int | None = None
    """Of `session.created` and `session.updated`; None: unlimited or not stated."""
    response_id: str | None = None
    status: str | None = None
    """Of `response.done`: `completed`, `cancelled`, `incomplete`, `failed`."""
    usage: Usage | None = None
    transcription_usage: Usage | None = None
    is_error: bool = False
    refused_event_id: str | None = None
    """Of an `error`: the client's own name of the event that it is about."""
    refuses_response: bool = False
    """The error can only be about a `response.create`: no response will come of it."""

    @property
    def ends_response(self) -> bool:
        """Whether a response has ended; without `usage` what it cost is not known."""
        return self.type == "response.done"


class _Limits(msgspec.Struct, gc=False):
    max_output_tokens: int | Literal["inf"] | None = None
    max_response_output_tokens: int | Literal["inf"] | None = None


class _Transcription(msgspec.Struct, gc=False):
    model: str | None = None


class _TurnDetection(msgspec.Struct, gc=False):
    create_response: bool | None = None


class _Input(msgspec.Struct, gc=False):
    transcription: _Transcription | msgspec.UnsetType | None = msgspec.UNSET
    turn_detection: _TurnDetection | msgspec.UnsetType | None = msgspec.UNSET


class _Audio(msgspec.Struct, gc=False):
    input: _Input | None = None


class _Tool(msgspec.Struct, gc=False):
    type: str = "function"


class _Settings(_Limits, gc=False):
    """A session, or the response that is asked for."""

    model: str | None = None
    audio: _Audio | None = None
    input_audio_transcription: _Transcription | msgspec.UnsetType | None = msgspec.UNSET
    turn_detection: _TurnDetection | msgspec.UnsetType | None = msgspec.UNSET
    output_modalities: list[str] | None = None
    modalities: list[str] | None = None
    tools: list[_Tool] | None = None
    prompt: Any = None


class _ClientEvent(msgspec.Struct, gc=False):
    type: str = ""
    event_id: str | None = None
    session: _Settings | None = None
    response: _Settings | None = None


class _CachedDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None
    image_tokens: int | None = None


class _InputDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: _CachedDetails | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    type: str | None = None
    seconds: msgspec.Raw = msgspec.Raw(b"")
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_token_details: _InputDetails | None = None
    output_token_details: _OutputDetails | None = None


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    status: str | None = None
    usage: _Usage | None = None


class _Session(_Limits, gc=False):
    model: str | None = None


class _Error(msgspec.Struct, gc=False):
    code: str | None = None
    param: str | None = None
    event_id: str | None = None


class _ServerEvent(msgspec.Struct, gc=False):
    type: str = ""
    session: _Session | None = None
    response: _Response | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_decode_client: Final = msgspec.json.Decoder(_ClientEvent).decode
_decode_server: Final = msgspec.json.Decoder(_ServerEvent).decode


def read_client_event(data: bytes) -> ClientEvent | Rejection:
    """What a client's event changes, or why it cannot be let through. Never raises.

    Events that are not about settings or responses (audio, items) are read by their type alone.
    """
    if len(data) > MAX_EVENT_BYTES:
        return Rejection(422, "too_large", f"an event has at most {MAX_EVENT_BYTES} bytes here")
    fields = read_fields(data)
    if isinstance(fields, Rejection):
        return fields
    try:
        event = _decode_client(data)
    except (ValueError, RecursionError):
        return Rejection(400, "invalid_value", "the event's fields have other types than the API's")
    if event.type not in _SPEAKS:
        return ClientEvent(event.type)
    if first_duplicate(data, at_any_depth=True) is not None:
        return Rejection(422, "duplicate_field", "the event has a field twice in one object; send it once")
    settings = event.session if event.type != "response.create" else event.response
    if settings is None:
        return ClientEvent(event.type, event_id=event.event_id)
    refused = _refuse_settings(settings)
    if refused is not None:
        return refused
    limit = _limit(settings)
    transcription = _transcription(settings)
    turns = settings.audio.input.turn_detection if settings.audio and settings.audio.input else msgspec.UNSET
    turns = settings.turn_detection if turns is msgspec.UNSET else turns
    kinds = settings.output_modalities or settings.modalities
    return ClientEvent(
        event.type,
        limit if isinstance(limit, int) else None,
        limit == _UNBOUNDED,
        # one without a model is one at the provider's choice: it is billed all the same
        (transcription.model or "") if isinstance(transcription, _Transcription) else None,
        transcription is not msgspec.UNSET,
        None if kinds is None else ((Modality.AUDIO,) if "audio" in kinds else ()),
        None
        if isinstance(turns, msgspec.UnsetType)
        else turns is not None and turns.create_response is not False,
        event.event_id,
    )


def read_server_event(data: bytes) -> ServerEvent:
    """What a server's event says. Never raises: one that cannot be read has an empty type."""
    try:
        event = _decode_server(data)
    except (ValueError, RecursionError):
        return ServerEvent("")
    match event.type:
        case "session.created" | "session.updated":
            session = event.session or _Session()
            limit = _limit(session)
            return ServerEvent(event.type, session.model, limit if isinstance(limit, int) else None)
        case "response.created" | "response.done":
            response = event.response or _Response()
            is_done = event.type == "response.done"
            return ServerEvent(
                event.type,
                response_id=response.id,
                status=response.status,
                usage=_usage(response.usage) if is_done and response.usage is not None else None,
            )
        case "conversation.item.input_audio_transcription.completed":
            return ServerEvent(
                event.type,
                transcription_usage=None if event.usage is None else _heard(event.usage),
            )
        case "error":
            error = event.error or _Error()
            refuses = error.code in _NO_RESPONSE or (error.param or "").split(".")[0] == "response"
            return ServerEvent(
                event.type, is_error=True, refused_event_id=error.event_id, refuses_response=refuses
            )
        case _:
            return ServerEvent(event.type)


def response_intent(
    model: str, max_output_tokens: int | None, output_modalities: tuple[Modality, ...] = (Modality.AUDIO,)
) -> CallIntent:
    """One response of a session: its input is the conversation so far, which only the window bounds."""
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.REALTIME,
        model=model,
        input_tokens_bound=0,
        max_output_tokens=max_output_tokens,
        output_limit_field="max_output_tokens",
        stream=True,
        wants_stream_usage=True,
        has_referenced_input=True,
        input_modalities=(Modality.AUDIO, Modality.IMAGE),
        output_modalities=output_modalities,
    )


def transcription_intent(model: str, audio_ms: int) -> CallIntent:
    """The transcription of one turn that is at most so long."""
    seconds = -(-audio_ms // 1000)
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.TRANSCRIPTION,
        model=model,
        input_tokens_bound=seconds * HEARD_TOKENS_PER_SECOND + MIN_TURN_TOKENS,
        max_output_tokens=seconds * HEARD_TOKENS_PER_SECOND + MIN_TURN_TOKENS,
        output_limit_field=None,
        input_modalities=(Modality.AUDIO,),
        units=(Units("audio_ms", audio_ms),),
    )


def _limit(settings: _Limits) -> int | str | None:
    given = settings.max_output_tokens
    return settings.max_response_output_tokens if given is None else given


def _refuse_settings(settings: _Settings) -> Rejection | None:
    for new, old in (
        (settings.max_output_tokens, settings.max_response_output_tokens),
        (settings.output_modalities, settings.modalities),
    ):
        if new is not None and old is not None:
            return Rejection(422, "duplicate_field", "the event has a field in both its old and its new name")
    limit = _limit(settings)
    if isinstance(limit, int) and not 0 < limit <= MAX_COUNT:
        return Rejection(400, "invalid_value", f"`max_output_tokens` must be from 1 to {MAX_COUNT}")
    if settings.prompt is not None:
        return Rejection(422, "unbounded_input", "`prompt` may bring tools of its own; send its text instead")
    for tool in settings.tools or ():
        if tool.type not in _CLIENT_TOOLS:
            return Rejection(
                422,
                "unsupported_tool",
                f"`tools`: type `{tool.type[:64]}` is not bounded in a session",
                "tools",
            )
    return None


def _transcription(settings: _Settings) -> _Transcription | msgspec.UnsetType | None:
    given = settings.audio.input.transcription if settings.audio and settings.audio.input else msgspec.UNSET
    return settings.input_audio_transcription if isinstance(given, msgspec.UnsetType) else given


def _usage(stated: _Usage) -> Usage | None:
    total_input, output = stated.input_tokens, stated.output_tokens
    if total_input is None or output is None:
        return None
    taken = stated.input_token_details or _InputDetails()
    split = taken.cached_tokens_details or _CachedDetails()
    heard, seen, cached = taken.audio_tokens or 0, taken.image_tokens or 0, taken.cached_tokens or 0
    cached_heard, cached_seen = split.audio_tokens or 0, split.image_tokens or 0
    spoken = (stated.output_token_details or _OutputDetails()).audio_tokens or 0
    counts = (total_input, output, heard, seen, cached, cached_heard, cached_seen, spoken)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return None
    if heard + seen > total_input or cached > total_input or spoken > output:
        return None
    if cached_heard + cached_seen > cached or cached_heard > heard or cached_seen > seen:
        return None
    return Usage(
        total_input,
        output,
        cache_read_input_tokens=cached,
        input_audio_tokens=heard,
        input_image_tokens=seen,
        cache_read_audio_tokens=cached_heard,
        cache_read_image_tokens=cached_seen,
        output_audio_tokens=spoken,
    )


def _heard(stated: _Usage) -> Usage | None:
    """Usage of a transcription: tokens, or seconds."""
    if stated.seconds:
        heard_ms = milliseconds(bytes(stated.seconds))
        return None if heard_ms is None else Usage(0, 0, units=(Units("audio_ms", heard_ms),))
    usage = _usage(stated)
    if usage is None or stated.input_token_details is not None:
        return usage
    return msgspec.structs.replace(usage, input_audio_tokens=usage.input_tokens)
