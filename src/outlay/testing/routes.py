"""The mock's route table: method and path template -> who answers, in whose format, and whether the meter counts.

Knows no room: `rooms.py` fills it.
"""

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from outlay.testing.call import Handler

WEBSOCKET = "WEBSOCKET"
"""Stands for the method in the name of a route that is reached by a WebSocket upgrade."""
_CAPTURE = re.compile(r"\{(\w+)(\+?)\}")


class Vendor(StrEnum):
    """Whose error format a route answers in."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    COHERE = "cohere"
    BEDROCK = "bedrock"


class Route(NamedTuple):
    """One method and path template: `{name}` is one segment, `{name+}` may hold slashes."""

    method: str
    template: str
    vendor: Vendor
    handle: Handler
    is_metered: bool = True
    """False: no entry in the meter, and behaviours come by header or by the route's name only."""

    @property
    def name(self) -> str:
        """What `behave_model` calls an unmetered route."""
        return f"{self.method} {self.template}"


class Found(NamedTuple):
    """A route and the named parts of the path."""

    route: Route
    captures: Mapping[str, str]


class RouteTable:
    """Finds routes; a template that comes first wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Found] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        self.routes = tuple(routes)
        for route in self.routes:
            if "{" in route.template:
                self._patterns.append((_pattern(route.template), route))
            else:
                self._exact[route.method, route.template] = Found(route, {})

    def find(self, method: str, path: str) -> Found | None:
        """The route for the call, or None."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for pattern, route in self._patterns:
            if route.method == method and (match := pattern.fullmatch(path)) is not None:
                return Found(
                    route, {name: urllib.parse.unquote(value) for name, value in match.groupdict().items()}
                )
        return None

    def find_any(self, path: str) -> Route | None:
        """A route of any method on that path: a call that finds only this is a 405."""
        for route in self.routes:
            if route.template == path:
                return route
        return next((route for pattern, route in self._patterns if pattern.fullmatch(path)), None)


def _pattern(template: str) -> re.Pattern[str]:
    text, at = "", 0
    for capture in _CAPTURE.finditer(template):
        text += re.escape(template[at : capture.start()])
        text += f"(?P<{capture[1]}>{'.+' if capture[2] else '[^/]+'})"
        at = capture.end()
    return re.compile(text + re.escape(template[at:]))
