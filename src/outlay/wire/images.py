"""OpenAI's images: `/v1/images/generations` and `/v1/images/edits`, requests, answers and streams. No I/O, no prices.

A model is billed by the image (`units`, named by quality and size) or by tokens (`max_output_tokens` for each of `n`
images); lookup knows which. *Tokens of an image.* Published for GPT Image 1: 272 (low), 1056 (medium) and 4160 (high)
at 1024 x 1024, at most 6240; measured for GPT Image 2: 7024 (high, 1024 x 1024) and 12,329 (high, 3584 x 2048). The
bounds below are the next powers of two; for `xhigh` and `max` no figure is published, and 4 and 8 times `high` is
assumed. A partial image costs 100 tokens more. An image that is edited costs at most `INPUT_IMAGE_TOKENS` (the high
fidelity that GPT Image 2 always uses: 6240 and 65 + 129 for each tile).
https://developers.openai.com/api/docs/guides/image-generation, read 2026-11-24.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from outlay.wire.fields import (
    decode_or_refuse,
    find_case_variant,
    is_null,
    read_fields,
    refuse_count,
    refuse_missing,
    refuse_model,
)
from outlay.wire.intent import Answer, CallIntent, Dialect, Modality, Operation, Rejection, Units, Usage
from outlay.wire.multipart import Form, read_form
from outlay.wire.stream import EventReader

MAX_IMAGES: Final = 10
MAX_PARTIAL_IMAGES: Final = 3
MAX_INPUT_IMAGES: Final = 17
"""16 images and a mask."""
MAX_TOKENS: Final = 2**40
OVERHEAD_TOKENS: Final = 256
INPUT_IMAGE_TOKENS: Final = 8_192
PARTIAL_IMAGE_TOKENS: Final = 100
SMALL_PIXELS: Final = 1536 * 1024
"""Up to the standard sizes; larger ones cost up to twice as much."""

_TOKENS: Final[Mapping[str, int]] = MappingProxyType(
    {"low": 1_024, "medium": 4_096, "high": 8_192, "xhigh": 32_768, "max": 65_536}
)
_NEWER: Final = "gpt-image-2.5"
"""Models of this name know `xhigh` and `max`; with `auto` they may choose them."""
_FIELDS: Final = frozenset(
    [
        "model",
        "prompt",
        "n",
        "quality",
        "size",
        "stream",
        "partial_images",
        "image",
        "images",
        "mask",
        "input_fidelity",
        "background",
        "moderation",
        "output_compression",
        "output_format",
        "response_format",
        "safety_identifier",
        "style",
        "user",
    ]
)
_REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "svg": "has the image drawn by another model, which is billed apart; leave it out",
        "frame_count": "multiplies what is generated and billed; leave it out",
        "models": "lets other models answer; name one in `model`",
    }
)
_MONEY_NAMES: Final = _FIELDS | frozenset(_REFUSED)
_FORM_NAMES: Final = _MONEY_NAMES - {"image", "images"}


class _Asked(msgspec.Struct, gc=False):
    model: str
    prompt: str = ""
    n: int | None = None
    quality: str | None = None
    size: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    output_format: str | None = None
    images: list[Any] | None = None
    image: Any = None
    mask: Any = None


class _Details(msgspec.Struct, gc=False):
    image_tokens: int | None = None
    text_tokens: int | None = None


class _InputDetails(msgspec.Struct, gc=False):
    image_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: _Details | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _Details | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[Any] | None = None
    usage: _Usage | None = None
    svg_usage: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    usage: _Usage | None = None
    error: Any = None


_decode_asked: Final = msgspec.json.Decoder(_Asked).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


def parse_image_generation(body: bytes) -> CallIntent | Rejection:
    """The money side of images made from a prompt. Never raises."""
    asked = _read_json(body)
    if isinstance(asked, Rejection):
        return asked
    return _intent(asked, Operation.IMAGES, len(body), 0)


def parse_image_edit(content_type: str, body: bytes) -> CallIntent | Rejection:
    """The money side of images made from images: a form, or JSON that names them. Never raises."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        asked = _read_json(body)
        if isinstance(asked, Rejection):
            return asked
        given = asked.image if isinstance(asked.image, list) else [asked.image]
        count = len(asked.images or ()) + sum(item is not None for item in (*given, asked.mask))
        return _intent(asked, Operation.IMAGE_EDIT, len(body), count)
    form = read_form(content_type, body, _FORM_NAMES)
    if isinstance(form, Rejection):
        return form
    asked = _read_fields_of(form)
    if isinstance(asked, Rejection):
        return asked
    files = [part for name in ("image", "images", "mask") for part in form.files(name)]
    text = len(body) - sum(part.end - part.start for part in files)
    return _intent(asked, Operation.IMAGE_EDIT, text, len(files))


