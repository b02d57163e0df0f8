"""Tokens as identity: what a good one says, and every way in which a bad one does not open the door."""

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from outlay.app.config.tree import IssuerEntry
from outlay.app.identity.claims import values_of
from outlay.app.identity.door import MAX_REMEMBERED, Door
from outlay.app.identity.keeper import UNKNOWN_S, Keeper
from outlay.app.identity.keysets import KeySet, KeysUnavailable, read_keys
from outlay.flow.gateway.keys import KeySpec, Token, Tokens, Unreadable, key_of_token, looks_like_token
from outlay.flow.scope import Identity
from outlay.kernel.clock import NANOS_PER_SECOND, ManualClock
from tests.tokens import (
    AUDIENCE,
    ISSUER,
    claims,
    ec_key,
    jwk,
    jwks,
    key_server,
    public_pem,
    rsa_key,
    token,
    unsigned,
)

NOW = time.time_ns()
"""For what is not read off a token."""
CLAIMS = {"user": "sub", "team": "groups[0]", "tags.tier": "realm.tier"}
SECRET = "a-shared-secret-of-32-characters!"


def issuer(**changes: Any) -> IssuerEntry:
    base: dict[str, Any] = {
        "name": "sso",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "key": "staff",
        "jwks_file": "keys.json",
        "claims": CLAIMS,
    }
    return IssuerEntry(**{**base, **changes})


def door(folder: Path, entry: IssuerEntry | None = None, data: bytes | None = None) -> Door:
    entry = entry or issuer()
    (folder / "keys.json").write_bytes(data or jwks(jwk(rsa_key(), "k1"), jwk(ec_key(), "e1")))
    return Door([entry], {entry.name: read_keys(entry, folder)}, lambda _name: None)


def read(found: Door, text: str) -> str | tuple[tuple[str, str], ...]:
    """What a token says, or the code of why not."""
    result = found.read(text.encode(), time.time_ns())
    if isinstance(result, Unreadable):
        return result.code
    return tuple((dimension, value) for dimension, value in result.values if value)


def test_good_ones(tmp_path: Path) -> None:
    found = door(tmp_path)
    ada = (("user", "ada"),)
    assert read(found, token()) == ada
    assert read(found, token(ec_key(), "e1", "ES256")) == ada
    assert read(found, token(aud=["other", AUDIENCE])) == ada
    assert read(found, token(groups=["search", "ads"], realm={"tier": "gold"})) == (
        ("tag.tier", "gold"),
        ("team", "search"),
        ("user", "ada"),
    )
    assert read(found, token(sub=42)) == (("user", "42"),)
    assert read(found, token(sub=None)) == ()
    ends = int(time.time()) + 77
    read_one = found.read(token(exp=ends).encode(), time.time_ns())
    assert isinstance(read_one, Token)
    assert (read_one.key, read_one.expires_at) == ("staff", ends * NANOS_PER_SECOND)


def forged_with_public_key() -> str:
    """The old trick: the public key taken for a shared secret."""
    head, body = {"alg": "HS256", "kid": "k1"}, claims()
    text = unsigned(head, body).rstrip(".")
    sign = hmac.new(public_pem(rsa_key()), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(sign).decode().rstrip('=')}"


def with_payload_changed() -> str:
    head, body, signature = token().split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**said, "sub": "root"}).encode()).decode().rstrip("=")
    return f"{head}.{other}.{signature}"


