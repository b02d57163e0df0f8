"""What a hostile or clumsy caller may send, and what it ought to come to, said without asking the gateway's own code.

A `Case` is one request as raw header lines, with the identity that its credentials allow, or the codes that refuse it.
"""

import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests.tokens import claims, ec_key, jwk, rsa_key, token, unsigned

ADA, ADA_OLD, ADA_ENDED = "sk-outlay-of-ada", "sk-outlay-of-ada-before", "sk-outlay-of-ada-long-ago"
BOB, GONE, UNKNOWN = "sk-outlay-of-bob", "sk-outlay-of-gone", "sk-outlay-of-nobody"
RAW_VALUES = ("v1", "ünï", "a,b", "team=ads", "unattributed", "0", "' OR 1=1", '{"a":1}', "x" * 128)
"""Values that a header may have."""
BAD_VALUES = ("a*", "*", "x" * 129, "a\u200bb", "a\u00a0b")
TAGS = ("feature", "env", "cost-center", "free", "team")
FEATURES = ("chat", "rag-1")


@dataclass(slots=True)
class Principal:
    """Who a credential stands for."""

    key: str
    pins: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Case:
    """See the module."""

    headers: list[tuple[str, bytes]]
    query: str
    body: dict[str, Any]
    codes: set[str]
    """Codes of which one refuses it; empty: it passes."""
    who: dict[str, Any]
    """Dimension -> value, `tags` a mapping, of a call that passes."""


A = Principal("ada", {"team": "search", "user": "ada", "agent": "crawler"}, {"env": "prod"})
B = Principal("bob", {"team": "ads", "user": "bob"})


def staff(user: str, team: str = "") -> Principal:
    """Who a token of the staff's issuer stands for."""
    pins = {"environment": "prod", "user": user, **({"team": team} if team else {})}
    return Principal("staff", pins)


def credential(chance: random.Random) -> tuple[str, Principal | str]:
    """A secret or token, and who it stands for, or the code that refuses it."""
    good: list[tuple[str, Principal | str]] = [
        (ADA, A),
        (ADA_OLD, A),
        (BOB, B),
        (token(sub="eve"), staff("eve")),
        (token(ec_key(), "e1", "ES256", sub="mia", groups=["ads"]), staff("mia", "ads")),
        (token(sub="ada", groups=["search"], team="ads", user="root", org="evil"), staff("ada", "search")),
    ]
    bad: list[tuple[str, Principal | str]] = [
        (ADA_ENDED, "key_rotated"),
        (GONE, "key_expired"),
        (UNKNOWN, "key_unknown"),
        (ADA.upper(), "key_unknown"),
        (ADA + "x", "key_unknown"),
        ("staff", "key_unknown"),
        (token(exp=int(time.time()) - 60), "token_expired"),
        (token(nbf=int(time.time()) + 600), "token_not_yet_valid"),
        (token(rsa_key("two"), sub="ada"), "token_invalid"),
        (token(rsa_key("two"), head={"jwk": jwk(rsa_key("two"), "k1")}), "token_invalid"),
        (token(kid="../k1"), "token_key_unknown"),
        (token(kid="k1\0"), "token_key_unknown"),
        (token("x" * 32, algorithm="HS256"), "token_invalid"),
        (unsigned({"alg": "none", "kid": "k1"}, claims(sub="ada")), "token_invalid"),
        (unsigned({"alg": "RS256", "kid": "k1"}, claims(sub="ada"), b"y" * 256), "token_invalid"),
        (token(aud="elsewhere"), "token_invalid"),
        (token(iss="https://login.evil.example/"), "token_invalid"),
        (token(sub="a*"), "claim_invalid"),
        (token(groups=["search", "ads"], sub=["a", "b"]), "claim_ambiguous"),
        (token(environment="dev"), "claim_not_settable"),
    ]
    return chance.choice(good if chance.random() < 0.8 else bad)


def make_case(chance: random.Random) -> Case:
    """One request of any kind."""
    headers: list[tuple[str, bytes]] = []
    codes: set[str] = set()
    who, query = _credentials(chance, headers, codes)
    found: dict[str, Any] = {"tags": {}}
    if who is not None and chance.random() < 0.4:
        # all say the same: what tells callers apart is their credential alone
        headers.append(("x-outlay-tags", b"feature=chat"))
        found |= {"key": who.key, **who.pins, "tags": {"feature": "chat", **who.tags}}
    elif who is not None:
        found |= {"key": who.key, **who.pins}
        for dimension in ("run", "agent", "customer"):
            _say(chance, headers, codes, who, dimension, found)
        _say_tags(chance, headers, codes, who, found)
    _say_nonsense(chance, headers)
    chance.shuffle(headers)
    if chance.random() < 0.3:
        query += (
            chance.choice(("team=ads", "x-outlay-customer=evil", "org=evil&user=root", "tags=env%3Dx")) + "&"
        )
    return Case(headers, query.rstrip("&"), _body(chance), codes, found)


