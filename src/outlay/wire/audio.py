"""OpenAI's audio: speech, transcription and translation, requests and answers and streams. No I/O, no prices.

*Length of a recording.* Of a PCM WAV file it follows from its sample rate. Any other file is taken to be no longer than
its bytes at the lowest rate that its format is used at: MP3 has no frames below 8 kbit/s (`MP3_BYTES_PER_SECOND`); the
speech codecs of the other formats (Opus from 6 kbit/s, AAC-HE from 8, AMR from 4.75) stay above 2 kbit/s. Silence can
be packed tighter still: such a file shows as an overrun. FLAC states its length, and the longer of the two counts.

*Tokens.* OpenAI counts ten audio tokens for each second that it hears (its price per minute implies at most 17) and
twenty to thirty for each that it speaks. https://developers.openai.com/api/docs/guides/realtime-costs, read 2026-11-24.
"""

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    decode_or_refuse,
    find_case_variant,
    read_fields,
    refuse_missing,
    refuse_model,
)
from outlay.wire.intent import Answer, CallIntent, Dialect, Modality, Operation, Rejection, Units, Usage
from outlay.wire.multipart import read_form
from outlay.wire.stream import EventReader

MAX_TOKENS: Final = 2**40
OVERHEAD_TOKENS: Final = 64
MAX_SPEECH_CHARS: Final = 32_768
"""OpenAI takes 4096; other servers take more."""
SPOKEN_TOKENS_PER_CHAR: Final = 8
"""A slow reader needs a quarter of a second for a character: at most 30 tokens a second."""
SPOKEN_TOKENS_LEAST: Final = 2_048
HEARD_TOKENS_PER_SECOND: Final = 25
WRITTEN_TOKENS_PER_SECOND: Final = 25
WRITTEN_TOKENS_LEAST: Final = 256
MP3_BYTES_PER_SECOND: Final = 1_000
LEAST_BYTES_PER_SECOND: Final = 250
WITHOUT_USAGE: Final = frozenset({"text", "srt", "vtt"})
"""Response formats whose answers are bare text."""

_SPEECH_FIELDS: Final = frozenset(
    ["model", "input", "voice", "instructions", "response_format", "speed", "stream_format"]
)
_FORM_NAMES: Final = frozenset({"model", "prompt", "response_format", "stream", "file", "temperature"})
_PCM: Final = (1, 3, 0xFFFE)
_WAV_HEADER_BYTES: Final = 12
_MAX_CHUNKS: Final = 64
"""RIFF chunks that are looked at before the sound."""
_FLAC_HEADER_BYTES: Final = 26


class _Speech(msgspec.Struct, gc=False):
    model: str
    input: str
    stream_format: str | None = None


class _TokenDetails(msgspec.Struct, gc=False):
    audio_tokens: int | None = None
    text_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    type: str | None = None
    seconds: msgspec.Raw = msgspec.Raw(b"")
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _TokenDetails | None = None


class _Transcript(msgspec.Struct, gc=False):
    text: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: str | None = None
    usage: _Usage | None = None
    error: Any = None


_decode_speech: Final = msgspec.json.Decoder(_Speech).decode
_decode_transcript: Final = msgspec.json.Decoder(_Transcript).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


def parse_speech(body: bytes) -> CallIntent | Rejection:
    """The money side of speech made from text: characters, and tokens that bound both sides. Never raises."""
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model", "input")) or find_case_variant(fields, _SPEECH_FIELDS)
    if refused is not None:
        return refused
    asked = decode_or_refuse(_decode_speech, body)
    if isinstance(asked, Rejection):
        return asked
    refused = refuse_model(asked.model)
    characters = len(asked.input)
    if refused is None and characters > MAX_SPEECH_CHARS:
        refused = Rejection(
            400, "invalid_value", f"`input` must have at most {MAX_SPEECH_CHARS} characters", "input"
        )
    if refused is not None:
        return refused
    is_stream = asked.stream_format == "sse"
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=Operation.SPEECH,
        model=asked.model,
        input_tokens_bound=len(body) + OVERHEAD_TOKENS,
        max_output_tokens=characters * SPOKEN_TOKENS_PER_CHAR + SPOKEN_TOKENS_LEAST,
        output_limit_field=None,
        stream=is_stream,
        wants_stream_usage=is_stream,
        output_modalities=(Modality.AUDIO,),
        units=(Units("character", characters),),
    )


def parse_transcription(content_type: str, body: bytes) -> CallIntent | Rejection:
    """The money side of a transcription: milliseconds, and tokens that bound both sides. Never raises."""
    return _parse_recording(Operation.TRANSCRIPTION, content_type, body)


def parse_audio_translation(content_type: str, body: bytes) -> CallIntent | Rejection:
    """The money side of a translation of speech into English. Never raises."""
    return _parse_recording(Operation.AUDIO_TRANSLATION, content_type, body)


