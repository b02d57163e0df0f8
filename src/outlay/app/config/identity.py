"""Who callers are, as it is written: earlier secrets of keys, tag policies, token issuers. Checks, by path."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import structs

from outlay.app.config.decode import joined
from outlay.app.config.tree import IssuerEntry, KeyEntry, PreviousEntry, TagEntry
from outlay.app.config.values import MIN_SECRET_LENGTH, moment_text, parse_moment
from outlay.flow.budgets import pattern_matches
from outlay.flow.scope import MAX_VALUE_LENGTH, UNATTRIBUTED
from outlay.flow.tags import TagSpec
from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.errors import ConfigError

Report = Callable[[str, str], object]
HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
MAX_PREVIOUS: Final = 4
"""Earlier secrets of a key that are kept: a rotation a day with a long overlap, and no more."""
MAX_OVERLAP_S: Final = 90 * 86_400
"""Longest overlap: a secret that lives on for longer was not rotated."""
MIN_SHARED_SECRET: Final = 32
"""Characters: HS256 wants a key as long as its hash (RFC 7518, section 3.2)."""
ASYMMETRIC: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
SYMMETRIC: Final = ("HS256", "HS384", "HS512")
CLAIMED: Final = (
    "team",
    "project",
    "user",
    "agent",
    "workload",
    "deployment",
    "environment",
    "customer",
)
"""Dimensions that a claim may fill in; `org` is always the key's."""
TAGS_PREFIX: Final = "tags."
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SOURCES: Final = ("jwks_url", "jwks_file", "public_key_file", "secret")


def check_previous(key: KeyEntry, path: str, report: Report) -> None:
    """Earlier secrets are whole, few, and not the current one."""
    if len(key.previous) > MAX_PREVIOUS:
        report(joined(path, "previous"), f"more than {MAX_PREVIOUS} earlier secrets; drop those that ended")
    for index, old in enumerate(key.previous):
        at = joined(path, f"previous[{index}]")
        if bool(old.secret) == bool(old.secret_sha256):
            report(at, "needs either secret or secret_sha256")
        elif old.secret and len(old.secret) < MIN_SECRET_LENGTH:
            report(f"{at}.secret", f"shorter than {MIN_SECRET_LENGTH} characters")
        elif old.secret_sha256 and not HASH.match(old.secret_sha256):
            report(f"{at}.secret_sha256", "needs the 64 lower-case hexadecimal digits of a SHA-256")
        elif (old.secret and old.secret == key.secret) or (
            old.secret_sha256 and old.secret_sha256 == key.secret_sha256
        ):
            report(at, "is the key's current secret")


def rotated(key: KeyEntry, secret_sha256: str, overlap_s: int, now: UnixNanos) -> KeyEntry:
    """The key with a new secret. Its old ones go on for `overlap_s` more, or until their own earlier end.

    Secrets that have ended are kept as long as there is room, so that their bearers are told what happened. Raises
    ConfigError if too many are still in their overlap.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise ConfigError(f"must be between 0 and {MAX_OVERLAP_S // 86_400} days", key="overlap")
    end = now + overlap_s * NANOS_PER_SECOND
    old = (*key.previous, PreviousEntry(secret_sha256=key.secret_sha256, until=moment_text(UnixNanos(end))))
    shortened = [
        item if parse_moment(item.until) <= end else structs.replace(item, until=old[-1].until)
        for item in old
    ]
    live = [item for item in shortened if parse_moment(item.until) > now]
    if len(live) > MAX_PREVIOUS:
        raise ConfigError(
            f"{len(live) - 1} earlier secrets are in their overlap still; wait, or shorten it", key="overlap"
        )
    ended = [item for item in shortened if item not in live]
    room = MAX_PREVIOUS - len(live)
    kept = (*(ended[-room:] if room else ()), *live)
    return structs.replace(key, secret_sha256=secret_sha256, previous=kept)


def check_tag(tag: TagEntry, path: str, report: Report) -> None:
    """A tag policy does something, and its default may be had."""
    if not (tag.required or tag.allowed or tag.default) and tag.client_settable:
        report(path, "asks nothing; give required, allowed, client_settable: false or default")
    for index, value in enumerate(tag.allowed):
        if not value or len(value) > MAX_VALUE_LENGTH or "*" in value[:-1]:
            report(
                f"{path}.allowed[{index}]", f"needs 1 to {MAX_VALUE_LENGTH} characters; `*` only at the end"
            )
    if len(tag.default) > MAX_VALUE_LENGTH or "*" in tag.default or tag.default == UNATTRIBUTED:
        report(joined(path, "default"), f"needs a value without `*`, at most {MAX_VALUE_LENGTH} characters")
    elif tag.default and tag.allowed and not any(pattern_matches(item, tag.default) for item in tag.allowed):
        report(joined(path, "default"), "is not one of the allowed values")


def tag_of(entry: TagEntry) -> TagSpec:
    """A tag policy, checked before."""
    return TagSpec(
        entry.name,
        entry.required,
        entry.allowed,
        entry.client_settable,
        entry.scope,
        entry.default,
        entry.shadow,
    )


def algorithms_of(issuer: IssuerEntry) -> tuple[str, ...]:
    """Signatures that are accepted of an issuer's tokens."""
    return issuer.algorithms or (("HS256",) if issuer.secret else ("RS256", "ES256"))


def check_issuer(issuer: IssuerEntry, folder: Path, path: str, report: Report) -> None:
    """An issuer has one source of keys, algorithms that go with it, and claims that fill in what a claim may."""
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        report(path, "tokens need an extra: pip install 'outlay[oidc]'")
    for name in ("issuer", "audience", "key"):
        if not getattr(issuer, name):
            report(joined(path, name), "may not be empty")
    if sum(bool(getattr(issuer, name)) for name in _SOURCES) != 1:
        report(path, f"needs exactly one of {', '.join(_SOURCES)}")
    if issuer.jwks_url:
        _check_url(issuer.jwks_url, joined(path, "jwks_url"), report)
    for name in ("jwks_file", "public_key_file", "ca_file"):
        file: str = getattr(issuer, name)
        if file and not (folder / file).is_file():
            report(joined(path, name), "there is no such file (relative to the folder of this file)")
    if issuer.secret and len(issuer.secret) < MIN_SHARED_SECRET:
        report(joined(path, "secret"), f"shorter than {MIN_SHARED_SECRET} characters")
    known = SYMMETRIC if issuer.secret else ASYMMETRIC
    for algorithm in issuer.algorithms:
        if algorithm not in known:
            # a public key taken for a shared secret lets anyone write tokens: the two kinds never mix
            report(joined(path, "algorithms"), f"{algorithm!r} does not go with it; use {', '.join(known)}")
    for dimension, claim in issuer.claims.items():
        at = joined(path, f"claims.{dimension}")
        is_tag = dimension.startswith(TAGS_PREFIX) and len(dimension) > len(TAGS_PREFIX)
        if not is_tag and dimension not in CLAIMED:
            report(at, f"no claim fills this in; use {', '.join(CLAIMED)} or tags.NAME")
        elif not claim or len(claim) > MAX_VALUE_LENGTH or claim != claim.strip():
            report(at, "needs the name of a claim, such as sub or groups[0]")


def _check_url(url: str, path: str, report: Report) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.fragment or port == 0:
        report(path, "needs an https:// address without user name or fragment")
    elif parts.scheme == "http" and host not in _LOOPBACK:
        report(path, "needs https: who changes the keys on their way can write tokens")
