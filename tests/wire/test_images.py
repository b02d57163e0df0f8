"""Images: what each size and quality is held at, forms and JSON, usage of answers and streams."""

import json

import httpx
import pytest

from outlay.wire.images import (
    INPUT_IMAGE_TOKENS,
    OVERHEAD_TOKENS,
    ImageStream,
    parse_image_edit,
    parse_image_generation,
    read_answer,
)
from outlay.wire.intent import CallIntent, Modality, Operation, Rejection, Units, Usage


def body_of(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-image-2", "prompt": "a cat", **fields}).encode()


def taken(body: bytes) -> CallIntent:
    intent = parse_image_generation(body)
    assert isinstance(intent, CallIntent), intent
    return intent


@pytest.mark.parametrize(
    ("fields", "unit", "published"),
    [
        # published or measured tokens of the same quality and size
        ({"model": "gpt-image-1", "quality": "low", "size": "1024x1024"}, "image/low/1024x1024", 272),
        ({"model": "gpt-image-1", "quality": "medium", "size": "1536x1024"}, "image/medium/1536x1024", 1584),
        ({"model": "gpt-image-1", "quality": "high", "size": "1024x1536"}, "image/high/1024x1536", 6240),
        ({"model": "gpt-image-1"}, "image/auto/auto", 6240),
        ({"quality": "high", "size": "1024x1024"}, "image/high/1024x1024", 7024),
        ({"quality": "high", "size": "3584x2048"}, "image/high/3584x2048", 12_329),
        ({}, "image/auto/auto", 12_329),
        ({"model": "dall-e-3", "quality": "hd"}, "image/hd/1024x1024", 0),
        ({"model": "dall-e-3"}, "image/standard/1024x1024", 0),
    ],
)
def test_tokens_of_an_image_are_bounded(fields: dict[str, object], unit: str, published: int) -> None:
    intent = taken(body_of(**fields, n=3))
    assert intent.units == (Units(unit, 3),) and intent.choices == 3
    assert intent.max_output_tokens is not None and published <= intent.max_output_tokens <= 16_384
    assert intent.output_modalities == (Modality.IMAGE,) and intent.input_modalities == ()


def test_partial_images_cost_more_and_auto_may_choose_the_dearest() -> None:
    plain, partial = taken(body_of()), taken(body_of(partial_images=3, stream=True))
    assert plain.max_output_tokens is not None and partial.max_output_tokens is not None
    assert partial.max_output_tokens == plain.max_output_tokens + 300 and partial.stream
    newer = taken(body_of(model="gpt-image-2.5-flare"))
    dearest = taken(body_of(model="gpt-image-2.5-flare", quality="max"))
    assert newer.max_output_tokens == dearest.max_output_tokens
    assert taken(body_of(n=None)).choices == 1


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"prompt":"x"}', "model"),
        (b'{"model":"m"}', "prompt"),
        (body_of(n=11), "n"),
        (body_of(size="big"), "size"),
        (body_of(quality="superb"), "quality"),
        (body_of(svg={"model": "gpt-6"}), "svg"),
        (body_of(output_format="svg"), "output_format"),
        (body_of(frame_count=20), "frame_count"),
        (body_of(N=2), "n"),
        (body_of(partial_images=4), "partial_images"),
        (b'{"model":"m","prompt":"x","n":1,"n":9}', "n"),
    ],
)
def test_refusals_name_the_field(body: bytes, word: str) -> None:
    refused = parse_image_generation(body)
    assert isinstance(refused, Rejection) and f"`{word}`" in refused.message


def edit(**fields: str) -> tuple[str, bytes]:
    data: dict[str, str] = {"model": "gpt-image-2", "prompt": "a hat", **fields}
    files = [
        ("image[]", ("a.png", b"P" * 9000)),
        ("image[]", ("b.png", b"Q" * 9000)),
        ("mask", ("m.png", b"M")),
    ]
    request = httpx.Request("POST", "http://x/", data=data, files=files)
    return request.headers["content-type"], request.read()


def test_an_edit_counts_its_images_not_their_bytes() -> None:
    content_type, body = edit(n="2", quality="low", size="1024x1024", partial_images="1", stream="true")
    intent = parse_image_edit(content_type, body)
    assert isinstance(intent, CallIntent), intent
    assert intent.operation is Operation.IMAGE_EDIT and intent.model == "gpt-image-2"
    assert intent.input_tokens_bound == len(body) - 18_001 + OVERHEAD_TOKENS + 3 * INPUT_IMAGE_TOKENS
    assert (intent.choices, intent.stream, intent.input_modalities) == (2, True, (Modality.IMAGE,))
    assert intent.units == (Units("image/low/1024x1024", 2),)


def test_an_edit_in_json_names_its_images() -> None:
    body = body_of(images=[{"image_url": "https://x"}, {"file_id": "f"}], mask={"file_id": "m"})
    intent = parse_image_edit("application/json", body)
    assert isinstance(intent, CallIntent)
    assert intent.input_tokens_bound == len(body) + OVERHEAD_TOKENS + 3 * INPUT_IMAGE_TOKENS


@pytest.mark.parametrize("fields", [{"n": "0"}, {"n": "x"}, {"n": "-1"}, {"n": "1.0"}, {"svg": "{}"}])
def test_refused_edits(fields: dict[str, str]) -> None:
    assert isinstance(parse_image_edit(*edit(**fields)), Rejection)


def test_answers() -> None:
    tokens = (
        b'{"created":1,"data":[{"b64_json":"x"},{"b64_json":"y"}],"usage":{"input_tokens":50,'
        b'"input_tokens_details":{"image_tokens":40,"text_tokens":10},"output_tokens":300,"total_tokens":350}}'
    )
    assert read_answer(Operation.IMAGES, tokens).usage == Usage(
        50, 300, input_image_tokens=40, output_image_tokens=300, units=(Units("image", 2),)
    )
    counted = read_answer(Operation.IMAGES, b'{"created":1,"data":[{"url":"x"}]}')
    assert counted.usage == Usage(0, 0, units=(Units("image", 1),))
    assert read_answer(Operation.IMAGES, b'{"error":{"message":"x"}}').is_error
    for odd in (b"{}", b"[]", b"x", tokens.replace(b'"image_tokens":40', b'"image_tokens":51')):
        assert read_answer(Operation.IMAGES, odd).usage is None
    drawn = tokens.replace(b'"created":1', b'"created":1,"svg_usage":{"model":"gpt-6"}')
    assert read_answer(Operation.IMAGES, drawn).usage is None


def test_usages_of_several_images_in_a_stream_are_added() -> None:
    event = b'data: {"type":"image_edit.completed","usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}'
    reader = ImageStream()
    reader.feed(event + b"\n\n" + event + b"\n\n")
    assert reader.usage == Usage(10, 14, output_image_tokens=14, units=(Units("image", 2),))
    assert reader.is_done and reader.usage_is_final
    broken = ImageStream()
    broken.feed(event + b"\n\n" + event.replace(b"7", b'"x"') + b"\n\n")
    assert broken.deltas == 2
