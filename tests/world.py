"""Models of every kind with prices that the mock's meter and the gateway's book each know on their own."""

from typing import Any

from outlay.flow.gateway.snapshot import Provider
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import CustomModel
from outlay.wire.intent import Dialect, Operation

USD = 1_000_000_000
PER_MTOK: dict[str, tuple[str, dict[str, str]]] = {
    # model: provider, USD per 10**6 tokens
    "gpt-test": ("openai", {"input": "2.5", "output": "10", "cache_read": "1.25"}),
    "gpt-audio": (
        "openai",
        {"input": "2.5", "output": "10", "input_audio": "40", "output_audio": "80", "cache_read": "1.25"},
    ),
    "talk-test": (
        "openai",
        {
            "input": "4",
            "output": "16",
            "cache_read": "0.4",
            "input_audio": "32",
            "output_audio": "64",
            "cache_read_audio": "0.4",
        },
    ),
    "embed-test": ("openai", {"input": "0.02"}),
    "instruct-test": ("openai", {"input": "1.5", "output": "2"}),
    "picture-test": (
        "openai",
        {"input": "5", "output": "40", "input_image": "10", "output_image": "40", "cache_read": "1.25"},
    ),
    "hear-test": ("openai", {"input": "2.5", "output": "10", "input_audio": "6"}),
    "say-test": ("openai", {"input": "0.6", "output": "12", "output_audio": "12"}),
    "claude-test": (
        "anthropic",
        {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75", "cache_write_1h": "6"},
    ),
    "gemini-test": ("google", {"input": "1.25", "output": "10", "cache_read": "0.31", "input_audio": "3"}),
    "gemini-embed-test": ("google", {"input": "0.15"}),
    "bedrock.claude-test-v1:0": (
        "bedrock",
        {"input": "3", "output": "15", "cache_read": "0.3", "cache_write": "3.75", "cache_write_1h": "6"},
    ),
}
PER_UNIT: dict[str, tuple[str, dict[str, str], dict[str, int]]] = {
    # model: provider, USD for one unit, the same for the meter in nanos
    "dall-e-test": ("openai", {"image": "0.04", "image/hd/1024x1024": "0.08"}, {"image_nanos": 40_000_000}),
    "whisper-test": ("openai", {"audio_ms": "0.0000001"}, {"audio_second_nanos": 100_000}),
    "tts-test": ("openai", {"character": "0.000015"}, {"character": 15 * USD}),
    "rerank-test": ("cohere", {"search_unit": "0.002"}, {"search_unit_nanos": 2_000_000}),
}
TUNED = "tune-test"
_METER_NAMES = {
    "cache_read": "cached",
    "cache_read_audio": "cached_audio",
    "cache_write_1h": "cache_write_long",
}
WINDOWS = {
    "talk-test": 32_000,
    "gemini-test": 1_000_000,
    "claude-test": 200_000,
    "bedrock.claude-test-v1:0": 200_000,
}


def meter_prices() -> dict[str, dict[str, int]]:
    """Nanos per million tokens, and per unit, as the mock provider takes them."""
    found = {
        model: {_METER_NAMES.get(name, name): _nanos(usd) for name, usd in amounts.items()}
        for model, (_, amounts) in PER_MTOK.items()
    }
    found |= {model: rates for model, (_, _, rates) in PER_UNIT.items()}
    found["dall-e-test"]["image/hd/1024x1024"] = 80_000_000
    found[TUNED] = {"training": 25 * USD}
    for model in ("gpt-test", "claude-test", "embed-test"):
        found[f"{model}@batch"] = {name: rate // 2 for name, rate in found[model].items()}
    found["omni-moderation-latest"] = {}
    return found


def book() -> PriceBook:
    """The gateway's prices of the same models."""
    models: list[Any] = []
    for model, (provider, amounts) in PER_MTOK.items():
        batch = {name: _half(usd) for name, usd in amounts.items()}
        is_batched = model in ("gpt-test", "claude-test", "embed-test")
        models.append(
            CustomModel(
                provider=provider,
                model=model,
                usd_per_mtok=amounts,
                variants={"batch": batch} if is_batched else {},
                context_window=WINDOWS.get(model, 128_000),
                max_output_tokens=4_096 if model == "talk-test" else None if "embed" in model else 16_384,
            )
        )
    for model, (provider, units, _) in PER_UNIT.items():
        models.append(
            CustomModel(provider=provider, model=model, usd_per_mtok={"input": "0"}, usd_per_unit=units)
        )
    models.append(
        CustomModel(
            provider="openai",
            model=TUNED,
            usd_per_mtok={"input": "0"},
            usd_per_unit={"training_token": "0.000025"},
        )
    )
    models.append(CustomModel(provider="openai", model="omni-moderation-latest", usd_per_mtok={"input": "0"}))
    return PriceBook.build(feed_of([]), overrides=models)


def providers(url: str, **changes: Any) -> tuple[Provider, ...]:
    """The mock as every vendor."""
    shared: dict[str, Any] = {"models": ("*",), "api_key": "mock-key", "send_request_id": True, **changes}
    return (
        Provider(
            name="openai",
            dialect=Dialect.OPENAI,
            base_url=url + "/v1",
            apis=(Operation.CHAT, Operation.RESPONSES),
            **shared,
        ),
        Provider(name="anthropic", dialect=Dialect.ANTHROPIC, base_url=url, **shared),
        Provider(name="google", dialect=Dialect.GOOGLE, base_url=url, **shared),
        Provider(name="cohere", dialect=Dialect.COHERE, base_url=url, **shared),
        Provider(
            name="bedrock",
            dialect=Dialect.BEDROCK,
            base_url=url,
            aws_region="us-east-1",
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            **{**shared, "api_key": ""},
        ),
    )


MODELS = (*PER_MTOK, *PER_UNIT, TUNED)


def _nanos(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * USD + int(fraction.ljust(9, "0") or "0")


def _half(usd: str) -> str:
    nanos = _nanos(usd)
    assert nanos % 2 == 0
    return f"{nanos // 2 // USD}.{nanos // 2 % USD:09d}"
