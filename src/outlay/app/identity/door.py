"""Reads tokens: who issued one, whether its signature and times hold, and what it says. Never waits, fetches nothing.

Signatures are PyJWT's matter; times are judged here, by the gateway's own clock. What was read is remembered until it
ends, so a token is verified once. Other keys mean another `Door`: nothing that an old key opened is remembered.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from jwt import decode
from jwt.exceptions import InvalidAudienceError, InvalidIssuerError, InvalidSignatureError, PyJWTError
from jwt.utils import base64url_decode

from outlay.app.config.identity import algorithms_of
from outlay.app.config.tree import IssuerEntry
from outlay.app.identity.claims import values_of
from outlay.app.identity.keysets import KeySet
from outlay.flow.gateway.keys import NO_EXPIRY, Token, Unreadable
from outlay.kernel.clock import NANOS_PER_SECOND

MAX_REMEMBERED: Final = 20_000
"""Tokens remembered: some 10 MB."""
LEEWAY_S: Final = 30
"""Clocks of issuer and gateway may differ so much at a token's beginning; at its end none is given."""
RETRY_AFTER_S: Final = 2
"""When a token of a key that is being asked for may be tried again."""
_MAX_SECONDS: Final = NO_EXPIRY // NANOS_PER_SECOND
_OPTIONS: Final[Any] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
    "require": ["exp", "iss", "aud"],
    "enforce_minimum_key_length": True,
}
_BAD: Final = Unreadable("token_invalid", "The bearer token is no JWT that can be read.")


class _Head(msgspec.Struct, gc=False):
    alg: str
    kid: str | None = None
    crit: Any = None
    b64: Any = None


class _Unverified(msgspec.Struct, gc=False):
    iss: str
    aud: str | list[str]


class Door:
    """See the module. `on_unknown` is told of an issuer a token of whom names a key that is not known."""

    def __init__(
        self,
        issuers: Sequence[IssuerEntry],
        keys: Mapping[str, KeySet | None],
        on_unknown: Callable[[str], None],
    ) -> None:
        self._issuers = tuple(issuers)
        self._keys = dict(keys)
        self._on_unknown = on_unknown
        self._remembered: dict[bytes, Token] = {}

    def read(self, token: bytes, now: int) -> Token | Unreadable:
        """See `Tokens`."""
        digest = sha256(token).digest()
        found = self._remembered.get(digest)
        if found is not None:
            return found
        read = self._verified(token, now)
        if isinstance(read, Token):
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[digest] = read
        return read

    def _verified(self, token: bytes, now: int) -> Token | Unreadable:
        try:
            text = token.decode("ascii")
            head_part, body_part, _ = text.split(".")
            head = msgspec.json.decode(base64url_decode(head_part), type=_Head)
            said = msgspec.json.decode(base64url_decode(body_part), type=_Unverified)
        except (ValueError, RecursionError):
            return _BAD
        if head.crit is not None or head.b64 is not None:
            return Unreadable("token_invalid", "The token asks for what is not understood here (crit, b64).")
        issuer = self._issuer(said)
        if isinstance(issuer, Unreadable):
            return issuer
        if head.alg not in algorithms_of(issuer):
            return Unreadable(
                "token_invalid", "The token's signature is of a kind that is not accepted here."
            )
        keys = self._keys.get(issuer.name)
        if keys is None:
            self._on_unknown(issuer.name)
            text = "The keys of the token's issuer are not known yet."
            return Unreadable("issuer_unavailable", text, 503, RETRY_AFTER_S)
        # one PEM key or one secret has no id: whatever the token calls it
        key = keys.find(None if "" in keys.by_kid else head.kid, head.alg)
        if key is None:
            self._on_unknown(issuer.name)
            return Unreadable("token_key_unknown", "No key of the token's issuer is known by that id.")
        return _claimed(text, key, head.alg, issuer, now)

    def _issuer(self, said: _Unverified) -> IssuerEntry | Unreadable:
        """The issuer to check a token with, by what it says itself: nothing is believed yet."""
        audiences = (said.aud,) if isinstance(said.aud, str) else said.aud
        candidates = [issuer for issuer in self._issuers if issuer.issuer == said.iss]
        for issuer in candidates:
            if issuer.audience in audiences:
                return issuer
        if candidates:
            return Unreadable("token_invalid", "The token is meant for another audience.")
        return Unreadable("token_invalid", "The token's issuer is not known here.")


def _claimed(text: str, key: Any, algorithm: str, issuer: IssuerEntry, now: int) -> Token | Unreadable:
    try:
        claims = decode(
            text,
            key,
            algorithms=[algorithm],
            options=_OPTIONS,
            audience=issuer.audience,
            issuer=issuer.issuer,
        )
    except InvalidSignatureError:
        return Unreadable("token_invalid", "The token's signature is wrong.")
    except (InvalidAudienceError, InvalidIssuerError):
        return Unreadable("token_invalid", "The token is not of this issuer for this audience.")
    except (PyJWTError, ValueError, TypeError, RecursionError):
        return _BAD
    ends_at = _times(claims, issuer, now)
    if isinstance(ends_at, Unreadable):
        return ends_at
    values = values_of(claims, issuer.claims)
    return values if isinstance(values, Unreadable) else Token(issuer.key, values, ends_at)


def _times(claims: Mapping[str, Any], issuer: IssuerEntry, now: int) -> int | Unreadable:
    """UTC ns at which the token ends; a refusal if that was, or if it has not begun."""
    ends, begins, issued = (_seconds(claims.get(name)) for name in ("exp", "nbf", "iat"))
    if ends is None or (begins is None and "nbf" in claims) or (issued is None and "iat" in claims):
        return Unreadable("token_invalid", "The token's times are no numbers.")
    if issuer.max_age_s:
        if issued is None:
            return Unreadable("token_invalid", "The token does not say when it was issued.")
        ends = min(ends, issued + issuer.max_age_s)
    if ends * NANOS_PER_SECOND <= now:
        return Unreadable("token_expired", "The token has expired.")
    latest = now // NANOS_PER_SECOND + LEEWAY_S
    if (begins or 0) > latest or (issued or 0) > latest:
        return Unreadable("token_not_yet_valid", "The token is not valid yet.")
    return ends * NANOS_PER_SECOND


def _seconds(value: object) -> int | None:
    """A NumericDate, rounded down; None if it is none (or none that a calendar holds)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < _MAX_SECONDS else None
