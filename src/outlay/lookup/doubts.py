"""Prices that independent lists disagree about, or that were announced to end: data for `price check`, no logic.

Found by comparing genai-prices 0.2.3 with litellm 1.109.1 and models.dev on 2026-11-23. A doubt changes no price; what
is known to be wrong is in `corrections`.
"""

import msgspec

STALE_AFTER_DAYS = 60
"""A provider whose newest dated price is older than this has probably changed something since."""


class Doubt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A reason to look twice at a model's price."""

    provider: str
    model: str
    detail: str
    source: str
    noted_on: str = "2026-11-23"

    def concerns(self, provider: str, model: str) -> bool:
        """Whether this is about the model."""
        return self.provider == provider and self.model == model


_COMPARISON = "comparison of genai-prices 0.2.3 with litellm 1.109.1"

DOUBTS: tuple[Doubt, ...] = (
    Doubt(
        provider="mistral",
        model="mistral-large-4",
        detail="0.70/2.10 since 2026-10-29 by the feed, 1.36/4.18 by other lists (of 25 October)",
        source=_COMPARISON,
    ),
    Doubt(
        provider="x-ai",
        model="grok-code-fast-1",
        detail="0.20/1.50 by the feed; others bill the name as grok-build-0.1 (1/2, twice from 200k)",
        source=_COMPARISON,
    ),
    *(
        Doubt(
            provider="openai",
            model=model,
            detail="web search is $10 or $25 per 1000 depending on the version of the tool; $10 is used",
            source=_COMPARISON,
        )
        for model in ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini")
    ),
    Doubt(
        provider="openai",
        model="gpt-5.6-sol",
        detail="4/20 was announced as a promotion until at least 2026-11-21; 5/30 before",
        source="https://apidog.com/kr/blog/gpt-6-astra-api/",
    ),
    Doubt(
        provider="anthropic",
        model="claude-sonnet-4-5",
        detail="above 200k: 6/22.50 by the feed, no tier by others (the long window was withdrawn on 2026-04-30)",
        source=_COMPARISON,
    ),
    Doubt(
        provider="google",
        model="gemini-3.5-flash",
        detail="1.50/9 by the feed and others; one list has 0.75/3.75 since 2026-10-08",
        source="comparison with metergraph-core 0.7.4",
    ),
    *(
        Doubt(
            provider="deepseek",
            model=model,
            detail="Chinese public holidays are off-peak; the peak price is charged on them",
            source="https://api-docs.deepseek.com/quick_start/pricing",
        )
        for model in ("deepseek-flash", "deepseek-v4-flash", "deepseek-v4-pro")
    ),
)
