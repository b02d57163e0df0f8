"""What the mock model says: plain words, JSON that fits a schema, vectors; and how many tokens a prompt has.

Everything is a pure function of its arguments: the same request always gets the same answer.
"""

import base64
import json
import struct
from typing import Any

from outlay.testing import media

_SENTENCE = (
    "The ledger held its breath while each small token found a price and every price found "
    "an owner so that nobody had to guess what the night had cost Budgets are promises that "
    "numbers keep when people sleep and a refusal in time is kinder than an invoice too late to argue with"
)
_WORDS = tuple(" " + word for word in _SENTENCE.split())
_ROUND = "".join(_WORDS)
_SCHEMA_DEPTH = 16
"""Nested objects of a schema that are filled; deeper ones become null (a schema may refer to itself)."""

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3
TOKENS_PER_MEDIA_PART = 85
"""Flat input tokens of a content part that is not text."""
AUDIO_TOKENS_PER_SECOND = 10
"""Input tokens of a second of sound, as OpenAI counts it."""


def words(start: int, count: int) -> str:
    """`count` words from the `start`-th on, one a token; the words go round."""
    at = start % len(_WORDS)
    head = _WORDS[at : at + count]
    rounds, rest = divmod(count - len(head), len(_WORDS))
    return "".join(head) + _ROUND * rounds + "".join(_WORDS[:rest])


def share(text: str, total: int, start: int, end: int) -> str:
    """The part of `text` that tokens `start`..`end` of `total` make up; parts join without loss."""
    if total <= 0:
        return ""
    length = len(text)
    return text[length * start // total : length * end // total]


def text_tokens(text: str) -> int:
    """ceil(UTF-8 bytes / 4)."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def json_tokens(value: object) -> int:
    """Tokens of a value's compact JSON text; 0 if it is empty."""
    return text_tokens(json.dumps(value, separators=(",", ":"), ensure_ascii=False)) if value else 0


def content_tokens(content: str | list[dict[str, Any]] | None) -> int:
    """Tokens of a message's content: its text, text parts, and a flat count for every other part but sound."""
    if content is None:
        return 0
    if isinstance(content, str):
        return text_tokens(content)
    total = 0
    for part in content:
        text = part.get("text")
        if isinstance(text, str):
            total += text_tokens(text)
        elif part.get("type") in ("tool_result", "tool_use"):
            inner = part.get("content")
            # a picture that a tool returns counts as a picture
            total += (
                content_tokens(inner) if isinstance(inner, list) else json_tokens(inner or part.get("input"))
            )
        elif part.get("type") != "input_audio":
            total += TOKENS_PER_MEDIA_PART
    return total


def audio_tokens(content: list[dict[str, Any]], audio_ms: int | None) -> int:
    """Tokens of the sound (`input_audio` parts) in a message's content; `audio_ms` is a fixed length of each."""
    total = 0
    for part in content:
        sound = part.get("input_audio")
        if part.get("type") == "input_audio" and isinstance(sound, dict):
            length = media.audio_ms_base64(str(sound.get("data", "")), audio_ms)
            total += media.per_second(AUDIO_TOKENS_PER_SECOND, length)
    return total


def content_text(content: str | list[dict[str, Any]] | None) -> str:
    """All text of a message's content, joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(str(part["text"]) for part in content if isinstance(part.get("text"), str))


def instance_json(schema: dict[str, Any]) -> str:
    """Compact JSON text of a value that fits the JSON schema."""
    return json.dumps(instance(schema, schema, 0), separators=(",", ":"))


def instance(schema: object, root: dict[str, Any], depth: int) -> Any:
    """A value that fits `schema` (the usual keywords; `$ref` within `root`). Same schema, same value."""
    if not isinstance(schema, dict) or depth > _SCHEMA_DEPTH:
        return None
    if "$ref" in schema:
        return instance(_resolve(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return instance(schema[keyword][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: instance(part, root, depth + 1) for name, part in properties.items()}
        case "array":
            count = max(1, int(schema.get("minItems", 1)))
            return [instance(schema.get("items", {}), root, depth + 1) for _ in range(count)]
        case "integer":
            return int(schema.get("minimum", 7))
        case "number":
            return schema.get("minimum", 7.5)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "ledger".ljust(int(schema.get("minLength", 0)), "r")


def _resolve(reference: str, root: dict[str, Any]) -> object:
    node: object = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            node = node.get(step) if isinstance(node, dict) else None
    return node


def vector(text: str, dimensions: int) -> list[float]:
    """A unit-length-ish vector that depends on the text; the numbers are exact in 32 bits."""
    seed = sum(text.encode("utf-8", "surrogatepass")) + len(text)
    return [((seed * (index + 3) + index * index) % 2048 - 1024) / 1024 for index in range(dimensions)]


def vector_base64(values: list[float]) -> str:
    """Little-endian 32-bit floats in base64, as OpenAI sends them."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode("ascii")
