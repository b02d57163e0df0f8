"""OpenAI: worked out by hand. Names of the sources stand once at the top."""

from price_vector import Vector, half_day, used, utc

from outlay.wire.intent import Operation

# $2 in, $0.10 cached, $2.50 written (30 min), $5 written (12 h), $10 out; over 272K: in and cache x2, out x1.5;
# Batch 50 %; Fast x2; Ultrafast x3 through 2027-02-28, then x6.
SOL_62 = "https://developers.openai.com/api/docs/models/gpt-6.2-sol"
# $10 in, $1 cached, $12.50 written, $50 out (vendor's comparison page)
ASTRA = "https://developers.openai.com/api/docs/models/compare?model=gpt-realtime"
# over 272K x2/x2/x1.5, Batch and Flex half, Fast x2: the announcement of a second price list, which quotes the vendor
ASTRA_TIERS = "https://github.com/BerriAI/litellm/discussions/39633"
# Astra ultrafast $60 / $6 / $75 / $300; a guide that quotes the vendor's ultrafast guide (itself not readable)
ULTRAFAST = "https://apidog.com/kr/blog/openai-ultrafast-mode/"
# Sol 6.1: $2 / $0.10 / $10, over 272K $4 / $0.20 / $15, Fast x2 on both; release notes that quote the model page
SOL_61 = "https://github.com/KZCFG/AILSA-SubSwitch/releases/tag/v1.0.0-g"
SOL_61_FLEX = "https://github.com/amine123max/Codex-Manager/releases/tag/0.4.7"
# 10 % on residency endpoints for models released on or after 2026-03-05
RESIDENCY = "https://developers.openai.com/api/docs/guides/data-residency.md"
# 5.4: $2.50 / $0.25 / $15, over 272K $5 / $22.50; 5.4-mini $0.75 / $0.075 / $4.50; transcriptions of the price page
GPT_54 = "https://raw.githubusercontent.com/api-evangelist/openai (plans-pricing.yml); wavespeed.ai/llm/openai/gpt-5.4"
# 4.1 $2/$0.50/$8, 5-mini $0.25/$0.025/$2, 5.2 $1.75/$0.175/$14: GitHub's published copy of the rates
COPILOT = "https://raw.githubusercontent.com/github/docs/main/data/tables/copilot/models-and-pricing.yml"
# priority: 4.1 $3.50/$0.875/$14, 4o mini $0.25/$0.125/$1, o3 $3.50/$0.875/$14, o4-mini $2/$0.50/$8
PRIORITY = "https://openai.com/api-priority-processing/"
# 4o mini $0.15/$0.075/$0.60 (and 2006 prompt tokens, 1920 of them cached, as the example usage)
CACHING = "https://openai.com/index/api-prompt-caching/"
FLEX_HALF = (
    "price page not readable; the feed's note quotes it: flex is half, kept to the half-rate's precision"
)
EMBEDDING = "price page not readable; $0.02 per 1M as announced by the vendor on 2024-01-25 (from memory)"

LATER = utc("2027-03-01T00:00:00")

