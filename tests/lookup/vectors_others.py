"""All other vendors: worked out by hand."""

from price_vector import Vector, used, utc

from outlay.wire.intent import Operation

# grok-4.7 2/0.5/6, 4.5 2/0.3/6, 4.3 1.25/0.2/2.5 and build-0.1 1/0.2/2; "long context >= 200k" twice all of it;
# US endpoint x1.1
XAI = "https://docs.x.ai/developers/pricing"
XAI_BATCH = XAI + " (batch 20 % off: as the feed's note quotes that page)"
# off-peak: flash 0.003/0.15/0.6, pro 0.022/0.66/1.98; peak twice; 01:00-04:00 and 06:00-10:00 UTC, Monday to Friday
DEEPSEEK = "https://api-docs.deepseek.com/quick_start/pricing/"
# from 2026-08-16T16:00Z: flash 0.007/0.22/0.66, pro as above
DEEPSEEK_AUGUST = "https://docs.apiyi.com/en/live/2026-08/deepseek-price-peak-tier.md"
DEEPSEEK_JULY = "https://winbuzzer.com/2026/07/03 (quotes the vendor: pro 0.003625/0.435/0.87)"
# transcribed from ai.google.dev/gemini-api/docs/pricing on 2026-09-20
GEMINI = (
    "https://raw.githubusercontent.com/api-evangelist/gemini/refs/heads/main/plans/gemini-plans-pricing.yml"
)
# 2.5 Pro 1.25/10, over 200K 2.5/15; Flash 0.3/2.5; batch half
GEMINI_25 = "https://deploybase.ai/articles/gemini-api-pricing (quotes the price page, March 2026)"
GROQ = "https://github.com/braintrustdata/braintrust-proxy/issues/925 (quotes the price page); docs.rs/aicost"
MISTRAL = "https://www.getmaxim.ai/bifrost/model-library/compare/mistral/mistral-large-4.md (0.68/2.09)"
# embed 0.10, codestral 0.30/0.90
MISTRAL_OLD = "https://skills.sh/jeremylongshore/claude-code-plugins-plus-skills/mistral-cost-tuning"
UNREADABLE = "price page not readable: the rates are the feed's, only the arithmetic is checked"

SATURDAY = utc("2026-11-21T02:00:00")
MONDAY_PEAK = utc("2026-11-23T02:00:00")

