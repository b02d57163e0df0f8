"""Every nano-dollar lands in exactly one value of each dimension and tag, whatever keys, tokens and headers say."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store_contract.bench import Bench, budget

from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.keys import KeySpec, Token, Unreadable, key_of_token
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.charge import Basis
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.scope import DIMENSIONS, TAG_PREFIX, UNATTRIBUTED, Identity, scope_text
from outlay.flow.tags import TagRules, TagSpec

NAMES = ["", "a", "b", "unattributed", "a,b=c", 'q"uote', "ünï", "all", "tag.x", "team=a"]
PINNED = ("team", "project", "user", "agent", "workload", "deployment", "environment", "customer")
TAGS = ("x", "y", "team", "a=b", "tag.x")
RULES = TagRules((TagSpec("y", default="filled", scope={"team": "a"}), TagSpec("x", client_settable=False)))

names = st.sampled_from(NAMES)
tags = st.dictionaries(st.sampled_from(TAGS), st.sampled_from(NAMES[1:]), max_size=3)
keys = st.builds(
    lambda pins, tags, name: KeySpec(name, "00" * 32, org="acme", tags=tags, **pins),
    st.dictionaries(st.sampled_from(PINNED), names, max_size=4),
    tags,
    st.sampled_from(["k1", "k2", "k,3"]),
)
tokens = st.none() | st.dictionaries(
    st.sampled_from([*PINNED, "tag.x", "tag.team"]), st.sampled_from(NAMES[1:]), max_size=3
).map(lambda said: Token("k", tuple(sorted(said.items())), 2**62))


@st.composite
def headers(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    found = []
    for name in ("run", "agent", "customer"):
        if draw(st.booleans()):
            found.append(
                (f"x-outlay-{name}".encode(), draw(names | st.text(max_size=5)).encode("utf-8", "replace"))
            )
    said = draw(tags)
    if said:
        found.append((b"x-outlay-tags", msgspec.json.encode(said)))
    return found


calls = st.tuples(
    keys, tokens, headers(), st.booleans(), st.sampled_from(["m1", "M1", "m2"]), st.integers(0, 10**12)
)


def identity_of(call: object) -> Identity | None:
    key, token, said, is_shadow, model, _ = call  # type: ignore[misc]
    found = key if token is None else key_of_token(key, token)
    if isinstance(found, Unreadable):
        return None
    rules = TagRules(RULES.specs, is_shadow)
    identity = Caller(said).identity(found, "p", model, "", rules)
    if isinstance(identity, Refusal):
        return None
    # what a key or a token says is what is booked, whatever the headers were
    for dimension in PINNED:
        pinned = getattr(found, dimension)
        assert not pinned or getattr(identity, dimension) == pinned
    assert (identity.org, identity.key) == (key.org, key.name)
    assert set(found.tags.items()) <= set(identity.tags)
    return identity


@settings(max_examples=60, deadline=None)
@given(st.lists(calls, min_size=1, max_size=12))
def test_sums_by_value_are_the_total(made: list[tuple[object, ...]]) -> None:
    groups = [*DIMENSIONS, *(TAG_PREFIX + name for name in TAGS)]
    each = [budget(f"each-{name}", None, **{name: "*"}) for name in groups]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench("sqlite", Path(folder), each)
        booked: list[tuple[Identity, int]] = []
        for call in made:
            identity, nanos = identity_of(call), call[-1]
            assert isinstance(nanos, int)
            if identity is None:
                continue
            bench.settle(bench.hold(nanos, identity), nanos, Basis.METERED)
            booked.append((identity, nanos))
        bench.timers.run()
        total = sum(nanos for _, nanos in booked)
        if booked:
            assert audit(bench.path).findings == ()
            assert audit(bench.path).spend_nanos == total
        with LedgerReader(bench.path) as reader:
            for name in groups:
                rows = reader.spend([name])
                values = [row.group[name] for row in rows]
                assert len(set(values)) == len(values)
                assert sum(row.cost_nanos for row in rows) == total
                assert sum(row.charges for row in rows) == len(booked)
                expected: dict[str, int] = {}
                for identity, nanos in booked:
                    value = identity.value(name) or UNATTRIBUTED
                    expected[value] = expected.get(value, 0) + nanos
                assert {row.group[name]: row.cost_nanos for row in rows} == expected
            # and one account of each value, which no other value's money reaches
            for name in groups:
                folded: dict[str, int] = {}
                for identity, nanos in booked:
                    value = identity.value(name)
                    value = value.lower() if name == "model" else value
                    if value and nanos:
                        scope = scope_text(((name, value),))
                        folded[scope] = folded.get(scope, 0) + nanos
                found = {
                    account.scope: account.spent_nanos
                    for account in reader.accounts(bench.clock.now(), budget=f"each-{name}")
                    if account.spent_nanos
                }
                if name != "run":
                    assert found == folded, name
                assert sum(found.values()) == sum(folded.values()), name
        bench.books.close()
