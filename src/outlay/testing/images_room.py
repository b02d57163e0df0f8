"""The mock's picture room: OpenAI's image generation and editing, billed by tokens or by the piece.

Models named `dall-e...` are billed by the piece and state no usage; all others by tokens.
"""

from typing import Any, NamedTuple

import msgspec

from outlay.testing import content, media
from outlay.testing.answer import Answer, Piece, input_tokens, reported
from outlay.testing.behaviour import Behaviour, UsageReport, marked_directive
from outlay.testing.call import Ask, Reply
from outlay.testing.forms import FormError, is_form, read_form
from outlay.testing.meter import Tokens
from outlay.testing.openai_replies import (
    directed,
    error_answer,
    error_text,
    named_event,
    status_answer,
    whole_answer,
)

PARTIAL_IMAGE_TOKENS = 100
"""Output tokens of each partial picture of a stream, as OpenAI states them."""
MAX_IMAGES = 10
MAX_PARTIAL_IMAGES = 3
_OUTPUT_TOKENS = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
"""Output tokens of a picture, from OpenAI's image guide (gpt-image-1)."""


class _Request(msgspec.Struct, gc=False):
    model: str | None = None
    prompt: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    response_format: str | None = None
    output_format: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    images: list[dict[str, Any]] | None = None
    user: str | None = None


class _Picture(NamedTuple):
    """What all pictures of one answer have in common."""

    quality: str
    size: str
    output_format: str

    def fields(self) -> dict[str, str]:
        return {
            "background": "opaque",
            "output_format": self.output_format,
            "quality": self.quality,
            "size": self.size,
        }


class ImagesRoom:
    """Builds answers; keeps nothing between requests."""

    def generate(self, ask: Ask) -> Reply:
        """POST /v1/images/generations."""
        try:
            request = msgspec.json.decode(ask.body, type=_Request)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        return self._pictured(ask, request, 0, "image_generation")

    def edit(self, ask: Ask) -> Reply:
        """POST /v1/images/edits: a form with files, or JSON that names pictures."""
        try:
            if not is_form(ask.call):
                request = msgspec.json.decode(ask.body, type=_Request)
                return self._pictured(ask, request, len(request.images or ()), "image_edit")
            form = read_form(ask.call)
            fields = {part.name: part.text for part in form.parts if part.filename is None}
            request = msgspec.convert(fields, _Request, strict=False)
        except (FormError, msgspec.MsgspecError) as error:
            return error_answer(ask.identity, 400, f"We could not parse the body: {error}"), None
        given = len(form.files("image")) + len(form.files("mask"))
        if not form.files("image"):
            return error_answer(
                ask.identity, 400, "Missing required parameter: 'image'.", param="image"
            ), None
        return self._pictured(ask, request, given, "image_edit")

    def _pictured(self, ask: Ask, request: _Request, given: int, kind: str) -> Reply:
        problem = _problem(request)
        if problem is not None:
            return error_answer(ask.identity, 400, problem[0], param=problem[1]), None
        opened = directed(ask, request.model or "dall-e-2", marked_directive(request.user))
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        is_by_piece = model.startswith("dall-e")
        picture = _picture(request, is_by_piece=is_by_piece)
        tokens = _billed(request, behaviour, given, picture, is_by_piece=is_by_piece)
        if behaviour.status != 200:
            refused = status_answer(ask.identity, behaviour, model, None)
            refused.tokens = tokens
            return refused, behaviour
        stated = reported(behaviour.usage, tokens)
        answer = whole_answer(ask.identity, None, model=model)
        answer.tokens = stated
        usage = {} if is_by_piece else _usage_field(behaviour.usage, stated)
        if request.stream and not is_by_piece:
            fields: dict[str, Any] = {"created_at": ask.identity.created, **picture.fields()}
            _tell(answer, kind, fields, usage, request.partial_images or 0)
            return answer, behaviour
        rows = [_row(ask, request, index, is_by_piece=is_by_piece) for index in range(request.n or 1)]
        value = {"created": ask.identity.created, "data": rows}
        if not is_by_piece:
            value |= picture.fields() | usage
        answer.pieces = [Piece(msgspec.json.encode(value), tokens.output)]
        return answer, behaviour


