"""The meaning of a request as far as every dialect can keep it: what translation must not change."""

import json
from typing import Any

from outlay.wire.translate.conversation import (
    Conversation,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    merged_turns,
)
from outlay.wire.translate.effort import effort_name
from outlay.wire.translate.table import MESSAGES


def meaning(conversation: Conversation) -> dict[str, Any]:
    """Comparable between dialects: texts joined, JSON decoded, without what only one dialect must state."""
    said = conversation
    thinking = said.thinking
    return {
        "system": "\n\n".join(said.system),
        "turns": [turn_meaning(turn.role, turn.parts) for turn in merged_turns(said.turns)],
        "tools": [
            (
                tool.name,
                tool.description,
                json.loads(bytes(tool.schema or b'{"type":"object"}')),
                tool.strict is True,
                tool.is_custom,
                tool.grammar,
            )
            for tool in said.tools
        ],
        # with tools, `auto` is what nothing means
        "choice": said.choice if said.choice not in {None, "auto"} or said.allowed else None,
        "allowed": said.allowed,
        "parallel": said.parallel is not False,
        "format": None if said.format is None else json.loads(bytes(said.format.schema or b"null")),
        "has_format": said.format is not None,
        "strict_format": said.format is not None and said.format.strict is True,
        "max_tokens": said.max_tokens if said.source is not MESSAGES or said.max_tokens != 4096 else None,
        "sampling": (said.temperature, said.top_p, said.top_k, said.seed),
        "penalties": (said.presence_penalty, said.frequency_penalty),
        "stop": said.stop,
        "effort": None if thinking is None else effort_name(thinking),
        "user": said.user,
        "service_tier": said.service_tier,
    }


def turn_meaning(role: Role, parts: tuple[Part, ...]) -> tuple[Role, list[Any]]:
    """A turn: its text in one, then the rest in order; reasoning belongs to the model that wrote it."""
    rest: list[Any] = []
    texts: list[str] = []
    for part in parts:
        match part:
            case Text() | Refusal():
                texts.append(part.text)
            case ToolCall():
                arguments = part.arguments if part.is_custom else json.loads(part.arguments or "{}")
                rest.append(("call", part.id, part.name, arguments, part.is_custom))
            case ToolResult():
                kept = [item for item in part.content if not isinstance(item, Text)]
                text = "\n".join(item.text for item in part.content if isinstance(item, Text))
                rest.append(("result", part.call_id, text, [media(item) for item in kept], part.is_error))
            case Reasoning():
                pass
            case _:
                rest.append(media(part))
    return role, ["".join(texts), *rest]


def media(part: Any) -> tuple[str, str, str, str]:
    return type(part).__name__, part.media_type, part.data, part.url
