"""How a room becomes a page: parts that are sent again only when they changed, tables as files, forms that are checked.

A page asks for itself every few seconds with the digests of what it shows, and gets what differs. A form carries its
session's value, and leads back to where it was.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from outlay.app.console.charts import MONEY
from outlay.app.console.door import person_of
from outlay.app.console.filters import FILTERS, GROUPS, RANGE_WORDS, Filters
from outlay.app.console.people import Person
from outlay.app.console.sessions import Session, is_form_of
from outlay.app.console.tables import Link, Table, Usd
from outlay.kernel.clock import NANOS_PER_SECOND
from outlay.kernel.errors import OutlayError

HAVE: Final = "x-outlay-have"
"""Request header of a page that looks again: `part=digest,...`."""
MAX_SHOWN_ROWS: Final = 500
"""Rows of a table on a page; the files have all."""
MAX_FORM: Final = 16 * 1024
_FAR: Final = 2**62
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")
ROOMS: Final = (("/", "Overview"), ("/budgets", "Budgets"), ("/approvals", "Approvals"), ("/runs", "Runs"))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a page that is brought up to date by itself."""

    id: str
    html: Markup
    tables: tuple[Table, ...] = ()
    css: str = "wide"


@dataclass(frozen=True, slots=True)
class Page:
    """What a room shows."""

    title: str
    room: str
    """Address of the room in the menu."""
    parts: Sequence[Part]
    filters: Filters | None = None
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values to choose from, by dimension."""
    since: int | None = None
    has_group: bool = False


class Web:
    """Templates and what every page shares. Holds no state of a request."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            usd=amount, when=when, cell=self._cell, max_rows=MAX_SHOWN_ROWS, is_figure=_is_figure
        )

    def part(
        self, request: Request, name: str, part_id: str, *tables: Table, css: str = "wide", **context: Any
    ) -> Part:
        """A part: macro `part_id` of template `name`.html, given one record of the context."""
        person, session = person_of(request), request.state.session
        macro = getattr(self._templates.get_template(f"{name}.html").module, part_id.replace("-", "_"))
        shared = {
            "csrf": "" if session is None else session.csrf,
            "person": person,
            "now": self._now(),
            "back": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "tables": {table.id: table for table in tables},
            "table_href": _table_href(request),
        }
        return Part(part_id, Markup(macro({**shared, **context})), tables, css)

    def answer(self, request: Request, page: Page) -> Response:
        """The page, its changed parts, or one of its tables as a file."""
        wanted = request.query_params.get("table")
        if wanted is not None:
            return _table_file(page, wanted, request.query_params.get("as", "json"))
        digests = {part.id: _digest(part.html) for part in page.parts}
        have = request.headers.get(HAVE)
        if have is not None:
            known = dict(pair.partition("=")[::2] for pair in have.split(","))
            changed = [
                {"id": part.id, "digest": digests[part.id], "html": str(part.html)}
                for part in page.parts
                if known.get(part.id) != digests[part.id]
            ]
            return JSONResponse({"parts": changed, "at": _clock_words(self._now())})
        return self.page(request, "page", 200, page=page, digests=digests)

    def page(self, request: Request, name: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page of a template that extends the frame."""
        session: Session | None = getattr(request.state, "session", None)
        person: Person | None = getattr(request.state, "person", None)
        notices: list[tuple[str, str]] = []
        if session is not None:
            notices, session.notices = session.notices, []
        text = self._templates.get_template(f"{name}.html").render(
            rooms=ROOMS,
            ranges=RANGE_WORDS,
            groups=GROUPS,
            filter_names=FILTERS,
            person=person,
            csrf="" if session is None else session.csrf,
            notices=notices,
            path=request.url.path,
            at=_clock_words(self._now()),
            **context,
        )
        return HTMLResponse(text, status)

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form of this session. Raises FormRefused."""
        size, body = 0, b""
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_FORM:
                raise FormRefused("the form is too long")
            body += chunk
        fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))
        session: Session | None = request.state.session
        if session is not None and not is_form_of(session, fields.pop("csrf", "")):
            raise FormRefused("the form is of another session: load the page again")
        return fields

    def done(self, request: Request, fields: Mapping[str, str], text: str) -> Response:
        """Back to the page a form was on, which says what was done."""
        return self._back(request, fields, "done", text)

    def failed(self, request: Request, fields: Mapping[str, str], error: OutlayError) -> Response:
        """Back to the page a form was on, which says why nothing was done."""
        return self._back(request, fields, "problem", str(error))

    def _back(self, request: Request, fields: Mapping[str, str], kind: str, text: str) -> Response:
        session: Session | None = request.state.session
        if session is not None:
            session.notices = [*session.notices[-9:], (kind, text)]
        return RedirectResponse(own_path(fields.get("back", "/")), 303)

    @staticmethod
    def _cell(value: Any) -> Markup | str:
        match value:
            case Usd():
                return amount(value.nanos)
            case Link():
                return Markup('<a href="{}">{}</a>').format(value.href, value.text)
            case int() if not isinstance(value, bool):
                return f"{value:,}"
            case None:
                return "-"
            case str() if _ISO.match(value):
                return Markup('<time datetime="{0}">{0}</time>').format(value)
            case _:
                return str(value)


class FormRefused(OutlayError):
    """A form that this console did not make, or not for this session."""

    code = "form_refused"
    http_status = 403


def own_path(text: str) -> str:
    """A path of this console; `/` for anything that a browser might take for another place."""
    found = urlsplit(text)
    is_own = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_own and not found.netloc and not found.scheme else "/"


def amount(nanos: int | None) -> Markup:
    """An exact amount; digits beyond the cent are set small."""
    if nanos is None:
        return Markup("-")
    text = MONEY.say(nanos)
    head, _, digits = text.partition(".")
    return Markup('<span class="amount">{}.{}<small>{}</small></span>').format(head, digits[:2], digits[2:])


def when(nanos: int | None) -> Markup:
    """A time, UTC."""
    if not nanos or nanos >= _FAR:
        return Markup("-")
    moment = datetime.fromtimestamp(nanos // NANOS_PER_SECOND, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M:%S")
    )


def remaining(until: int, now: int) -> str:
    """How long something still lasts."""
    if until >= _FAR:
        return "for ever"
    minutes = max(0, until - now) // (60 * NANOS_PER_SECOND)
    if minutes >= 2 * 24 * 60:
        return f"{minutes // (24 * 60)} days"
    if minutes >= 120:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else "less than a minute"


def _clock_words(now: int) -> str:
    return datetime.fromtimestamp(now // NANOS_PER_SECOND, UTC).strftime("%H:%M:%S UTC")


def _is_figure(value: Any) -> bool:
    return isinstance(value, Usd) or (isinstance(value, int) and not isinstance(value, bool))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _table_href(request: Request) -> Callable[[str, str], str]:
    def href(table: str, kind: str) -> str:
        kept = [
            (name, value) for name, value in request.query_params.multi_items() if name not in ("table", "as")
        ]
        return f"{quote(request.url.path)}?{urlencode([*kept, ('table', table), ('as', kind)])}"

    return href


def _table_file(page: Page, wanted: str, kind: str) -> Response:
    tables = {table.id: table for part in page.parts for table in part.tables}
    table = tables.get(wanted)
    if table is None:
        return JSONResponse({"error": {"code": "not_found", "message": "no such table", "key": "table"}}, 404)
    if kind == "csv":
        return Response(
            table.as_csv(),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="outlay-{table.id}.csv"'},
        )
    return JSONResponse(table.as_json())
