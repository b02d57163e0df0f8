"""Whose amounts a caller may be told: a line for each kind of budget and caller."""

import pytest

from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.disclosure import may_see
from outlay.flow.gateway.keys import KeySpec, Token, key_of_token
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.windows import parse_window

PLAIN = KeySpec("k", "00" * 32, org="acme", team="search")
NAMED = KeySpec("k", "00" * 32, org="acme", team="search", user="ada", agent="crawler", customer="c1")
TOKEN = key_of_token(KeySpec("k", "00" * 32, org="acme"), Token("k", (("user", "ada"),), 2**62))
assert isinstance(TOKEN, KeySpec)


@pytest.mark.parametrize(
    ("key", "scope", "seen"),
    [
        (PLAIN, {}, False),
        (PLAIN, {"org": "acme"}, False),
        (PLAIN, {"team": "search"}, False),
        (PLAIN, {"team": "*"}, False),
        (PLAIN, {"tag.env": "prod"}, False),
        (PLAIN, {"model": "*"}, False),
        (PLAIN, {"key": "*"}, True),
        (PLAIN, {"key": "k"}, True),
        (PLAIN, {"key": "k*"}, False),
        (PLAIN, {"run": "*"}, True),
        (PLAIN, {"run": "night*"}, False),
        (PLAIN, {"user": "unattributed"}, False),
        (NAMED, {"user": "*"}, True),
        (NAMED, {"user": "ada", "team": "search"}, True),
        (NAMED, {"user": "a*"}, False),
        # anyone can write these headers
        (PLAIN, {"agent": "*"}, False),
        (PLAIN, {"customer": "c9"}, False),
        (PLAIN, {"customer": "*", "org": "acme"}, False),
        (PLAIN, {"agent": "*", "team": "*"}, True),
        (PLAIN, {"agent": "crawler", "team": "search"}, True),
        (PLAIN, {"agent": "craw*", "team": "search"}, False),
        (PLAIN, {"agent": "*", "team": "sea*"}, False),
        (NAMED, {"agent": "*"}, True),
        (NAMED, {"customer": "c1"}, True),
        # a key that tokens stand for is many people's
        (TOKEN, {"key": "*"}, False),
        (TOKEN, {"key": "k", "user": "*"}, True),
        (TOKEN, {"user": "ada"}, True),
    ],
)
def test_every_kind(key: KeySpec, scope: dict[str, str], seen: bool) -> None:
    budget = BudgetSpec("b", scope, 1, parse_window("month"))
    assert may_see(budget, key, Settings()) is seen
    assert may_see(budget, key, Settings(disclose=Disclose.ALL))
