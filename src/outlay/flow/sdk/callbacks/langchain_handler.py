"""A LangChain `BaseCallbackHandler`: observe-only, or enforcing. Imports LangChain when one is made."""

import importlib
from typing import Any, Final
from uuid import UUID

from outlay.flow.sdk.callbacks.tally import Tally
from outlay.wire.intent import Usage

OBSERVED: Final = "langchain"
PROVIDERS: Final = {
    "google_genai": "google",
    "google_vertexai": "google",
    "azure": "azure",
    "amazon_bedrock": "bedrock",
}
"""LangChain's names of providers, where they differ from the price book's."""


def make_handler(tally: Tally, *, enforce: bool) -> Any:
    """An instance of LangChain's handler, named `OutlayObserver` or `OutlayEnforcer` after what it does."""
    base: Any = importlib.import_module("langchain_core.callbacks").BaseCallbackHandler
    asked: dict[UUID, tuple[str, str]] = {}

    def begin(self: Any, serialized: Any, said: Any, *, run_id: UUID, **more: Any) -> None:
        provider, model, limit = _names(more)
        if len(asked) >= 10_000:
            asked.clear()
        asked[run_id] = (provider, model)
        if enforce:
            size = len(str(said).encode()) + len(str(more.get("invocation_params", "")).encode())
            tally.hold(str(run_id), provider, model, size, limit)

    def end(self: Any, response: Any, *, run_id: UUID, **more: Any) -> None:
        provider, model = asked.pop(run_id, ("openai", ""))
        usage = usage_of(response)
        if usage is not None:
            tally.book(str(run_id), provider, model or usage.model or "", usage, OBSERVED)
        else:
            tally.drop(str(run_id), None)

    def broke(self: Any, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        asked.pop(run_id, None)
        tally.drop(str(run_id), error)

    members: dict[str, Any] = {
        "__doc__": "Holds the calls of LangChain's models."
        if enforce
        else "Observes LangChain; refuses nothing.",
        # without it LangChain logs what a handler raises and makes the call all the same
        "raise_error": enforce,
        "on_llm_start": begin,
        "on_chat_model_start": begin,
        "on_llm_end": end,
        "on_llm_error": broke,
    }
    kind = type("OutlayEnforcer" if enforce else "OutlayObserver", (base,), members)
    return kind()


def usage_of(response: Any) -> Usage | None:
    """The sum of what the generated messages say was used; None if none does."""
    totals = [0, 0, 0, 0, 0]
    model = None
    is_said = False
    for batch in getattr(response, "generations", []):
        for generation in batch[:1]:
            message = getattr(generation, "message", None)
            said = getattr(message, "usage_metadata", None)
            if not isinstance(said, dict):
                continue
            is_said = True
            read, hidden = said.get("input_token_details") or {}, said.get("output_token_details") or {}
            found = (
                said.get("input_tokens"),
                said.get("output_tokens"),
                read.get("cache_read"),
                read.get("cache_creation"),
                hidden.get("reasoning"),
            )
            totals = [total + (one or 0) for total, one in zip(totals, found, strict=True)]
            model = (getattr(message, "response_metadata", None) or {}).get("model_name", model)
    if not is_said:
        return None
    return Usage(
        totals[0],
        totals[1],
        cache_read_input_tokens=totals[2],
        cache_creation_input_tokens=totals[3],
        reasoning_output_tokens=totals[4],
        model=model,
    )


def _names(more: dict[str, Any]) -> tuple[str, str, int | None]:
    metadata, params = more.get("metadata") or {}, more.get("invocation_params") or {}
    provider = str(metadata.get("ls_provider") or "openai")
    model = str(metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or "")
    limit = metadata.get("ls_max_tokens") or params.get("max_tokens") or params.get("max_completion_tokens")
    return PROVIDERS.get(provider, provider), model, limit if isinstance(limit, int) else None
