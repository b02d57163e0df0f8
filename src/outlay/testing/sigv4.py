"""Checks AWS Signature Version 4 of a received request, by a computation of the mock's own.

From AWS's public description of the algorithm; the gateway under test signs with AWS's library.
"""

import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from outlay.testing.call import Call

MAX_SKEW_SECONDS = 300  # AWS's own limit
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_NEEDED_HEADERS = ("host", "x-amz-date")


class Fault(NamedTuple):
    """Why a request is refused, in AWS's words."""

    code: str
    message: str


def check(call: Call, secrets: Mapping[str, str] | None, service: str) -> Fault | None:
    """What is wrong with the request's signature; None if it is good.

    `secrets`: access key -> secret key. None: the header's shape and date are checked, the signature is not.
    """
    found = _AUTHORIZATION.fullmatch(call.header(b"authorization") or "")
    date = call.header(b"x-amz-date")
    if found is None or date is None:
        return Fault("MissingAuthenticationTokenException", "Missing Authentication Token")
    key, day, region, named, signed, signature = found.groups()
    names = signed.split(";")
    if any(name not in names for name in _NEEDED_HEADERS) or names != sorted(names):
        return Fault("InvalidSignatureException", "'Host' and 'X-Amz-Date' must be signed headers.")
    if named != service or not date.startswith(day):
        return Fault(
            "InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'."
        )
    try:
        when = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return Fault("InvalidSignatureException", "Date must be in ISO-8601 'basic format'.")
    if abs(when.timestamp() - call.received_at // 1_000_000_000) > MAX_SKEW_SECONDS:
        return Fault("InvalidSignatureException", f"Signature expired: {date}")
    if secrets is None:
        return None
    if key not in secrets:
        return Fault("UnrecognizedClientException", "The security token included in the request is invalid.")
    scope = f"{day}/{region}/{service}/aws4_request"
    wanted = _signature(secrets[key], scope, f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{_digest(call, names)}")
    if not hmac.compare_digest(wanted, signature):
        return Fault(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )
    return None


def _digest(call: Call, names: list[str]) -> str:
    """SHA-256 of the canonical request; the path as received is encoded once more, as all but S3 do it."""
    path = urllib.parse.quote(call.path or "/", safe="/~")
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in call.query.split("&") if part))
    headers = "".join(f"{name}:{_header(call, name)}\n" for name in names)
    payload = hashlib.sha256(call.body).hexdigest()
    text = "\n".join((call.method, path, query, headers, ";".join(names), payload))
    return hashlib.sha256(text.encode()).hexdigest()


def _header(call: Call, name: str) -> str:
    values = [value.decode("latin-1") for key, value in call.headers if key == name.encode()]
    return ",".join(" ".join(value.split()) for value in values)


def _signature(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
