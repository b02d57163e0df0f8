"""From the claims of a verified token to dimensions and tags. Pure.

Values are held to the rule of header values: printable, no `*`, of bounded length. Anything else refuses the token: a
value that is dropped would book a call to `unattributed` that its issuer attributed.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from outlay.app.config.identity import CLAIMED, TAGS_PREFIX
from outlay.flow.gateway.caller import clean_text
from outlay.flow.gateway.keys import Unreadable
from outlay.flow.scope import TAG_PREFIX, UNATTRIBUTED

_INDEX: Final = re.compile(r"(.+)\[(\d{1,3})\]\Z")
_ABSENT: Final = object()
_TOKENS_ALONE: Final = frozenset(CLAIMED) - {"agent", "customer"}
"""Dimensions that no client can say."""


def values_of(
    claims: Mapping[str, Any], wanted: Mapping[str, str]
) -> tuple[tuple[str, str], ...] | Unreadable:
    """(dimension or `tag.NAME`, value), sorted; `wanted` maps dimension to claim.

    A claim that is not there leaves "", but of what a client may say itself then.
    """
    found = {dimension: "" for dimension in wanted if dimension in _TOKENS_ALONE}
    for dimension, claim in wanted.items():
        value = _value(claims, claim)
        if value is _ABSENT or value is None or value == "":
            continue
        if isinstance(value, list | tuple):
            if len(value) > 1:
                text = f"The claim {claim!r} names several; the operator must say which one ({claim}[0])."
                return Unreadable("claim_ambiguous", text, 403)
            if not value:
                continue
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, str | int):
            return Unreadable("claim_invalid", f"The claim {claim!r} is no text.", 403)
        clean = clean_text(str(value))
        if not clean or clean == UNATTRIBUTED:
            return Unreadable("claim_invalid", f"The claim {claim!r} holds what no name may hold.", 403)
        name = dimension.removeprefix(TAGS_PREFIX)
        found[dimension if name == dimension else TAG_PREFIX + name] = clean
    return tuple(sorted(found.items()))


def _value(claims: Mapping[str, Any], path: str) -> Any:
    """What a path leads to: a claim of that very name (which may hold dots), else member by member."""
    at, index = path, None
    if match := _INDEX.match(path):
        at, index = match[1], int(match[2])
    found: Any = claims.get(at, _ABSENT)
    if found is _ABSENT:
        found = claims
        for name in at.split("."):
            found = found.get(name, _ABSENT) if isinstance(found, Mapping) else _ABSENT
    if index is None or found is _ABSENT:
        return found
    if not isinstance(found, list):
        return found if index == 0 and isinstance(found, str) else _ABSENT
    return found[index] if index < len(found) else _ABSENT
