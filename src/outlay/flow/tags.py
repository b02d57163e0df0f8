"""Tag policies: which tags callers must give, which values these may have, and who may set them. Pure.

A key's pinned tags (and what a verified token says) are the operator's word: policies judge what a client says.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from outlay.flow.budgets import pattern_matches
from outlay.flow.scope import UNATTRIBUTED, Identity, match_scope

NOT_SETTABLE: Final = "tag_not_settable"
NOT_ALLOWED: Final = "tag_not_allowed"
REQUIRED: Final = "tag_required"


class TagSpec(msgspec.Struct, frozen=True):
    """The policy of one tag."""

    name: str
    required: bool = False
    """Calls without it are refused."""
    allowed: tuple[str, ...] = ()
    """Values or `prefix*`; empty allows all."""
    client_settable: bool = True
    """False: only a key (or a token) sets it."""
    scope: Mapping[str, str] = {}
    """Of which callers it is required, and for which the default is filled in."""
    default: str = ""
    """Filled in where nobody sets it."""
    shadow: bool = False
    """Record what would have been refused; refuse nothing."""


class TagRules(msgspec.Struct, frozen=True):
    """All tag policies, and whether the whole gateway only records."""

    specs: tuple[TagSpec, ...] = ()
    is_shadow: bool = False


class TagProblem(msgspec.Struct, frozen=True):
    """Why a call is refused for its tags."""

    code: str
    tag: str
    allowed: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """The tags that a call is booked under, and what is wrong with those it brought."""

    tags: tuple[tuple[str, str], ...]
    refused: TagProblem | None = None
    recorded: TagProblem | None = None
    """Of a policy in shadow mode."""


NO_RULES: Final = TagRules()


def judge_tags(
    rules: TagRules, said: Mapping[str, str], pinned: Mapping[str, str], identity: Identity
) -> Verdict:
    """The tags of a call: what its client said, what its key pins, what policies fill in. `identity` has no tags.

    A client may repeat a pinned value; another one is refused, because to override it in silence would book what the
    client believes to have named elsewhere.
    """
    said = {name: value for name, value in said.items() if value}
    tags = {**said, **pinned}
    problems: list[tuple[bool, TagProblem]] = [
        (rules.is_shadow, TagProblem(NOT_SETTABLE, name))
        for name, value in said.items()
        if pinned.get(name, value) != value
    ]
    if not rules.specs:
        return _verdict(tags, problems)
    identity = msgspec.structs.replace(identity, billing="", tags=tuple(sorted(tags.items())))
    for spec in rules.specs:
        name, is_shadow = spec.name, spec.shadow or rules.is_shadow
        value = said.get(name, "")
        if value and name not in pinned:
            if not spec.client_settable:
                problems.append((is_shadow, TagProblem(NOT_SETTABLE, name)))
            elif spec.allowed and not any(pattern_matches(pattern, value) for pattern in spec.allowed):
                problems.append((is_shadow, TagProblem(NOT_ALLOWED, name, spec.allowed)))
        is_given = pinned.get(name) or (tags.get(name) or UNATTRIBUTED) != UNATTRIBUTED
        if is_given or match_scope(spec.scope, identity) is None:
            continue
        if spec.default:
            tags[name] = spec.default
        elif spec.required:
            problems.append((is_shadow, TagProblem(REQUIRED, name, spec.allowed)))
    return _verdict(tags, problems)


def _verdict(tags: Mapping[str, str], problems: list[tuple[bool, TagProblem]]) -> Verdict:
    return Verdict(
        tuple(sorted(tags.items())),
        next((problem for is_shadow, problem in problems if not is_shadow), None),
        next((problem for is_shadow, problem in problems if is_shadow), None),
    )
