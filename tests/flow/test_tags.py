"""Tag policies and pinned values: a line for each case, with what a call is booked under or why it is refused."""

from collections.abc import Mapping

import pytest

from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.scope import Identity
from outlay.flow.tags import TagRules, TagSpec, judge_tags

WHO = Identity(org="acme", team="search", model="m", provider="p")
REQUIRED = TagSpec("feature", required=True, allowed=("chat", "rag-*"))
PINNED_ONLY = TagSpec("cost-center", client_settable=False)
OF_SEARCH = TagSpec("env", required=True, scope={"team": "search"})
OF_ADS = TagSpec("env", required=True, scope={"team": "ads"})
WITH_DEFAULT = TagSpec("env", required=True, allowed=("dev", "prod"), default="dev")
SHADOWED = TagSpec("feature", required=True, allowed=("chat",), shadow=True)


@pytest.mark.parametrize(
    ("specs", "said", "pinned", "tags", "refused"),
    [
        ((), {"a": "1"}, {}, {"a": "1"}, None),
        ((), {"a": "1"}, {"a": "1"}, {"a": "1"}, None),
        ((), {"a": "2"}, {"a": "1"}, {"a": "1"}, ("tag_not_settable", "a")),
        ((), {"a": ""}, {"a": "1"}, {"a": "1"}, None),
        ((), {"a": ""}, {}, {}, None),
        ((REQUIRED,), {}, {}, {}, ("tag_required", "feature")),
        # the operator's own word that a key is nobody's
        ((WITH_DEFAULT,), {}, {"env": "unattributed"}, {"env": "unattributed"}, None),
        ((REQUIRED,), {"feature": ""}, {}, {}, ("tag_required", "feature")),
        ((REQUIRED,), {"feature": "chat"}, {}, {"feature": "chat"}, None),
        ((REQUIRED,), {"feature": "rag-2"}, {}, {"feature": "rag-2"}, None),
        ((REQUIRED,), {"feature": "Chat"}, {}, {"feature": "Chat"}, ("tag_not_allowed", "feature")),
        (
            (REQUIRED,),
            {"feature": "unattributed"},
            {},
            {"feature": "unattributed"},
            ("tag_not_allowed", "feature"),
        ),
        ((OF_SEARCH,), {"env": "unattributed"}, {}, {"env": "unattributed"}, ("tag_required", "env")),
        ((REQUIRED,), {}, {"feature": "odd"}, {"feature": "odd"}, None),
        ((PINNED_ONLY,), {}, {}, {}, None),
        ((PINNED_ONLY,), {"cost-center": "7"}, {}, {"cost-center": "7"}, ("tag_not_settable", "cost-center")),
        ((PINNED_ONLY,), {"cost-center": "7"}, {"cost-center": "7"}, {"cost-center": "7"}, None),
        (
            (PINNED_ONLY,),
            {"cost-center": "8"},
            {"cost-center": "7"},
            {"cost-center": "7"},
            ("tag_not_settable", "cost-center"),
        ),
        ((OF_SEARCH,), {}, {}, {}, ("tag_required", "env")),
        ((OF_ADS,), {}, {}, {}, None),
        ((WITH_DEFAULT,), {}, {}, {"env": "dev"}, None),
        ((WITH_DEFAULT,), {"env": "prod"}, {}, {"env": "prod"}, None),
        ((WITH_DEFAULT,), {"env": "qa"}, {}, {"env": "qa"}, ("tag_not_allowed", "env")),
    ],
)
def test_every_case(
    specs: tuple[TagSpec, ...],
    said: Mapping[str, str],
    pinned: Mapping[str, str],
    tags: Mapping[str, str],
    refused: tuple[str, str] | None,
) -> None:
    found = judge_tags(TagRules(specs), said, pinned, WHO)
    assert dict(found.tags) == tags
    assert (found.refused and (found.refused.code, found.refused.tag)) == refused
    assert found.recorded is None
    # a gateway in shadow mode refuses nothing, and records the same
    shadow = judge_tags(TagRules(specs, is_shadow=True), said, pinned, WHO)
    assert shadow.tags == found.tags
    assert (shadow.refused, shadow.recorded) == (None, found.refused)


def test_one_policy_in_shadow_hides_no_other() -> None:
    found = judge_tags(TagRules((SHADOWED, OF_SEARCH)), {"feature": "x"}, {}, WHO)
    assert found.recorded is not None and found.refused is not None
    assert (found.recorded.code, found.refused.tag) == ("tag_not_allowed", "env")


KEY = KeySpec("k", "00" * 32, org="acme", team="search", agent="crawler", customer="c1", tags={"env": "prod"})
RULES = TagRules((REQUIRED, PINNED_ONLY))


@pytest.mark.parametrize(
    ("headers", "status", "code", "named"),
    [
        (
            [("x-outlay-agent", "other"), ("x-outlay-tags", "feature=chat")],
            403,
            "dimension_not_settable",
            "agent",
        ),
        (
            [("x-outlay-customer", "c2"), ("x-outlay-tags", "feature=chat")],
            403,
            "dimension_not_settable",
            "customer",
        ),
        ([("x-outlay-tags", "env=dev,feature=chat")], 403, "tag_not_settable", "'env'"),
        ([("x-outlay-tags", "cost-center=7,feature=chat")], 403, "tag_not_settable", "'cost-center'"),
        ([("x-outlay-tags", "feature=x")], 400, "tag_not_allowed", "chat, rag-*"),
        ([], 400, "tag_required", "'feature'"),
        ([("x-outlay-tags", '{"feature":"\\ud800"}')], 400, "bad_header", "x-outlay-tags"),
        ([("x-outlay-run", "a"), ("x-outlay-run", "b")], 400, "bad_header", "x-outlay-run is given twice"),
        ([("x-outlay-key", "a"), ("x-outlay-key", "b")], 400, "bad_header", "x-outlay-key is given twice"),
        (
            [("x-outlay-tags", "a=1"), ("x-outlay-tags", "a=2")],
            400,
            "bad_header",
            "x-outlay-tags is given twice",
        ),
    ],
)
def test_what_a_client_is_told(headers: list[tuple[str, str]], status: int, code: str, named: str) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    found = Caller(raw).identity(KEY, "p", "m", "", RULES)
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (status, code)
    assert named in found.message


def test_what_is_pinned_may_be_repeated() -> None:
    raw = [
        (b"x-outlay-agent", b"crawler"),
        (b"x-outlay-customer", b"c1"),
        (b"x-outlay-customer", b"c1"),
        (b"x-outlay-tags", b"env=prod,feature=chat"),
    ]
    found = Caller(raw).identity(KEY, "p", "m", "", RULES)
    assert isinstance(found, Identity)
    assert (found.agent, found.customer, found.tags) == (
        "crawler",
        "c1",
        (("env", "prod"), ("feature", "chat")),
    )


def test_shadow_mode_books_the_pinned_values_and_says_so() -> None:
    caller = Caller([(b"x-outlay-agent", b"other"), (b"x-outlay-tags", b"env=dev")])
    rules = TagRules((REQUIRED,), is_shadow=True)
    found = caller.identity(KEY, "p", "m", "", rules)
    assert isinstance(found, Identity)
    assert (found.agent, found.tags) == ("crawler", (("env", "prod"),))
    assert caller.recorded(KEY, found, rules) == "dimension_not_settable: agent"
    assert Caller([]).recorded(KEY, found, rules) == "tag_required: feature"
