"""Pictures and sound for the mock: a tiny PNG, a WAV file, and how long an uploaded WAV lasts.

Pure functions of their arguments; knows no vendor.
"""

import base64
import struct
import zlib

DEFAULT_AUDIO_MS = 1000
"""Length of audio that does not say how long it is."""
PCM_RATE = 24_000
"""Samples a second of 16-bit mono PCM, as the realtime vendors use it."""
_WAV_HEADER = 44
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def png(seed: int = 0) -> bytes:
    """A valid picture of one pixel; its grey depends on the seed."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes([0, seed % 256]))), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_base64(seed: int = 0) -> str:
    """`png` in base64."""
    return base64.b64encode(png(seed)).decode("ascii")


def silence_base64(samples: int) -> str:
    """16-bit mono PCM silence in base64."""
    return base64.b64encode(bytes(samples * 2)).decode("ascii")


def wav(duration_ms: int, *, rate: int = 8_000) -> bytes:
    """A silent 16-bit mono WAV file."""
    size = duration_ms * rate // 1000 * 2
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    return (
        head
        + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
        + b"data"
        + struct.pack("<I", size)
        + bytes(size)
    )


def wav_ms(data: bytes) -> int | None:
    """How long a WAV file lasts in milliseconds, rounded up; None if the bytes are not one."""
    if len(data) < _WAV_HEADER or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, bytes_per_second = 12, 0
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"fmt ":
            bytes_per_second = int.from_bytes(data[at + 16 : at + 20], "little")
        if kind == b"data":
            # a file that was streamed states no real size
            size = min(size, len(data) - at - 8)
            return -(-size * 1000 // bytes_per_second) if bytes_per_second else None
        at += 8 + size + size % 2
    return None


def audio_ms(data: bytes, knob: int | None) -> int:
    """The length of audio that came in: the knob, or what the file says, or a second."""
    if knob is not None:
        return knob
    length = wav_ms(data)
    return DEFAULT_AUDIO_MS if length is None else length


def audio_ms_base64(data: str, knob: int | None) -> int:
    """`audio_ms` of base64 text, in either alphabet (Google's SDK sends the URL-safe one).

    What is not base64 counts as a second.
    """
    try:
        raw = base64.b64decode(data.translate(_STANDARD_ALPHABET), validate=True)
    except ValueError:
        raw = b""
    return audio_ms(raw, knob)


def per_second(tokens: int, duration_ms: int) -> int:
    """Tokens of that much audio at `tokens` a second, rounded up."""
    return -(-tokens * duration_ms // 1000)
