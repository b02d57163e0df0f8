"""Audio: the length of a recording is never underestimated, characters are counted as the vendor does."""

import io
import json
import wave

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.wire.audio import (
    LEAST_BYTES_PER_SECOND,
    MP3_BYTES_PER_SECOND,
    duration_bound_ms,
    parse_audio_translation,
    parse_speech,
    parse_transcription,
    read_answer,
    usage_as_requested,
)
from outlay.wire.intent import CallIntent, Modality, Operation, Rejection, Units, Usage


def wav(frames: int, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(frames * channels * width))
    return out.getvalue()


def form(file: bytes, **fields: str) -> tuple[str, bytes]:
    data = {"model": "whisper-1", **fields}
    request = httpx.Request("POST", "http://x/", data=data, files={"file": ("a.wav", file)})
    return request.headers["content-type"], request.read()


@given(
    frames=st.integers(0, 60_000),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
    channels=st.integers(1, 2),
    width=st.sampled_from([1, 2, 3]),
)
def test_a_wav_file_is_as_long_as_it_is(frames: int, rate: int, channels: int, width: int) -> None:
    bound = duration_bound_ms(wav(frames, rate, channels, width))
    exact = frames * 1000 / rate
    assert exact <= bound <= exact + 1000 * 44 / (rate * channels * width) + 2


def test_a_header_that_lies_is_not_believed() -> None:
    honest = wav(16_000)
    # the rate of bytes says a tenth of what the samples say, and the other way round
    for offset, value in ((28, 3_200), (28, 320_000), (24, 160_000)):
        forged = honest[:offset] + value.to_bytes(4, "little") + honest[offset + 4 :]
        assert duration_bound_ms(forged) >= len(forged) * 1000 // LEAST_BYTES_PER_SECOND
    short = honest[:40] + (10).to_bytes(4, "little") + honest[44:]  # the data chunk claims ten bytes
    assert duration_bound_ms(short) >= 1000


@pytest.mark.parametrize(
    ("data", "rate"),
    [
        (b"ID3" + bytes(9997), MP3_BYTES_PER_SECOND),
        (b"\xff\xfb" + bytes(9998), MP3_BYTES_PER_SECOND),
        (b"OggS" + bytes(9996), LEAST_BYTES_PER_SECOND),
        (b"\x1aE\xdf\xa3" + bytes(9996), LEAST_BYTES_PER_SECOND),
        (bytes(10_000), LEAST_BYTES_PER_SECOND),
        (b"RIFF1234WAVE" + bytes(9988), LEAST_BYTES_PER_SECOND),
    ],
)
def test_other_files_are_as_long_as_their_format_allows(data: bytes, rate: int) -> None:
    assert duration_bound_ms(data) == 10_000 * 1000 // rate


def test_flac_states_its_length() -> None:
    packed = (16_000 << 44) | (16_000 * 3600)
    data = b"fLaC" + bytes(14) + packed.to_bytes(8, "big") + bytes(100)
    assert duration_bound_ms(data) == 3_600_000


@pytest.mark.parametrize(
    ("parse", "operation"),
    [(parse_transcription, Operation.TRANSCRIPTION), (parse_audio_translation, Operation.AUDIO_TRANSLATION)],
)
def test_a_recording(parse, operation: Operation) -> None:
    sound = wav(160_000)  # ten seconds
    content_type, body = form(sound, prompt="names", stream="true")
    intent = parse(content_type, body)
    assert isinstance(intent, CallIntent), intent
    assert (intent.operation, intent.model, intent.stream) == (operation, "whisper-1", True)
    ((unit, milliseconds),) = ((unit.name, unit.count) for unit in intent.units)
    assert unit == "audio_ms" and 10_000 <= milliseconds <= 10_010
    assert intent.input_modalities == (Modality.AUDIO,)
    # ten tokens a second are heard; what was written is text
    assert 100 <= intent.input_tokens_bound < 2_000
    assert intent.max_output_tokens is not None and 100 <= intent.max_output_tokens < 2_000


def test_samples_of_speakers_count() -> None:
    plain = parse_transcription(*form(wav(100)))
    known = parse_transcription(
        *form(wav(100), **{"known_speaker_references[]": "data:audio/wav;base64," + "A" * 50_000})
    )
    assert isinstance(plain, CallIntent) and isinstance(known, CallIntent)
    assert known.input_tokens_bound > plain.input_tokens_bound + 50_000


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        form(b"", model=""),
        (
            "multipart/form-data; boundary=X",
            b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--X--',
        ),
    ],
    ids=["JSON", "no model", "no file"],
)
def test_refused_recordings(content_type: str, body: bytes) -> None:
    assert isinstance(parse_transcription(content_type, body), Rejection)


def test_speech_counts_characters_not_bytes() -> None:
    text = "Grüße 東京 👋"
    body = json.dumps({"model": "tts-1", "input": text, "voice": "alloy"}).encode()
    intent = parse_speech(body)
    assert isinstance(intent, CallIntent)
    assert intent.units == (Units("character", 10),)
    assert intent.output_modalities == (Modality.AUDIO,) and not intent.stream
    assert usage_as_requested(intent) == Usage(0, 0, units=(Units("character", 10),))
    streamed = parse_speech(json.dumps({"model": "m", "input": "x", "stream_format": "sse"}).encode())
    assert isinstance(streamed, CallIntent) and streamed.stream
    other = parse_transcription(*form(wav(1)))
    assert isinstance(other, CallIntent) and usage_as_requested(other) is None


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"model":"m"}',
        b'{"model":"","input":"x"}',
        b'{"model":"m","input":"x","input":"y"}',
        b'{"model":"m","input":"x","INPUT":"y"}',
        json.dumps({"model": "m", "input": "x" * 40_000}).encode(),
    ],
)
def test_refused_speech(body: bytes) -> None:
    assert isinstance(parse_speech(body), Rejection)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                "output_tokens": 45,
                "total_tokens": 59,
            },
            Usage(14, 45, input_audio_tokens=10),
        ),
        ({"type": "tokens", "input_tokens": 14, "output_tokens": 45}, Usage(14, 45, input_audio_tokens=14)),
        ({"type": "duration", "seconds": 9}, Usage(0, 0, units=(Units("audio_ms", 9_000),))),
        ({"type": "duration", "seconds": 9.0001}, Usage(0, 0, units=(Units("audio_ms", 9_001),))),
        ({"type": "duration", "seconds": -1}, None),
        ({"type": "duration", "seconds": "9"}, None),
        ({"type": "tokens", "input_tokens": 14}, None),
        (
            {
                "type": "tokens",
                "input_tokens": 1,
                "output_tokens": 1,
                "input_token_details": {"audio_tokens": 2},
            },
            None,
        ),
    ],
)
def test_usage_of_a_transcript(usage: dict[str, object], expected: Usage | None) -> None:
    answer = read_answer(Operation.TRANSCRIPTION, json.dumps({"text": "hi", "usage": usage}).encode())
    assert answer.usage == expected


def test_answers_that_state_nothing() -> None:
    assert read_answer(Operation.TRANSCRIPTION, b"plain text").usage is None
    assert read_answer(Operation.SPEECH, b"\xff\xfb\x90").usage is None
    assert read_answer(Operation.TRANSCRIPTION, b'{"error":{"message":"x"}}').is_error
