"""Schemas: Gemini's `Schema` (a subset of OpenAPI 3.0) read as JSON Schema, and which ones OpenAI takes as strict."""

from typing import Any, Final

import msgspec

from outlay.wire.translate.conversation import OutputFormat

_COUNTS: Final = frozenset(
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"]
)
# protobuf's JSON takes both spellings
_SPELLINGS: Final = {
    "any_of": "anyOf",
    "prefix_items": "prefixItems",
    "property_ordering": "propertyOrdering",
    "additional_properties": "additionalProperties",
    "min_items": "minItems",
    "max_items": "maxItems",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
}
_decode: Final = msgspec.json.Decoder().decode


def json_schema(schema: msgspec.Raw) -> msgspec.Raw:
    """The same schema in JSON Schema's words. Raises RecursionError and msgspec's errors.

    `type` is lower-cased, `nullable` becomes the type `null`, 64-bit counts (strings in protobuf's JSON) become
    numbers, `propertyOrdering` (which only Gemini has) goes, as JSON keeps the order of `properties`.
    """
    return msgspec.Raw(msgspec.json.encode(_convert(_decode(schema))))


def _convert(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    converted: dict[str, Any] = {}
    for given, value in schema.items():
        name = str(given)
        name = _SPELLINGS.get(name, name)
        match name:
            case "type" if isinstance(value, str):
                converted[name] = value.lower()
            case "properties" | "defs" | "$defs" if isinstance(value, dict):
                converted["$defs" if name == "defs" else name] = {
                    key: _convert(item) for key, item in value.items()
                }
            case "items" | "additionalProperties":
                converted[name] = _convert(value)
            case "anyOf" | "prefixItems" if isinstance(value, list):
                converted[name] = [_convert(item) for item in value]
            case "nullable" | "propertyOrdering":
                pass
            case "ref" if isinstance(value, str):
                converted["$ref"] = value.replace("#/defs/", "#/$defs/")
            case _ if name in _COUNTS and isinstance(value, str) and value.isdecimal():
                converted[name] = int(value)
            case _:
                converted[name] = value
    if schema.get("nullable") is True:
        _allow_null(converted)
    return converted


def _allow_null(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list):
            schema["enum"] = [*schema["enum"], None]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]


def is_strict(schema: msgspec.Raw) -> bool:
    """Whether OpenAI can promise a schema (`strict`): no object takes other fields, and every field is required.

    Anthropic and Google promise any schema they take. For one that OpenAI cannot promise, asking would be an error.
    """
    return _is_closed(_decode(schema))


def promised_format(schema: msgspec.Raw) -> OutputFormat:
    """Structured output as Anthropic and Google mean it: promised, so strict wherever that can be said."""
    return OutputFormat(schema, strict=True if is_strict(schema) else None)


def _is_closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(_is_closed(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if (schema.get("type") == "object" or properties is not None) and not (
        schema.get("additionalProperties") is False
        and isinstance(properties, dict)
        and _is_each_required(schema.get("required"), properties)
    ):
        return False
    nested = [schema.get("items"), schema.get("anyOf"), schema.get("prefixItems")]
    for name in ("properties", "$defs", "definitions"):
        named = schema.get(name)
        if isinstance(named, dict):
            nested.extend(named.values())
    return all(_is_closed(item) for item in nested)


def _is_each_required(required: Any, properties: dict[str, Any]) -> bool:
    return isinstance(required, list) and all(name in required for name in properties)
