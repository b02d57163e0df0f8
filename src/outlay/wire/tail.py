"""What is new in a request of an agent: the tools it called last, and what came back. Pure; gives hashes, never text.

Only the end of a conversation is decoded: the items after the model's last turn, and the tools that turn called. Ids of
calls are left out, since they differ from call to call, and so are times of day in a short result, which are no news. A
body that cannot be read so has no tail.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from outlay.wire.intent import Operation

SKETCH: Final = 32
"""Hashes in a sketch: the smallest of all shingles' hashes."""
MAX_ITEMS: Final = 64
"""Items looked at from the end: a turn with more tool results than that is cut off there."""
MAX_OBJECTS: Final = 20_000
"""A body of more objects is not looked at: no conversation has so many, and to decode them takes the loop's time."""
MAX_TEXT: Final = 4096
"""Bytes of a result that shingles are made of: of a longer one, slices from all over it, since pages of one site and
views of one file begin and end alike."""
SLICES: Final = 8
SHINGLE: Final = 3
"""Words in a shingle."""
MAX_WORDS: Final = 256
"""Words of a result that shingles are made of: the first of each slice."""
MAX_SHAPED: Final = 512
"""Bytes of arguments that numbers are looked for in. Longer ones carry text that is written: they are a shape each."""
MAX_SHORT: Final = 512
"""Bytes of a result that times are looked for in; a longer one is known by its sketch, whatever the time."""


class Tail(NamedTuple):
    """Hashes of the end of a conversation."""

    action: int
    """Of the tools called last, by name and arguments; 0: none."""
    result: int
    """Of what came after the model's last turn."""
    sketch: tuple[int, ...]
    """Ascending; empty if there is no tool result."""
    has_tool_result: bool
    is_error: bool
    shape: int = 0
    """As `action`, but for the arguments that are numbers or times: a counter in them changes nothing. 0: none."""


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"")


class _Call(msgspec.Struct, gc=False):
    function: _Function = _Function()


class _ChatItem(msgspec.Struct, gc=False):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"")
    tool_calls: list[_Call] | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"")
    content: msgspec.Raw = msgspec.Raw(b"")
    text: msgspec.Raw = msgspec.Raw(b"")
    is_error: bool | None = None


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    content: str | list[_Block] = ""


class _Item(msgspec.Struct, gc=False):
    type: str = "message"
    role: str = ""
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    output: msgspec.Raw = msgspec.Raw(b"")
    content: msgspec.Raw = msgspec.Raw(b"")
    status: str | None = None


class _Named(msgspec.Struct, gc=False):
    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: msgspec.Raw = msgspec.Raw(b"")
    function_call: _Named | None = None
    function_response: _Named | None = None


class _Content(msgspec.Struct, gc=False):
    role: str = "user"
    parts: list[_Part] = []


class _ChatBody(msgspec.Struct, gc=False):
    messages: list[msgspec.Raw] = []


class _ResponsesBody(msgspec.Struct, gc=False):
    input: str | list[msgspec.Raw] = ""


class _GeminiBody(msgspec.Struct, gc=False):
    contents: list[msgspec.Raw] = []


_chat_body: Final = msgspec.json.Decoder(_ChatBody).decode
_responses_body: Final = msgspec.json.Decoder(_ResponsesBody).decode
_gemini_body: Final = msgspec.json.Decoder(_GeminiBody).decode
_chat_item: Final = msgspec.json.Decoder(_ChatItem).decode
_message: Final = msgspec.json.Decoder(_Message).decode
_item: Final = msgspec.json.Decoder(_Item).decode
_content: Final = msgspec.json.Decoder(_Content).decode


_TURNS: Final = (b"assistant", b'"tool', b"function", b'"role":"model"', b'"role": "model"', b'"reasoning"')
"""Words without one of which no conversation has had a turn of the model."""


_TIMES: Final = re.compile(
    rb"[0-9](?<![0-9][0-9])(?:"
    rb"[0-9]?:[0-9][0-9](?::[0-9][0-9](?:[.,][0-9]+)?)?"
    rb"|[0-9]{3}-[0-9][0-9]-[0-9][0-9]"
    rb"|(?<=1)[6-9][0-9]{8}(?:[0-9]{3}){0,3}(?:\.[0-9]+)?(?![0-9]))"
)
"""Times of day, dates, and seconds (or thousandths and so on) since 1970."""
_NUMBERS: Final = re.compile(rb'[:\[,] ?(\\?"|)-?[0-9][0-9.]*\1(?=[\s,}\]"\\])')
"""Values in JSON that are numbers, in quotes or not, also where that JSON is within a string."""
_SPACED: Final = bytes(32 if byte in b'{}[]",:\\' else byte for byte in range(256))
"""What JSON is made of parts words, too: much of it has no spaces."""


class _Found:
    """What is gathered from the end backwards."""

    __slots__ = ("actions", "is_error", "results", "tool_results")

    def __init__(self) -> None:
        self.actions: list[bytes] = []
        self.results: list[bytes] = []
        self.tool_results = 0
        self.is_error = False


