"""Anthropic: worked out by hand from its price page and model pages."""

from price_vector import Vector, hour, used, utc

from outlay.wire.intent import Operation

# base / 5m write / 1h write / read / output: Fable 5.1 10/12.5/20/0.25/50, Fable 5 10/12.5/20/1/50,
# Opus 5, 4.8, 4.7, 4.6, 4.5 5/6.25/10/0.5/25, Opus 4.1 15/18.75/30/1.5/75
PAGE = "https://platform.claude.com/docs/en/about-claude/pricing"
# Sonnet 4.6, 4.5 3/3.75/6/0.3/15, Haiku 4.5 1/1.25/2/0.1/5, Haiku 3 0.25/0.3/0.5/0.03/1.25
PAGE_OLDER = "https://platform.claude.com/docs/en/docs/about-claude/pricing"
OPUS_5 = (
    "https://platform.claude.com/docs/about-claude/models/whats-new-opus-5"  # also: Batch 50 % of in and out
)
# Fast: Opus 5 $10/$50; "stacks with other pricing modifiers"
FAST = "https://platform.claude.com/docs/en/build-with-claude/fast-mode; vercel.com/ai-gateway/models (opus-5-fast)"
GEO = "https://platform.claude.com/docs/en/manage-claude/data-residency (x1.1 for us, 4.6 and later)"
SONNET_5 = "https://platform.claude.com/docs/zh-CN/models/sonnet-5/overview"  # 2/2.5/4/0.2/10
SONNET_55 = "https://platform.claude.com/docs/zh-CN/models/sonnet-5-5/overview"  # 2/2.5/4/10
# Opus 5.5 $4/$20 (vendor); fast $8/$40 and reads at 0.05x from two other price lists
OPUS_55 = "https://platform.claude.com/docs/about-claude/models/whats-new-opus-5; docs.rs/synaps/0.10.2 (0.05x reads)"
# Haiku 5.5 "from $0.10/$0.50" (vendor); above 100k five times as much, from two other price lists
HAIKU_55 = OPUS_5 + "; docs.rs/synaps/0.10.2; github.com/schowave/llmenu v0.8.0 (x5 above 100k)"
LONG_45 = "vendor's long-context table of early 2026, not re-readable: over 200K $6/$22.50"
BATCH_READ = OPUS_5 + "; the feed's note quotes the vendor: caching multipliers stack with the batch discount"
SEARCH = PAGE + " (web search $10 per 1000; that part of the page is not in the stored copy)"

MESSAGES = Operation.MESSAGES

