"""Corrections for media, units and hosted tools that the price feed is silent about: data with sources and dates.

Owned here are units (images, searches, training tokens), media classes and fees of newer tools. How a correction is
applied is in `corrections`.
"""

from outlay.kernel.money import usd_to_nanos
from outlay.lookup.correction_kinds import (
    AddedModel,
    ContextWindow,
    Correction,
    MediaAsText,
    MediaRates,
    MoreTier,
    PlainWrites,
    ToolFees,
    UnitRates,
    utc,
)
from outlay.lookup.price import ModelPrice, PriceId, Rates

_UNCHECKED = "(not checked against the page)"
_OPENAI_PRICES = f"https://developers.openai.com/api/docs/pricing {_UNCHECKED}"
_GEMINI_PRICES = f"https://ai.google.dev/gemini-api/docs/pricing {_UNCHECKED}"
_WRITTEN = "2026-11-24"
"""When the rows were written; what their author did not open says so in its source."""
_RESELLING = ("openai", "azure")
_PER_MILLION = 1_000_000


def _each(usd: str) -> int:
    """Nanos per 10**6 units of USD for one unit."""
    return usd_to_nanos(usd) * _PER_MILLION


def _per_thousand(usd: str) -> int:
    """Nanos per 10**6 uses of USD per 1000 uses."""
    return usd_to_nanos(usd) * 1000


def _training(models: str, usd: str) -> Correction:
    return Correction(
        name="openai-training",
        provider="openai",
        models=models,
        change=UnitRates({"training_token": usd_to_nanos(usd)}),
        source=_OPENAI_PRICES,
        read_on=_WRITTEN,
    )


def _by_unit(
    provider: str, names: tuple[str, ...], units: dict[str, int], source: str, window: int | None = None
) -> AddedModel:
    return AddedModel(
        provider=provider,
        names=names,
        price=ModelPrice(
            price_id=PriceId("outlay-corrections"),
            provider=provider,
            model=names[0],
            source=f"{source}, {_WRITTEN}",
            rates=Rates(input=0, output=0),
            unit_rates=units,
            bills_media_as_text=True,
            context_window=window,
            standard_tiers=("default", "standard"),
        ),
        source=source,
        read_on=_WRITTEN,
        valid_from=utc(2023, 1, 1),
    )


def _by_token(provider: str, model: str, usd: str, source: str) -> AddedModel:
    return AddedModel(
        provider=provider,
        names=(model,),
        price=ModelPrice(
            price_id=PriceId("outlay-corrections"),
            provider=provider,
            model=model,
            source=f"{source}, {_WRITTEN}",
            rates=Rates(input=usd_to_nanos(usd)),
            context_window=None,
            standard_tiers=("default", "standard"),
        ),
        source=source,
        read_on=_WRITTEN,
        valid_from=utc(2026, 1, 1),
    )


MEDIA_CORRECTIONS: tuple[Correction, ...] = (
    # The tools' own tokens are billed as the model's; a container is $0.03 (1 GB) once a session.
    Correction(
        name="openai-tools",
        provider="openai",
        models=r"gpt-.*|o[134].*",
        change=ToolFees({"mcp": 0, "tool_search": 0, "code_execution": _per_thousand("30")}),
        source=_OPENAI_PRICES,
        read_on=_WRITTEN,
    ),
    # Only tokens are billed for these; grounding with maps is $25 per 1000 grounded prompts up to Gemini 2.5, and
    # $14 per 1000 queries from Gemini 3 on (whose answers show that maps were used, not how often).
    Correction(
        name="google-tools",
        provider="google",
        models=r"gemini-.*",
        change=ToolFees({"url_context": 0, "code_execution": 0, "file_search": 0}),
        source=_GEMINI_PRICES,
        read_on=_WRITTEN,
    ),
    Correction(
        name="google-maps-by-prompt",
        provider="google",
        models=r"gemini-2.*",
        change=ToolFees({"google_maps": _per_thousand("25")}),
        source=_GEMINI_PRICES,
        read_on=_WRITTEN,
    ),
    # The feed has no window for these; 1,048,576 is not checked against the model pages.
    Correction(
        name="google-context",
        provider="google",
        models=r"gemini-(2\.5-pro|3-pro-preview|3\.1-pro-preview|2\.5-flash-preview)",
        change=ContextWindow(1_048_576),
        source=f"https://ai.google.dev/gemini-api/docs/models {_UNCHECKED}",
        read_on=_WRITTEN,
    ),
    # Half price, as in a batch of any other model; the feed has no batch price for embeddings.
    Correction(
        name="openai-batch-embeddings",
        provider="openai",
        models=r"text-embedding-.*",
        change=MoreTier("batch", 500),
        source=_OPENAI_PRICES,
        read_on=_WRITTEN,
    ),
    # The feed has no price for what Nova writes into its cache; it is charged as fresh input: never too little.
    Correction(
        name="nova-cache-writes",
        provider="aws",
        models=r"(.*\.)?amazon\.nova-.*",
        change=PlainWrites(),
        source="https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html",
        read_on=_WRITTEN,
    ),
    # Text only in the feed. Snapshots of October 2024 cost more and are no longer served. Azure has the same prices.
    *(
        Correction(
            name="openai-audio-preview",
            provider=provider,
            models=model,
            change=MediaRates({"input_audio": usd_to_nanos(heard), "output_audio": usd_to_nanos(spoken)}),
            source=_OPENAI_PRICES,
            read_on=_WRITTEN,
        )
        for provider in _RESELLING
        for model, heard, spoken in (
            ("gpt-4o-audio-preview", "40", "80"),
            ("gpt-4o-mini-audio-preview", "10", "20"),
        )
    ),
    *(
        Correction(
            name="openai-makes-media-only",
            provider=provider,
            models=r"gpt-4o-mini-tts|gpt-image-1|gpt-image-1-mini|gpt-image-2(\.5-(flare|sunburst))?",
            change=MediaAsText(),
            source=_OPENAI_PRICES,
            read_on=_WRITTEN,
        )
        for provider in _RESELLING
    ),
    # Supervised tuning, USD per 10**6 tokens of training.
    _training(r"gpt-4\.1", "25"),
    _training(r"gpt-4\.1-mini", "5"),
    _training(r"gpt-4\.1-nano", "1.5"),
    _training(r"gpt-4o", "25"),
    _training(r"gpt-4o-mini", "3"),
)