def read_tail(operation: Operation, body: bytes) -> Tail | None:
    """The tail of a request's conversation; None for operations that have none and bodies that cannot be read."""
    reader = _READERS.get(operation)
    if reader is None:
        return None
    if not any(mark in body for mark in _TURNS):
        # nothing of a model's in it: what somebody says for the first time
        return Tail(0, crc32(body), (), False, False)
    if len(body) > MAX_OBJECTS and body.count(b"{") > MAX_OBJECTS:
        return None
    found = _Found()
    try:
        reader(body, found)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    text = b"\n".join(reversed(found.results))
    sketch = sketch_of(text) if found.tool_results else ()
    if len(text) <= MAX_SHORT:
        text = _TIMES.sub(b"", text)
    action = shape = 0
    if found.actions:
        called = b"\n".join(reversed(found.actions))
        action = shape = crc32(called) or 1
        if len(called) <= MAX_SHAPED:
            shape = crc32(_NUMBERS.sub(b"", _TIMES.sub(b"", called))) or 1
    return Tail(action, crc32(text), sketch, found.tool_results > 0, found.is_error, shape)


def sketch_of(text: bytes) -> tuple[int, ...]:
    """The smallest hashes of the text's shingles of words, ascending; texts that are alike share most of them."""
    words = _words(text)
    if len(words) <= SHINGLE:
        return (crc32(text),)
    shingles = zip(words, words[1:], words[2:], strict=False)
    return tuple(sorted({*map(crc32, map(b" ".join, shingles))})[:SKETCH])


def _words(text: bytes) -> list[bytes]:
    """At most `MAX_WORDS`, from all over the text."""
    part = MAX_WORDS // SLICES
    if len(text) > MAX_TEXT:
        size = MAX_TEXT // SLICES
        step = (len(text) - size) // (SLICES - 1)
        slices = (text[number * step : number * step + size] for number in range(SLICES))
        return [word for piece in slices for word in piece.translate(_SPACED).split()[:part]]
    words = text.translate(_SPACED).split()
    if len(words) <= MAX_WORDS:
        return words
    step = (len(words) - part) // (SLICES - 1)
    return [word for number in range(SLICES) for word in words[number * step : number * step + part]]


def _read_chat(body: bytes, found: _Found) -> None:
    for raw in reversed(_chat_body(body).messages[-MAX_ITEMS:]):
        item = _chat_item(raw)
        if item.role == "assistant":
            found.actions += [
                call.function.name.encode() + bytes(call.function.arguments)
                for call in reversed(item.tool_calls or ())
            ]
            return
        found.tool_results += item.role in ("tool", "function")
        found.results.append(bytes(item.content))


def _read_messages(body: bytes, found: _Found) -> None:
    for raw in reversed(_chat_body(body).messages[-MAX_ITEMS:]):
        message = _message(raw)
        blocks = message.content
        if message.role == "assistant":
            if not isinstance(blocks, str):
                found.actions += [
                    block.name.encode() + bytes(block.input)
                    for block in reversed(blocks)
                    if block.type == "tool_use"
                ]
            return
        if isinstance(blocks, str):
            found.results.append(blocks.encode())
            continue
        for block in reversed(blocks):
            is_result = block.type == "tool_result"
            found.tool_results += is_result
            found.is_error = found.is_error or (is_result and block.is_error is True)
            found.results.append(bytes(block.content if is_result else block.text))


def _read_responses(body: bytes, found: _Found) -> None:
    given = _responses_body(body).input
    if isinstance(given, str):
        found.results.append(given.encode())
        return
    is_turn = False
    for raw in reversed(given[-MAX_ITEMS:]):
        item = _item(raw)
        if item.type in ("function_call", "custom_tool_call", "local_shell_call"):
            is_turn = True
            found.actions.append(item.name.encode() + bytes(item.arguments) + bytes(item.input))
        elif is_turn or item.role == "assistant" or item.type == "reasoning":
            # before the calls of the last turn, or the turn itself
            if is_turn:
                return
            if item.role == "assistant":
                return
        elif item.type.endswith("_output"):
            found.tool_results += 1
            found.is_error = found.is_error or item.status == "incomplete"
            found.results.append(bytes(item.output))
        else:
            found.results.append(bytes(item.content))


def _read_gemini(body: bytes, found: _Found) -> None:
    for raw in reversed(_gemini_body(body).contents[-MAX_ITEMS:]):
        content = _content(raw)
        if content.role == "model":
            calls = [part.function_call for part in reversed(content.parts)]
            found.actions += [call.name.encode() + bytes(call.args) for call in calls if call is not None]
            return
        for part in reversed(content.parts):
            answer = part.function_response
            found.tool_results += answer is not None
            found.results.append(bytes(part.text if answer is None else answer.response))


_READERS: Final[dict[Operation, Callable[[bytes, _Found], Any]]] = {
    Operation.CHAT: _read_chat,
    Operation.MESSAGES: _read_messages,
    Operation.RESPONSES: _read_responses,
    Operation.GENERATE: _read_gemini,
}
