"""Who is signed in: random cookies, kept here by their digest until they expire. A restart signs everybody out."""

import secrets
import threading
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from outlay.app.config import ConsoleSection
from outlay.app.console.people import Person, find_person, token_digest
from outlay.kernel.clock import NANOS_PER_SECOND, Clock

COOKIE: Final = "outlay_session"
SESSION_S: Final = 12 * 3600
"""A working day; then the token is asked for again."""
IDLE_S: Final = 2 * 3600
"""Without a request for so long it ends. A page that is open asks every few seconds while it is seen."""
MAX_SESSIONS: Final = 1_000
"""Past it the oldest ends: people are few."""
_COOKIE_BYTES: Final = 32


@dataclass(slots=True)
class Session:
    """One browser of one person. Times are monotonic ns."""

    person_name: str
    token: bytes
    """Digest of the token they gave: when it is no longer in force, nor is the session."""
    csrf: str
    """Stands in each form of this session."""
    ends_at: int
    used_at: int
    notices: list[tuple[str, str]] = field(default_factory=list)
    """(kind, text) to show once: `done` or `problem`."""


class Sessions:
    """See the module. May be used from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}

    def open(self, section: ConsoleSection, token: str) -> tuple[str, Person] | None:
        """A cookie for whoever gives a token that is in force."""
        person = find_person(section, token)
        if person is None:
            return None
        cookie = secrets.token_urlsafe(_COOKIE_BYTES)
        now = self._clock.monotonic()
        with self._lock:
            self._drop_old(now)
            while len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[token_digest(cookie)] = Session(
                person.name,
                token_digest(token),
                secrets.token_urlsafe(_COOKIE_BYTES),
                now + SESSION_S * NANOS_PER_SECOND,
                now,
            )
        return cookie, person

    def find(self, section: ConsoleSection, cookie: str) -> tuple[Session, Person] | None:
        """The session of a cookie, and the person as outlay.yaml describes them now."""
        now = self._clock.monotonic()
        with self._lock:
            self._drop_old(now)
            session = self._sessions.get(token_digest(cookie))
            if session is None:
                return None
            session.used_at = now
        person = _person_of(section, session.token)
        if person is None or person.name != session.person_name:
            self.close(cookie)
            return None
        return session, person

    def close(self, cookie: str) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(token_digest(cookie), None)

    def _drop_old(self, now: int) -> None:
        idle = now - IDLE_S * NANOS_PER_SECOND
        for key in [
            key
            for key, session in self._sessions.items()
            if session.ends_at <= now or session.used_at <= idle
        ]:
            del self._sessions[key]


def _person_of(section: ConsoleSection, digest: bytes) -> Person | None:
    for token in (section.admin_token, *(entry.token for entry in section.people)):
        if compare_digest(digest, token_digest(token)):
            return find_person(section, token)
    return None


def is_form_of(session: Session, csrf: str) -> bool:
    """Whether a form was made for this session."""
    return compare_digest(csrf.encode("utf-8", "replace"), session.csrf.encode())
