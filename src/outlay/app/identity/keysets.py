"""Public keys of an issuer: read from its source, made ready for each signature that is accepted of it.

Fetching blocks: call it in a thread. A key that is not fit (too short, symmetric, of another curve) is left out.
"""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from outlay.app.config.identity import algorithms_of
from outlay.app.config.tree import IssuerEntry

FETCH_TIMEOUT_S: Final = 5
MAX_SET_BYTES: Final = 512 * 1024
"""Largest key set; the large vendors' are below 10 KB."""
MAX_KEYS: Final = 64
"""Keys of a set that are looked at."""
MIN_RSA_BITS: Final = 2048
"""RFC 7518, section 3.3."""
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class KeysUnavailable(Exception):
    """A source of keys gave none. The message holds no secret."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by id and signature. A token without a key id is checked with the only key there is, if it is one."""

    by_kid: Mapping[str, Mapping[str, Any]]
    """Key id -> algorithm -> key as PyJWT takes it."""
    source: bytes
    """What it was made from: the same source means the same set."""

    def find(self, kid: str | None, algorithm: str) -> Any:
        """The key of an id for a signature; None if there is none."""
        if kid is None:
            only = next(iter(self.by_kid.values())) if len(self.by_kid) == 1 else {}
            return only.get(algorithm)
        return self.by_kid.get(kid, {}).get(algorithm)


class _NoRedirect(HTTPRedirectHandler):
    """The operator named an address; another one is not asked."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


def read_keys(issuer: IssuerEntry, folder: Path) -> KeySet:
    """Keys of an issuer, from wherever it keeps them. Blocks. Raises KeysUnavailable."""
    algorithms = algorithms_of(issuer)
    if issuer.secret:
        key = issuer.secret.encode()
        return KeySet({"": dict.fromkeys(algorithms, key)}, key)
    if issuer.public_key_file:
        data = _read_file(folder / issuer.public_key_file)
        return KeySet({"": _of_pem(data, algorithms)}, data)
    data = (
        _fetch(issuer.jwks_url, issuer.ca_file and str(folder / issuer.ca_file))
        if issuer.jwks_url
        else _read_file(folder / issuer.jwks_file)
    )
    return KeySet(_of_jwks(data, algorithms), data)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_SET_BYTES + 1)
    except OSError as error:
        raise KeysUnavailable(f"cannot read {path.name}: {error.strerror}") from error


def _fetch(url: str, ca_file: str) -> bytes:
    request = Request(url, headers={"accept": "application/json", "user-agent": "outlay"})
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        opener = build_opener(_NoRedirect(), HTTPSHandler(context=context))
        with opener.open(request, timeout=FETCH_TIMEOUT_S) as answer:
            data: bytes = answer.read(MAX_SET_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise KeysUnavailable(f"the key set cannot be fetched: {type(error).__name__}") from error
    return data


def _of_jwks(data: bytes, algorithms: Iterable[str]) -> dict[str, dict[str, Any]]:
    if len(data) > MAX_SET_BYTES:
        raise KeysUnavailable("the key set is too large")
    try:
        listed = msgspec.json.decode(data, type=dict[str, Any]).get("keys")
    except (ValueError, RecursionError) as error:
        raise KeysUnavailable("the key set is not the JSON of one") from error
    found: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(listed[:MAX_KEYS] if isinstance(listed, list) else ()):
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        kid = item.get("kid")
        fit = {algorithm: key for algorithm in algorithms if (key := _of_jwk(item, algorithm)) is not None}
        if fit:
            # one without an id gets a name that no token can state
            found[kid if isinstance(kid, str) else f"\0{index}"] = fit
    if not found:
        raise KeysUnavailable("the key set has no key for the signatures that are accepted")
    return found


def _of_jwk(item: dict[str, Any], algorithm: str) -> Any:
    """A public key for one signature; None if it is not made for it."""
    kind = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}.get(algorithm[:2])
    if item.get("kty") != kind or item.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in item.items() if name not in ("d", "p", "q", "dp", "dq", "qi")}
    try:
        key = PyJWK(public, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    return key if _is_fit(key, algorithm) else None


def _of_pem(data: bytes, algorithms: Iterable[str]) -> dict[str, Any]:
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise KeysUnavailable("the file holds no public key as PEM") from error
    fit = {algorithm: key for algorithm in algorithms if _is_fit(key, algorithm)}
    if not fit:
        raise KeysUnavailable("the public key does not go with the signatures that are accepted")
    return fit


def _is_fit(key: object, algorithm: str) -> bool:
    match key:
        case rsa.RSAPublicKey():
            return algorithm[:2] in ("RS", "PS") and key.key_size >= MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(algorithm) == key.curve.name
        case ed25519.Ed25519PublicKey():
            return algorithm == "EdDSA"
        case _:
            return False
