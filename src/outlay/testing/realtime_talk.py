"""The mock's realtime room: OpenAI's speech-to-speech talk over a WebSocket, billed response by response.

The input of a response is the whole conversation so far: a talk gets dearer with every turn. Turn detection is not
played: the client commits its audio and asks for responses itself.
"""

import base64
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from outlay.testing import content, media
from outlay.testing.answer import (
    Answer,
    Identity,
    Length,
    Offer,
    Saying,
    chosen_tool,
    chunk_bounds,
    input_tokens,
    length_of,
    reported,
    saying,
    with_output,
)
from outlay.testing.behaviour import Behaviour, BehaviourError, split_model
from outlay.testing.call import Ask
from outlay.testing.meter import Tokens
from outlay.testing.realtime_replies import (
    Told,
    error_event,
    output_item,
    response_beats,
    response_object,
    usage_object,
)
from outlay.testing.talk import Beat, BeginTurn, Cancel, Said, Turn

DEFAULT_MODEL = "gpt-realtime"
MAX_ITEMS = 1000
"""Items of one conversation; the oldest go first, as the provider truncates."""
_PCM_BYTES_PER_MS = media.PCM_RATE * 2 // 1000
_G711_BYTES_PER_MS = 8


class _Item(NamedTuple):
    """An item of the conversation and what reading it costs."""

    value: dict[str, Any]
    text_tokens: int
    audio_tokens: int


class _Settings(msgspec.Struct, gc=False):
    """The shape of a session, or of what one response changes of it; only checked, the object is kept as it is."""

    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    output_modalities: list[str] | None = None
    max_output_tokens: int | str | None = None
    metadata: dict[str, Any] | None = None
    conversation: str | None = None
    input: list[dict[str, Any]] | None = None
    audio: dict[str, dict[str, Any]] | None = None


class _Content(msgspec.Struct, gc=False):
    type: str | None = None
    duration_ms: int | None = None


class _NewItem(msgspec.Struct, gc=False):
    """The shape of an item that the client brings."""

    id: str | None = None
    content: list[_Content] | None = None


class _Message(msgspec.Struct, gc=False):
    """The shape of every client event."""

    type: str
    session: _Settings | None = None
    response: _Settings | None = None
    item: _NewItem | None = None


