"""Media, units, tools and jobs: worked out by hand. Names of the sources stand once at the top."""

from price_vector import Vector, hour, used

from outlay.lookup.cost import Request
from outlay.wire.intent import Operation, Units, Usage

READ = "2026-11-24"

# text $4 / $0.40 / $16, audio $32 / $0.40 / $64, image $5 / $0.50
REALTIME_15 = "https://developers.openai.com/api/docs/models/gpt-realtime-1.5.md"
# text $0.60 / $0.06 / $2.40, audio $10 / $0.30 / $20, image $0.80 / $0.08
REALTIME_MINI = "https://developers.openai.com/api/docs/models/gpt-realtime-2.1-mini.md"
# text $5 / $2.50 / $20, audio $40 / $2.50 / $80
REALTIME_4O = "https://developers.openai.com/api/docs/models/gpt-4o-realtime-preview"
# text $0.60 / $0.30 / $2.40, audio $10 / $0.30 / $20
REALTIME_4O_MINI = "https://developers.openai.com/api/docs/models/gpt-4o-mini-realtime-preview.md"
# text $2 / $0.20, image $2.50 / $0.25 / $8
IMAGE_MINI = "https://developers.openai.com/de-DE/api/docs/models/gpt-image-1-mini"
# text $5 / $1.25, image in $10 / $2.50, image out $40: a reseller that quotes the vendor
IMAGE_1 = "https://www.burncloud.com/aiapi-detail/gpt-image-1.html"
# image $8 in, $32 out; text $5 (Vercel's list of the same model); Batch half, as the vendor says of all models
IMAGE_15 = "https://www.llmreference.com/model/gpt-image-1.5/openai-api"
WHISPER = "https://developers.openai.com/pt-BR/api/docs/models/whisper-1"  # $0.006 a minute
TTS = "https://developers.openai.com/api/docs/models/tts-1"  # $15 and (HD) $30 per 1M characters
# text $0.60, audio $12
MINI_TTS = "price page not readable; litellm 1.110.2, which names the page"
# text $2.50 in, $10 out (https://www.getmaxim.ai/bifrost), audio $6
TRANSCRIBE = "price page not readable; audio at $6 per 1M as announced on 2025-03-20 (from memory)"
# text $0.60 / $2.40 (read), audio $10 / $20 (its table of audio tokens was cut off; as the older preview)
AUDIO_MINI = "https://developers.openai.com/api/docs/models/gpt-audio-mini"
# text $2.50 / $10, audio $40 / $80
AUDIO_PREVIEW = "https://huggingface.co/spaces/noumanjavaid/pricing (a calculator with the vendor's numbers)"
# standard $0.04, HD tall $0.12
DALL_E_3 = "https://docs.dev.xavier.icvr.xyz/models/openai/dall-e-3.html (quotes the vendor)"
# v3.5 $2, v4 Pro $2.50 per 1000 searches
COHERE = "https://developer.puter.com/tutorials/cohere-api-pricing/"
# 2.5 Flash: text, image, video $0.30, audio $1.00, cached $0.03 and (audio) $0.10, output with thinking $2.50
GEMINI_FLASH = "page not readable in whole; https://openrouter.ai/blog/gemini-25-flash-api-pricing and memory"
# $30 per 1M image tokens, 1290 of them an image: an answer that quotes ai.google.dev/gemini-api/docs/pricing
GEMINI_IMAGE = "https://discuss.ai.google.dev/t/issue-with-url-context-tooling/101173"
# search $35 per 1000 grounded prompts (2.5), $14 per 1000 queries (3); maps $25 (2.5)
GROUNDING = "https://github.com/iyulab/TokenMeter/releases (v0.13.0, v0.14.0), which quote the vendor's page"
# 3.8 Flash: input $0.75 through 2026-12-31
GEMINI_38 = (
    "https://raw.githubusercontent.com/api-evangelist/gemini (plans-pricing.yml, verbatim of the page)"
)
# Haiku 5.5 $0.11/$0.1375/$0.22/$0.011/$0.55, Sonnet 5.5 $2.20/$11, Opus 5.5 $4.40/$5.50/$8.80/$0.22/$22
BEDROCK_CLAUDE = "https://apify.com/apify/aws-bedrock-proxy (regional endpoints)"
# Nova Lite $0.06 / $0.24, Titan embeddings v2 $0.02
BEDROCK_AMAZON = "AWS price list of us-east-1, as quoted by litellm 1.110.2"
# container $0.03 a session
CONTAINER = "https://community.openai.com/t/cost-of-code-interpreter-agents-sdk/1360060"
EMBEDDING = "price page not readable; $0.02 per 1M (from memory), and half in a batch as for all models"
TRAINING = "price page not readable; $5 per 1M training tokens of 4.1 mini (from memory)"

