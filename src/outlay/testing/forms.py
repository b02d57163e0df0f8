"""Multipart forms as the mock reads them: a body is split at its boundary, whole, in memory.

A reader of its own on purpose: the gateway under test uses a library.
"""

import re
from typing import NamedTuple

from outlay.testing.call import Call

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PARAMETER = re.compile(r'\b(name|filename)="((?:[^"\\]|\\.)*)"')


class FormError(ValueError):
    """A body that is not the multipart form it claims to be."""


class Part(NamedTuple):
    """One field of a form."""

    name: str
    filename: str | None
    content_type: str
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


class Form(NamedTuple):
    """The fields in order; names like `image[]` count as `image`."""

    parts: list[Part]

    def text(self, name: str) -> str | None:
        """The first value of a field."""
        return next((part.text for part in self.parts if part.name == name), None)

    def files(self, name: str) -> list[Part]:
        """Every file of a field."""
        return [part for part in self.parts if part.name == name and part.filename is not None]


def is_form(call: Call) -> bool:
    """Whether the body claims to be a multipart form."""
    return (call.header(b"content-type") or "").startswith("multipart/form-data")


def read_form(call: Call) -> Form:
    """The form in the call's body. Raises `FormError`."""
    found = _BOUNDARY.search(call.header(b"content-type") or "")
    if not is_form(call) or found is None:
        raise FormError("expected a multipart form with a boundary")
    delimiter = b"\r\n--" + found[1].encode("latin-1")
    pieces = (b"\r\n" + call.body).split(delimiter)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise FormError("the multipart form does not end with its boundary")
    return Form([_part(piece) for piece in pieces[1:-1]])


def _part(piece: bytes) -> Part:
    head, blank, data = piece.partition(b"\r\n\r\n")
    if not blank:
        raise FormError("a part of the multipart form has no blank line after its head")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    parameters = dict(_PARAMETER.findall(headers.get("content-disposition", "")))
    if "name" not in parameters:
        raise FormError("a part of the multipart form has no name")
    name = re.sub(r"\[\d*\]$", "", parameters["name"])
    return Part(name, parameters.get("filename"), headers.get("content-type", ""), data)
