"""Forms: read in one way or not at all, and changed in one part only."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.wire.intent import Rejection
from outlay.wire.multipart import MAX_PARTS, Form, read_form, replace_part

TYPE = "multipart/form-data; boundary=XX"
MONEY = frozenset({"model", "prompt", "n"})


def form_of(*parts: tuple[str, bytes], end: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


def field(name: str, data: bytes = b"x") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', data


def taken(body: bytes, content_type: str = TYPE) -> Form:
    form = read_form(content_type, body, MONEY)
    assert isinstance(form, Form), form
    return form


def test_what_an_http_client_sends_is_read_and_changed_in_one_part() -> None:
    sound = bytes(range(256)) * 50 + b"\r\n--X\r\n"
    request = httpx.Request(
        "POST",
        "http://x/",
        data={"model": "whisper-1", "prompt": "Größe", "timestamp_granularities[]": ["word", "segment"]},
        files={"file": ("a.wav", sound, "audio/wav")},
    )
    body, content_type = request.read(), request.headers["content-type"]
    form = taken(body, content_type)
    assert (form.text("model"), form.text("prompt"), form.text("absent")) == ("whisper-1", "Größe", None)
    assert form.texts("timestamp_granularities") == ("word", "segment")
    (file,) = form.files("file")
    assert form.content(file) == sound
    assert (file.filename, file.content_type) == ("a.wav", "audio/wav")
    changed = replace_part(form, "model", "gpt-4o-transcribe")
    assert changed == body.replace(b"whisper-1", b"gpt-4o-transcribe", 1)
    again = taken(changed, content_type)
    assert again.text("model") == "gpt-4o-transcribe" and again.content(again.files("file")[0]) == sound
    with pytest.raises(KeyError):
        replace_part(form, "absent", "x")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form_of(field("model"), field("model")), "duplicate_field"),
        (form_of(field("model"), field("model[]")), "duplicate_field"),
        (form_of(field("MODEL")), "duplicate_field"),
        (form_of(field("model"), field("Model")), "duplicate_field"),
        (form_of(field("model"), end=b""), "invalid_form"),
        (form_of(field("model"), end=b"--XX\r\n"), "invalid_form"),
        (form_of(field("file", b"a\r\n--XX\r\nb")), "invalid_form"),
        (form_of(field("file", b"a--XXb")), "invalid_form"),
        (form_of(field("model")) + form_of(field("model", b"dear")), "invalid_form"),
        (form_of(("Content-Type: text/plain", b"x")), "invalid_form"),
        (form_of(("Content-Disposition: attachment; name=model", b"x")), "invalid_form"),
        (
            form_of(
                (
                    'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64',
                    b"eA==",
                )
            ),
            "invalid_form",
        ),
        (
            form_of(
                (
                    'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="model"',
                    b"x",
                )
            ),
            "invalid_form",
        ),
        (form_of(*[field(f"x{i}") for i in range(MAX_PARTS + 1)]), "invalid_form"),
        (form_of((f'Content-Disposition: form-data; name="{"a" * 9000}"', b"x")), "invalid_form"),
        (b"", "invalid_form"),
        (b"model=x", "invalid_form"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, code: str) -> None:
    refused = read_form(TYPE, body, MONEY)
    assert isinstance(refused, Rejection) and refused.code == code, refused


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=XX",
    ],
)
def test_other_content_types(content_type: str) -> None:
    assert isinstance(read_form(content_type, form_of(field("model")), MONEY), Rejection)


@given(
    body=st.binary(max_size=300)
    | st.lists(st.sampled_from([b"--XX", b"\r\n", b"--", b": ", b"a", form_of(field("n"))])).map(b"".join),
    content_type=st.just(TYPE) | st.text(max_size=60),
)
def test_nothing_raises(body: bytes, content_type: str) -> None:
    form = read_form(content_type, body, MONEY)
    if isinstance(form, Form):
        for part in form.parts:
            assert 0 <= part.start <= part.end <= len(body)


@given(contents=st.lists(st.binary(max_size=60).filter(lambda data: b"--XX" not in data), max_size=5))
def test_every_part_is_found_again(contents: list[bytes]) -> None:
    body = form_of(*[field(f"part{i}", data) for i, data in enumerate(contents)])
    form = read_form(TYPE, body, MONEY)
    if not contents:
        return
    assert isinstance(form, Form)
    assert [form.content(part) for part in form.parts] == contents
