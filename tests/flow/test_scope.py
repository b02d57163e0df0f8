"""Which budget covers whom, what a client may say about itself, and which models a scope may call."""

from typing import Any

import pytest

from outlay.flow.budgets import AccessRule, BudgetSpec, budgets_for, model_allowed
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import KeySpec
from outlay.flow.ledger.directory import (
    budget_key,
    decode_identity,
    decode_values,
    encode_identity,
    encode_values,
)
from outlay.flow.scope import DIMENSIONS, Identity, is_dimension, match_scope, scope_text
from outlay.flow.windows import parse_window

ADA = Identity(
    org="acme", team="search", user="ada", model="gpt-5-mini", tags=(("cost", "a"), ("feature", "chat"))
)

MATCHES: list[tuple[dict[str, str], tuple[tuple[str, str], ...] | None]] = [
    ({}, ()),
    ({"org": "acme"}, (("org", "acme"),)),
    ({"org": "other"}, None),
    ({"org": "acm"}, None),
    ({"team": "*"}, (("team", "search"),)),
    ({"agent": "*"}, None),
    ({"agent": "unattributed"}, (("agent", "unattributed"),)),
    ({"team": "unattributed"}, None),
    ({"team": "sea*"}, (("team", "sea*"),)),
    ({"team": "search*"}, (("team", "search*"),)),
    ({"team": "x*"}, None),
    ({"agent": "a*"}, None),
    ({"tag.feature": "chat"}, (("tag.feature", "chat"),)),
    ({"tag.feature": "*"}, (("tag.feature", "chat"),)),
    ({"tag.none": "*"}, None),
    ({"tag.none": "unattributed"}, (("tag.none", "unattributed"),)),
    ({"user": "*", "org": "acme"}, (("org", "acme"), ("user", "ada"))),
    ({"user": "*", "org": "other"}, None),
    ({"model": "gpt-5*", "team": "*"}, (("model", "gpt-5*"), ("team", "search"))),
]


@pytest.mark.parametrize(("scope", "wanted"), MATCHES)
def test_match(scope: dict[str, str], wanted: tuple[tuple[str, str], ...] | None) -> None:
    assert match_scope(scope, ADA) == wanted


def test_budgets_apply_in_the_order_of_declaration() -> None:
    window = parse_window("month")
    budgets = [
        BudgetSpec("a", {"user": "*"}, 1, window),
        BudgetSpec("b", {"team": "ads"}, 1, window),
        BudgetSpec("c", {}, 1, window),
    ]
    applied = budgets_for(budgets, ADA)
    assert [(found.budget.name, scope_text(found.values)) for found in applied] == [
        ("a", "user=ada"),
        ("c", "all"),
    ]


def test_dimensions() -> None:
    assert all(is_dimension(name) for name in DIMENSIONS)
    assert is_dimension("tag.x")
    assert not any(is_dimension(name) for name in ("tag.", "tags", "colour", "", "Team"))


def test_another_scope_or_window_is_another_set_of_accounts() -> None:
    month, week = parse_window("month"), parse_window("week")
    specs = [
        BudgetSpec("x", {"team": "*"}, 1, month),
        BudgetSpec("x", {"user": "*"}, 1, month),
        BudgetSpec("x", {"team": "*"}, 1, week),
        BudgetSpec("x", {"team": "*"}, 1, parse_window("month", "Asia/Tokyo")),
        BudgetSpec("y", {"team": "*"}, 1, month),
    ]
    assert len({budget_key(spec) for spec in specs}) == len(specs)
    assert budget_key(specs[0]) == budget_key(BudgetSpec("x", {"team": "*"}, 99, month, hard=False))
    two = {"team": "*", "user": "*"}
    assert budget_key(BudgetSpec("x", two, 1, month)) == budget_key(
        BudgetSpec("x", dict(reversed(two.items())), 1, month)
    )


@pytest.mark.parametrize(
    "values",
    [
        (("user", "ada"),),
        (("org", "a,b=c"), ("user", 'quote"s')),
        (("user", "ünï\u2028"),),
        (),
        (("user", 'a"],["org","acme'),),
    ],
)
def test_stored_values_come_back_and_are_distinct(values: tuple[tuple[str, str], ...]) -> None:
    assert decode_values(encode_values(values)) == values


def test_stored_identities_come_back() -> None:
    assert decode_identity(encode_identity(ADA)) == ADA
    assert decode_identity(encode_identity(Identity())) == Identity()


# -- what a client says -----------------------------------------------------------------------------------------

