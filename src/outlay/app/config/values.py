"""Small values that config and command line both read: moments and secrets. Pure but for `new_secret`."""

import base64
import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos

SECRET_PREFIX: Final = "sk-outlay-"
SECRET_BYTES: Final = 25
"""200 bits of randomness: 40 characters of base32."""
MIN_SECRET_LENGTH: Final = 16


def parse_moment(text: str) -> UnixNanos:
    """UTC ns of an ISO date (its first moment) or date and time; without an offset it is UTC.

    Raises ValueError.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not an ISO date or date and time: {text!r}") from error
    return UnixNanos((since.days * 86_400 + since.seconds) * NANOS_PER_SECOND + since.microseconds * 1_000)


def moment_text(at: UnixNanos) -> str:
    """A moment as `parse_moment` reads it: ISO, UTC, to the microsecond (rounded down)."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at // 1_000)
    return moment.isoformat().replace("+00:00", "Z")


def new_secret() -> str:
    """A fresh key secret: `sk-outlay-` and 40 random characters. Show it once; only its hash is kept."""
    return SECRET_PREFIX + base64.b32encode(os.urandom(SECRET_BYTES)).decode().lower()


def secret_hash(secret: str) -> str:
    """SHA-256 of a secret, hexadecimal: what is stored."""
    return sha256(secret.encode()).hexdigest()
