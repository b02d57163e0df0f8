"""Where other gateways send a call, by the names they use, as providers of ours. Decides nothing."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from outlay.wire.intent import Dialect


class Vendor(NamedTuple):
    """What a name means here."""

    name: str
    """Of the provider, before a number tells several apart."""
    dialect: Dialect | None = None
    """None: the provider's name says it."""
    base_url: str = ""
    """Empty: the provider's name says it, or the source must."""
    prices: str = ""
    """Name in the price book, where it is not the provider's."""
    is_engine: bool = False
    """Runs on the operator's own machines."""
    suffix: str = ""
    """What the source leaves out of an address and an OpenAI SDK does not."""


def _compatible(name: str, base_url: str, prices: str = "") -> Vendor:
    return Vendor(name, Dialect.OPENAI, base_url, prices or name)


# addresses: each vendor's API reference for OpenAI SDKs
_HOSTED: Final = {
    "openai": Vendor("openai"),
    "anthropic": Vendor("anthropic"),
    "gemini": Vendor("google"),
    "cohere": Vendor("cohere"),
    "bedrock": Vendor("bedrock"),
    "azure": Vendor("azure", Dialect.OPENAI, "", "azure", suffix="/openai"),
    "groq": _compatible("groq", "https://api.groq.com/openai/v1"),
    "mistral": _compatible("mistral", "https://api.mistral.ai/v1"),
    "deepseek": _compatible("deepseek", "https://api.deepseek.com/v1"),
    "xai": _compatible("xai", "https://api.x.ai/v1", "x-ai"),
    "together": _compatible("together", "https://api.together.xyz/v1"),
    "fireworks": _compatible("fireworks", "https://api.fireworks.ai/inference/v1"),
    "openrouter": _compatible("openrouter", "https://openrouter.ai/api/v1"),
    "perplexity": _compatible("perplexity", "https://api.perplexity.ai"),
    "cerebras": _compatible("cerebras", "https://api.cerebras.ai/v1"),
}
_ENGINES: Final = {
    "vllm": Vendor("vllm", Dialect.OPENAI, is_engine=True),
    "ollama": Vendor("ollama", Dialect.OPENAI, is_engine=True, suffix="/v1"),
    "sglang": Vendor("sglang", Dialect.OPENAI, is_engine=True, suffix="/v1"),
    "lm_studio": Vendor("lm-studio", Dialect.OPENAI, is_engine=True),
    "llamafile": Vendor("llamafile", Dialect.OPENAI, is_engine=True),
    "xinference": Vendor("xinference", Dialect.OPENAI, is_engine=True),
}

LITELLM_VENDORS: Final[Mapping[str, Vendor]] = MappingProxyType(
    _HOSTED
    | {name: _ENGINES[name] for name in ("ollama", "lm_studio", "llamafile", "xinference")}
    | {
        "text-completion-openai": _HOSTED["openai"],
        "custom_openai": _HOSTED["openai"],
        "cohere_chat": _HOSTED["cohere"],
        "bedrock_converse": _HOSTED["bedrock"],
        "together_ai": _HOSTED["together"],
        "fireworks_ai": _HOSTED["fireworks"],
        "ollama_chat": _ENGINES["ollama"],
        "hosted_vllm": _ENGINES["vllm"],
    }
)
"""The part of LiteLLM's `provider/model` before the first `/`."""
BIFROST_VENDORS: Final[Mapping[str, Vendor]] = MappingProxyType(
    _HOSTED
    | {
        "vllm": _ENGINES["vllm"]._replace(suffix="/v1"),
        "ollama": _ENGINES["ollama"],
        "sgl": _ENGINES["sglang"],
        # Bifrost speaks Azure's newer form, without api-version
        "azure": _HOSTED["azure"]._replace(suffix="/openai/v1"),
    }
)
"""The keys of Bifrost's `providers`."""
BARE_NAMES: Final = (
    ("openai", ("gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "dall-e-", "whisper-", "tts-")),
    ("anthropic", ("claude-",)),
    ("cohere", ("command-",)),
)
"""Vendor of a LiteLLM model that names none, by how it begins."""
