"""Approvals: who asks for more and why, the decision, raises in force, and where a refused call is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from outlay.app.cli.output import iso
from outlay.app.config import Role
from outlay.app.console import decisions
from outlay.app.console.desk import Desk, GatewayDown
from outlay.app.console.door import person_of
from outlay.app.console.tables import Table, Usd
from outlay.app.console.web import Page, Part, Web, remaining
from outlay.flow.scope import is_dimension, scope_text
from outlay.kernel.errors import ConfigError, NotFound, OutlayError
from outlay.kernel.money import format_usd

MAX_HISTORY: Final = 100
"""Decisions on the page, the newest; the API has all."""


def add_approvals(router: APIRouter, desk: Desk, web: Web) -> None:
    """The room at `/approvals` and its forms."""

    @router.get("/approvals")
    def approvals(request: Request) -> Response:
        try:
            with desk.operating() as operations:
                asks, raises = operations.asks(), operations.raises()
                orders = {order["name"]: order["scope"] for order in operations.orders()}
                call = _refused(operations.refused_call, request.query_params.get("request", ""))
        except GatewayDown:
            return web.answer(
                request, Page("Approvals", "/approvals", (web.part(request, "approvals", "down"),))
            )
        parts = [_open_part(request, web, asks, orders), _raises_part(request, web, desk, raises)]
        if call is not None:
            known = next((ask for ask in asks if ask["request_id"] == call["request_id"]), None)
            parts.insert(0, _call_part(request, web, call, known))
        parts.append(_history_part(request, web, asks))
        return web.answer(request, Page("Approvals", "/approvals", parts))

    @router.post("/approvals/asks")
    async def ask(request: Request) -> Response:
        fields = await web.form(request)
        said = {"reason": fields.get("reason", ""), "request_id": fields.get("request", "")} | _amount(fields)
        actor = person_of(request).actor

        def do() -> dict[str, Any]:
            with desk.operating() as operations:
                return operations.ask(said, actor)

        return await _act(web, request, fields, do, lambda done: f"Asked: {done['id']}. An approver decides.")

    @router.post("/approvals/raises")
    async def put_raise(request: Request) -> Response:
        fields = await web.form(request)
        scope = {
            name.removeprefix("scope."): value
            for name, value in fields.items()
            if name.startswith("scope.") and is_dimension(name.removeprefix("scope.")) and value
        }
        said: dict[str, Any] = {"budget": fields.get("budget", ""), "note": fields.get("note", "")}
        said |= {"scope": scope, "usd": "", "hours": 0, **_amount(fields)}
        person = person_of(request)
        return await _act(web, request, fields, lambda: decisions.raise_account(desk, person, said), _raised)

    @router.post("/approvals/raises/{raise_id}/end")
    async def end_raise(request: Request, raise_id: str) -> Response:
        fields, person = await web.form(request), person_of(request)
        return await _act(
            web,
            request,
            fields,
            lambda: decisions.end_raise(desk, person, raise_id),
            lambda done: f"Ended the raise of {done['budget']} ({done['scope']}).",
        )

    @router.post("/approvals/{ask_id}/grant")
    async def grant(request: Request, ask_id: str) -> Response:
        fields, person = await web.form(request), person_of(request)
        said = {"note": fields.get("note", "")} | _amount(fields)
        return await _act(
            web, request, fields, lambda: decisions.grant_ask(desk, person, ask_id, said), _granted
        )

    @router.post("/approvals/{ask_id}/deny")
    async def deny(request: Request, ask_id: str) -> Response:
        fields, person = await web.form(request), person_of(request)
        note = fields.get("note", "")
        return await _act(
            web,
            request,
            fields,
            lambda: decisions.deny_ask(desk, person, ask_id, note),
            lambda done: f"Denied {done['id']}; its caller reads the note.",
        )


async def _act(
    web: Web,
    request: Request,
    fields: Mapping[str, str],
    do: Callable[[], dict[str, Any]],
    words: Callable[[dict[str, Any]], str],
) -> Response:
    """Do what a form says, on a thread, and lead back with what came of it."""
    try:
        done = await run_in_threadpool(do)
    except OutlayError as error:
        return web.failed(request, fields, error)
    return web.done(request, fields, words(done))


def _amount(fields: Mapping[str, str]) -> dict[str, Any]:
    """`usd` and `hours` as a form gives them: what is left empty is as asked for."""
    said: dict[str, Any] = {}
    if fields.get("usd", "").strip():
        said["usd"] = fields["usd"].strip().removeprefix("$").replace(",", "")
    hours = fields.get("hours", "").strip()
    if hours:
        # what is no number is refused by the operation, which names the field
        said["hours"] = int(hours) if hours.isascii() and hours.isdigit() and len(hours) < 7 else hours
    return said


def _granted(done: Mapping[str, Any]) -> str:
    found = []
    if done["granted_nanos"]:
        until = iso(done["until"]) or "it is ended"
        found.append(
            f"Raised {done['budget']} ({done['scope']}) by ${format_usd(done['granted_nanos'])} until {until}."
        )
    if done["order"]:
        found.append(f"Lifted {done['order']}.")
    return " ".join(found) or f"Approved {done['id']}."


def _raised(done: Mapping[str, Any]) -> str:
    until = iso(done["until"]) or "it is ended"
    return f"Raised {done['budget']} ({done['scope']}) by ${format_usd(done['extra_nanos'])} until {until}."


def _refused(find: Callable[[str], dict[str, Any]], request_id: str) -> dict[str, Any] | None:
    if not request_id:
        return None
    try:
        return find(request_id)
    except (NotFound, ConfigError):
        return {"request_id": request_id, "code": ""}


def _call_part(request: Request, web: Web, call: Mapping[str, Any], known: Mapping[str, Any] | None) -> Part:
    identity = [
        (name, str(value))
        for name, value in call.get("identity", {}).items()
        if value and isinstance(value, str)
    ]
    needed = 0
    if call.get("limit_nanos"):
        needed = max(0, call["spent_nanos"] + call["needed_nanos"] - call["limit_nanos"])
    return web.part(
        request,
        "approvals",
        "call",
        call=call,
        identity=identity,
        scope=scope_text(tuple((name, value) for name, value in call.get("values", ()))),
        least=format_usd(needed) if needed else "",
        known=known,
        may_ask=person_of(request).role is not Role.VIEWER and request.state.session is not None,
    )


def _open_part(
    request: Request, web: Web, asks: list[dict[str, Any]], orders: Mapping[str, Mapping[str, str]]
) -> Part:
    person = person_of(request)
    found = [ask for ask in asks if ask["state"] == "open"]
    table = Table(
        "open",
        "Open asks",
        ("ask", "asked", "by", "what", "scope", "wants", "hours", "why"),
        [
            (
                ask["id"],
                iso(ask["at"]) or "",
                ask["requester"],
                ask["budget"] or ask["order"],
                ask["scope"] if ask["budget"] else "-",
                Usd(ask["wanted_nanos"]),
                ask["hours"] or "until the window ends",
                ask["reason"],
            )
            for ask in found
        ],
    )
    decidable = {ask["id"] for ask in found if decisions.may_decide(person, ask, orders)}
    return web.part(
        request,
        "approvals",
        "asks",
        table,
        asks=found,
        decidable=decidable if request.state.session is not None else set(),
        usd_text=format_usd,
    )


def _raises_part(request: Request, web: Web, desk: Desk, raises: list[dict[str, Any]]) -> Part:
    person, now = person_of(request), desk.clock.now()
    table = Table(
        "raises",
        "Raises in force",
        ("budget", "scope", "raised by", "until", "actor", "note", "raise"),
        [
            (
                item["budget"],
                item["scope"],
                Usd(item["extra_nanos"]),
                iso(item["until"]) or "for ever",
                item["actor"],
                item["note"],
                item["id"],
            )
            for item in raises
        ],
    )
    return web.part(
        request,
        "approvals",
        "raises",
        table,
        raises=raises,
        left={item["id"]: remaining(item["until"], now) for item in raises},
        endable={item["id"] for item in raises if person.covers(dict(item["values"]))}
        if request.state.session is not None
        else set(),
    )


def _history_part(request: Request, web: Web, asks: list[dict[str, Any]]) -> Part:
    decided = sorted((ask for ask in asks if ask["state"] != "open"), key=lambda ask: -ask["decided_at"])
    table = Table(
        "history",
        "Decisions",
        ("decided", "ask", "state", "by", "what", "scope", "granted", "until", "asked by", "why", "note"),
        [
            (
                iso(ask["decided_at"]) or "",
                ask["id"],
                ask["state"],
                ask["decided_by"],
                ask["budget"] or ask["order"],
                ask["scope"] if ask["budget"] else "-",
                Usd(ask["granted_nanos"] or None),
                iso(ask["until"] or None) or "-",
                ask["requester"],
                ask["reason"],
                ask["note"],
            )
            for ask in decided[:MAX_HISTORY]
        ],
    )
    return web.part(request, "approvals", "history", table)
