"""stub"""

from outlay.wire.intent import Rejection


def with_part(content_type: str, body: bytes, name: str, value: str) -> bytes | Rejection:
    raise AssertionError


def replace_part(content_type: str, body: bytes, name: str, value: str) -> bytes:
    raise AssertionError
