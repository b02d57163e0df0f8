"""The one reading of a request body's top level: exact JSON, no field twice, no field in another case.

Two parsers that disagree about a body are how money leaks: we read `max_tokens: 1`, the provider reads the second
`max_tokens: 100000`. So a body whose top level could be read in two ways is refused. Must not know any dialect.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from outlay.wire.intent import Rejection

_T = TypeVar("_T")

Fields = dict[str, msgspec.Raw]
"""Top-level names (escapes resolved) and the undecoded bytes of their values, in the body's order."""

MAX_COUNT: Final = 2**31
"""Largest token limit or use count taken from a request: above any model, and n x limit stays in 64 bits."""
MAX_MODEL_CHARS: Final = 256
"""Model names are looked up, logged and stored; no provider has longer ones."""

_decode_fields: Final = msgspec.json.Decoder(Fields).decode
_ESCAPED_ASCII: Final = re.compile(rb"\\u00(?:3[0-9]|[4-7][0-9a-fA-F])")
_NULL: Final = b"null"
MAX_EXACT_BYTES: Final = 1024 * 1024
"""Bodies that are not plainly clean are read exactly, on the event loop, up to this size (some 0.1 s); larger ones
must be written as SDKs write them."""
MAX_NESTED_BYTES: Final = 8 * 1024 * 1024
"""The same for a look at nested objects, which only bodies that mention media or hosted tools need..."""
MAX_NESTED_MARKS: Final = 1_000_000
"""... and for larger bodies that are large because of media: so many quotes and commas take some 50 ms, while 20 MB of
base64 have none and take 25."""


def read_fields(body: bytes) -> Fields | Rejection:
    """The top-level fields of a JSON object in UTF-8, or why it cannot be read in exactly one way.

    Never raises. 400 `invalid_json` for anything but one JSON object (NaN, comments, trailing bytes, invalid
    UTF-8, a BOM), 422 `duplicate_field` for a name given twice.
    """
    try:
        fields = _decode_fields(body)
        if not body.isascii():
            str(body, "utf-8")  # skipped strings are not checked by the decoder
    except msgspec.ValidationError:
        return Rejection(400, "invalid_json", "the body must be one JSON object")
    except (ValueError, RecursionError):
        return Rejection(400, "invalid_json", "the body is not valid JSON in UTF-8")
    if not _is_each_name_once(body, fields):
        if len(body) > MAX_EXACT_BYTES:
            return _too_unusual(MAX_EXACT_BYTES)
        name = first_duplicate(body)
        if name is not None:
            return Rejection(
                422, "duplicate_field", f"`{name[:64]}` is given more than once; send it once", name[:64]
            )
    return fields


def refuse_nested_duplicate(body: bytes, telling: tuple[bytes, ...]) -> Rejection | None:
    """422 if an object inside a body that mentions one of the `telling` names gives a name twice, else None.

    A decoder takes the last of two, an upstream may take the first: an image part could hide behind a text.
    """
    if not any(name in body for name in telling) and not has_escaped_ascii(body):
        return None
    if len(body) > MAX_NESTED_BYTES and body.count(b'"') + body.count(b",") > MAX_NESTED_MARKS:
        return _too_unusual(MAX_NESTED_BYTES)
    name = first_duplicate(body, at_any_depth=True)
    if name is None:
        return None
    return Rejection(
        422, "duplicate_field", f"`{name[:64]}` is given more than once in one object; send it once"
    )


def _too_unusual(limit: int) -> Rejection:
    return Rejection(
        422,
        "unusual_json",
        f"a body of more than {limit} bytes in this layout cannot be checked in time; send compact JSON (no blanks)",
    )


def find_case_variant(fields: Mapping[str, object], money_names: frozenset[str]) -> Rejection | None:
    """422 if a name differs from a money field only in case (`Max_Tokens`, a Kelvin sign for k), else None.

    Some servers match names without regard to case, so such a field is a second reading of the real one.
    """
    for name in fields:
        if name not in money_names and (folded := name.casefold()) in money_names:
            return Rejection(
                422,
                "duplicate_field",
                f"`{name[:64]}` differs from `{folded}` only in case; write `{folded}`",
                folded,
            )
    return None


