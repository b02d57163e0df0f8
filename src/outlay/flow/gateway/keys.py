"""Virtual keys: who a bearer is, by the secret of a key or by a token that stands for one. Records; no I/O.

What reads tokens (`Tokens`) is `app`'s: the request path knows no key set and no JWT library.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

import msgspec

from outlay.flow.budgets import Origin
from outlay.flow.scope import TAG_PREFIX, UNATTRIBUTED, Identity, scope_text

NO_EXPIRY = 2**63 - 1
MAX_TOKEN_BYTES: Final = 16 * 1024
"""Longest token that is looked at: with many groups some issuers write 10 KB."""
_TOKEN_START: Final = b"eyJ"
"""How the base64 of a JSON object with a first key begins."""


class PreviousSecret(msgspec.Struct, frozen=True):
    """A secret that a rotated key had before."""

    secret_sha256: str
    """Hexadecimal."""
    until: int
    """UTC ns; from then on it is refused."""


class KeySpec(msgspec.Struct, frozen=True):
    """A virtual key: who its bearer is. Only the SHA-256 of the secret is kept."""

    name: str
    secret_sha256: str
    """Hexadecimal."""
    org: str = ""
    team: str = ""
    project: str = ""
    user: str = ""
    agent: str = ""
    workload: str = ""
    deployment: str = ""
    environment: str = ""
    customer: str = ""
    tags: Mapping[str, str] = {}
    """Pinned: a client may add tags; another value of one of these is refused."""
    allow_models: tuple[str, ...] = ()
    deny_models: tuple[str, ...] = ()
    run_parent: str = ""
    """Run above all runs of this key, so that a fresh run name evades no cap; calls without a run are its own."""
    expires_at: int = NO_EXPIRY
    """UTC ns."""
    origin: Origin = Origin.STORE
    place: str = ""
    previous: tuple[PreviousSecret, ...] = ()
    """Secrets before the last rotations: each opens the door until its end, as this same key."""
    ends_as: str = "key_expired"
    """Code of the refusal from `expires_at` on: `key_expired`, `key_rotated` or `token_expired`."""
    bearer: tuple[tuple[str, str], ...] | None = None
    """Of a token that stands for this key: (dimension or `tag.NAME`, value) of what its issuer's tokens may say,
    sorted; "" is unattributed. None: the bearer has the key's own secret."""

    @property
    def owner(self) -> str:
        """Who asks, in words that tell bearers of one key apart: `key:NAME`, or `key:NAME/user=ada`."""
        if self.bearer is None:
            return f"key:{self.name}"
        said = tuple((dimension, value or UNATTRIBUTED) for dimension, value in self.bearer)
        return f"key:{self.name}/{scope_text(said)}"

    def owns(self, identity: Identity) -> bool:
        """Whether a call of this identity is this bearer's own: of the key, and of what its token says."""
        return identity.key == self.name and all(
            identity.value(dimension) == value for dimension, value in self.bearer or ()
        )


def secrets_of(key: KeySpec) -> Iterator[KeySpec]:
    """The key as each of its secrets opens it: the current one, then those before it with their own ends."""
    yield key
    for old in key.previous:
        yield msgspec.structs.replace(
            key,
            secret_sha256=old.secret_sha256,
            expires_at=min(old.until, key.expires_at),
            ends_as="key_rotated" if old.until <= key.expires_at else key.ends_as,
            previous=(),
        )


class Token(msgspec.Struct, frozen=True):
    """What a token that was verified says."""

    key: str
    """Name of the virtual key that it stands for: pins, budgets and rules are that key's."""
    values: tuple[tuple[str, str], ...]
    """(dimension or `tag.NAME`, value), sorted; "" where only a token could say it and this one does not."""
    expires_at: int
    """UTC ns."""


class Unreadable(msgspec.Struct, frozen=True):
    """Why a token does not open the door."""

    code: str
    message: str
    status: int = 401
    retry_after_s: int | None = None


class Tokens(Protocol):
    """Reads tokens. Immutable but for what it remembers of tokens read: other keys come as another one."""

    def read(self, token: bytes, now: int) -> Token | Unreadable:
        """What a token says at `now` (UTC ns). Never waits."""


def looks_like_token(secret: bytes) -> bool:
    """Whether a secret that is no key's may be a JWT: three parts, the first one a JSON object in base64."""
    return secret.startswith(_TOKEN_START) and secret.count(b".") == 2 and len(secret) <= MAX_TOKEN_BYTES


def key_of_token(base: KeySpec, token: Token) -> KeySpec | Unreadable:
    """The key that a token stands for, its claims filled in where the key pins nothing.

    A claim that differs from what the key pins is refused: booking it to the pinned value would be wrong in silence.
    """
    pins: dict[str, str] = {}
    tags = dict(base.tags)
    bearer: list[tuple[str, str]] = []
    for dimension, value in token.values:
        name = dimension.removeprefix(TAG_PREFIX)
        pinned = tags.get(name, "") if name != dimension else getattr(base, dimension)
        bearer.append((dimension, value or pinned))
        if not value:
            continue
        if pinned and pinned != value:
            text = f"This token's {dimension} is not the one that the key {base.name!r} is for."
            return Unreadable("claim_not_settable", text, 403)
        if name != dimension:
            tags[name] = value
        else:
            pins[dimension] = value
    is_first = token.expires_at <= base.expires_at
    return msgspec.structs.replace(
        base,
        **pins,
        tags=tags,
        previous=(),
        expires_at=min(token.expires_at, base.expires_at),
        ends_as="token_expired" if is_first else base.ends_as,
        bearer=tuple(bearer),
    )