def _credentials(
    chance: random.Random, headers: list[tuple[str, bytes]], codes: set[str]
) -> tuple[Principal | None, str]:
    """One or more credentials in one or more places; the documented order says which one counts."""
    winner: Principal | str | None = None
    query = ""
    places = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    if chance.random() < 0.3:
        secret, stands_for = credential(chance)
        headers.append((_cased(chance, "x-outlay-key"), secret.encode()))
        winner = stands_for
    in_header = False
    if winner is None or chance.random() < 0.5:
        secret, stands_for = credential(chance)
        place = chance.choice(places)
        value = (
            f"{chance.choice(('Bearer', 'bearer', 'BEARER'))} {secret}"
            if place == "authorization"
            else secret
        )
        if chance.random() < 0.85:
            headers.append((_cased(chance, place), value.encode()))
            in_header = True
            winner = winner or stands_for
    if chance.random() < 0.2 or not (in_header or winner):
        secret, stands_for = credential(chance)
        query = f"key={secret}&"
        winner = winner or stands_for
    if isinstance(winner, str):
        codes.add(winner)
        return None, query
    return winner, query


def _cased(chance: random.Random, name: str) -> str:
    return "".join(letter.upper() if chance.random() < 0.3 else letter for letter in name)


def _say(
    chance: random.Random,
    headers: list[tuple[str, bytes]],
    codes: set[str],
    who: Principal,
    dimension: str,
    found: dict[str, Any],
) -> None:
    """A header of one dimension: none, a good value, the pinned one, another's, a bad one, or two."""
    name, pinned = _cased(chance, f"x-outlay-{dimension}"), who.pins.get(dimension, "")
    kind = chance.random()
    if kind < 0.4:
        return
    if kind < 0.85:
        value = pinned if pinned and chance.random() < 0.7 else chance.choice(RAW_VALUES)
        headers.append((name, value.encode()))
        if pinned and value != pinned:
            codes.add("dimension_not_settable")
        found[dimension] = value
        if chance.random() < 0.1:
            headers.append((_cased(chance, name.lower()), value.encode()))
    elif kind < 0.93:
        headers.append((name, chance.choice(BAD_VALUES).encode()))
        codes.add("bad_header")
    elif kind < 0.96:
        headers.append((name, b"\xff\xfe"))
        codes.add("bad_header")
    else:
        headers += [(name, b"one"), (name, b"two")]
        codes.add("bad_header")


def _say_tags(
    chance: random.Random,
    headers: list[tuple[str, bytes]],
    codes: set[str],
    who: Principal,
    found: dict[str, Any],
) -> None:
    said: dict[str, str] = {}
    for tag in TAGS:
        if chance.random() < (0.85 if tag == "feature" else 0.2):
            pinned = who.tags.get(tag, "")
            said[tag] = (
                chance.choice(FEATURES) if tag == "feature" else pinned or chance.choice(("x", "ünï", "7"))
            )
            if chance.random() < 0.08:
                said[tag] = "other"
    wrong: set[str] = set()
    for tag, value in said.items():
        if who.tags.get(tag, value) != value or (tag == "cost-center" and tag not in who.tags):
            wrong.add("tag_not_settable")
        elif tag == "feature" and value not in FEATURES:
            wrong.add("tag_not_allowed")
    if "feature" not in said:
        wrong.add("tag_required")
    form = chance.random()
    if form < 0.45:
        text = ",".join(f" {name} = {value}" for name, value in said.items())
    elif form < 0.9:
        text = json.dumps(said, ensure_ascii=form < 0.7)
    else:
        text = chance.choice(
            ('{"feature": 1}', "feature", "=x", '{"feature":"\\ud800"}', '{"a":{"b":"c"}}', "[")
        )
        wrong = {"bad_header"}
    codes |= wrong
    if text:
        headers.append((_cased(chance, "x-outlay-tags"), text.encode()))
    found["tags"] = {**said, **who.tags}


def _say_nonsense(chance: random.Random, headers: list[tuple[str, bytes]]) -> None:
    """Headers that look as if they said who calls, and say nothing here."""
    for name in ("org", "team", "user", "project", "environment", "identity", "scope", "budget", "admin"):
        if chance.random() < 0.1:
            headers.append((_cased(chance, f"x-outlay-{name}"), b"evil"))
    for name, value in (
        ("x-forwarded-user", b"root"),
        ("openai-organization", b"evil"),
        ("x-outlay_customer", b"evil"),
        ("x-litellm-customer-id", b"evil"),
        ("cookie", b"x-outlay-key=" + BOB.encode()),
        ("proxy-authorization", b"Bearer " + BOB.encode()),
    ):
        if chance.random() < 0.1:
            headers.append((name, value))


def _body(chance: random.Random) -> dict[str, Any]:
    """Fields of a body that other gateways take for an identity."""
    found: dict[str, Any] = {}
    if chance.random() < 0.4:
        found["user"] = chance.choice(("bob", "root", BOB))
    if chance.random() < 0.3:
        found["safety_identifier"] = "bob"
    if chance.random() < 0.4:
        found["metadata"] = {"user_id": "bob", "x-outlay-customer": "evil", "team": "ads", "tags": "env=evil"}
    return found
