"""A LiteLLM `CustomLogger`: observe-only, or (its asynchronous calls) enforcing. Imports LiteLLM when one is made."""

import importlib
from typing import Any

from outlay.flow.sdk.callbacks.tally import Tally
from outlay.wire.intent import Usage

OBSERVED = "litellm"


def make_logger(tally: Tally, *, enforce: bool) -> Any:
    """An instance of LiteLLM's `CustomLogger`, named `OutlayObserver` or `OutlayEnforcer` after what it does."""
    base: Any = importlib.import_module("litellm.integrations.custom_logger").CustomLogger

    def succeeded(
        self: Any, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        usage = usage_of(response_obj)
        if usage is not None:
            model, provider = _names(kwargs)
            tally.book(_call(kwargs), provider, model, usage, OBSERVED)

    def failed(self: Any, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any) -> None:
        tally.drop(_call(kwargs), kwargs.get("exception"))

    async def async_succeeded(
        self: Any, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        succeeded(self, kwargs, response_obj, start_time, end_time)

    async def async_failed(
        self: Any, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        failed(self, kwargs, response_obj, start_time, end_time)

    async def before(self: Any, kwargs: dict[str, Any], call_type: Any) -> None:
        model, provider = _names(kwargs)
        limit = kwargs.get("max_completion_tokens") or kwargs.get("max_tokens")
        size = len(str(kwargs.get("messages") or kwargs.get("input") or "").encode())
        size += len(str(kwargs.get("tools") or "").encode())
        tally.hold(_call(kwargs), provider, model, size, limit if isinstance(limit, int) else None)

    members: dict[str, Any] = {
        "__doc__": "Holds LiteLLM's asynchronous calls, observes the others."
        if enforce
        else "Observes what LiteLLM reports; refuses nothing.",
        "log_success_event": succeeded,
        "log_failure_event": failed,
        "async_log_success_event": async_succeeded,
        "async_log_failure_event": async_failed,
    }
    if enforce:
        members["async_pre_call_deployment_hook"] = before
    kind = type("OutlayEnforcer" if enforce else "OutlayObserver", (base,), members)
    return kind()


def usage_of(response: Any) -> Usage | None:
    """What LiteLLM says was used; its `prompt_tokens` hold cached and cache-writing ones."""
    said = getattr(response, "usage", None)
    if said is None:
        return None
    prompt, answer = getattr(said, "prompt_tokens", None), getattr(said, "completion_tokens", None)
    if not isinstance(prompt, int):
        return None
    read = _count(getattr(getattr(said, "prompt_tokens_details", None), "cached_tokens", None))
    written = _count(getattr(said, "cache_creation_input_tokens", None))
    hidden = _count(getattr(getattr(said, "completion_tokens_details", None), "reasoning_tokens", None))
    model = getattr(response, "model", None)
    return Usage(
        prompt,
        _count(answer),
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        reasoning_output_tokens=hidden,
        model=model if isinstance(model, str) else None,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _call(kwargs: dict[str, Any]) -> str:
    logging = kwargs.get("litellm_logging_obj")
    return str(kwargs.get("litellm_call_id") or getattr(logging, "litellm_call_id", ""))


def _names(kwargs: dict[str, Any]) -> tuple[str, str]:
    """(model, provider): LiteLLM writes `provider/model`, or has the provider apart."""
    model = str(kwargs.get("model") or "")
    provider = str(
        kwargs.get("custom_llm_provider")
        or (kwargs.get("litellm_params") or {}).get("custom_llm_provider")
        or ""
    )
    head, slash, rest = model.partition("/")
    if slash and provider in ("", head):
        return rest, head
    return model, provider or "openai"