def is_null(value: msgspec.Raw | None) -> bool:
    """Whether a field is absent or `null`."""
    return value is None or bytes(value) == _NULL


def has_escaped_ascii(body: bytes) -> bool:
    """Whether a letter or digit is written as `\\u00..`, which no encoder does: a search by bytes would miss it."""
    return b"\\u00" in body and _ESCAPED_ASCII.search(body) is not None


def first_duplicate(data: bytes, *, at_any_depth: bool = False) -> str | None:
    """The first name given twice in the top-level object (or in any object), by an exact reading of valid JSON.

    Slow (a full parse): asked only of bodies that are not plainly clean. Returns `""` if the reading fails.
    """
    nested: list[str] = []
    last: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        # objects close from the inside out: the last call is for the top level
        last.clear()
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                last.append(name)
            seen.add(name)
        nested.extend(last[:1])

    try:
        # numbers stay text: huge ones would be slow, or refused by int()
        json.loads(data, object_pairs_hook=collect, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return ""
    if at_any_depth:
        return nested[0] if nested else None
    return last[0] if last else None


def decode_or_refuse(decode: Callable[[bytes], _T], body: bytes) -> _T | Rejection:
    """What a decoder makes of a body, or why it could not. Never raises."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        return invalid_value(error)
    except (ValueError, RecursionError):
        return Rejection(400, "invalid_json", "the body is not valid JSON in UTF-8")


def refuse_model(model: str) -> Rejection | None:
    """400 for an empty model name, or one that no provider has."""
    if 0 < len(model) <= MAX_MODEL_CHARS:
        return None
    return Rejection(400, "invalid_value", f"`model` must have 1 to {MAX_MODEL_CHARS} characters", "model")


def refuse_count(name: str, value: int | None, least: int = 1, most: int = MAX_COUNT) -> Rejection | None:
    """400 for a number that is given and out of range."""
    if value is None or least <= value <= most:
        return None
    return Rejection(400, "invalid_value", f"`{name}` must be from {least} to {most}", name)


def refuse_tier(service_tier: str | None) -> Rejection | None:
    """422 for `batch`: its price is for the lines of a batch job, which the gateway marks itself."""
    if service_tier is None or service_tier.lower() != "batch":
        return None
    return Rejection(
        422,
        "unsupported_field",
        "`service_tier`: `batch` belongs to batch jobs; leave it out",
        "service_tier",
    )


def refuse_missing(fields: Fields, required: tuple[str, ...]) -> Rejection | None:
    """400 for the first required field that is absent."""
    for name in required:
        if name not in fields:
            return Rejection(400, "missing_field", f"`{name}` is missing", name)
    return None


def invalid_value(error: msgspec.ValidationError) -> Rejection:
    """400 that names the field which msgspec could not take."""
    text = str(error)
    problem, _, path = text.partition(" - at `$")
    name = path.lstrip(".").rstrip("`")
    return Rejection(400, "invalid_value", f"`{name}`: {problem}" if name else problem, name or None)


def _is_each_name_once(body: bytes, fields: Fields) -> bool:
    """Whether the body is provably free of duplicates; False means only that it must be read exactly.

    Written without blanks (most SDKs), a body is as long as its distinct names and values plus punctuation; a
    dropped duplicate or an escaped name would make it longer. With `, ` and `: ` (Python's default) it must be
    rebuilt and compared, since blanks could stand for the bytes of a duplicate.
    """
    count = len(fields)
    spare = len(body) - sum(map(len, fields)) - sum(map(len, fields.values())) - 4 * count - 1
    if spare == 0:
        return True
    if spare != 2 * count - 1:
        return False
    members = [b'": '.join((name.encode(), value)) for name, value in fields.items()]
    return body == b'{"' + b', "'.join(members) + b"}"