PINNED = KeySpec("k", "00" * 32, org="acme", team="search", agent="crawler", tags={"env": "prod"})
FREE = KeySpec("k", "00" * 32, org="acme")


def identity_of(key: KeySpec, **headers: str) -> Identity | Refusal:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Caller(raw).identity(key, "openai", "gpt")


def test_a_client_adds_but_never_overrides() -> None:
    found = identity_of(
        PINNED,
        x_outlay_run="r1",
        x_outlay_agent="crawler",
        x_outlay_customer="c9",
        x_outlay_team="ads",
        x_outlay_org="evil",
        x_outlay_tags="env=prod,feature=x,empty=",
    )
    assert isinstance(found, Identity)
    assert (found.org, found.team, found.agent, found.run, found.customer) == (
        "acme",
        "search",
        "crawler",
        "r1",
        "c9",
    )
    assert found.tags == (("env", "prod"), ("feature", "x"))
    assert (found.provider, found.model, found.key) == ("openai", "gpt", "k")


@pytest.mark.parametrize("tags", ["a=1,b=2", " a = 1 , b=2", '{"b": "2", "a": "1"}'])
def test_tags_in_both_forms(tags: str) -> None:
    found = identity_of(FREE, x_outlay_tags=tags)
    assert isinstance(found, Identity)
    assert found.tags == (("a", "1"), ("b", "2"))


SIXTEEN = ",".join(f"t{number}=v" for number in range(16))


def test_sixteen_tags_and_no_more() -> None:
    assert isinstance(identity_of(FREE, x_outlay_tags=SIXTEEN), Identity)
    assert isinstance(identity_of(FREE, x_outlay_tags=SIXTEEN + ",t16=v"), Refusal)


BAD: list[dict[str, str]] = [
    {"x_outlay_run": "a*"},
    {"x_outlay_run": "*"},
    {"x_outlay_agent": "a\u0007b"},
    {"x_outlay_customer": "a\u200bb"},
    {"x_outlay_customer": "é" * 65},
    {"x_outlay_tags": "a"},
    {"x_outlay_tags": "=1"},
    {"x_outlay_tags": "a=*"},
    {"x_outlay_tags": "a=" + "x" * 129},
    {"x_outlay_tags": '{"a": 1}'},
    {"x_outlay_tags": '{"": "x"}'},
    {"x_outlay_tags": '{"a": "\\n"}'},
]


@pytest.mark.parametrize("headers", BAD)
def test_odd_values_are_refused(headers: dict[str, str]) -> None:
    found = identity_of(FREE, **headers)
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (400, "bad_header")
    assert found.fields["param"] == next(iter(headers)).replace("_", "-")


def test_what_a_key_pins_is_not_even_judged_by_the_header() -> None:
    found = identity_of(FREE, x_outlay_run="ünïcode run 7")
    assert isinstance(found, Identity)
    assert found.run == "ünïcode run 7"


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([(b"authorization", b"Bearer one")], b"one"),
        ([(b"authorization", b"bearer  one ")], b"one"),
        ([(b"authorization", b"Basic one")], b""),
        ([(b"x-api-key", b"two")], b"two"),
        ([(b"authorization", b"Bearer one"), (b"x-api-key", b"two")], b"one"),
        ([(b"authorization", b"Bearer one"), (b"x-outlay-key", b"three")], b"three"),
        ([(b"x-outlay-key", b"three"), (b"authorization", b"Bearer one")], b"three"),
        ([], b""),
    ],
)
def test_where_the_key_stands(headers: list[tuple[bytes, bytes]], secret: bytes) -> None:
    caller = Caller(headers)
    assert caller.secret == secret
    assert caller.forwarded == b""


# -- which models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ([], True),
        ([AccessRule({}, allow=("gpt-5-mini",))], True),
        ([AccessRule({}, allow=("gpt-5",))], False),
        ([AccessRule({}, allow=("gpt-5*",))], True),
        ([AccessRule({}, allow=("claude*",))], False),
        ([AccessRule({"team": "ads"}, allow=("claude*",))], True),
        ([AccessRule({}, deny=("gpt-5*",))], False),
        ([AccessRule({}, allow=("*",), deny=("gpt-5-mini",))], False),
        ([AccessRule({}, allow=("gpt*",)), AccessRule({"team": "search"}, allow=("claude*",))], False),
        ([AccessRule({"user": "*"}, deny=("*",))], False),
    ],
)
def test_access(rules: list[Any], allowed: bool) -> None:
    assert model_allowed(rules, ADA) is allowed
