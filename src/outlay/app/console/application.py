"""The console as an ASGI application: routes, pages and errors put together. Assembly only."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import outlay
from outlay.app.console.api import api_router
from outlay.app.console.desk import Desk
from outlay.app.console.door import Door, error_answer
from outlay.app.console.health import Health, HealthView
from outlay.app.console.metrics import CONTENT_TYPE, render_metrics
from outlay.app.console.pages import docs_page, index_page
from outlay.app.console.reading import metrics_reading
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
    application.add_middleware(Door, admin_token=desk.admin_token)
    application.include_router(api_router(desk))
    health = Health(desk)

    @application.get("/healthz", tags=["state"])
    async def healthz() -> HealthView:
        """Whether gateway and ledger can be reached. Needs no token; always 200: the console itself lives."""
        return await health.view()

    @application.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Prometheus text; needs the admin token as Bearer."""
        return Response(render_metrics(metrics_reading(desk)), media_type=CONTENT_TYPE)

    @application.get("/", include_in_schema=False)
    def index() -> HTMLResponse:
        return HTMLResponse(index_page())

    @application.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(application.openapi()))

    application.add_exception_handler(OutlayError, _own_error)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(HTTPException, _http_error)
    return application


async def _own_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OutlayError)
    return error_answer(
        error.http_status,
        error.code,
        str(error),
        error.key if isinstance(error, ConfigError) else None,
    )


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # what was sent is not repeated: it may hold a secret
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"][1:])
    return error_answer(
        422, "request_invalid", f"{key}: {first['msg']}" if key else first["msg"], key or None
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(
        error.status_code, "request_invalid"
    )
    answer = error_answer(error.status_code, code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer
