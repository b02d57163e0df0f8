"""The console as an ASGI application: routes, pages and errors put together. Assembly only."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

import outlay
from outlay.app.console.api import api_router
from outlay.app.console.desk import Desk
from outlay.app.console.door import Door, error_answer
from outlay.app.console.health import Health, HealthView
from outlay.app.console.metrics import CONTENT_TYPE, render_metrics
from outlay.app.console.pages import add_pages, error_page, is_page
from outlay.app.console.reading import metrics_reading
from outlay.app.console.sessions import Sessions
from outlay.app.console.web import Web
from outlay.kernel.errors import ConfigError, OutlayError

TITLE = "Outlay console"


def create_application(desk: Desk) -> FastAPI:
    """The application over a desk; nothing is opened until a request comes."""
    # the framework's own docs page loads scripts from elsewhere: ours loads nothing
    application = FastAPI(
        title=TITLE,
        version=outlay.__version__,
        description="Keys, budgets, prices, spend and the ledger of one Outlay gateway. "
        "Amounts are decimal USD text (`_usd`) and whole nano-dollars (`_nanos`).",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    sessions = Sessions(desk.clock)
    web = Web(desk.clock.now)
    application.add_middleware(Door, section=desk.section, sessions=sessions)
    application.include_router(api_router(desk))
    health = Health(desk)

    @application.get("/healthz", tags=["state"])
    async def healthz() -> HealthView:
        """Whether gateway and ledger can be reached. Needs no token; always 200: the console itself lives."""
        return await health.view()

    @application.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Prometheus text; needs a token as Bearer."""
        return Response(render_metrics(metrics_reading(desk)), media_type=CONTENT_TYPE)

    add_pages(application, desk, sessions, web)
    application.add_exception_handler(OutlayError, _Errors(web).own)
    application.add_exception_handler(RequestValidationError, _Errors(web).invalid)
    application.add_exception_handler(HTTPException, _Errors(web).http)
    return application


class _Errors:
    """Errors as JSON for programs, as a page for people."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def own(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, OutlayError)
        key = error.key if isinstance(error, ConfigError) else None
        return self._said(request, error.http_status, error.code, str(error), key)

    async def invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # what was sent is not repeated: it may hold a secret
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:])
        text = f"{key}: {first['msg']}" if key else first["msg"]
        return self._said(request, 422, "request_invalid", text, key or None)

    async def http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(
            error.status_code, "request_invalid"
        )
        answer = self._said(request, error.status_code, code, str(error.detail), None)
        answer.headers.update(error.headers or {})
        return answer

    def _said(self, request: Request, status: int, code: str, text: str, key: str | None) -> Response:
        if is_page(request):
            return error_page(self._web, request, status, text)
        return error_answer(status, code, text, key)