BAD: list[tuple[str, str]] = [
    (unsigned({"alg": "none"}, claims()), "token_invalid"),
    (unsigned({"alg": "None", "kid": "k1"}, claims()), "token_invalid"),
    (unsigned({"alg": "", "kid": "k1"}, claims()), "token_invalid"),
    (unsigned({"kid": "k1"}, claims()), "token_invalid"),
    (unsigned({"alg": ["RS256"], "kid": "k1"}, claims()), "token_invalid"),
    (unsigned({"alg": "RS256", "kid": "k1"}, claims()), "token_invalid"),
    (unsigned({"alg": "RS256", "kid": "k1"}, claims(), b"x" * 256), "token_invalid"),
    (unsigned(b'{"alg":"RS256","alg":"none","kid":"k1"}', claims()), "token_invalid"),
    (unsigned(b"[" * 100_000, claims()), "token_invalid"),
    (unsigned({"alg": "RS256", "kid": "k1"}, b'{"iss":"' + b"\xff" + b'"}'), "token_invalid"),
    (unsigned({"alg": "RS256", "kid": "k1"}, [1]), "token_invalid"),
    ("eyJ.eyJ.eyJ", "token_invalid"),
    ("eyJ\u00e9.eyJ.eyJ", "token_invalid"),
    (forged_with_public_key(), "token_invalid"),
    (with_payload_changed(), "token_invalid"),
    (token(rsa_key("two")), "token_invalid"),
    (token(ec_key(), "k1", "ES256"), "token_key_unknown"),
    (token(algorithm="RS512"), "token_invalid"),
    (token(algorithm="PS256"), "token_invalid"),
    (token(kid="k2"), "token_key_unknown"),
    (token(kid="../../etc/passwd"), "token_key_unknown"),
    (token(kid="k1' OR '1'='1"), "token_key_unknown"),
    (token(kid=""), "token_key_unknown"),
    (token(kid="\0" + "0"), "token_key_unknown"),
    (token(kid=None), "token_key_unknown"),
    (token(head={"crit": ["exp"]}), "token_invalid"),
    (token(rsa_key("two"), head={"jwk": jwk(rsa_key("two"), "k1")}), "token_invalid"),
    (
        token(rsa_key("two"), head={"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/"}),
        "token_invalid",
    ),
    (token(exp=int(time.time()) - 1), "token_expired"),
    (token(exp=None), "token_invalid"),
    (token(exp="soon"), "token_invalid"),
    (token(exp=True), "token_invalid"),
    (token(exp=10**30), "token_invalid"),
    (token(exp=-5), "token_invalid"),
    (token(exp=float("nan")), "token_invalid"),
    (token(nbf=int(time.time()) + 3600), "token_not_yet_valid"),
    (token(nbf="x"), "token_invalid"),
    (token(iat=int(time.time()) + 3600), "token_not_yet_valid"),
    (token(iss="https://login.acme.example"), "token_invalid"),
    (token(iss=None), "token_invalid"),
    (token(iss=[ISSUER]), "token_invalid"),
    (token(aud="other"), "token_invalid"),
    (token(aud=None), "token_invalid"),
    (token(aud=[]), "token_invalid"),
    (token(groups="a*"), "claim_invalid"),
    (token(sub="a\nb"), "claim_invalid"),
    (token(sub="x" * 129), "claim_invalid"),
    (token(sub="unattributed"), "claim_invalid"),
    (token(sub=["ada", "bob"]), "claim_ambiguous"),
    (token(groups=[True]), "claim_invalid"),
    (token(groups=[{"a": 1}]), "claim_invalid"),
]


@pytest.mark.parametrize(("text", "code"), BAD, ids=range(len(BAD)))
def test_bad_ones(text: str, code: str, tmp_path: Path) -> None:
    assert read(door(tmp_path), text) == code


def test_a_key_that_the_token_brings_is_ignored(tmp_path: Path) -> None:
    """The issuer's signature is what counts: as `docs/identity.md` says, and no address in it is looked up."""
    head = {"jwk": jwk(rsa_key("two"), "k1"), "jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/"}
    assert read(door(tmp_path), token(head=head)) == (("user", "ada"),)
    assert read(door(tmp_path), token(rsa_key("two"), head=head)) == "token_invalid"


def test_other_sources_of_keys(tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_bytes(public_pem(ec_key()))
    pem = door(tmp_path, issuer(jwks_file="", public_key_file="public.pem"))
    assert read(pem, token(ec_key(), None, "ES256")) == (("user", "ada"),)
    assert read(pem, token(ec_key(), "whatever", "ES256")) == (("user", "ada"),)
    assert read(pem, token()) == "token_key_unknown"
    shared = door(tmp_path, issuer(jwks_file="", secret=SECRET))
    assert read(shared, token(SECRET, None, "HS256")) == (("user", "ada"),)
    assert read(shared, token(SECRET + "x", None, "HS256")) == "token_invalid"
    assert read(shared, token()) == "token_invalid"


def test_a_token_without_a_key_id_takes_the_only_key(tmp_path: Path) -> None:
    assert read(door(tmp_path, data=jwks(jwk(rsa_key(), "k1"))), token(kid=None)) == (("user", "ada"),)


def test_age_is_limited_if_the_operator_says_so(tmp_path: Path) -> None:
    found = door(tmp_path, issuer(max_age_s=300))
    now = int(time.time())
    assert read(found, token(iat=now - 200, exp=now + 9_000)) == (("user", "ada"),)
    assert read(found, token(iat=now - 301, exp=now + 9_000)) == "token_expired"
    assert read(found, token(iat=None)) == "token_invalid"


def test_two_audiences_of_one_issuer_stand_for_two_keys(tmp_path: Path) -> None:
    entries = [issuer(), issuer(name="ci", audience="outlay-ci", key="robots")]
    (tmp_path / "keys.json").write_bytes(jwks(jwk(rsa_key(), "k1")))
    found = Door(entries, {entry.name: read_keys(entry, tmp_path) for entry in entries}, lambda _name: None)
    for audience, key in ((AUDIENCE, "staff"), ("outlay-ci", "robots")):
        result = found.read(token(aud=audience).encode(), time.time_ns())
        assert isinstance(result, Token)
        assert result.key == key


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "k1"}],
        [jwk(rsa_key("short", 1024), "k1")],
        [jwk(rsa_key(), "k1", use="enc")],
        [jwk(rsa_key(), "k1", alg="RS512")],
        [jwk(ec_key(), "k1", crv="P-384")],
        [{"kty": "RSA", "n": "AQAB", "e": "", "kid": "k1"}],
        ["k1", 5, None],
    ],
)
def test_key_sets_without_a_fit_key(entries: list[Any], tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(*entries))
    with pytest.raises(KeysUnavailable):
        read_keys(issuer(), tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 9_999, b"\xff", b'{"keys":{}}', b" " * 600_000])
