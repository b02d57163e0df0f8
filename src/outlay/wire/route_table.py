"""The route table as a page: `python -m outlay.wire.route_table > docs/routes.md`. A test holds the page current."""

import sys
from collections.abc import Iterator

from outlay.wire.routes import ROUTES, Metering, Route

_HEAD = """\
# Routes

Every route that a client may call. This page is written by `python -m outlay.wire.route_table` from the table that the
gateway itself reads; do not edit it by hand. What is not here is not found (404) and never forwarded, unless an
operator lets it through at a price (`passthrough` of a provider, [configuration](configuration.md#providers)).

- **refused when spent**: the worst case is held in every budget before anything leaves; `-`: it costs nothing.
- **charged when used**: *answer*: settled from the answer's usage; *job*: held when submitted, settled when the
  provider has done it; *each response*: a WebSocket, held and settled response by response; *free*: held and
  booked at zero.
- **tested with**: the vendor's SDK that reaches it in the tests, against a mock provider with a meter of its own.

| method | path | operation | refused when spent | charged when used | streams | tested with |
| --- | --- | --- | --- | --- | --- | --- |
"""
_TAIL = """
OpenAI's routes also stand under `/openai/v1` (Azure's newer form) and without `/v1`; those that name a model also under
`/openai/deployments/<model>` (Azure's older form). Files, jobs and stored responses belong to the team that made them:
another team's are not found, and lists show only one's own. `x-outlay-provider` chooses the provider of such a route;
without it the first of its dialect is taken.

The virtual key is taken from `Authorization: Bearer`, `x-api-key`, `api-key`, `x-goog-api-key`, `?key=`, or from
`x-outlay-key`, which wins over them all.
"""
_CHARGED = {
    Metering.HELD: "answer",
    Metering.DEFERRED: "job",
    Metering.SESSION: "each response",
    Metering.FREE: "free",
    Metering.LOCAL: "answered here",
}


def rows() -> Iterator[str]:
    """One line a route, in the table's order."""
    for route in ROUTES:
        yield "| " + " | ".join(_cells(route)) + " |"


def _cells(route: Route) -> tuple[str, ...]:
    is_costly = route.metering in (Metering.HELD, Metering.DEFERRED, Metering.SESSION)
    stream = "WebSocket" if route.metering is Metering.SESSION else "yes" if route.streams else "-"
    return (
        route.method,
        f"`{route.path}`",
        route.operation.value,
        "402" if is_costly else "-",
        _CHARGED[route.metering],
        stream,
        route.sdk or "-",
    )


def page() -> str:
    """The whole page."""
    return _HEAD + "\n".join(rows()) + "\n" + _TAIL


if __name__ == "__main__":
    sys.stdout.write(page())