VECTORS = (
    # 10_000 x 5_000 + 1_000 x 25_000
    Vector(
        "opus 5", "anthropic", "claude-opus-5", used(10_000, 1_000, service_tier="standard"), 75_000_000, PAGE
    ),
    # 1_000 x 5_000 + 8_000 x 500 + 3_000 x 6_250 + 500 x 25_000 = 5_000_000 + 4_000_000 + 18_750_000 + 12_500_000
    Vector(
        "opus 5 cache 5m", "anthropic", "claude-opus-5", used(12_000, 500, 8_000, 3_000), 40_250_000, PAGE
    ),
    # 1_000 x 5_000 + 1_000 x 6_250 + 2_000 x 10_000 + 10 x 25_000 = 5_000_000 + 6_250_000 + 20_000_000 + 250_000
    Vector(
        "opus 5 cache 5m and 1h",
        "anthropic",
        "claude-opus-5",
        used(4_000, 10, 0, 3_000, **hour(2_000)),
        31_500_000,
        PAGE,
    ),
    # 2_000 x 10_000 + 1_000 x 50_000
    Vector("opus 5 fast", "anthropic", "claude-opus-5", used(2_000, 1_000, speed="fast"), 70_000_000, FAST),
    # the answer says it was served at normal speed: 2_000 x 5_000 + 1_000 x 25_000
    Vector(
        "opus 5 not fast",
        "anthropic",
        "claude-opus-5",
        used(2_000, 1_000, speed="standard"),
        35_000_000,
        FAST,
    ),
    # 10_000 x 2_500 + 1_000 x 12_500
    Vector(
        "opus 5 batch",
        "anthropic",
        "claude-opus-5",
        used(10_000, 1_000, service_tier="batch"),
        37_500_000,
        OPUS_5,
    ),
    # 1_000 x 2_500 + 9_000 x 250 + 100 x 12_500 = 2_500_000 + 2_250_000 + 1_250_000
    Vector(
        "opus 5 batch reads",
        "anthropic",
        "claude-opus-5",
        used(10_000, 100, 9_000, service_tier="batch"),
        6_000_000,
        BATCH_READ,
    ),
    # 500 x 5_500 + 500 x 550 + 100 x 27_500 = 2_750_000 + 275_000 + 2_750_000
    Vector(
        "opus 5 us", "anthropic", "claude-opus-5", used(1_000, 100, 500, inference_geo="us"), 5_775_000, GEO
    ),
    # 1_000 x 4_000 + 10_000 x 200 + 100 x 20_000 = 4_000_000 + 2_000_000 + 2_000_000
    Vector("opus 5.5 reads", "anthropic", "claude-opus-5-5", used(11_000, 100, 10_000), 8_000_000, OPUS_55),
    # (1_000 x 8_000 + 100 x 40_000) x 1.1 = 12_000_000 x 1.1
    Vector(
        "opus 5.5 fast us",
        "anthropic",
        "claude-opus-5-5",
        used(1_000, 100, speed="fast", inference_geo="us"),
        13_200_000,
        OPUS_55 + "; " + FAST,
    ),
    # 1_000 x 10_000 + 4_000 x 250 + 200 x 50_000
    Vector("fable 5.1", "anthropic", "claude-fable-5-1", used(5_000, 200, 4_000), 21_000_000, PAGE),
    # 1_000 x 10_000 + 4_000 x 1_000 + 200 x 50_000
    Vector("fable 5", "anthropic", "claude-fable-5", used(5_000, 200, 4_000), 24_000_000, PAGE),
    # 1_000 x 15_000 + 1_000 x 30_000 + 100 x 75_000
    Vector(
        "opus 4.1 cache 1h",
        "anthropic",
        "claude-opus-4-1-20250805",
        used(2_000, 100, 0, 1_000, **hour(1_000)),
        52_500_000,
        PAGE,
    ),
    # one price over the whole window since 2026-03-13: 250_000 x 3_000 + 1_000 x 15_000
    Vector(
        "sonnet 4.6 long", "anthropic", "claude-sonnet-4-6", used(250_000, 1_000), 765_000_000, PAGE_OLDER
    ),
    # 200_000 x 3_000 + 1_000 x 15_000
    Vector(
        "sonnet 4.5 at 200K",
        "anthropic",
        "claude-sonnet-4-5-20250929",
        used(200_000, 1_000),
        615_000_000,
        LONG_45,
        at=utc("2026-02-01T00:00:00"),
    ),
    # 200_001 x 6_000 + 1_000 x 22_500 = 1_200_006_000 + 22_500_000
    Vector(
        "sonnet 4.5 above 200K",
        "anthropic",
        "claude-sonnet-4-5-20250929",
        used(200_001, 1_000),
        1_222_506_000,
        LONG_45,
        at=utc("2026-02-01T00:00:00"),
    ),
    # 333 x 1_000 + 777 x 5_000
    Vector("haiku 4.5", "anthropic", "claude-haiku-4-5-20251001", used(333, 777), 4_218_000, PAGE_OLDER),
    # 1_001 x 500 + 1 x 2_500
    Vector(
        "haiku 4.5 batch",
        "anthropic",
        "claude-haiku-4-5",
        used(1_001, 1, service_tier="batch"),
        503_000,
        PAGE_OLDER,
    ),
    # 1_000 x 250 + 3 x 30 + 7 x 1_250 = 250_000 + 90 + 8_750
    Vector("haiku 3", "anthropic", "claude-3-haiku-20240307", used(1_003, 7, 3), 258_840, PAGE_OLDER),
    # 100_000 x 100 + 1_000 x 500
    Vector("haiku 5.5 at 100K", "anthropic", "claude-haiku-5-5", used(100_000, 1_000), 10_500_000, HAIKU_55),
    # 100_001 x 500 + 1_000 x 2_500 = 50_000_500 + 2_500_000
    Vector(
        "haiku 5.5 above 100K", "anthropic", "claude-haiku-5-5", used(100_001, 1_000), 52_500_500, HAIKU_55
    ),
    # 1 written x 62.5 -> 62 (half to even)
    Vector(
        "haiku 5.5 batch write rounds",
        "anthropic",
        "claude-haiku-5-5",
        used(1, 0, 0, 1, service_tier="batch"),
        62,
        HAIKU_55 + "; batch half of 0.125",
    ),
    # 3 written x 62.5 = 187.5 -> 188 (half to even)
    Vector(
        "haiku 5.5 batch write rounds up",
        "anthropic",
        "claude-haiku-5-5",
        used(3, 0, 0, 3, service_tier="batch"),
        188,
        HAIKU_55 + "; batch half of 0.125",
    ),
    # 1_000 x 2_000 + 100 x 10_000 + 3 x 10_000_000
    Vector(
        "sonnet 5 with searches",
        "anthropic",
        "claude-sonnet-5",
        used(1_000, 100, web_search_requests=3),
        33_000_000,
        SONNET_5 + "; " + SEARCH,
    ),
    # 1_000 x 4_000 x 1.1
    Vector(
        "sonnet 5.5 us cache 1h",
        "anthropic",
        "claude-sonnet-5-5",
        used(1_000, 0, 0, 1_000, inference_geo="us", **hour(1_000)),
        4_400_000,
        SONNET_55 + "; " + GEO,
    ),
    # 100 x 5_000 + 10 x 25_000
    Vector(
        "opus 4.6 global",
        "anthropic",
        "claude-opus-4-6",
        used(100, 10, inference_geo="global"),
        750_000,
        PAGE,
    ),
    Vector(
        "opus 4.5 without regions",
        "anthropic",
        "claude-opus-4-5-20251101",
        used(100, 10, inference_geo="not_available"),
        750_000,
        PAGE,
    ),
    # counting tokens is free
    Vector(
        "counting tokens",
        "anthropic",
        "claude-opus-5",
        used(10_000, 0),
        0,
        PAGE,
        operation=Operation.COUNT_TOKENS,
    ),
)

