"""The mock's sound room: OpenAI's speech, transcription and translation.

Models named `tts-...` are billed by the character and `whisper-...` by the time; all others by tokens.
"""

import base64
from typing import Any, NamedTuple

import msgspec

from outlay.testing import content, media
from outlay.testing.answer import (
    Answer,
    Length,
    Piece,
    chunk_bounds,
    input_tokens,
    length_of,
    reported,
    saying,
    with_output,
)
from outlay.testing.behaviour import Behaviour, UsageReport, marked_directive
from outlay.testing.call import Ask, Reply
from outlay.testing.content import AUDIO_TOKENS_PER_SECOND
from outlay.testing.forms import Form, FormError, read_form
from outlay.testing.meter import Tokens
from outlay.testing.openai_replies import (
    directed,
    error_answer,
    error_text,
    event,
    status_answer,
    whole_answer,
)

MAX_SPEECH_CHARACTERS = 4096  # OpenAI's own limit of `input`
_SPEECH_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
_FRAME = b"\xff\xfb\x90\x00" + bytes(28)
"""Stands for the sound of one token; begins like a frame of MP3."""
_PLAIN_FORMATS = ("text", "srt", "vtt")


class _Speech(msgspec.Struct, gc=False):
    model: str | None = None
    input: str | None = None
    voice: str | dict[str, Any] | None = None
    instructions: str | None = None
    response_format: str | None = None
    stream_format: str | None = None


class _Heard(NamedTuple):
    """An uploaded recording and what is billed for it."""

    duration_ms: int
    length: Length
    tokens: Tokens
    is_timed: bool
    text: str


class AudioRoom:
    """Builds answers; keeps nothing between requests."""

    def speech(self, ask: Ask) -> Reply:
        """POST /v1/audio/speech."""
        try:
            request = msgspec.json.decode(ask.body, type=_Speech)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        if not request.input or len(request.input) > MAX_SPEECH_CHARACTERS:
            message = f"Invalid 'input': expected 1 to {MAX_SPEECH_CHARACTERS} characters."
            return error_answer(ask.identity, 400, message, param="input"), None
        opened = directed(ask, request.model)
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        is_by_character = model.startswith("tts-")
        is_sse = request.stream_format == "sse"
        if is_sse and is_by_character:
            message = f"stream_format 'sse' is not supported for {model}."
            return error_answer(ask.identity, 400, message, param="stream_format"), None
        length = length_of(behaviour, None)
        tokens = _spoken(request, behaviour, length, is_by_character=is_by_character)
        if behaviour.status != 200:
            refused = status_answer(ask.identity, behaviour, model, None)
            refused.tokens = tokens
            return refused, behaviour
        answer = whole_answer(ask.identity, None, model=model)
        answer.tokens = reported(behaviour.usage, tokens) if is_sse else tokens
        answer.is_stream = True
        bounds = chunk_bounds(behaviour, length.output)
        if is_sse:
            answer.content_type = b"text/event-stream; charset=utf-8"
            answer.pieces = [Piece(_sound_event(end - start), end - start) for start, end in bounds]
            done = {"type": "speech.audio.done"} | _token_usage(
                behaviour.usage, answer.tokens, has_type=False
            )
            answer.pieces.append(Piece(event(done), 0))
            answer.error_event = _error_event()
            return answer, behaviour
        answer.content_type = _SPEECH_TYPES.get(request.response_format or "mp3", b"audio/mpeg")
        per_piece = 0 if is_by_character else 1
        answer.pieces = [Piece(_FRAME * (end - start), (end - start) * per_piece) for start, end in bounds]
        answer.pieces.append(Piece(b"", 0))
        return answer, behaviour

    def transcribe(self, ask: Ask) -> Reply:
        """POST /v1/audio/transcriptions."""
        return self._heard(ask, may_stream=True)

    def translate(self, ask: Ask) -> Reply:
        """POST /v1/audio/translations."""
        return self._heard(ask, may_stream=False)

    def _heard(self, ask: Ask, *, may_stream: bool) -> Reply:
        try:
            form = read_form(ask.call)
        except FormError as error:
            return error_answer(ask.identity, 400, f"Could not parse multipart form: {error}"), None
        files = form.files("file")
        if not files:
            return error_answer(ask.identity, 400, "Missing required parameter: 'file'.", param="file"), None
        opened = directed(ask, form.text("model"), marked_directive(form.text("prompt")))
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        heard = _listened(form, files[0].data, behaviour, model)
        if behaviour.status != 200:
            refused = status_answer(ask.identity, behaviour, model, None)
            refused.tokens = heard.tokens
            return refused, behaviour
        wanted = form.text("response_format") or "json"
        is_stream = may_stream and form.text("stream") == "true" and not heard.is_timed
        answer = whole_answer(ask.identity, None, model=model)
        answer.tokens = heard.tokens
        if wanted in _PLAIN_FORMATS:
            answer.content_type = b"text/plain; charset=utf-8"
            answer.pieces = [Piece(_subtitles(heard, wanted).encode(), heard.length.output)]
            return answer, behaviour
        answer.tokens = reported(behaviour.usage, heard.tokens)
        if heard.is_timed:
            usage = _duration_usage(behaviour.usage, heard.duration_ms)
        else:
            usage = _token_usage(behaviour.usage, answer.tokens, has_type=True)
        if is_stream:
            _tell(answer, heard, behaviour, usage)
            return answer, behaviour
        value: dict[str, Any] = {"text": heard.text}
        if wanted == "verbose_json":
            value = _verbose(heard, form.text("language") or "english", is_transcription=may_stream)
        answer.pieces = [Piece(msgspec.json.encode(value | usage), heard.length.output)]
        return answer, behaviour