def read_answer(operation: Operation, body: bytes) -> Answer:
    """What a whole body says. Never raises. Without usage the images are counted: unit `image`."""
    try:
        answer = _decode_answer(body)
    except (ValueError, RecursionError):
        return Answer(usage=None, is_error=b'"error"' in body[:64])
    if answer.error is not None:
        return Answer(usage=None, is_error=True)
    if answer.svg_usage is not None or answer.data is None:
        return Answer(usage=None)
    units = (Units("image", len(answer.data)),)
    if answer.usage is None:
        return Answer(usage=Usage(0, 0, units=units))
    return Answer(usage=_usage(answer.usage, units))


class ImageStream(EventReader):
    """Reads the stream of an image; each finished image states its usage, and the usages are added."""

    __slots__ = ("_finished",)

    def __init__(self) -> None:
        super().__init__(holds_back=False)
        self._finished: list[Usage | None] = []

    def read_data(self, data: bytes) -> bool:
        """Take one event's data."""
        if not data.startswith(b"{"):
            return True
        try:
            event = _decode_event(data)
        except (ValueError, RecursionError):
            self.error_seen = self.error_seen or b'"error"' in data[:64]
            self._count_output(len(data))
            return True
        if event.type == "error" or event.error is not None:
            self.error_seen = True
        elif event.type.endswith(".completed"):
            stated = event.usage
            self._finished.append(None if stated is None else _usage(stated, (Units("image", 1),)))
            self.usage = _sum(self._finished)
            self.is_done = True
            self.usage_is_final = self.usage is not None
            self.finish_reason = "completed"
            self._count_output(1)
        elif event.type:
            self._count_output(1)  # a partial image: that there was output, not how much
        return True


def _read_json(body: bytes) -> _Asked | Rejection:
    fields = read_fields(body)
    if isinstance(fields, Rejection):
        return fields
    refused = refuse_missing(fields, ("model", "prompt"))
    if refused is not None:
        return refused
    for name in fields.keys() & _REFUSED.keys():
        if not is_null(fields[name]):
            return Rejection(422, "unsupported_field", f"`{name}` {_REFUSED[name]}", name)
    refused = find_case_variant(fields, _MONEY_NAMES)
    return decode_or_refuse(_decode_asked, body) if refused is None else refused


def _read_fields_of(form: Form) -> _Asked | Rejection:
    for name in _REFUSED:
        if form.text(name) is not None:
            return Rejection(422, "unsupported_field", f"`{name}` {_REFUSED[name]}", name)
    for name in ("model", "prompt"):
        if form.text(name) is None:
            return Rejection(400, "missing_field", f"`{name}` is missing", name)
    counts: dict[str, int | None] = {}
    for name in ("n", "partial_images"):
        text = form.text(name)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 8):
            return Rejection(400, "invalid_value", f"`{name}` must be a whole number", name)
        counts[name] = None if text is None else int(text)
    return _Asked(
        model=form.text("model") or "",
        n=counts["n"],
        quality=form.text("quality"),
        size=form.text("size"),
        stream=form.text("stream") in {"true", "1", "True"},
        partial_images=counts["partial_images"],
        output_format=form.text("output_format"),
    )


