"""Who may come in: everything but the open paths needs the admin token, before a byte of the body is read."""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY: Final = 33 * 1024 * 1024
"""A quoted request body is the largest: the gateway takes 32 MiB by default."""
OPEN_PATHS: Final = frozenset({"/", "/healthz", "/docs", "/openapi.json"})
HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)
"""On every answer: nothing is cached (a new key's secret is in one), nothing is loaded from elsewhere."""


class Door:
    """ASGI middleware; see the module. `admin_token` is asked each time: the file may change it."""

    def __init__(self, app: ASGIApp, admin_token: Callable[[], str]) -> None:
        self._app = app
        self._admin_token = admin_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in, or answer 401 or 413."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        taken = 0

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise HTTPException(413, f"the body has more than {MAX_BODY} bytes")
            return message

        if scope["path"] not in OPEN_PATHS and not self._is_admin(scope):
            refusal = error_answer(401, "unauthorized", "give console.admin_token as Authorization: Bearer")
            refusal.headers["www-authenticate"] = "Bearer"
            await refusal(scope, receive, send_with_headers)
            return
        await self._app(scope, receive_bounded, send_with_headers)

    def _is_admin(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        wanted = self._admin_token()
        # digests have one length, so the comparison tells nothing, not even how long the token is
        same = compare_digest(
            sha256(given.strip().encode("latin-1", "replace")).digest(),
            sha256(wanted.encode("utf-8")).digest(),
        )
        return same and bool(wanted) and scheme.lower() == "bearer"


def error_answer(status: int, code: str, message: str, key: str | None = None) -> JSONResponse:
    """An error in the console's one shape."""
    return JSONResponse({"error": {"code": code, "message": message, "key": key}}, status)