class RealtimeTalk:
    """One session."""

    def __init__(self, ask: Ask, begin: BeginTurn) -> None:
        named = ask.call.parameter("model") or ask.call.parameter("deployment") or DEFAULT_MODEL
        self._model, self._directive = split_model(named)
        self._call = ask.call
        self._resolve = ask.resolve
        self._begin = begin
        self._id = f"sess_{ask.identity.serial}{ask.call.received_at & 0xFFFFFF:06x}"
        self._items: OrderedDict[str, _Item] = OrderedDict()
        self._buffer = bytearray()
        self._events = self._made = 0
        self._is_active = False
        self._session: dict[str, Any] = {
            "id": self._id,
            "object": "realtime.session",
            "type": "realtime",
            "model": self._model,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": media.PCM_RATE}, "transcription": None},
                "output": {"format": {"type": "audio/pcm", "rate": media.PCM_RATE}, "voice": "alloy"},
            },
        }

    def opening(self) -> list[str]:
        """`session.created`."""
        return [self._event("session.created", session=self._session)]

    def receive(self, message: str) -> list[Said]:
        """Answer a client event."""
        try:
            value = msgspec.json.decode(message)
            for item in (msgspec.convert(value, _Message).response or _Settings()).input or ():
                msgspec.convert(item, _NewItem)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [[self._error(f"Invalid event: {error}", "invalid_event")]]
        kind = value["type"]
        match kind:
            case "session.update":
                self._session = _merged(self._session, value.get("session") or {})
                return [[self._event("session.updated", session=self._session)]]
            case "conversation.item.create":
                return [self._added(dict(value.get("item") or {}))]
            case "conversation.item.delete":
                return [self._deleted(str(value.get("item_id")))]
            case "conversation.item.retrieve":
                return [self._retrieved(str(value.get("item_id")))]
            case "input_audio_buffer.append":
                return self._appended(str(value.get("audio", "")))
            case "input_audio_buffer.clear":
                self._buffer.clear()
                return [[self._event("input_audio_buffer.cleared")]]
            case "input_audio_buffer.commit":
                return self._committed()
            case "response.create":
                order = value.get("response") or {}
                if self._is_active and order.get("conversation") != "none":
                    problem = "Conversation already has an active response in progress."
                    return [[self._error(problem, "conversation_already_has_active_response")]]
                return [self._turn(order)]
            case "response.cancel":
                problem = "Cancellation failed: no active response found"
                return [Cancel([self._error(problem, "response_cancel_not_active")])]
            case _:
                return [[self._error(f"Invalid value: '{kind}'.", "invalid_value")]]

    def _event(self, kind: str, **fields: object) -> str:
        self._events += 1
        return msgspec.json.encode({"type": kind, "event_id": f"event_{self._events}", **fields}).decode()

    def _error(self, message: str, code: str) -> str:
        self._events += 1
        return error_event(f"event_{self._events}", message, "invalid_request_error", code)

    def _new_id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._id[5:]}{self._made:04x}"

    # the conversation

    def _added(self, item: dict[str, Any]) -> list[str]:
        """Take an item into the conversation."""
        item.setdefault("id", self._new_id("item"))
        item = {"object": "realtime.item", "status": "completed", **item}
        before = next(reversed(self._items), None)
        self._keep(item)
        shown = _without_sound(item)
        return [
            self._event(f"conversation.item.{step}", previous_item_id=before, item=shown)
            for step in ("added", "done")
        ]

    def _keep(self, item: dict[str, Any], audio_tokens: int | None = None) -> None:
        text, audio = _item_tokens(item)
        self._items[str(item["id"])] = _Item(item, text, audio if audio_tokens is None else audio_tokens)
        while len(self._items) > MAX_ITEMS:
            self._items.popitem(last=False)

    def _deleted(self, item_id: str) -> list[str]:
        if self._items.pop(item_id, None) is None:
            return [self._error(f"Error deleting item: no item '{item_id}'.", "item_delete_invalid_item_id")]
        return [self._event("conversation.item.deleted", item_id=item_id)]

    def _retrieved(self, item_id: str) -> list[str]:
        item = self._items.get(item_id)
        if item is None:
            return [self._error(f"No item '{item_id}'.", "item_retrieve_invalid_item_id")]
        return [self._event("conversation.item.retrieved", item=item.value)]

    # sound that comes in

    def _appended(self, sound: str) -> list[Said]:
        try:
            self._buffer += base64.b64decode(sound, validate=True)
        except ValueError:
            return [[self._error("Invalid 'audio': expected base64.", "invalid_value")]]
        return []

    def _committed(self) -> list[Said]:
        if not self._buffer:
            problem = "Error committing input audio buffer: buffer too small."
            return [[self._error(problem, "input_audio_buffer_commit_empty")]]
        duration_ms = self._milliseconds(len(self._buffer))
        self._buffer.clear()
        item_id = self._new_id("item")
        item = {
            "id": item_id,
            "type": "message",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None, "duration_ms": duration_ms}],
        }
        before = next(reversed(self._items), None)
        events = [self._event("input_audio_buffer.committed", previous_item_id=before, item_id=item_id)]
        events += self._added(item)
        transcription = self._session["audio"]["input"].get("transcription")
        if not isinstance(transcription, dict):
            return [events]
        return [events, self._transcribed(item_id, transcription, duration_ms)]

    def _milliseconds(self, size: int) -> int:
        kind = self._session["audio"]["input"]["format"].get("type")
        per_ms = _PCM_BYTES_PER_MS if kind == "audio/pcm" else _G711_BYTES_PER_MS
        return -(-size // per_ms)

    def _transcribed(self, item_id: str, transcription: dict[str, Any], duration_ms: int) -> Turn:
        """What was heard, written down by another model and billed at its price."""
        identity = self._begin(self._call)
        model = str(transcription.get("model") or "whisper-1")
        text = content.words(0, 4)
        audio = media.per_second(content.AUDIO_TOKENS_PER_SECOND, duration_ms)
        if model.startswith("whisper"):
            tokens = Tokens(audio_ms=duration_ms)
            usage: dict[str, Any] = {"type": "duration", "seconds": duration_ms / 1000}
        else:
            tokens = Tokens(input=audio, input_audio=audio, output=4)
            usage = {
                "type": "tokens",
                "input_tokens": audio,
                "input_token_details": {"text_tokens": 0, "audio_tokens": audio},
                "output_tokens": 4,
                "total_tokens": audio + 4,
            }
        event = self._event(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=text,
            usage=usage,
        )
        answer = self._answer(identity, model, tokens, item_id)
        return Turn(answer, Behaviour(), identity.sequence, [Beat([event], 0)])

    # responses

    def _turn(self, order: dict[str, Any]) -> Turn:
        identity = self._begin(self._call)
        metadata = order.get("metadata") or {}
        try:
            behaviour = self._resolve(self._model, str(metadata.get("mock", "")) or self._directive)
        except BehaviourError as error:
            refused = self._answer(identity, self._model, Tokens(), "", status=400)
            problem = self._error(f"mock: {error}", "mock_directive")
            return Turn(refused, None, identity.sequence, [Beat([problem], 0)])
        model = behaviour.served_model or self._model
        settings = self._session | order
        counted = self._counted(settings, order.get("input"), behaviour)
        response_id = self._new_id("resp")
        if behaviour.status != 200:
            refused = self._answer(identity, model, counted, response_id, status=behaviour.status)
            refused.tokens = with_output(counted, behaviour.output_tokens, 0)
            problem = self._error(f"The server answered {behaviour.status}.", _code(behaviour.status))
            return Turn(refused, behaviour, identity.sequence, [Beat([problem], 0)])
        limit = settings.get("max_output_tokens", settings.get("max_response_output_tokens"))
        length = length_of(behaviour, limit if isinstance(limit, int) else None)
        tool, says = self._what_to_say(settings, behaviour)
        speaks = tool is None and "audio" in (settings.get("output_modalities") or ())
        tokens = _with_speech(counted, length, behaviour, speaks=speaks)
        told = Told(
            response_id=response_id,
            item_id=self._new_id("item"),
            call_id=self._new_id("call"),
            previous_item_id=next(reversed(self._items), None),
            tool=tool,
            says=says,
            visible=length.visible,
            speaks=speaks,
            is_cut=length.is_cut,
            metadata=order.get("metadata"),
            usage=usage_object(behaviour.usage, tokens),
        )
        answer = self._answer(identity, model, reported(behaviour.usage, tokens), response_id)
        bounds = chunk_bounds(behaviour, length.visible)
        is_aside = order.get("conversation") == "none"

        def remember() -> None:
            if not is_aside:
                audio = tokens.output_audio if speaks else 0
                self._keep(output_item(told, "completed", length.visible), audio)

        def cancelled(billed: Tokens) -> list[str]:
            remember_part = output_item(told, "incomplete", min(length.visible, billed.output))
            if not is_aside:
                self._keep(remember_part, billed.output_audio if speaks else 0)
            usage = usage_object(behaviour.usage, billed)
            value = response_object(told, "cancelled", [remember_part], usage)
            return [self._event("response.done", response=value)]

        def ended() -> None:
            self._is_active = self._is_active and is_aside

        self._is_active = self._is_active or not is_aside
        failed = response_object(told, "failed", [], usage_object(behaviour.usage, Tokens()))
        return Turn(
            answer,
            behaviour,
            identity.sequence,
            list(response_beats(told, bounds, length.reasoning, self._event)),
            [self._event("response.done", response=failed)],
            cancelled,
            remember,
            ended,
        )

    def _answer(
        self, identity: Identity, model: str, tokens: Tokens, request_id: str, *, status: int = 200
    ) -> Answer:
        return Answer(
            status=status,
            content_type=b"application/json",
            headers=b"",
            pieces=[],
            model=model,
            request_id=request_id or identity.serial,
            is_stream=True,
            tokens=tokens,
            job=self._id,
        )

    def _counted(self, settings: dict[str, Any], given: object, behaviour: Behaviour) -> Tokens:
        """The whole conversation, instructions and tools; or only the input that the request itself brings."""
        text = content.text_tokens(str(settings.get("instructions") or ""))
        text += content.json_tokens(settings.get("tools"))
        audio = 0
        if isinstance(given, list):
            for item in given:
                known = self._items.get(str(item.get("id"))) if item.get("type") == "item_reference" else None
                text_part, audio_part = _item_tokens(item) if known is None else known[1:]
                text, audio = text + text_part, audio + audio_part
        else:
            text += sum(item.text_tokens for item in self._items.values())
            audio += sum(item.audio_tokens for item in self._items.values())
        return input_tokens(behaviour, text + audio, audio=audio)

    def _what_to_say(self, settings: dict[str, Any], behaviour: Behaviour) -> tuple[Offer | None, Saying]:
        choice = settings.get("tool_choice")
        offers = [
            Offer(str(tool.get("name", "")), tool.get("parameters") or {"type": "object"})
            for tool in settings.get("tools") or ()
            if tool.get("type") == "function"
        ]
        if choice != "none":
            last = next(reversed(self._items.values()), None)
            prompt = _item_text(last.value) if last is not None and last.value.get("role") == "user" else ""
            forced = str(choice.get("name")) if isinstance(choice, dict) else None
            tool = chosen_tool(
                offers, behaviour, forced=forced, is_demanded=choice == "required", prompt=prompt
            )
            if tool is not None:
                return tool, tool.arguments(behaviour)
        return None, saying(behaviour, None)


def _with_speech(counted: Tokens, length: Length, behaviour: Behaviour, *, speaks: bool) -> Tokens:
    tokens = with_output(counted, length.output, length.reasoning)
    if not speaks:
        return tokens
    spoken = behaviour.output_audio_tokens
    return replace(
        tokens, output_audio=length.visible * 3 // 4 if spoken is None else min(spoken, length.visible)
    )


def _merged(session: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The session with nested objects changed field by field."""
    merged = dict(session)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, dict):
            # an object stays one; what it cannot take is left out
            merged[name] = _merged(old, value) if isinstance(value, dict) else old
        else:
            merged[name] = value
    return merged


def _item_tokens(item: dict[str, Any]) -> tuple[int, int]:
    """(text, audio) tokens of an item."""
    text, audio = content.TOKENS_PER_MESSAGE, 0
    text += content.text_tokens(str(item.get("output") or item.get("arguments") or ""))
    for part in item.get("content") or ():
        if part.get("type") == "input_image":
            text += content.TOKENS_PER_MEDIA_PART
        elif part.get("type") == "input_audio":
            duration_ms = part.get("duration_ms")
            if not isinstance(duration_ms, int):
                size = len(str(part.get("audio") or "")) * 3 // 4
                duration_ms = -(-size // _PCM_BYTES_PER_MS)
            audio += media.per_second(content.AUDIO_TOKENS_PER_SECOND, duration_ms)
        else:
            text += content.text_tokens(str(part.get("text") or part.get("transcript") or ""))
    return text, audio


def _item_text(item: dict[str, Any]) -> str:
    return " ".join(str(part.get("text") or "") for part in item.get("content") or ())


def _without_sound(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is repeated to the client: sound is not sent back."""
    parts = item.get("content")
    if not isinstance(parts, list):
        return item
    hidden = ("audio", "duration_ms")
    shown = [{name: value for name, value in part.items() if name not in hidden} for part in parts]
    return {**item, "content": shown}


def _code(status: int) -> str:
    return {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, "server_error")
