"""Changes to a request body that leave every other byte of it as it was. Must not know any dialect."""

from collections.abc import Mapping
from typing import Final

import msgspec

from outlay.wire.fields import has_escaped_ascii

_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def insert_field(body: bytes, name: str, value: object) -> bytes:
    """The body with `"name":value` appended before its last `}`, or set in place if it is there (as `null`).

    The body is a JSON object with at least one field, as `parse_*` has accepted it. Raises ValueError if it has no
    `}`.
    """
    quoted = msgspec.json.encode(name)
    if quoted in body or has_escaped_ascii(body):
        # the name may be there with null, plain or escaped: never send a field twice
        return replace_fields(body, {name: value})
    end = body.rindex(b"}")
    return b"%b,%b:%b}" % (body[:end], quoted, msgspec.json.encode(value))


def replace_fields(body: bytes, changes: Mapping[str, object]) -> bytes:
    """The body with each field of `changes` set (in place, or appended); all other values byte-identical.

    Blanks between top-level fields go. Raises msgspec.DecodeError if the body is not a JSON object.
    """
    fields: dict[str, object] = dict(_decode_fields(body))
    fields.update(changes)
    return msgspec.json.encode(fields)


def rename_field(body: bytes, old: str, new: str, value: object) -> bytes:
    """The body with `old` left out and `new` set; all other values byte-identical.

    Raises msgspec.DecodeError if the body is not a JSON object.
    """
    fields: dict[str, object] = {name: given for name, given in _decode_fields(body).items() if name != old}
    fields[new] = value
    return msgspec.json.encode(fields)


def with_stream_usage(body: bytes, *, continuous: bool = False) -> bytes:
    """The body with `stream_options.include_usage` true, other stream options kept (OpenAI dialect).

    `continuous`: and `continuous_usage_stats`, by which vLLM and SGLang state it in each chunk.

    Raises msgspec.DecodeError if the body or its `stream_options` is not an object.
    """
    fields = _decode_fields(body)
    options = fields.get("stream_options")
    wanted = {"include_usage": True} | ({"continuous_usage_stats": True} if continuous else {})
    if options is None:
        return insert_field(body, "stream_options", wanted)
    kept = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) or {}
    return replace_fields(body, {"stream_options": {**kept, **wanted}})


def set_nested(body: bytes, path: tuple[str, ...], value: object) -> bytes:
    """The body with the field at `path` set (in place, or appended, objects on the way made); the rest stays as it is.

    A step that is there in snake_case, as Google takes it too, is set under that name. Raises msgspec.DecodeError if
    the body, or what stands on the way, is not an object.
    """
    fields = dict(_decode_fields(body)) if body.strip() != b"null" else {}
    name = path[0]
    if name not in fields and (snake := snake_case(name)) in fields:
        name = snake
    changed: object = value
    if len(path) > 1:
        changed = msgspec.Raw(set_nested(bytes(fields.get(name, b"{}")), path[1:], value))
    if name not in fields and fields:
        return insert_field(body, name, changed)
    return msgspec.json.encode(fields | {name: changed})


def snake_case(name: str) -> str:
    """`maxOutputTokens` -> `max_output_tokens`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