VECTORS = (
    # 199_999 x 2_000 + 100 x 6_000
    Vector("grok 4.5 below 200k", "x-ai", "grok-4.5", used(199_999, 100), 400_598_000, XAI),
    # 200_000 is long: 200_000 x 4_000 + 100 x 12_000
    Vector("grok 4.5 at 200k", "x-ai", "grok-4.5", used(200_000, 100), 801_200_000, XAI),
    # 1_000 x 2_000 + 9_000 x 300 + 100 x 6_000
    Vector("grok 4.5 cached", "x-ai", "grok-4.5", used(10_000, 100, 9_000), 5_300_000, XAI),
    # 1_000 x 1_250 + 1_000 x 2_500
    Vector("grok 4.3", "x-ai", "grok-4.3", used(1_000, 1_000, reasoning_output_tokens=900), 3_750_000, XAI),
    # 3_750_000 x 1.1
    Vector("grok 4.3 us", "x-ai", "grok-4.3", used(1_000, 1_000, inference_geo="us"), 4_125_000, XAI),
    # 3_750_000 x 0.8
    Vector(
        "grok 4.3 batch", "x-ai", "grok-4.3", used(1_000, 1_000, service_tier="batch"), 3_000_000, XAI_BATCH
    ),
    # 500 x 2_000 + 500 x 500 + 10 x 6_000
    Vector("grok 4.7", "x-ai", "grok-4.7", used(1_000, 10, 500), 1_310_000, XAI),
    # 800 x 1_000 + 200 x 200 + 100 x 2_000
    Vector("grok build", "x-ai", "grok-build-0.1", used(1_000, 100, 200), 1_040_000, XAI),
    # 2_000 x 150 + 8_000 x 3 + 1_000 x 600
    Vector("flash off-peak", "deepseek", "deepseek-flash", used(10_000, 1_000, 8_000), 924_000, DEEPSEEK),
    # twice
    Vector(
        "flash peak",
        "deepseek",
        "deepseek-flash",
        used(10_000, 1_000, 8_000),
        1_848_000,
        DEEPSEEK,
        at=MONDAY_PEAK,
    ),
    # weekends are off-peak all day
    Vector(
        "flash Saturday",
        "deepseek",
        "deepseek-flash",
        used(10_000, 1_000, 8_000),
        924_000,
        DEEPSEEK,
        at=SATURDAY,
    ),
    # 1_000 x 1_320 + 100 x 3_960
    Vector(
        "pro, last second of the peak",
        "deepseek",
        "deepseek-v4-pro",
        used(1_000, 100),
        1_716_000,
        DEEPSEEK,
        at=utc("2026-11-23T03:59:59"),
    ),
    # 1_000 x 660 + 100 x 1_980
    Vector(
        "pro, first second after the peak",
        "deepseek",
        "deepseek-v4-pro",
        used(1_000, 100),
        858_000,
        DEEPSEEK,
        at=utc("2026-11-23T04:00:00"),
    ),
    # a Saturday before the weekend rule began (2026-08-23 in Beijing): peak
    Vector(
        "pro, Saturday before the weekend rule",
        "deepseek",
        "deepseek-v4-pro",
        used(1_000, 100),
        1_716_000,
        DEEPSEEK_AUGUST,
        at=utc("2026-08-22T02:00:00"),
    ),
    # 1_000 x 435 + 100 x 870, also in hours that later became peak
    Vector(
        "pro before there were hours",
        "deepseek",
        "deepseek-v4-pro",
        used(1_000, 100),
        522_000,
        DEEPSEEK_JULY,
        at=utc("2026-08-10T02:00:00"),
    ),
    # from 16:00 UTC on 2026-08-16, off-peak: 1_000 x 660 + 100 x 1_980
    Vector(
        "pro, first off-peak hour",
        "deepseek",
        "deepseek-v4-pro",
        used(1_000, 100),
        858_000,
        DEEPSEEK_AUGUST,
        at=utc("2026-08-16T16:00:00"),
    ),
    # 1_000 x 440 + 100 x 1_320
    Vector(
        "v4 flash peak in August",
        "deepseek",
        "deepseek-v4-flash",
        used(1_000, 100),
        572_000,
        DEEPSEEK_AUGUST,
        at=utc("2026-08-20T07:00:00"),
    ),
    # the old name is served and billed as flash: 1_000 x 150 + 100 x 600
    Vector("v4 flash today", "deepseek", "deepseek-v4-flash", used(1_000, 100), 210_000, DEEPSEEK),
    # 200_000 x 1_250 + 1_000 x 10_000
    Vector(
        "gemini 2.5 pro at 200k", "google", "gemini-2.5-pro", used(200_000, 1_000), 260_000_000, GEMINI_25
    ),
    # 200_001 x 2_500 + 1_000 x 15_000
    Vector(
        "gemini 2.5 pro above 200k", "google", "gemini-2.5-pro", used(200_001, 1_000), 515_002_500, GEMINI_25
    ),
    # 1_000 x 625 + 100 x 5_000
    Vector(
        "gemini 2.5 pro batch",
        "google",
        "gemini-2.5-pro",
        used(1_000, 100, service_tier="batch"),
        1_125_000,
        GEMINI_25,
    ),
    # 1_000 x 300 + 100 x 2_500
    Vector("gemini 2.5 flash", "google", "gemini-2.5-flash", used(1_000, 100), 550_000, GEMINI_25),
    # 1_000 x 1_500 + 100 x 9_000
    Vector("gemini 3.5 flash", "google", "gemini-3.5-flash", used(1_000, 100), 2_400_000, GEMINI),
    # 200_001 x 4_000 + 10 x 18_000
    Vector("gemini 3.1 pro long", "google", "gemini-3.1-pro-preview", used(200_001, 10), 800_184_000, GEMINI),
    # 1_000 x 750 + 100 x 3_750
    Vector(
        "gemini 3.8 flash introductory", "google", "gemini-3.8-flash", used(1_000, 100), 1_125_000, GEMINI
    ),
    # from 2027-01-01: 1_000 x 1_500 + 100 x 7_500
    Vector(
        "gemini 3.8 flash in 2027",
        "google",
        "gemini-3.8-flash",
        used(1_000, 100),
        2_250_000,
        GEMINI,
        at=utc("2027-01-01T00:00:00"),
    ),
    # 2_000 x 200
    Vector(
        "gemini embedding",
        "google",
        "gemini-embedding-2",
        used(2_000, 0),
        400_000,
        GEMINI,
        operation=Operation.EMBEDDINGS,
    ),
    # 600 x 150 + 400 x 75 + 100 x 600
    Vector("groq gpt-oss", "groq", "openai/gpt-oss-120b", used(1_000, 100, 400), 180_000, GROQ),
    # on demand and flex cost the same at Groq: 1_000 x 50 + 1_000 x 80
    Vector(
        "groq llama flex",
        "groq",
        "llama-3.1-8b-instant",
        used(1_000, 1_000, service_tier="flex"),
        130_000,
        GROQ,
    ),
    # 1_000 x 680 + 100 x 2_090
    Vector(
        "mistral large 4 at launch",
        "mistral",
        "mistral-large-4-0",
        used(1_000, 100),
        889_000,
        MISTRAL,
        at=utc("2026-10-10T00:00:00"),
    ),
    # 1_000 x 300 + 100 x 900
    Vector("codestral", "mistral", "codestral-latest", used(1_000, 100), 390_000, MISTRAL_OLD),
    # 1_000 x 100
    Vector(
        "mistral embed",
        "mistral",
        "mistral-embed",
        used(1_000, 0),
        100_000,
        MISTRAL_OLD,
        operation=Operation.EMBEDDINGS,
    ),
    # 3 x 37.5 = 112.5 -> 112 (half to even); 1 x 150
    Vector("cohere rounds", "cohere", "command-r7b-12-2024", used(3, 1), 262, UNREADABLE),
    # 1_000 x 3_000 + 100 x 15_000 + 14_000_000 for the request
    Vector("perplexity request fee", "perplexity", "sonar-pro", used(1_000, 100), 18_500_000, UNREADABLE),
)
