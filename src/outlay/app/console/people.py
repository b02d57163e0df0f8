"""Who somebody is to the console, and what they may decide. Pure: no request, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

from outlay.app.config import ConsoleSection, Role
from outlay.kernel.errors import Fault, OutlayError
from outlay.kernel.money import format_usd, usd_to_nanos

ADMIN_NAME: Final = "admin"
_APPROVER_POSTS: Final = ("/api/v1/asks", "/api/v1/raises", "/approvals")
"""What an approver may change: each decision is checked against their scope and amount as well."""
_READS: Final = frozenset({"/api/v1/quote", "/signout"})
"""Paths whose POST changes nothing of Outlay's."""


class Forbidden(OutlayError):
    """The person's role, scope or amount does not cover it."""

    fault = Fault.CALLER
    code = "forbidden"
    http_status = 403


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who gave a token that is in force."""

    name: str
    role: Role
    scope: tuple[tuple[str, str], ...] = ()
    max_raise_nanos: int | None = None

    @property
    def actor(self) -> str:
        """Kept with every change."""
        return f"console:{self.name}"

    def may_send(self, method: str, path: str) -> bool:
        """Whether the role covers a request; decisions are looked at again with their figures."""
        if method in ("GET", "HEAD") or path in _READS or self.role is Role.ADMIN:
            return True
        if self.role is Role.APPROVER:
            return any(path == start or path.startswith(start + "/") for start in _APPROVER_POSTS)
        return False

    @property
    def is_admin(self) -> bool:
        """May do everything."""
        return self.role is Role.ADMIN

    def covers(self, values: Mapping[str, str]) -> bool:
        """Whether an account with these scope values lies in what the person decides about."""
        if self.role is Role.ADMIN:
            return True
        return self.role is Role.APPROVER and all(
            _matches(wanted, values.get(name, "")) for name, wanted in self.scope
        )


def check_decision(person: Person, values: Mapping[str, str], nanos: int, raised: int) -> None:
    """Raises Forbidden unless the person may add `nanos` to an account to which their raises add `raised` now."""
    if not person.covers(values):
        scope = ", ".join(f"{name}={value}" for name, value in person.scope) or "nothing"
        raise Forbidden(f"you decide about {scope}; this is {_words(values)}")
    most = person.max_raise_nanos
    if not person.is_admin and most is not None and raised + nanos > most:
        already = f", and your raises add ${format_usd(raised)} already" if raised else ""
        raise Forbidden(
            f"you may raise by ${format_usd(most)} at most, this is ${format_usd(nanos)}{already}"
        )


def find_person(section: ConsoleSection, token: str) -> Person | None:
    """Whose token it is. Every token is compared, in a time that tells nothing."""
    given = token_digest(token)
    found: Person | None = None
    if compare_digest(given, token_digest(section.admin_token)) and section.admin_token:
        found = Person(ADMIN_NAME, Role.ADMIN)
    for entry in section.people:
        if compare_digest(given, token_digest(entry.token)) and entry.token:
            most = None if entry.max_raise_usd is None else usd_to_nanos(entry.max_raise_usd)
            found = found or Person(entry.name, entry.role, tuple(sorted(entry.scope.items())), most)
    # without the admin's token nothing opens, as the console does not start without one
    return found if section.admin_token else None


def token_digest(token: str) -> bytes:
    """Digests have one length, so comparing them does not tell how long a token is."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def raised_by(person: Person, raises: list[dict[str, Any]], budget: str, values: Mapping[str, str]) -> int:
    """Nanos that a person's raises in force add to accounts of a budget whose scope has these values."""
    return sum(
        item["extra_nanos"]
        for item in raises
        if item["actor"] == person.actor
        and item["budget"] == budget
        and values.items() <= dict(item["values"]).items()
    )


def _matches(wanted: str, value: str) -> bool:
    return value == wanted or (wanted.endswith("*") and bool(value) and value.startswith(wanted[:-1]))


def _words(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "everything"