MORE = (
    # 5_000 x 5_000 + 25_000 x 500 + 200 x 25_000 = 25_000_000 + 12_500_000 + 5_000_000
    Vector(
        "opus 4.8 mostly read", "anthropic", "claude-opus-4-8", used(30_000, 200, 25_000), 42_500_000, PAGE
    ),
    # 1_000 x 5_000 + 4_000 x 10_000 + 100 x 25_000 = 5_000_000 + 40_000_000 + 2_500_000
    Vector(
        "opus 4.7 writes 1h",
        "anthropic",
        "claude-opus-4-7",
        used(5_000, 100, 0, 4_000, **hour(4_000)),
        47_500_000,
        PAGE,
    ),
    # 7 x 5_000 + 3 x 25_000 = 35_000 + 75_000
    Vector("opus 4.6 tiny", "anthropic", "claude-opus-4-6", used(7, 3), 110_000, PAGE),
    # 100 x 5_000 + 2_000 x 6_250 + 40 x 25_000 = 500_000 + 12_500_000 + 1_000_000
    Vector("opus 4.5 writes 5m", "anthropic", "claude-opus-4-5", used(2_100, 40, 0, 2_000), 14_000_000, PAGE),
    # 1_000 x 15_000 + 6_000 x 1_500 + 3_000 x 18_750 + 1_000 x 75_000
    # = 15_000_000 + 9_000_000 + 56_250_000 + 75_000_000
    Vector(
        "opus 4.1 every class",
        "anthropic",
        "claude-opus-4-1",
        used(10_000, 1_000, 6_000, 3_000),
        155_250_000,
        PAGE,
    ),
    # 1_000 x 10_000 + 100_000 x 250 + 10 x 50_000 = 10_000_000 + 25_000_000 + 500_000
    Vector(
        "fable 5.1 mostly read", "anthropic", "claude-fable-5-1", used(101_000, 10, 100_000), 35_500_000, PAGE
    ),
    # the older one reads at four times that: 1_000 x 10_000 + 100_000 x 1_000 + 10 x 50_000
    Vector(
        "fable 5 mostly read", "anthropic", "claude-fable-5", used(101_000, 10, 100_000), 110_500_000, PAGE
    ),
    # 500 x 1_000 + 500 x 100 + 500 x 1_250 + 1_500 x 2_000 + 100 x 5_000
    # = 500_000 + 50_000 + 625_000 + 3_000_000 + 500_000
    Vector(
        "haiku 4.5 every input class",
        "anthropic",
        "claude-haiku-4-5",
        used(3_000, 100, 500, 2_000, **hour(1_500)),
        4_675_000,
        PAGE_OLDER,
    ),
    # 1_000 x 3_000 + 8_000 x 300 + 700 x 15_000 = 3_000_000 + 2_400_000 + 10_500_000
    Vector(
        "sonnet 4.6 mostly read",
        "anthropic",
        "claude-sonnet-4-6",
        used(9_000, 700, 8_000),
        15_900_000,
        PAGE_OLDER,
    ),
    # 600 x 250 + 400 x 300 + 100 x 1_250 = 150_000 + 120_000 + 125_000
    Vector("haiku 3 writes", "anthropic", "claude-3-haiku", used(1_000, 100, 0, 400), 395_000, PAGE_OLDER),
    # 199_999 x 3_000 + 1 x 15_000 = 599_997_000 + 15_000
    Vector("sonnet 4.5 short", "anthropic", "claude-sonnet-4-5", used(199_999, 1), 600_012_000, PAGE_OLDER),
    # an explicit zero is zero
    Vector("opus 4.6 nothing served", "anthropic", "claude-opus-4-6", used(0, 0), 0, PAGE),
)
"""More uses of the two pages that were read whole."""
