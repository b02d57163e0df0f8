"""Objects made by CLI or API: the same checks as in the file, one name space with it, and only hashes of secrets."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlay.app.config import (
    Config,
    KeyEntry,
    StoredObject,
    build_snapshot,
    check_object,
    new_secret,
    parse_config,
    secret_hash,
    yaml_owner,
)
from outlay.app.config.tree import BudgetEntry, CustomEntry, DiscountEntry
from outlay.flow.budgets import Origin
from outlay.kernel.clock import UnixNanos
from outlay.kernel.errors import ConfigError, ReadOnlyObject
from outlay.lookup.feed import feed_of
from outlay.lookup.price import ModelPrice

TEXT = """\
org: acme
providers: [{name: openai, api_key: k}]
keys:
  - {name: dev, secret: sk-outlay-0123456789}
budgets:
  - {name: all, limit_usd: 10}
prices:
  - {kind: custom, provider: openai, model: tuned, usd_per_mtok: {input: 1}, valid_from: 2026-01-01}
"""
RATES = {"input": "1.5", "output": "2"}


@pytest.fixture
def config() -> Config:
    return parse_config(TEXT, Path("/x/outlay.yaml"), {})


def body(**fields: Any) -> bytes:
    return msgspec.json.encode(fields)


def stored(config: Config, what: str, name: str, **fields: Any) -> StoredObject:
    entry = check_object(config, what, name, body(**fields))
    return StoredObject(what, name, 1, msgspec.json.encode(entry).decode())


@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [
        ("key", "dev", "outlay.yaml:4"),
        ("budget", "all", "outlay.yaml:6"),
        ("price", "openai/tuned@2026-01-01", "outlay.yaml:8"),
        ("price", "openai/tuned", "outlay.yaml:8"),
    ],
)
def test_what_the_file_declares_is_read_only(config: Config, kind: str, name: str, place: str) -> None:
    assert yaml_owner(config, kind, name) == place
    with pytest.raises(ReadOnlyObject, match=f"{kind} '{name}' is declared in {place}; edit it there"):
        check_object(config, kind, name, b"{}")


@pytest.mark.parametrize(
    ("kind", "name", "fields", "expected"),
    [
        ("budget", "b", {}, "needs limit_usd"),
        ("budget", "b", {"limit_usd": -1}, "limit_usd: '-1' is negative"),
        ("budget", "b", {"limit_usd": float("nan")}, "limit_usd: needs a number, not nothing"),
        ("budget", "b", {"limit_usd": True}, "limit_usd: needs a number, not true or false"),
        ("budget", "b", {"limit_usd": "NaN"}, "limit_usd: 'NaN' is not a finite number"),
        ("budget", "b", {"limit_usd": 1, "windw": "day"}, "windw: unknown key; did you mean window"),
        ("budget", "b", {"limit_usd": 1, "scope": {"teem": "x"}}, "scope.teem: unknown dimension"),
        ("budget", "b", {"limit_usd": 1, "name": "c"}, "name: the body names 'c', the object is 'b'"),
        ("budget", "outlay.run", {"limit_usd": 1}, "name: 'outlay.run' is built in"),
        ("key", "k", {"team": "a"}, "needs a secret that is not empty, or secret_sha256"),
        ("key", "k", {"secret": "short"}, "secret: shorter than 16"),
        ("key", "k", {"secret_sha256": "A" * 64}, "secret_sha256: needs the 64 lower-case"),
        ("price", "openai/m", {"kind": "custom"}, "needs usd_per_mtok"),
        ("price", "openai/m", {"usd_per_mtok": RATES}, "needs kind: one of discount, custom"),
        ("price", "opnai/m", {"kind": "custom", "usd_per_mtok": RATES}, "provider: unknown provider"),
        ("price", "openai/m", {"kind": "custom", "model": "n", "usd_per_mtok": RATES}, "is named 'openai/n'"),
        ("price", "openai/m", {"kind": "custom", "usd_per_mtok": {"output": 1}}, "mtok.input: no price for input"),
        ("team", "t", {}, "unknown kind of object 'team'"),
    ],
)  # fmt: skip
def test_bad_objects_name_the_field(
    config: Config, kind: str, name: str, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_object(config, kind, name, body(**fields))
    assert expected in str(caught.value)
    assert not isinstance(caught.value, ReadOnlyObject)


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"{", b'{"limit_usd": 1, "limit_usd": 2}', b"[" * 100_000, b"\xff"]
)
def test_bodies_that_are_no_object(config: Config, text: bytes) -> None:
    with pytest.raises(ConfigError):
        check_object(config, "budget", "b", text)


def test_a_json_number_keeps_its_digits(config: Config) -> None:
    entry = check_object(config, "budget", "b", b'{"limit_usd": 1234567.890123456}')
    assert isinstance(entry, BudgetEntry)
    assert entry.limit_usd == "1234567.890123456"


def test_of_a_secret_only_the_hash_is_left(config: Config) -> None:
    entry = check_object(config, "key", "k", body(secret="sk-outlay-9876543210", team="a"))
    assert entry == KeyEntry(name="k", secret_sha256=sha256(b"sk-outlay-9876543210").hexdigest(), team="a")
    assert b"9876543210" not in msgspec.json.encode(entry)


def test_prices_take_provider_and_model_from_their_name(config: Config) -> None:
    entry = check_object(config, "price", "openai/org/m", body(kind="custom", usd_per_mtok=RATES))
    assert isinstance(entry, CustomEntry)
    assert (entry.provider, entry.model) == ("openai", "org/m")
    deal = check_object(config, "price", "deal", body(kind="discount", provider="openai", multiplier="0.9"))
    assert isinstance(deal, DiscountEntry)
    assert deal.name == "deal"


def test_stored_objects_join_the_snapshot(config: Config) -> None:
    objects = [
        stored(config, "key", "ci", secret="sk-outlay-9876543210", team="search"),
        stored(config, "budget", "team", limit_usd="2.5", scope={"team": "search"}, window="24h"),
        stored(config, "price", "openai/new", kind="custom", usd_per_mtok=RATES),
    ]
    snapshot = build_snapshot(config, objects, feed_of([]), 1)
    key = snapshot.key_of(b"sk-outlay-9876543210")
    assert key is not None
    assert (key.name, key.org, key.team, key.origin) == ("ci", "acme", "search", Origin.STORE)
    assert [(b.name, b.limit_nanos, b.origin) for b in snapshot.budgets] == [
        ("all", 10_000_000_000, Origin.YAML),
        ("team", 2_500_000_000, Origin.STORE),
    ]
    price = snapshot.book.find("openai", "new", UnixNanos(0))
    assert isinstance(price, ModelPrice)
    assert price.rates.input == 1_500_000_000


def test_the_file_wins_over_an_older_stored_object_of_its_name(config: Config) -> None:
    before = parse_config("providers: [{name: openai}]\n", Path("/x/outlay.yaml"), {})
    older = [
        stored(before, "budget", "all", limit_usd="99"),
        stored(before, "price", "openai/tuned", kind="custom", usd_per_mtok=RATES),
    ]
    snapshot = build_snapshot(config, older, feed_of([]), 1)
    assert [budget.limit_nanos for budget in snapshot.budgets] == [10_000_000_000]
    price = snapshot.book.find("openai", "tuned", UnixNanos(1_800_000_000_000_000_000))
    assert isinstance(price, ModelPrice)
    assert price.rates.input == 1_000_000_000


def test_a_secret_belongs_to_one_key(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"secret: the key in outlay\.yaml:4 has this secret"):
        check_object(config, "key", "other", body(secret="sk-outlay-0123456789"))
    twins = [stored(config, "key", name, secret="sk-outlay-9876543210") for name in ("a", "b")]
    with pytest.raises(ConfigError, match="the keys 'a' and 'b' have one secret"):
        build_snapshot(config, twins, feed_of([]), 1)
    # the file declared the secret later: it decides who the bearer is
    text = TEXT.replace("sk-outlay-0123456789", "sk-outlay-9876543210")
    snapshot = build_snapshot(parse_config(text, Path("/x/outlay.yaml"), {}), twins[:1], feed_of([]), 1)
    assert [key.name for key in snapshot.keys.values()] == ["dev"]


def test_a_stored_object_that_cannot_be_read_is_named(config: Config) -> None:
    with pytest.raises(ConfigError, match="stored budget 'odd'"):
        build_snapshot(config, [StoredObject("budget", "odd", 1, '{"name":"odd"}')], feed_of([]), 1)


def test_new_secrets_differ_and_are_long() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == 50 and secret.startswith("sk-outlay-") for secret in made)
    assert secret_hash("a") == sha256(b"a").hexdigest()