ADDED_MEDIA_MODELS: tuple[AddedModel, ...] = (
    _by_unit(
        "openai",
        ("dall-e-3",),
        {
            "image/standard/1024x1024": _each("0.04"),
            "image/standard/1024x1792": _each("0.08"),
            "image/standard/1792x1024": _each("0.08"),
            "image/hd/1024x1024": _each("0.08"),
            "image/hd/1024x1792": _each("0.12"),
            "image/hd/1792x1024": _each("0.12"),
        },
        _OPENAI_PRICES,
    ),
    _by_unit(
        "openai",
        ("dall-e-2",),
        {
            "image/standard/1024x1024": _each("0.02"),
            "image/standard/512x512": _each("0.018"),
            "image/standard/256x256": _each("0.016"),
        },
        _OPENAI_PRICES,
    ),
    # Free of charge; the feed's row has no number.
    *(
        AddedModel(
            provider="openai",
            names=(model,),
            price=ModelPrice(
                price_id=PriceId("outlay-corrections"),
                provider="openai",
                model=model,
                source=f"{_OPENAI_PRICES}, {_WRITTEN}",
                rates=Rates(input=0, output=0),
                standard_tiers=("default", "standard"),
            ),
            source=_OPENAI_PRICES,
            read_on=_WRITTEN,
            valid_from=utc(2023, 1, 1),
        )
        for model in (
            "omni-moderation-latest",
            "omni-moderation-2024-09-26",
            "text-moderation-latest",
            "text-moderation-stable",
            "text-moderation-007",
        )
    ),
    # $2 and $2.50 per 1000 searches of up to 100 documents.
    *(
        _by_unit(
            "cohere",
            (model,),
            {"search_unit": _per_thousand(usd)},
            "https://cohere.com/pricing (second-hand: litellm 1.110.2, https://developer.puter.com/tutorials/cohere-api-pricing)",
        )
        for model, usd in (
            ("rerank-v3.5", "2"),
            ("rerank-english-v3.0", "2"),
            ("rerank-multilingual-v3.0", "2"),
            ("rerank-v4.0-fast", "2"),
            ("rerank-v4.0-pro", "2.5"),
        )
    ),
    # From version 5 on by the token.
    _by_token(
        "cohere", "rerank-v5.0-pro", "0.05", "https://cohere.com/blog/rerank-5 (second-hand: litellm 1.110.2)"
    ),
    _by_token(
        "cohere",
        "rerank-v5.0-fast",
        "0.02",
        "https://cohere.com/blog/rerank-5 (second-hand: litellm 1.110.2)",
    ),
    _by_unit(
        "aws",
        ("cohere.rerank-v3-5:0",),
        {"search_unit": _per_thousand("2")},
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-cohere-rerank-3-5.md (second-hand)",
    ),
    _by_unit(
        "aws",
        ("amazon.rerank-v1:0",),
        {"search_unit": _per_thousand("1")},
        "https://aws.amazon.com/bedrock/pricing (second-hand: litellm 1.110.2)",
    ),
)
