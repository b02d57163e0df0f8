"""Multipart forms (RFC 7578): one reading of a body, and changes that leave every other byte as it was. Pure.

The library (`python_multipart`) is driven without I/O and with limits. A form that two readers could take in two ways
is refused: a field of money given twice or in another case, an encoded part, a body that does not end. Must not know
any route.
"""

import re
from collections.abc import Collection, Iterable
from typing import Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from outlay.wire.intent import Rejection

MAX_PARTS: Final = 256
"""OpenAI takes at most 16 images and a dozen fields."""
MAX_HEADERS: Final = 8
MAX_HEADER_BYTES: Final = 4096
MAX_TEXT_BYTES: Final = 256 * 1024
"""Largest part that is read as text (a prompt has at most 32,000 characters)."""
_TYPE: Final = b"multipart/form-data"
_REPEATABLE_END: Final = "[]"
_BOUNDARIES: Final = re.compile(rb";\s*boundary\s*(\*[0-9*]*\s*)?=", re.IGNORECASE)
_NAMES: Final = re.compile(rb";\s*name\s*(\*[0-9*]*\s*)?=", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part: where its content stands in the body."""

    name: str
    start: int
    end: int
    """Exclusive; the boundary's CRLF is not part of it."""
    filename: str | None = None
    content_type: str | None = None


class Form(msgspec.Struct, frozen=True, gc=False):
    """A form that was read in exactly one way."""

    body: bytes
    parts: tuple[Part, ...]

    def texts(self, name: str) -> tuple[str, ...]:
        """The text of every part of this name (`name` or `name[]`); one that is not UTF-8 is read with marks."""
        return tuple(
            self.body[part.start : part.end].decode("utf-8", "replace")
            for part in self.parts
            if part.name.removesuffix(_REPEATABLE_END) == name
        )

    def text(self, name: str) -> str | None:
        """The text of the one part of this name; None if there is none."""
        found = self.texts(name)
        return found[0] if found else None

    def files(self, name: str) -> tuple[Part, ...]:
        """Parts of this name (`name` or `name[]`) that are files or plain content."""
        return tuple(part for part in self.parts if part.name.removesuffix(_REPEATABLE_END) == name)

    def content(self, part: Part) -> bytes:
        """A part's bytes."""
        return self.body[part.start : part.end]


class _Reader:
    """Callbacks of the parser. Content is only located, not copied: it stands between two boundaries."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_ended = False
        self.problem: str | None = None
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._start = self._end = -1

    def on_part_begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            self.problem = f"the form has more than {MAX_PARTS} parts"
        self._headers, self._start, self._end = {}, -1, -1

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name = self._field.lower()
        if name in self._headers:
            self.problem = f"a part has the header {name.decode('latin-1')[:64]!r} twice"
        self._headers[name] = self._value
        self._field = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        # the whole body is one chunk, so offsets are the body's own; content may come in several pieces
        if self._start < 0:
            self._start = start
        elif start != self._end:
            self.problem = "a part's content is not in one piece"
        self._end = end

    def on_part_end(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        if not _is_given_once(_NAMES, disposition):
            self.problem = "a part has its name twice, or in an extended form"
            return
        kind, options = parse_options_header(disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            self.problem = "a part has no `content-disposition: form-data` with a name"
            return
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (
            b"binary",
            b"8bit",
            b"7bit",
        ):
            self.problem = "a part has a `content-transfer-encoding`"
            return
        filename, content_type = options.get(b"filename"), self._headers.get(b"content-type")
        self.parts.append(
            Part(
                name.decode("utf-8", "replace"),
                max(self._start, 0),
                max(self._end, 0),
                None if filename is None else filename.decode("utf-8", "replace"),
                None if content_type is None else content_type.decode("latin-1"),
            )
        )

    def on_end(self) -> None:
        self.is_ended = True


def read_form(content_type: str, body: bytes, money_names: Collection[str] = ()) -> Form | Rejection:
    """The form in `body`, or why it cannot be read in one way. Never raises.

    `money_names` (without `[]`) are fields that may be given once only, and in no other case.
    """
    kind, options = parse_options_header(content_type) if content_type.isascii() else (b"", {})
    boundary = options.get(b"boundary")
    if kind != _TYPE or not boundary or not _is_given_once(_BOUNDARIES, content_type.encode()):
        return Rejection(
            400, "invalid_form", "the content type must be multipart/form-data with one boundary"
        )
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_end": reader.on_end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        return Rejection(400, "invalid_form", f"the form cannot be read: {str(error)[:200]}")
    if reader.problem is None and not reader.is_ended:
        reader.problem = "the form's last boundary is missing"
    if reader.problem is None and body.count(b"--" + boundary) != len(reader.parts) + 1:
        reader.problem = "the boundary stands inside a part, or before or after the form"
    if reader.problem is not None:
        return Rejection(400, "invalid_form", reader.problem)
    return _refuse_names(reader.parts, money_names) or Form(body, tuple(reader.parts))


def replace_part(form: Form, name: str, value: str) -> bytes:
    """The form's body with the content of the one text part `name` replaced. Raises KeyError if there is none."""
    for part in form.parts:
        if part.name == name:
            if part.end == 0:
                raise KeyError(name)
            return form.body[: part.start] + value.encode() + form.body[part.end :]
    raise KeyError(name)


def _is_given_once(parameter: re.Pattern[bytes], header: bytes) -> bool:
    """Whether a header has a parameter at most once and plainly: readers differ in which of two they take."""
    found = parameter.findall(header)
    return not found or found == [b""]


def _refuse_names(parts: Iterable[Part], money_names: Collection[str]) -> Rejection | None:
    seen: set[str] = set()
    for part in parts:
        name = part.name.removesuffix(_REPEATABLE_END)
        folded = name.casefold()
        if folded not in money_names:
            continue
        if name in seen or name != folded:
            return Rejection(
                422, "duplicate_field", f"`{folded}` must be given once, and in lower case", folded
            )
        if part.filename is None and part.end - part.start > MAX_TEXT_BYTES:
            return Rejection(400, "invalid_value", f"`{name}` is longer than {MAX_TEXT_BYTES} bytes", name)
        seen.add(name)
    return None
