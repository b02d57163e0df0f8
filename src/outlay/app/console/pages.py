"""The pages as one router: sign-in, the rooms, and the API's operations. Says what a person sees when it goes wrong."""

import asyncio
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from outlay.app.console.approvals_room import add_approvals
from outlay.app.console.budgets_room import add_budgets
from outlay.app.console.desk import Desk
from outlay.app.console.door import PROGRAM_PATHS
from outlay.app.console.overview_room import add_overview
from outlay.app.console.runs_room import add_runs
from outlay.app.console.sessions import COOKIE, SESSION_S, Sessions
from outlay.app.console.web import Web, own_path

WRONG_TOKEN_PAUSE_S: Final = 0.5
"""Guessing is slow; tokens have 16 characters at least."""
MAX_GUESSES: Final = 8
"""Wrong tokens that are waited for at once; past it nobody signs in until some have been answered."""


def add_pages(application: FastAPI, desk: Desk, sessions: Sessions, web: Web) -> None:
    """Every page of the console."""
    router = APIRouter(include_in_schema=False)
    _add_signing(router, desk, sessions, web)
    add_overview(router, desk, web)
    add_budgets(router, desk, web)
    add_approvals(router, desk, web)
    add_runs(router, desk, web)

    @router.get("/docs")
    def docs(request: Request) -> Response:
        return web.page(request, "docs", operations=_operations(application.openapi()))

    application.include_router(router)
    application.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")


def is_page(request: Request) -> bool:
    """Whether a person looks at what went wrong."""
    path = request.url.path
    return (
        not path.startswith(PROGRAM_PATHS)
        and path != "/openapi.json"
        and "x-outlay-have" not in request.headers
    )


def error_page(web: Web, request: Request, status: int, message: str) -> Response:
    """What a person sees of an error."""
    heading = {404: "There is no such thing", 403: "Not yours to do", 503: "Not reachable"}.get(
        status, "Not done"
    )
    return web.page(request, "error", status, heading=heading, message=message)


def _add_signing(router: APIRouter, desk: Desk, sessions: Sessions, web: Web) -> None:
    guesses = asyncio.Semaphore(MAX_GUESSES)

    @router.get("/signin")
    def form(request: Request, next: str = "/") -> Response:
        if request.state.session is not None:
            return RedirectResponse(own_path(next), 303)
        return web.page(request, "signin", next=own_path(next), problem="")

    @router.post("/signin")
    async def sign_in(request: Request) -> Response:
        # a form of nobody's session yet: the door has looked where it comes from
        request.state.session = None
        fields = await web.form(request)
        path = own_path(fields.get("next", "/"))
        section = desk.section()
        opened = sessions.open(section, fields.get("token", "").strip())
        if opened is None:
            async with guesses:
                await asyncio.sleep(WRONG_TOKEN_PAUSE_S)
            request.state.person = None
            return web.page(request, "signin", 401, next=path, problem="That token is not in force.")
        answer = RedirectResponse(path, 303)
        answer.set_cookie(
            COOKIE,
            opened[0],
            max_age=SESSION_S,
            path="/",
            secure=section.address.startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post("/signout")
    async def sign_out(request: Request) -> Response:
        await web.form(request)
        sessions.close(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/signin", 303)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer


def _operations(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (method.upper(), path, operation.get("description") or operation.get("summary", ""))
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
