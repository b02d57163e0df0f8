"""Who may come in: everything but the open paths needs a token or a session, before a byte of the body is read.

A program gives its token as Bearer with each call. A browser gives it once, at `/signin`, and has a cookie from then
on; what a cookie may change it may change from this console's own pages only.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outlay.app.config import ConsoleSection
from outlay.app.console.people import Person, find_person
from outlay.app.console.sessions import COOKIE, Session, Sessions, is_form_of

MAX_BODY: Final = 33 * 1024 * 1024
"""A quoted request body is the largest: the gateway takes 32 MiB by default."""
OPEN_PATHS: Final = frozenset({"/healthz", "/docs", "/openapi.json", "/signin"})
STATIC: Final = "/static/"
PROGRAM_PATHS: Final = ("/api/", "/metrics")
"""Here a refusal is JSON; elsewhere a person is sent to the sign-in page."""
CSRF_HEADER: Final = "x-outlay-csrf"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline: text that a caller chose can become neither script nor style."""
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", POLICY.encode()),
)
NOT_KEPT: Final = (b"cache-control", b"no-store")
"""On every answer but the static files: a new key's secret is in one."""


class Door:
    """ASGI middleware; see the module. `section` is asked each time: the file may change it."""

    def __init__(self, app: ASGIApp, section: Callable[[], ConsoleSection], sessions: Sessions) -> None:
        self._app = app
        self._section = section
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in, or answer 303, 401, 403 or 413."""
        if scope["type"] != "http":
            return
        is_static = scope["path"].startswith(STATIC)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = HEADERS if is_static else (*HEADERS, NOT_KEPT)
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise HTTPException(413, f"the body has more than {MAX_BODY} bytes")
            return message

        refusal = None if is_static else self._admit(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, receive_bounded, send_with_headers)

    def _admit(self, scope: Scope) -> Response | None:
        """None and the person in the scope's state, or why not."""
        path, method = scope["path"], scope["method"]
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        section = self._section()
        person: Person | None = None
        session: Session | None = None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            person = find_person(section, given.strip())
        elif cookie := HTTPConnection(scope).cookies.get(COOKIE):
            found = self._sessions.find(section, cookie)
            if found is not None:
                session, person = found
        state["person"], state["session"] = person, session
        is_safe = method in ("GET", "HEAD")
        if person is None and path not in OPEN_PATHS:
            return _unknown(scope)
        if not is_safe and (session is not None or path in OPEN_PATHS) and not _is_same_origin(headers):
            return error_answer(403, "cross_origin", "this may be sent from the console's own pages only")
        if person is None or path in OPEN_PATHS:
            return None
        # a page's form carries the same value as a field, which its route looks at
        is_call = session is not None and not is_safe and path.startswith(PROGRAM_PATHS)
        if is_call and session is not None and not is_form_of(session, headers.get(CSRF_HEADER, "")):
            return error_answer(403, "csrf", f"give the session's value as {CSRF_HEADER}")
        if not person.may_send(method, path):
            return error_answer(403, "forbidden", f"a {person.role.value} may not do this")
        return None


def _unknown(scope: Scope) -> Response:
    if scope["path"].startswith(PROGRAM_PATHS) or scope["method"] not in ("GET", "HEAD"):
        refusal = error_answer(401, "unauthorized", "give console.admin_token as Authorization: Bearer")
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"/signin?next={quote(wanted, safe='')}", 303)


def _is_same_origin(headers: Headers) -> bool:
    """Browsers say where a request comes from; one that says nothing is refused."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    return origin is not None and urlsplit(origin).netloc == headers.get("host", "")


def person_of(request: Request) -> Person:
    """Who sends a request that the door let in."""
    found: Person = request.state.person
    return found


def error_answer(status: int, code: str, message: str, key: str | None = None) -> JSONResponse:
    """An error in the console's one shape."""
    return JSONResponse({"error": {"code": code, "message": message, "key": key}}, status)
