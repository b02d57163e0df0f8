"""Who spends: the dimensions a nano-dollar is attributed to, and what selects them.

An `Identity` is made once per distinct combination (key, headers, target) and interned; every charge names
exactly one, so each nano-dollar lands in exactly one value of each dimension. Absent is `unattributed`.
"""

from collections.abc import Mapping

import msgspec

DIMENSIONS = (
    "org",
    "team",
    "project",
    "user",
    "key",
    "agent",
    "workload",
    "deployment",
    "environment",
    "customer",
    "run",
    "model",
    "provider",
    "billing",
)
"""Every dimension but tags, in storage order. `model` is the requested name, `provider` the one that bills."""

UNATTRIBUTED = "unattributed"
API_EQUIVALENT = "api_equivalent"
"""`billing` of calls that a client's own subscription paid for, at what the API would have cost."""
BILLED = "billed"
"""`billing` of all others."""
ANY = "*"
"""In a budget's scope: one account for each distinct value."""
TAG_PREFIX = "tag."
MAX_VALUE_LENGTH = 128
"""Longest dimension value: identities are interned, so each is kept."""
MAX_TAGS = 16


class Identity(msgspec.Struct, frozen=True, gc=False):
    """One value per dimension; "" is unattributed. `tags` is sorted (name, value) pairs."""

    org: str = ""
    team: str = ""
    project: str = ""
    user: str = ""
    key: str = ""
    agent: str = ""
    workload: str = ""
    deployment: str = ""
    environment: str = ""
    customer: str = ""
    run: str = ""
    model: str = ""
    provider: str = ""
    billing: str = ""
    """"" is billed."""
    tags: tuple[tuple[str, str], ...] = ()
    model_names: tuple[str, ...] = ()
    """What else the model is called: the provider's name of a routed one, the price book's of a dated one."""

    def value(self, dimension: str) -> str:
        """The value of a dimension or of `tag.NAME`; "" if unattributed."""
        if dimension.startswith(TAG_PREFIX):
            name = dimension[len(TAG_PREFIX) :]
            return next((value for key, value in self.tags if key == name), "")
        if dimension == "billing":
            return self.billing or BILLED
        value: str = getattr(self, dimension)
        return value


def is_dimension(name: str) -> bool:
    """Whether `name` may stand in a scope: a dimension or `tag.NAME`."""
    return name in DIMENSIONS or (name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX))


def match_scope(scope: Mapping[str, str], identity: Identity) -> tuple[tuple[str, str], ...] | None:
    """The account's scope values if `scope` selects `identity`, sorted by dimension; None if it does not.

    An exact value must be equal (`unattributed` selects the absent), `*` takes each value that is present, and a
    value ending in `*` is a prefix; a prefix keeps its pattern as the account's value, so it is one account. A model is
    selected by any of its names, but `*` takes the one that was asked for. A scope
    that does not name `billing` covers what is billed only.
    """
    found = []
    if identity.billing and "billing" not in scope:
        return None
    for dimension, wanted in scope.items():
        value = identity.value(dimension)
        if dimension == "model":
            # a provider may read model names without regard to case: a rule must not miss one that it would serve
            wanted, value = wanted.lower(), value.lower()
            names = (value, *(name.lower() for name in identity.model_names))
        else:
            names = (value,)
        if wanted == ANY:
            if not value:
                return None
            found.append((dimension, value))
        elif any(_is_selected(wanted, name) for name in names) or (wanted == UNATTRIBUTED and not value):
            found.append((dimension, wanted))
        else:
            return None
    if "run" in scope:
        # anyone can guess a run's name: the account is of this run of this team
        found += [
            (name, identity.value(name) or UNATTRIBUTED) for name in ("org", "team") if name not in scope
        ]
    return tuple(sorted(found))


def _is_selected(wanted: str, value: str) -> bool:
    return wanted == value or (wanted.endswith(ANY) and value.startswith(wanted[:-1]) and bool(value))


def scope_text(values: tuple[tuple[str, str], ...]) -> str:
    """`team=search,user=ada` as shown to people and stored; `all` for the empty scope. Different scopes differ: what
    could be taken for the text around it stands in quotes (clients name runs, agents and customers)."""
    return ",".join(f"{_quoted(name)}={_quoted(value)}" for name, value in values) or "all"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode() if any(sign in text for sign in ',="') else text