BATCH = Request(service_tier="batch")


def media(total: int, output: int, **more: int) -> Usage:
    """Usage of `total` input tokens with shares of them by name, without the suffix `_tokens`."""
    names = {"read": "cache_read_input_tokens", "thought": "reasoning_output_tokens"}
    return Usage(total, output, **{names.get(name, f"{name}_tokens"): value for name, value in more.items()})


def units(name: str, count: int) -> Usage:
    return Usage(0, 0, units=(Units(name, count),))


def openai(name: str, model: str, usage: Usage, nanos: int, source: str, **more: object) -> Vector:
    return Vector(name, "openai", model, usage, nanos, source, read=READ, **more)  # type: ignore[arg-type]


def other(name: str, provider: str, model: str, usage: Usage, nanos: int, source: str) -> Vector:
    return Vector(name, provider, model, usage, nanos, source, read=READ)


VECTORS = (
    # 200 x 4_000 + 800 x 32_000 + 50 x 16_000 + 250 x 64_000
    # = 800_000 + 25_600_000 + 800_000 + 16_000_000
    openai(
        "realtime speech",
        "gpt-realtime-1.5",
        media(1_000, 300, input_audio=800, output_audio=250),
        43_200_000,
        REALTIME_15,
    ),
    # fresh text 100 x 4_000, fresh audio 900 x 32_000, cached 400 and 600 x 400, 100 x 16_000
    # = 400_000 + 28_800_000 + 160_000 + 240_000 + 1_600_000
    openai(
        "realtime cached speech",
        "gpt-realtime-1.5",
        media(2_000, 100, read=1_000, input_audio=1_500, cache_read_audio=600),
        31_200_000,
        REALTIME_15,
    ),
    # 400 x 4_000 + 500 x 5_000 + 100 x 500 + 10 x 16_000 = 1_600_000 + 2_500_000 + 50_000 + 160_000
    openai(
        "realtime with a picture",
        "gpt-realtime-1.5",
        media(1_000, 10, read=100, input_image=600, cache_read_image=100),
        4_310_000,
        REALTIME_15,
    ),
    # 1_000 x 10_000 + 1_000 x 20_000
    openai(
        "realtime mini",
        "gpt-realtime-2.1-mini",
        media(1_000, 1_000, input_audio=1_000, output_audio=1_000),
        30_000_000,
        REALTIME_MINI,
    ),
    # 500 x 10_000 + 500 x 300 + 100 x 2_400 = 5_000_000 + 150_000 + 240_000
    openai(
        "realtime mini cached",
        "gpt-realtime-2.1-mini",
        media(1_000, 100, read=500, input_audio=1_000, cache_read_audio=500),
        5_390_000,
        REALTIME_MINI,
    ),
    # 100 x 40_000 + 100 x 80_000
    openai(
        "realtime 4o",
        "gpt-4o-realtime-preview",
        media(100, 100, input_audio=100, output_audio=100),
        12_000_000,
        REALTIME_4O,
    ),
    # 100 x 10_000 + 200 x 300 + 50 x 2_400 = 1_000_000 + 60_000 + 120_000
    openai(
        "realtime 4o mini",
        "gpt-4o-mini-realtime-preview",
        media(300, 50, read=200, input_audio=300, cache_read_audio=200),
        1_180_000,
        REALTIME_4O_MINI,
    ),
    # 50 x 2_000 + 1_000 x 8_000
    openai("image mini", "gpt-image-1-mini", media(50, 1_000, output_image=1_000), 8_100_000, IMAGE_MINI),
    # 50 x 2_000 + 1_000 x 2_500 + 272 x 8_000 = 100_000 + 2_500_000 + 2_176_000
    openai(
        "image mini edit",
        "gpt-image-1-mini",
        media(1_050, 272, input_image=1_000, output_image=272),
        4_776_000,
        IMAGE_MINI,
    ),
    # 50 x 2_000 + 600 x 2_500 + 400 x 250 + 100 x 8_000 = 100_000 + 1_500_000 + 100_000 + 800_000
    openai(
        "image mini edit cached",
        "gpt-image-1-mini",
        media(1_050, 100, read=400, input_image=1_000, cache_read_image=400, output_image=100),
        2_500_000,
        IMAGE_MINI,
    ),
    # 50 x 5_000 + 300 x 10_000 + 1_056 x 40_000 = 250_000 + 3_000_000 + 42_240_000
    openai(
        "image 1",
        "gpt-image-1",
        media(350, 1_056, input_image=300, output_image=1_056),
        45_490_000,
        IMAGE_1,
    ),
    # 100 x 5_000 + 200 x 8_000 + 1_000 x 32_000 = 500_000 + 1_600_000 + 32_000_000
    openai(
        "image 1.5",
        "gpt-image-1.5",
        media(300, 1_000, input_image=200, output_image=1_000),
        34_100_000,
        IMAGE_15,
    ),
    # half of it, whatever tier the answer of the batch line names
    openai(
        "image 1.5 batch",
        "gpt-image-1.5",
        media(300, 1_000, input_image=200, output_image=1_000),
        17_050_000,
        IMAGE_15,
        asked=BATCH,
    ),
    # 90 s x $0.0001
    openai("whisper", "whisper-1", units("audio_ms", 90_000), 9_000_000, WHISPER),
    # 12.345 s x $0.0001
    openai("whisper parts of a second", "whisper-1", units("audio_ms", 12_345), 1_234_500, WHISPER),
    # 1_000 x 15_000
    openai("tts", "tts-1", units("character", 1_000), 15_000_000, TTS),
    # 7 x 30_000
    openai("tts hd", "tts-1-hd", units("character", 7), 210_000, TTS),
    # 100 x 600 + 600 x 12_000
    openai("mini tts", "gpt-4o-mini-tts", media(100, 600, output_audio=600), 7_260_000, MINI_TTS),
    # 10 x 2_500 + 1_000 x 6_000 + 200 x 10_000
    openai("transcribe", "gpt-4o-transcribe", media(1_010, 200, input_audio=1_000), 8_025_000, TRANSCRIBE),
    # 100 x 600 + 400 x 10_000 + 50 x 20_000 = 60_000 + 4_000_000 + 1_000_000
    openai(
        "audio mini",
        "gpt-audio-mini",
        media(500, 50, input_audio=400, output_audio=50),
        5_060_000,
        AUDIO_MINI,
    ),
    # 100 x 2_500 + 100 x 40_000 + 100 x 80_000
    openai(
        "audio preview",
        "gpt-4o-audio-preview-2024-12-17",
        media(200, 100, input_audio=100, output_audio=100),
        12_250_000,
        AUDIO_PREVIEW,
    ),
    # 2 x $0.12; the answer says how many, the request which
    openai(
        "dall-e hd",
        "dall-e-3",
        units("image", 2),
        240_000_000,
        DALL_E_3,
        asked=Request(operation=Operation.IMAGES, units=(Units("image/hd/1024x1792", 2),)),
    ),
    # $0.04
    openai("dall-e", "dall-e-3", units("image/standard/1024x1024", 1), 40_000_000, DALL_E_3),
    # 3 x $0.002
    other("rerank", "cohere", "rerank-v3.5", units("search_unit", 3), 6_000_000, COHERE),
    # 2 x $0.0025
    other("rerank 4 pro", "cohere", "rerank-v4.0-pro", units("search_unit", 2), 5_000_000, COHERE),
    # 200 x 300 + 800 x 1_000 + 100 x 2_500, 40 of which were thinking
    other(
        "gemini flash hears",
        "google",
        "gemini-2.5-flash",
        media(1_000, 100, input_audio=800, thought=40),
        1_110_000,
        GEMINI_FLASH,
    ),
    # 200 x 300 + 300 x 1_000 + 500 x 100
    other(
        "gemini flash hears from the cache",
        "google",
        "gemini-2.5-flash",
        media(1_000, 0, read=500, input_audio=800, cache_read_audio=500),
        410_000,
        GEMINI_FLASH,
    ),
    # an image and a text are one price: 300 x 300 + 10 x 2_500
    other(
        "gemini flash sees",
        "google",
        "gemini-2.5-flash",
        media(300, 10, input_image=258),
        115_000,
        GEMINI_FLASH,
    ),
    # 10 x 300 + 1_290 x 30_000: $0.039 an image
    other(
        "gemini draws",
        "google",
        "gemini-2.5-flash-image",
        media(10, 1_290, output_image=1_290),
        38_703_000,
        GEMINI_IMAGE,
    ),
    # 1_000 x 1_250 + 100 x 10_000 + $0.035
    other(
        "gemini pro grounded",
        "google",
        "gemini-2.5-pro",
        used(1_000, 100, web_search_requests=1),
        37_250_000,
        GROUNDING,
    ),
    # 100 x 1_250 + $0.025
    other(
        "gemini pro on the map",
        "google",
        "gemini-2.5-pro",
        Usage(100, 0, units=(Units("google_maps", 1),)),
        25_125_000,
        GROUNDING,
    ),
    # 1_000 x 750 + 3 x $0.014
    other(
        "gemini 3 grounded by query",
        "google",
        "gemini-3.8-flash",
        used(1_000, 0, web_search_requests=3),
        42_750_000,
        f"{GEMINI_38}; {GROUNDING}",
    ),
    # 1_000 x 2_200 + 100 x 11_000
    other(
        "bedrock sonnet",
        "aws",
        "us.anthropic.claude-sonnet-5-5",
        used(1_000, 100, service_tier="default"),
        3_300_000,
        BEDROCK_CLAUDE,
    ),
    # 1_000 x 4_400 + 1_000 x 220 + 1_000 x 8_800 + 100 x 22_000
    other(
        "bedrock opus with an hour's cache",
        "aws",
        "us.anthropic.claude-opus-5-5",
        used(3_000, 100, read=1_000, write=1_000, **hour(1_000)),
        15_620_000,
        BEDROCK_CLAUDE,
    ),
    # 1_000 x 110 + 1_000 x 137.5 + 100 x 550
    other(
        "bedrock haiku writes",
        "aws",
        "us.anthropic.claude-haiku-5-5",
        used(2_000, 100, write=1_000),
        302_500,
        BEDROCK_CLAUDE,
    ),
    # 1_000 x 60 + 100 x 240
    other("bedrock nova", "aws", "amazon.nova-lite-v1:0", used(1_000, 100), 84_000, BEDROCK_AMAZON),
    # 1_000 x 20
    other("bedrock titan", "aws", "amazon.titan-embed-text-v2:0", used(1_000, 0), 20_000, BEDROCK_AMAZON),
    # 1_000 x 250 + 100 x 2_000 + $0.03 + 2 x $0.0025
    openai(
        "tools of responses",
        "gpt-5-mini",
        used(1_000, 100, code_execution_requests=1, file_search_requests=2),
        35_450_000,
        CONTAINER,
    ),
    # 1_000 x 10
    openai("embeddings batch", "text-embedding-3-small", used(1_000, 0), 10_000, EMBEDDING, asked=BATCH),
    # 1_000_000 x 5_000
    openai(
        "fine-tuning",
        "gpt-4.1-mini",
        units("training_token", 1_000_000),
        5_000_000_000,
        TRAINING,
        asked=Request(operation=Operation.FINE_TUNING),
    ),
)