def _intent(asked: _Asked, operation: Operation, text_bytes: int, images: int) -> CallIntent | Rejection:
    refused = (
        refuse_model(asked.model)
        or refuse_count("n", asked.n, most=MAX_IMAGES)
        or refuse_count("partial_images", asked.partial_images, 0, MAX_PARTIAL_IMAGES)
        or refuse_count("image", images or None, most=MAX_INPUT_IMAGES)
    )
    if refused is None and asked.output_format == "svg":
        refused = Rejection(422, "unsupported_field", f"`output_format` {_REFUSED['svg']}", "output_format")
    quality = asked.quality or ("standard" if asked.model.startswith("dall-e") else "auto")
    size = asked.size or ("1024x1024" if asked.model.startswith("dall-e") else "auto")
    tokens = _image_tokens(asked.model, quality, size)
    if refused is None and isinstance(tokens, Rejection):
        refused = tokens
    if refused is not None or isinstance(tokens, Rejection):
        return refused or Rejection(400, "invalid_value", "`size` is odd", "size")
    count = 1 if asked.n is None else asked.n
    return CallIntent(
        dialect=Dialect.OPENAI,
        operation=operation,
        model=asked.model,
        input_tokens_bound=text_bytes + OVERHEAD_TOKENS + images * INPUT_IMAGE_TOKENS,
        max_output_tokens=tokens + (asked.partial_images or 0) * PARTIAL_IMAGE_TOKENS,
        output_limit_field=None,
        choices=count,
        stream=asked.stream is True,
        wants_stream_usage=asked.stream is True,
        input_modalities=(Modality.IMAGE,) if images else (),
        output_modalities=(Modality.IMAGE,),
        units=(Units(f"image/{quality}/{size}", count),),
    )


def _image_tokens(model: str, quality: str, size: str) -> int | Rejection:
    """Most output tokens of one image."""
    is_large = True
    if size != "auto":
        width, _, height = size.partition("x")
        if not all(side.isascii() and side.isdigit() and 0 < len(side) < 6 for side in (width, height)):
            return Rejection(400, "invalid_value", "`size` must be `auto` or like `1024x1024`", "size")
        is_large = int(width) * int(height) > SMALL_PIXELS
    elif not model.startswith("gpt-image-2"):
        is_large = False  # the earlier models know the standard sizes only
    worst = "max" if model.startswith(_NEWER) else "high"
    tokens = _TOKENS.get({"auto": worst, "standard": "high", "hd": "high"}.get(quality, quality))
    if tokens is None:
        return Rejection(422, "unsupported_field", f"`quality` {quality[:64]!r} is not known", "quality")
    return 2 * tokens if is_large else tokens


def _usage(stated: _Usage, units: tuple[Units, ...]) -> Usage | None:
    """The stated counts as one record; what was made is all image unless the answer says otherwise."""
    total_input, output = stated.input_tokens, stated.output_tokens
    if total_input is None or output is None:
        return None
    taken, made = stated.input_tokens_details or _InputDetails(), stated.output_tokens_details
    cached = taken.cached_tokens or 0
    cached_images = (taken.cached_tokens_details or _Details()).image_tokens or 0
    images = taken.image_tokens or 0
    drawn = output if made is None or made.image_tokens is None else made.image_tokens
    counts = (total_input, output, cached, cached_images, images, drawn)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        return None
    if max(cached, images) > total_input or drawn > output or cached_images > min(cached, images):
        return None
    return Usage(
        total_input,
        output,
        cache_read_input_tokens=cached,
        input_image_tokens=images,
        cache_read_image_tokens=cached_images,
        output_image_tokens=drawn,
        units=units,
    )


def _sum(usages: list[Usage | None]) -> Usage | None:
    total: Usage | None = None
    for usage in usages:
        if usage is None:
            return None
        if total is None:
            total = usage
            continue
        total = Usage(
            total.input_tokens + usage.input_tokens,
            total.output_tokens + usage.output_tokens,
            cache_read_input_tokens=total.cache_read_input_tokens + usage.cache_read_input_tokens,
            input_image_tokens=total.input_image_tokens + usage.input_image_tokens,
            cache_read_image_tokens=total.cache_read_image_tokens + usage.cache_read_image_tokens,
            output_image_tokens=total.output_image_tokens + usage.output_image_tokens,
            units=(Units("image", total.units[0].count + usage.units[0].count),),
        )
    return total