def test_what_is_no_key_set(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(data)
    with pytest.raises(KeysUnavailable):
        read_keys(issuer(), tmp_path)


def test_a_fetch_follows_nobody_elsewhere(tmp_path: Path) -> None:
    with key_server(jwks(jwk(rsa_key(), "k1"))) as server:
        entry = issuer(jwks_file="", jwks_url=server.url)
        assert isinstance(read_keys(entry, tmp_path), KeySet)
        server.status, server.location = 302, server.url + "/elsewhere"
        with pytest.raises(KeysUnavailable):
            read_keys(entry, tmp_path)
        assert server.asked == 2


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    found = door(tmp_path)
    text = token().encode()
    assert found.read(text, time.time_ns()) is found.read(text, time.time_ns())
    one = found.read(text, time.time_ns())
    assert isinstance(one, Token)
    found._remembered.update({str(number).encode(): one for number in range(MAX_REMEMBERED)})
    found.read(token(sub="bob").encode(), time.time_ns())
    assert len(found._remembered) == 1


@pytest.mark.parametrize(
    ("secret", "is_token"),
    [
        (b"sk-outlay-abc", False),
        (b"eyJ.a", False),
        (b"eyJ.a.b.c", False),
        (b"eyJhbGciOiJ.e.s", True),
        (b"eyJ" + b"a" * 20_000 + b".b.c", False),
    ],
)
def test_what_looks_like_a_token(secret: bytes, is_token: bool) -> None:
    assert looks_like_token(secret) is is_token


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", "ada"),
        ("https://acme.example/team", "search"),
        ("a.b", "flat"),
        ("a.c", "deep"),
        ("list[1]", "two"),
        ("list[9]", None),
        ("one", "only"),
        ("one[0]", "only"),
        ("text[0]", "t"),
        ("text[1]", None),
        ("a.c.d", None),
        ("absent", None),
    ],
)
def test_paths_of_claims(claim: str, value: str | None) -> None:
    said = {
        "sub": "ada",
        "https://acme.example/team": "search",
        "a.b": "flat",
        "a": {"b": "not this", "c": "deep"},
        "list": ["one", "two"],
        "one": ["only"],
        "text": "t",
    }
    assert values_of(said, {"team": claim}) == (("team", value or ""),)
    assert values_of(said, {"agent": claim}) == (() if value is None else (("agent", value),))


def test_claims_fill_in_and_never_override() -> None:
    base = KeySpec("staff", "00" * 32, org="acme", team="search", tags={"env": "prod"}, expires_at=NOW + 9)
    found = key_of_token(
        base, Token("staff", (("tag.env", "prod"), ("team", "search"), ("user", "ada")), NOW + 5)
    )
    assert isinstance(found, KeySpec)
    assert (found.user, found.team, found.tags, found.expires_at, found.ends_as) == (
        "ada",
        "search",
        {"env": "prod"},
        NOW + 5,
        "token_expired",
    )
    assert found.owner == "key:staff/tag.env=prod,team=search,user=ada"
    for values in ((("team", "ads"),), (("tag.env", "dev"),)):
        other = key_of_token(base, Token("staff", values, NOW + 5))
        assert isinstance(other, Unreadable)
        assert (other.status, other.code) == (403, "claim_not_settable")
    later = key_of_token(base, Token("staff", (), NOW + 50))
    assert isinstance(later, KeySpec)
    assert (later.expires_at, later.ends_as) == (NOW + 9, "key_expired")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - pytest's own time limit ends it
        await asyncio.sleep(0.01)


