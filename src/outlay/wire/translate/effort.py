"""How much a model thinks, between the vendors' scales: effort names, token budgets, levels.

OpenAI and Anthropic name efforts, Anthropic (older models) and Gemini 2.5 count tokens, Gemini 3 names levels. The
counts for `low`, `medium`, `high` are Google's own (its OpenAI-compatible endpoint: 1,024, 8,192, 24,576); a count is
read as the nearest of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import Conversation, Thinking, Untranslatable

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_MEDIUM_FROM: Final = 4096
_HIGH_FROM: Final = 16384
_BUDGETS: Final[Mapping[str, int]] = MappingProxyType(
    {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
)
_LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
)
MIN_ANTHROPIC_BUDGET: Final = 1024
"""Anthropic refuses a smaller `budget_tokens`."""

THINKING_FIELDS: Final[Mapping[Operation, str]] = MappingProxyType(
    {
        Operation.CHAT: "reasoning_effort",
        Operation.RESPONSES: "reasoning.effort",
        Operation.MESSAGES: "thinking",
        Operation.GENERATE: "generationConfig.thinkingConfig",
    }
)


def checked_effort(effort: str | None, param: str) -> str | None:
    """The effort if it is one. Raises Untranslatable."""
    if effort is not None and effort not in EFFORTS:
        raise Untranslatable(param, f"`{effort[:64]}` is no known effort", status=400)
    return effort


def effort_name(thinking: Thinking) -> str | None:
    """OpenAI's scale; None leaves it to the model."""
    budget = thinking.budget_tokens
    if thinking.effort is not None or budget is None:
        return thinking.effort
    if budget == 0:
        return "none"
    if budget < _MEDIUM_FROM:
        return "low"
    return "medium" if budget < _HIGH_FROM else "high"


def anthropic_thinking(conversation: Conversation, limit: int) -> tuple[dict[str, object] | None, str | None]:
    """Anthropic's `thinking` and `output_config.effort`. Raises Untranslatable."""
    thinking = conversation.thinking
    if thinking is None:
        return None, None
    display = {"display": "summarized"} if thinking.shows else {}
    budget = thinking.budget_tokens
    if thinking.effort == "none" or budget == 0:
        return {"type": "disabled"}, None
    if budget is not None:
        if not MIN_ANTHROPIC_BUDGET <= budget < limit:
            raise Untranslatable(
                THINKING_FIELDS[conversation.source],
                f"a thinking budget must be from {MIN_ANTHROPIC_BUDGET} to below the output limit ({limit})"
                " for this model; change one of the two",
            )
        return {"type": "enabled", "budget_tokens": budget, **display}, None
    # `minimal` is below Anthropic's scale: its lowest stands for it
    effort = "low" if thinking.effort == "minimal" else thinking.effort
    if effort is None and not thinking.is_adaptive and not thinking.shows:
        return None, None
    return {"type": "adaptive", **display}, effort


def google_thinking(conversation: Conversation, model: str) -> dict[str, object] | None:
    """Gemini's `thinkingConfig`. Raises Untranslatable."""
    thinking = conversation.thinking
    if thinking is None:
        return None
    config: dict[str, object] = {}
    if thinking.shows is not None:
        config["includeThoughts"] = thinking.shows
    effort = thinking.effort
    if thinking.budget_tokens is not None:
        config["thinkingBudget"] = thinking.budget_tokens
    elif effort is None:
        if thinking.is_adaptive:
            config["thinkingBudget"] = -1
    elif effort == "none" or counts_thinking(model):
        if effort not in _BUDGETS:
            raise _no_such(conversation, effort)
        config["thinkingBudget"] = _BUDGETS[effort]
    elif effort in _LEVELS:
        config["thinkingLevel"] = _LEVELS[effort]
    else:
        raise _no_such(conversation, effort)
    return config or None


def counts_thinking(model: str) -> bool:
    """Whether a Gemini model takes a token budget and no level: those before Gemini 3."""
    name = model.rpartition("/")[2]
    return name.startswith(("gemini-1", "gemini-2"))


def _no_such(conversation: Conversation, effort: str) -> Untranslatable:
    return Untranslatable(
        THINKING_FIELDS[conversation.source],
        f"effort `{effort}` has no counterpart at this Gemini model; use `high` or less",
    )