def _spoken(request: _Speech, behaviour: Behaviour, length: Length, *, is_by_character: bool) -> Tokens:
    text = request.input or ""
    if is_by_character:
        return Tokens(characters=len(text))
    counted = content.text_tokens(text) + content.text_tokens(request.instructions or "")
    tokens = with_output(input_tokens(behaviour, counted), length.output, 0)
    return msgspec.structs.replace(tokens, output_audio=length.output)


def _listened(form: Form, data: bytes, behaviour: Behaviour, model: str) -> _Heard:
    duration_ms = media.audio_ms(data, behaviour.audio_ms)
    length = length_of(behaviour, None)
    text = saying(behaviour, None).part(0, length.visible)
    if model.startswith("whisper"):
        return _Heard(duration_ms, length, Tokens(audio_ms=duration_ms), True, text)
    sound = media.per_second(AUDIO_TOKENS_PER_SECOND, duration_ms)
    counted = sound + content.text_tokens(form.text("prompt") or "")
    tokens = with_output(input_tokens(behaviour, counted, audio=sound), length.output, length.reasoning)
    return _Heard(duration_ms, length, tokens, False, text)


def _tell(answer: Answer, heard: _Heard, behaviour: Behaviour, usage: dict[str, Any]) -> None:
    """Turn the answer into a stream of transcript events."""
    says, hidden = saying(behaviour, None), heard.length.reasoning
    answer.pieces = []
    for start, end in chunk_bounds(behaviour, heard.length.visible):
        value = {"type": "transcript.text.delta", "delta": says.part(start, end)}
        answer.pieces.append(Piece(event(value), end - start + hidden))
        hidden = 0
    done = {"type": "transcript.text.done", "text": heard.text} | usage
    answer.pieces.append(Piece(event(done), hidden))
    answer.pieces.append(Piece(b"data: [DONE]\n\n", 0))
    answer.is_stream, answer.content_type = True, b"text/event-stream; charset=utf-8"
    answer.error_event = _error_event()


def _seconds(duration_ms: int) -> float:
    return duration_ms / 1000


def _duration_usage(report: UsageReport, duration_ms: int) -> dict[str, Any]:
    if report is UsageReport.OMIT:
        return {}
    if report is UsageReport.NULL:
        return {"usage": None}
    seconds = 0 if report is UsageReport.ZERO else _seconds(duration_ms)
    return {"usage": {"type": "duration", "seconds": seconds}}


def _token_usage(report: UsageReport, tokens: Tokens, *, has_type: bool) -> dict[str, Any]:
    if report is UsageReport.OMIT:
        return {}
    if report is UsageReport.NULL:
        return {"usage": None}
    usage: dict[str, Any] = {
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    }
    if has_type:
        details = {
            "text_tokens": tokens.input - tokens.input_audio,
            "audio_tokens": tokens.input_audio,
        }
        usage = {"type": "tokens", "input_token_details": details} | usage
    return {"usage": usage}


def _verbose(heard: _Heard, language: str, *, is_transcription: bool) -> dict[str, Any]:
    seconds = _seconds(heard.duration_ms)
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": heard.text,
        "tokens": [50364],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.01,
    }
    return {
        "task": "transcribe" if is_transcription else "translate",
        "language": language if is_transcription else "english",
        "duration": seconds,
        "text": heard.text,
        "segments": [segment],
    }


def _subtitles(heard: _Heard, wanted: str) -> str:
    if wanted == "text":
        return heard.text + "\n"
    whole, milliseconds = divmod(heard.duration_ms, 1000)
    clock = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    if wanted == "srt":
        return f"1\n00:00:00,000 --> {clock},{milliseconds:03d}\n{heard.text}\n\n"
    return f"WEBVTT\n\n00:00:00.000 --> {clock}.{milliseconds:03d}\n{heard.text}\n\n"


def _sound_event(tokens: int) -> bytes:
    sound = base64.b64encode(_FRAME * tokens).decode("ascii")
    return event({"type": "speech.audio.delta", "audio": sound})


def _error_event() -> bytes:
    return (
        b"data: "
        + error_text("The server had an error processing your request.", "server_error").encode()
        + b"\n\n"
    )
