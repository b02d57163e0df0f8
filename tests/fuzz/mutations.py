"""Small damage to bytes that were sound: what a fuzzer does without being guided."""

from collections.abc import Callable

from tests.fuzz import messages
from tests.fuzz.choices import Choices

BYTES = tuple(bytes([value]) for value in b"\0\t\n\x0b\x0c\r \"'+,-./0159:;=AZ_aextz\x7f\x80\xff")
WORDS = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b": ",
        b"0\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"Content-Length: 3\r\n",
        b"chunked",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Host: x\r\n",
        b"\r\n ",
        b"Upgrade: x\r\n",
        messages.INNER,
    ),
    *(
        b"Connection: keep-alive\r\n",
        b"Connection: upgrade\r\n",
        b"ffffffff",
        b"00000000",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
)


def mutated(choices: Choices, data: bytes) -> bytes:
    """The bytes with one to four changes."""
    for _ in range(1 + choices.of((0, 0, 0, 1, 2, 3))):
        data = choices.of(CHANGES)(choices, data)
    return data


def _place(choices: Choices, data: bytes) -> int:
    return choices.upto(len(data))


def _flip(choices: Choices, data: bytes) -> bytes:
    if not data:
        return data
    at = choices.upto(len(data) - 1)
    return data[:at] + bytes([data[at] ^ (1 << choices.upto(7))]) + data[at + 1 :]


def _replace(choices: Choices, data: bytes) -> bytes:
    at = _place(choices, data)
    return data[:at] + choices.of(BYTES) + data[at + 1 :]


def _insert(choices: Choices, data: bytes) -> bytes:
    at = _place(choices, data)
    return data[:at] + choices.of(BYTES) + data[at:]


def _word(choices: Choices, data: bytes) -> bytes:
    at = _place(choices, data)
    if choices.upto(1):  # at a line's start it means something
        at = data.find(b"\n", at) + 1 or at
    return data[:at] + choices.of(WORDS) + data[at:]


def _delete(choices: Choices, data: bytes) -> bytes:
    at = _place(choices, data)
    return data[:at] + data[at + 1 + choices.of((0, 0, 1, 3, 20)) :]


def _truncate(choices: Choices, data: bytes) -> bytes:
    return data[: _place(choices, data)]


def _splice(choices: Choices, data: bytes) -> bytes:
    other = messages.request(choices)
    return data[: _place(choices, data)] + other[_place(choices, other) :]


def _repeat_line(choices: Choices, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = choices.upto(len(lines) - 1)
    lines.insert(choices.upto(len(lines)), lines[at])
    return b"".join(lines)


def _swap_lines(choices: Choices, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    first, second = choices.upto(len(lines) - 1), choices.upto(len(lines) - 1)
    lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def _other_case(choices: Choices, data: bytes) -> bytes:
    at = _place(choices, data)
    return data[:at] + data[at : at + 12].swapcase() + data[at + 12 :]


CHANGES: tuple[Callable[[Choices, bytes], bytes], ...] = (
    *(_flip, _replace, _insert, _word, _word, _delete, _truncate),
    *(_splice, _repeat_line, _swap_lines, _other_case),
)