VECTORS = (
    # 10_000 x 2_000 = 20_000_000; 2_000 x 10_000 = 20_000_000
    Vector(
        "sol 6.2", "openai", "gpt-6.2-sol", used(10_000, 2_000, service_tier="default"), 40_000_000, SOL_62
    ),
    # 10_000 x 2_000 + 40_000 x 100 + 1_000 x 10_000 = 20_000_000 + 4_000_000 + 10_000_000
    Vector("sol 6.2 cached", "openai", "gpt-6.2-sol", used(50_000, 1_000, read=40_000), 34_000_000, SOL_62),
    # 2_000 x 2_000 + 6_000 x 2_500 + 500 x 10_000 = 4_000_000 + 15_000_000 + 5_000_000
    Vector(
        "sol 6.2 writes 30 min", "openai", "gpt-6.2-sol", used(8_000, 500, write=6_000), 24_000_000, SOL_62
    ),
    # 2_000 x 2_000 + 6_000 x 5_000 + 500 x 10_000 = 4_000_000 + 30_000_000 + 5_000_000
    Vector(
        "sol 6.2 writes 12 h",
        "openai",
        "gpt-6.2-sol",
        used(8_000, 500, write=6_000, **half_day(6_000)),
        39_000_000,
        SOL_62,
    ),
    # 6_000 x 2_000 + 5_000 x 100 + 5_000 x 2_500 + 4_000 x 5_000 + 100 x 10_000
    # = 12_000_000 + 500_000 + 12_500_000 + 20_000_000 + 1_000_000
    Vector(
        "sol 6.2 every input class",
        "openai",
        "gpt-6.2-sol",
        used(20_000, 100, read=5_000, write=9_000, **half_day(4_000)),
        46_000_000,
        SOL_62,
    ),
    # exactly 272_000 is short: 272_000 x 2_000 + 1_000 x 10_000 = 544_000_000 + 10_000_000
    Vector("sol 6.2 at 272K", "openai", "gpt-6.2-sol", used(272_000, 1_000), 554_000_000, SOL_62),
    # one more is long, for all tokens: 272_001 x 4_000 + 1_000 x 15_000 = 1_088_004_000 + 15_000_000
    Vector("sol 6.2 above 272K", "openai", "gpt-6.2-sol", used(272_001, 1_000), 1_103_004_000, SOL_62),
    # cached tokens count for the threshold: 1 x 4_000 + 272_000 x 200 + 1 x 15_000 = 4_000 + 54_400_000 + 15_000
    Vector(
        "sol 6.2 long by cache", "openai", "gpt-6.2-sol", used(272_001, 1, read=272_000), 54_419_000, SOL_62
    ),
    # half of 40_000_000
    Vector(
        "sol 6.2 batch",
        "openai",
        "gpt-6.2-sol",
        used(10_000, 2_000, service_tier="batch"),
        20_000_000,
        SOL_62,
    ),
    # twice 40_000_000
    Vector(
        "sol 6.2 fast", "openai", "gpt-6.2-sol", used(10_000, 2_000, service_tier="fast"), 80_000_000, SOL_62
    ),
    # (1_000 x 2_000 + 200 x 10_000) x 3 = 4_000_000 x 3
    Vector(
        "sol 6.2 ultrafast 3x",
        "openai",
        "gpt-6.2-sol",
        used(1_000, 200, service_tier="ultrafast"),
        12_000_000,
        SOL_62,
    ),
    # the same from March 2027: 4_000_000 x 6
    Vector(
        "sol 6.2 ultrafast 6x",
        "openai",
        "gpt-6.2-sol",
        used(1_000, 200, service_tier="ultrafast"),
        24_000_000,
        SOL_62,
        at=LATER,
    ),
    # 40_000_000 x 1.1
    Vector(
        "sol 6.2 in the EU",
        "openai",
        "gpt-6.2-sol",
        used(10_000, 2_000, inference_geo="eu"),
        44_000_000,
        RESIDENCY,
    ),
    # 3_000 x 10_000 + 1_000 x 50_000 = 30_000_000 + 50_000_000; reasoning is part of the output
    Vector(
        "astra, reasoning",
        "openai",
        "gpt-6-astra",
        used(3_000, 1_000, reasoning_output_tokens=800),
        80_000_000,
        ASTRA,
    ),
    # 2_000 x 60_000 + 1_000 x 6_000 + 1_000 x 300_000 = 120_000_000 + 6_000_000 + 300_000_000
    Vector(
        "astra ultrafast",
        "openai",
        "gpt-6-astra",
        used(3_000, 1_000, read=1_000, service_tier="ultrafast"),
        426_000_000,
        ULTRAFAST,
    ),
    # 2_000 x 75_000 + 10 x 300_000 = 150_000_000 + 3_000_000
    Vector(
        "astra ultrafast writes",
        "openai",
        "gpt-6-astra",
        used(2_000, 10, write=2_000, service_tier="ultrafast"),
        153_000_000,
        ULTRAFAST,
    ),
    # 200_000 x 20_000 + 100_000 x 2_000 + 2_000 x 75_000 = 4_000_000_000 + 200_000_000 + 150_000_000
    Vector(
        "astra long", "openai", "gpt-6-astra", used(300_000, 2_000, read=100_000), 4_350_000_000, ASTRA_TIERS
    ),
    # half of 80_000_000
    Vector(
        "astra flex",
        "openai",
        "gpt-6-astra",
        used(3_000, 1_000, service_tier="flex"),
        40_000_000,
        ASTRA_TIERS,
    ),
    # 210 x 2_000 + 1_024 x 100 + 567 x 10_000 = 420_000 + 102_400 + 5_670_000
    Vector("sol 6.1", "openai", "gpt-6.1-sol", used(1_234, 567, read=1_024), 6_192_400, SOL_61),
    # 272_001 x 8_000 + 1 x 30_000 = 2_176_008_000 + 30_000
    Vector(
        "sol 6.1 fast and long",
        "openai",
        "gpt-6.1-sol",
        used(272_001, 1, service_tier="fast"),
        2_176_038_000,
        SOL_61,
    ),
    # 2_000 x 1_000 + 8_000 x 50 + 100 x 5_000 = 2_000_000 + 400_000 + 500_000
    Vector(
        "sol 6.1 flex cached",
        "openai",
        "gpt-6.1-sol",
        used(10_000, 100, read=8_000, service_tier="flex"),
        2_900_000,
        SOL_61_FLEX,
    ),
    # 3_000 x 2_500 + 2_000 x 250 + 700 x 15_000 = 7_500_000 + 500_000 + 10_500_000
    Vector("5.4", "openai", "gpt-5.4", used(5_000, 700, read=2_000), 18_500_000, GPT_54),
    # 272_001 x 5_000 + 10 x 22_500 = 1_360_005_000 + 225_000
    Vector("5.4 long", "openai", "gpt-5.4", used(272_001, 10), 1_360_230_000, GPT_54),
    # 3_000 x 2_750 + 2_000 x 275 + 700 x 16_500 = 8_250_000 + 550_000 + 11_550_000
    Vector(
        "5.4 in the US",
        "openai",
        "gpt-5.4",
        used(5_000, 700, read=2_000, inference_geo="us"),
        20_350_000,
        RESIDENCY,
    ),
    # 1_000 x 2_500 + 100 x 15_000 + 2 x 10_000_000 + 3 x 2_500_000 (searches $10, file searches $2.50 per 1000)
    # = 2_500_000 + 1_500_000 + 20_000_000 + 7_500_000
    Vector(
        "5.4 with searches",
        "openai",
        "gpt-5.4",
        used(1_000, 100, web_search_requests=2, file_search_requests=3),
        31_500_000,
        GPT_54 + "; tool prices from the notes on disagreeing lists ($10 and $2.50 per 1000)",
    ),
    # 999 x 750 + 333 x 4_500 = 749_250 + 1_498_500, by its dated name
    Vector("5.4-mini dated", "openai", "gpt-5.4-mini-2026-03-17", used(999, 333), 2_247_750, GPT_54),
    # 3 cached x 37.5 = 112.5 -> 112 (half to even); 1 x 2_250
    Vector(
        "5.4-mini flex rounds",
        "openai",
        "gpt-5.4-mini",
        used(3, 1, read=3, service_tier="flex"),
        2_362,
        FLEX_HALF,
    ),
    # 1 cached x 37.5 -> 38 (half to even)
    Vector(
        "5.4-mini flex rounds up",
        "openai",
        "gpt-5.4-mini",
        used(1, 0, read=1, service_tier="flex"),
        38,
        FLEX_HALF,
    ),
    # 6_000 x 250 + 4_000 x 25 + 1_500 x 2_000 = 1_500_000 + 100_000 + 3_000_000
    Vector("5-mini", "openai", "gpt-5-mini", used(10_000, 1_500, read=4_000), 4_600_000, COPILOT),
    # 500 x 1_750 + 500 x 175 + 100 x 14_000 = 875_000 + 87_500 + 1_400_000; compact date as some gateways write it
    Vector("5.2 compact date", "openai", "gpt-5.2-20251211", used(1_000, 100, read=500), 2_362_500, COPILOT),
    # 600 x 2_000 + 400 x 500 + 300 x 8_000 = 1_200_000 + 200_000 + 2_400_000
    Vector("4.1", "openai", "gpt-4.1", used(1_000, 300, read=400), 3_800_000, COPILOT),
    # 600 x 3_500 + 400 x 875 + 300 x 14_000 = 2_100_000 + 350_000 + 4_200_000
    Vector(
        "4.1 priority",
        "openai",
        "gpt-4.1",
        used(1_000, 300, read=400, service_tier="priority"),
        6_650_000,
        PRIORITY,
    ),
    # 86 x 150 + 1_920 x 75 + 300 x 600 = 12_900 + 144_000 + 180_000
    Vector("4o mini", "openai", "gpt-4o-mini-2024-07-18", used(2_006, 300, read=1_920), 336_900, CACHING),
    # 1_000 x 250 + 100 x 1_000
    Vector(
        "4o mini priority",
        "openai",
        "gpt-4o-mini",
        used(1_000, 100, service_tier="priority"),
        350_000,
        PRIORITY,
    ),
    # 1_000 x 3_500 + 1_000 x 14_000
    Vector("o3 priority", "openai", "o3", used(1_000, 1_000, service_tier="priority"), 17_500_000, PRIORITY),
    # 500 x 2_000 + 500 x 8_000
    Vector(
        "o4-mini priority", "openai", "o4-mini", used(500, 500, service_tier="priority"), 5_000_000, PRIORITY
    ),
    # before the cut of 2025-06-10: 100 x 10_000 + 1_000 x 40_000
    Vector(
        "o3 in its first months",
        "openai",
        "o3",
        used(100, 1_000, reasoning_output_tokens=900),
        41_000_000,
        "https://github.com/RooCodeInc/Roo-Code/pull/2691.patch (second source of April 2025)",
        at=utc("2025-06-09T23:59:59"),
    ),
    # 8_191 x 20
    Vector(
        "embedding",
        "openai",
        "text-embedding-3-small",
        used(8_191, 0),
        163_820,
        EMBEDDING,
        operation=Operation.EMBEDDINGS,
    ),
)