def test_one_bearer_owns_nothing_of_another() -> None:
    base = KeySpec("staff", "00" * 32, org="acme", project="p")
    wanted = {"user": "sub", "project": "project", "agent": "azp"}
    keys = []
    for said in ({"sub": "ada"}, {"sub": "bob"}, {}, {"sub": "ada", "azp": "ci"}):
        values = values_of(said, wanted)
        assert not isinstance(values, Unreadable)
        key = key_of_token(base, Token("staff", values, NOW))
        assert isinstance(key, KeySpec)
        keys.append(key)
    calls = [
        Identity(org="acme", project="p", key="staff", user=user, agent=agent)
        for user, agent in (("ada", "x"), ("bob", ""), ("", ""), ("ada", "ci"))
    ]
    owned = [[key.owns(call) for call in calls] for key in keys]
    assert owned == [
        [True, False, False, True],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
    assert len({key.owner for key in keys}) == 4
    assert all(base.owns(call) for call in calls)
    assert not base.owns(Identity(org="acme", key="other"))


class Published:
    """What a keeper published; `of` waits for the reader of a token to say so."""

    def __init__(self) -> None:
        self.doors: list[Tokens | None] = []
        self.events: list[str] = []

    def log(self, event: str, **_fields: object) -> None:
        self.events.append(event)

    def read(self, text: str) -> str:
        assert self.doors and self.doors[-1] is not None
        found = self.doors[-1].read(text.encode(), time.time_ns())
        return found.code if isinstance(found, Unreadable) else found.key

    async def until(self, text: str, wanted: str) -> None:
        await until(lambda: self.read(text) == wanted)


def test_the_keeper_keeps_the_last_good_keys_and_learns_of_new_ones(tmp_path: Path) -> None:
    async def scene() -> None:
        clock, found = ManualClock(), Published()
        keeper = Keeper(clock, found.doors.append, found.log)
        first, second = token(), token(rsa_key("two"), "k2")
        with key_server(b"nothing yet") as server:
            keeper.configure([issuer(jwks_file="", jwks_url=server.url)], tmp_path)
            task = asyncio.create_task(keeper.run())
            assert found.read(first) == "issuer_unavailable"
            await until(lambda: bool(found.events))
            assert found.events == ["issuer_keys_unavailable"]
            # the next look comes when its time has come
            server.body = jwks(jwk(rsa_key(), "k1"))
            clock.advance(UNKNOWN_S * NANOS_PER_SECOND)
            await found.until(first, "staff")
            assert found.read(second) == "token_key_unknown"
            # a flood of unknown keys asks no more than once in ten seconds
            asked = server.asked
            for number in range(50):
                assert found.read(token(kid=f"x{number}")) == "token_key_unknown"
            await asyncio.sleep(0.1)
            assert server.asked == asked
            server.body = jwks(jwk(rsa_key(), "k1"), jwk(rsa_key("two"), "k2"))
            clock.advance(UNKNOWN_S * NANOS_PER_SECOND)
            await found.until(second, "staff")
            assert server.asked == asked + 1
            # an outage changes nothing
            server.status = 500
            clock.advance(UNKNOWN_S * NANOS_PER_SECOND)
            keeper.unknown("sso")
            await until(lambda: found.events.count("issuer_keys_unavailable") == 2)
            assert (found.read(first), found.read(second)) == ("staff", "staff")
            # a key that was withdrawn opens nothing that it opened before
            server.status, server.body = 200, jwks(jwk(rsa_key("two"), "k2"))
            clock.advance(UNKNOWN_S * NANOS_PER_SECOND)
            keeper.unknown("sso")
            await found.until(first, "token_key_unknown")
            keeper.configure([], tmp_path)
            assert found.doors[-1] is None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scene())


def test_a_gateway_without_issuers_loads_no_verifier() -> None:
    code = "import sys, outlay.app.serve, outlay.app.console.main; print({'jwt', 'cryptography'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


def test_pyjwt_itself_would_accept_what_we_sign() -> None:
    """The fixtures are real tokens: a verifier that knows nothing of ours takes them."""
    said = jwt.decode(token(), rsa_key().public_key(), ["RS256"], audience=AUDIENCE)
    assert said["sub"] == "ada"