def _problem(request: _Request) -> tuple[str, str] | None:
    if not request.prompt:
        return "Missing required parameter: 'prompt'.", "prompt"
    if request.n is not None and not 1 <= request.n <= MAX_IMAGES:
        return f"Invalid 'n': expected 1 to {MAX_IMAGES}, but got {request.n} instead.", "n"
    if not 0 <= (request.partial_images or 0) <= MAX_PARTIAL_IMAGES:
        return f"Invalid 'partial_images': expected 0 to {MAX_PARTIAL_IMAGES}.", "partial_images"
    if request.stream and (request.n or 1) > 1:
        return "Streaming is only supported for one image.", "n"
    return None


def _picture(request: _Request, *, is_by_piece: bool) -> _Picture:
    usual = "standard" if is_by_piece else "medium"
    quality = usual if request.quality in (None, "auto") else str(request.quality)
    size = "1024x1024" if request.size in (None, "auto") else str(request.size)
    return _Picture(quality, size, request.output_format or "png")


def _billed(
    request: _Request, behaviour: Behaviour, given: int, picture: _Picture, *, is_by_piece: bool
) -> Tokens:
    count = request.n or 1
    if is_by_piece:
        return Tokens(images=count, image_class=f"{picture.quality}/{picture.size}")
    pictures = given * content.TOKENS_PER_MEDIA_PART
    tokens = input_tokens(behaviour, content.text_tokens(request.prompt or "") + pictures, image=pictures)
    each = behaviour.image_output_tokens
    if each is None:
        sizes = _OUTPUT_TOKENS.get(picture.quality, _OUTPUT_TOKENS["high"])
        each = sizes.get(picture.size, max(sizes.values()))
    partial = PARTIAL_IMAGE_TOKENS * (request.partial_images or 0) if request.stream else 0
    output = each * count + partial
    return msgspec.structs.replace(tokens, output=output, output_image=output)


def _usage_field(report: UsageReport, tokens: Tokens) -> dict[str, Any]:
    """`usage` as the report wants it."""
    if report is UsageReport.OMIT:
        return {}
    if report is UsageReport.NULL:
        return {"usage": None}
    return {
        "usage": {
            "input_tokens": tokens.input,
            "input_tokens_details": {
                "text_tokens": tokens.input - tokens.input_image,
                "image_tokens": tokens.input_image,
            },
            "output_tokens": tokens.output,
            "output_tokens_details": {"image_tokens": tokens.output_image, "text_tokens": 0},
            "total_tokens": tokens.input + tokens.output,
        }
    }


def _row(ask: Ask, request: _Request, index: int, *, is_by_piece: bool) -> dict[str, str]:
    if is_by_piece and request.response_format != "b64_json":
        return {"url": f"https://images.invalid/{ask.identity.serial}-{index}.png"}
    return {"b64_json": media.png_base64(ask.identity.sequence + index)}


def _tell(answer: Answer, kind: str, fields: dict[str, Any], usage: dict[str, Any], partial: int) -> None:
    """Turn the answer into a stream of partial pictures and the whole one."""
    answer.pieces = []
    for index in range(partial):
        value = {
            "type": f"{kind}.partial_image",
            "b64_json": media.png_base64(index),
            "partial_image_index": index,
        }
        answer.pieces.append(Piece(named_event(value | fields), PARTIAL_IMAGE_TOKENS))
    done = {"type": f"{kind}.completed", "b64_json": media.png_base64(partial)}
    left = max(0, answer.tokens.output - PARTIAL_IMAGE_TOKENS * partial)
    answer.pieces.append(Piece(named_event(done | fields | usage), left))
    answer.is_stream, answer.content_type = True, b"text/event-stream; charset=utf-8"
    problem = error_text("The server had an error processing your request.", "image_generation_server_error")
    answer.error_event = f"event: error\ndata: {problem}\n\n".encode()
