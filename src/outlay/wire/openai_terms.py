"""What requests of OpenAI's dialect have in common, whatever the route: cache writes, tokens of an image. No I/O.

*Tokens of an image.* The model scales every image down to a size of its own, so its tokens have a maximum, whether it
is sent inline or as an address. Tile models: at most 2048 x 768, that is 4 x 2 tiles, each and a base;
gpt-4o-mini is the worst with 2833 + 8 x 5667 = 48,169. Patch models: at most 10,000 patches of 32 x 32 with
`detail: original`, times a multiplier of at most 2.46 (gpt-4.1-nano): 24,600. Engines for open models stay below (Qwen
16,384, Pixtral 4,096). https://developers.openai.com/api/docs/guides/images-vision
(not checked against the page).
"""

from typing import Final

from outlay.wire.fields import has_escaped_ascii
from outlay.wire.intent import CacheWrite

IMAGE_TOKENS: Final = 24_600
TILED_MINI_IMAGE_TOKENS: Final = 48_169
_TILED_MINI: Final = "4o-mini"
_INLINE_IMAGE: Final = "data:image/"


def image_tokens(model: str) -> int:
    """Most input tokens that one image can be billed as."""
    return TILED_MINI_IMAGE_TOKENS if _TILED_MINI in model else IMAGE_TOKENS


def inline_bytes(url: str | None) -> int:
    """Bytes of the body that are an inline image and no text, so that the image's own bound counts instead."""
    return len(url) if url is not None and url.isascii() and url.startswith(_INLINE_IMAGE) else 0


def cache_write(body: bytes) -> CacheWrite:
    """Dearest cache write that the body can ask for, by its bytes: a false match only holds a little more.

    Fields: `prompt_cache_options.ttl`, a content part's `prompt_cache_breakpoint.ttl`, `prompt_cache_retention`.
    A name written with escapes (`\\u0070rompt...`) counts as a match. It is at least DEFAULT: caching is automatic,
    and only lookup knows which models bill writes.
    """
    if b"prompt_cache" in body and (b"12h" in body or b"24h" in body):
        return CacheWrite.HALF_DAY
    return CacheWrite.HALF_DAY if has_escaped_ascii(body) else CacheWrite.DEFAULT