def usage_as_requested(intent: CallIntent) -> Usage | None:
    """What a successful answer that states no usage was billed as: the characters asked for. None: not known.

    Only for models that lookup bills by the character; `lookup.cost` refuses it for others, which have no tokens here.
    """
    return Usage(0, 0, units=intent.units) if intent.operation is Operation.SPEECH else None


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises. Speech is sound, and `text`, `srt`, `vtt` are text: they state nothing."""
    if not body.startswith(b"{"):
        return Answer(usage=None, output_bytes=len(body))
    try:
        transcript = _decode_transcript(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"error"' in body[:64], output_bytes=len(body))
    if transcript.error is not None:
        return Answer(usage=None, is_error=True)
    usage = None if transcript.usage is None else _usage(transcript.usage)
    return Answer(usage=usage, output_bytes=len((transcript.text or "").encode()))


class AudioStream(EventReader):
    """Reads `transcript.text.*` or `speech.audio.*` events; the `.done` event brings the usage."""

    __slots__ = ("_speaks",)

    def __init__(self, *, speaks: bool = False) -> None:
        super().__init__(holds_back=False)
        self._speaks = speaks

    def read_data(self, data: bytes) -> bool:
        """Take one event's data."""
        if not data.startswith(b"{"):
            return True
        try:
            event = _decode_event(data)
        except (ValueError, RecursionError):
            self.error_seen = self.error_seen or b'"error"' in data[:64]
            self._count_output(len(data))
            return True
        if event.delta is not None:
            self._count_output(len(event.delta.encode()))
        if event.type == "error" or event.error is not None:
            self.error_seen = True
        elif event.type in {"transcript.text.done", "speech.audio.done"}:
            self.usage = None if event.usage is None else _usage(event.usage, speaks=self._speaks)
            self.usage_is_final = self.usage is not None
            self.is_done = True
            self.finish_reason = "completed"
        elif event.type == "speech.audio.delta":
            self._count_output(1)  # sound: that there was output, not how much
        return True


class TranscriptStream(AudioStream):
    """The stream of a transcription."""

    __slots__ = ()


class SpeechStream(AudioStream):
    """The stream of speech: everything that it makes is audio."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(speaks=True)


def duration_bound_ms(data: bytes) -> int:
    """Most milliseconds of sound that a file of these bytes holds; see the module's text."""
    exact = _wav_ms(data)
    if exact is not None:
        return exact
    is_mp3 = data.startswith(b"ID3") or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2)
    rate = MP3_BYTES_PER_SECOND if is_mp3 else LEAST_BYTES_PER_SECOND
    return max(-(-len(data) * 1000 // rate), _flac_ms(data))


def milliseconds(seconds: bytes) -> int | None:
    """Whole milliseconds, rounded up, of a JSON number of seconds; None if it is absurd."""
    try:
        value = Decimal(seconds.decode()) * 1000
    except (InvalidOperation, UnicodeDecodeError, ValueError):
        return None
    if not value.is_finite() or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value.to_integral_value(ROUND_CEILING))


def _parse_recording(operation: Operation, content_type: str, body: bytes) -> CallIntent | Rejection:
    form = read_form(content_type, body, _FORM_NAMES)
    if isinstance(form, Rejection):
        return form
    model, files = form.text("model"), form.files("file")
    if model is None or not files:
        name = "model" if model is None else "file"
        return Rejection(400, "missing_field", f"`{name}` is missing", name)
    refused = refuse_model(model)
    if refused is not None:
        return refused
    milliseconds = duration_bound_ms(form.content(files[0]))
    seconds = -(-milliseconds // 1000)
    text = len(body) - (files[0].end - files[0].start)
    # samples of known speakers are sent as inline audio
    speakers = form.texts("known_speaker_references")
    if speakers:
        seconds += sum(-(-len(sample) // LEAST_BYTES_PER_SECOND) for sample in speakers)
    is_stream = form.text("stream") in {"true", "True", "1"}
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=operation,
        model=model,
        input_tokens_bound=text + OVERHEAD_TOKENS + seconds * HEARD_TOKENS_PER_SECOND,
        max_output_tokens=seconds * WRITTEN_TOKENS_PER_SECOND + WRITTEN_TOKENS_LEAST,
        output_limit_field=None,
        stream=is_stream,
        wants_stream_usage=is_stream,
        input_modalities=(Modality.AUDIO,),
        units=(Units("audio_ms", milliseconds),),
    )


def _wav_ms(data: bytes) -> int | None:
    """Milliseconds of a PCM WAV file if all that follows its header is sound; None for any other file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at = _WAV_HEADER_BYTES
    for _ in range(_MAX_CHUNKS):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"fmt ":
            kind = int.from_bytes(data[at + 8 : at + 10], "little")
            rate = int.from_bytes(data[at + 12 : at + 16], "little")
            stated = int.from_bytes(data[at + 16 : at + 20], "little")
            block = int.from_bytes(data[at + 20 : at + 22], "little")
            # a header that contradicts itself would be read in more than one way
            if kind not in _PCM or not rate * block or stated != rate * block:
                return None
            return -(-(len(data) - at) * 1000 // stated)
        at += 8 + size + (size & 1)
        if at >= len(data):
            break
    return None


def _flac_ms(data: bytes) -> int:
    """The length that a FLAC file states; 0 for any other file, or if it states none."""
    if data[:4] != b"fLaC" or len(data) < _FLAC_HEADER_BYTES:
        return 0
    packed = int.from_bytes(data[18:26], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    return -(-samples * 1000 // rate) if rate else 0


def _usage(stated: _Usage, *, speaks: bool = False) -> Usage | None:
    """The stated counts or seconds as one record; None if neither is there, or one is absurd."""
    if stated.seconds:
        heard_ms = milliseconds(bytes(stated.seconds))
        return None if heard_ms is None else Usage(0, 0, units=(Units("audio_ms", heard_ms),))
    heard = (stated.input_token_details or _TokenDetails()).audio_tokens or 0
    total_input, output = stated.input_tokens, stated.output_tokens
    if total_input is None or output is None:
        return None
    if not 0 <= heard <= total_input <= MAX_TOKENS or not 0 <= output <= MAX_TOKENS:
        return None
    if stated.input_token_details is None and not speaks:
        heard = total_input  # the dearer class, if the answer does not tell
    return Usage(total_input, output, input_audio_tokens=heard, output_audio_tokens=output if speaks else 0)
