"""The client's own names for what the neutral record holds, and the one way to say that a target cannot carry it."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate.conversation import Conversation, Turn, Untranslatable

CODE: Final = "untranslatable"

TITLES: Final[Mapping[Operation, str]] = MappingProxyType(
    {
        Operation.CHAT: "chat completions",
        Operation.RESPONSES: "Responses",
        Operation.MESSAGES: "Anthropic Messages",
        Operation.GENERATE: "Gemini generateContent",
    }
)
_ORDER: Final = (Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.GENERATE)

# neutral name -> chat, responses, messages, generate
_FIELDS: Final[Mapping[str, tuple[str, str, str, str]]] = MappingProxyType(
    {
        "turns": ("messages", "input", "messages", "contents"),
        "tools": ("tools", "tools", "tools", "tools"),
        "choice": ("tool_choice", "tool_choice", "tool_choice", "toolConfig.functionCallingConfig"),
        "parallel": (
            "parallel_tool_calls",
            "parallel_tool_calls",
            "tool_choice.disable_parallel_tool_use",
            "toolConfig",
        ),
        "format": (
            "response_format",
            "text.format",
            "output_config.format",
            "generationConfig.responseMimeType",
        ),
        "temperature": ("temperature", "temperature", "temperature", "generationConfig.temperature"),
        "top_k": ("top_k", "top_k", "top_k", "generationConfig.topK"),
        "seed": ("seed", "seed", "seed", "generationConfig.seed"),
        "presence_penalty": (
            "presence_penalty",
            "presence_penalty",
            "presence_penalty",
            "generationConfig.presencePenalty",
        ),
        "frequency_penalty": (
            "frequency_penalty",
            "frequency_penalty",
            "frequency_penalty",
            "generationConfig.frequencyPenalty",
        ),
        "stop": ("stop", "stop", "stop_sequences", "generationConfig.stopSequences"),
        "service_tier": ("service_tier", "service_tier", "service_tier", "serviceTier"),
    }
)


def field_name(source: Operation, name: str) -> str:
    """What the client calls a field of the neutral record."""
    return _FIELDS[name][_ORDER.index(source)]


def refuse_field(conversation: Conversation, name: str, target: Operation, fix: str) -> Untranslatable:
    """The target has no such field."""
    return Untranslatable(
        field_name(conversation.source, name), f"{TITLES[target]} has no counterpart; {fix}"
    )


def refuse_part(
    conversation: Conversation, turn: Turn, target: Operation, what: str, fix: str
) -> Untranslatable:
    """The target cannot carry a part of a turn."""
    return Untranslatable(
        f"{field_name(conversation.source, 'turns')}[{turn.at}]",
        f"{TITLES[target]} cannot carry {what}; {fix}",
    )


def refuse_set(fields: Mapping[str, object], fixes: Mapping[str, str]) -> None:
    """Raise Untranslatable for the first field that is given and means something."""
    for name, fix in fixes.items():
        if fields[name]:
            raise Untranslatable(name, fix)


def rejection(problem: Untranslatable) -> Rejection:
    """What the client is told."""
    code = CODE if problem.status == 422 else "invalid_value"
    return Rejection(problem.status, code, f"`{problem.param}`: {problem.why}", problem.param)


_UNKNOWN: Final = "Object contains unknown field `"
_BAD_VALUES: Final = ("Invalid value ", "Invalid enum value ")


def decoding_problem(error: msgspec.ValidationError, prefix: str = "") -> Untranslatable:
    """What a strict decoder refused: a field or kind that is not known here (422), or a wrong type (400)."""
    text, _, path = str(error).partition(" - at `$")
    path = (prefix + path.rstrip("`")).lstrip(".")
    if text.startswith(_UNKNOWN):
        name = text[len(_UNKNOWN) :].rstrip("`")[:64]
        param = f"{path}.{name}" if path else name
        return Untranslatable(
            param,
            "is not translated to another dialect; leave it out or use a model of this dialect",
            is_unknown=True,
        )
    if text.startswith(_BAD_VALUES):
        # the client's dialect took it, so it is rather new than wrong
        value = text.partition("value ")[2][:64]
        place, _, last = path.rpartition(".")
        return Untranslatable(
            place if last in {"type", "role"} and place else path,
            f"{value} is not translated to another dialect; use a model of this dialect",
        )
    return Untranslatable(path or "body", text[:256], status=400)


_PATH: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_decode: Final = msgspec.json.Decoder().decode


def without_null(body: bytes, path: str) -> bytes | None:
    """The body without the field at `path`, if that is null; else None."""
    whole = place = _decode(body)
    keys = [int(index) if index else name for name, index in _PATH.findall(path)]
    for key in keys[:-1]:
        if isinstance(key, int):
            if not isinstance(place, list) or key >= len(place):
                return None
        elif not isinstance(place, dict) or key not in place:
            return None
        place = place[key]
    last = keys[-1] if keys else None
    if not isinstance(place, dict) or place.get(last, msgspec.UNSET) is not None:
        return None
    del place[last]
    return msgspec.json.encode(whole)
