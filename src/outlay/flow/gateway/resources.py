"""Whose a provider's objects are: files, jobs and stored answers live in an account that all callers share.

What a team makes through the gateway is that team's; another's is not found, and lists show only one's own. Where the
client's own credential goes to the provider, the provider looks after this itself.
"""

import json
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from outlay.flow.gateway.entries import Entry
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.snapshot import ClientAuth, KeySpec, Provider, Snapshot
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.port import OwnerRow
from outlay.kernel.clock import Clock
from outlay.wire.fields import has_escaped_ascii
from outlay.wire.intent import CallIntent, Dialect, Operation
from outlay.wire.routes import Match

_T = TypeVar("_T")

MAX_ID_CHARS: Final = 256


class _Made(msgspec.Struct, gc=False):
    id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    result_files: list[str] | None = None

    @property
    def files(self) -> list[str]:
        """Files that a job has made."""
        return [
            name for name in (self.output_file_id, self.error_file_id, *(self.result_files or ())) if name
        ]


class _Listed(msgspec.Struct, gc=False):
    data: list[msgspec.Raw] | None = None


_RESULTS: Final = re.compile(rb'("results_url"\s*:\s*)"[^"]*?(/v1/messages/batches/[^"/]+/results)"')


_NAMING: Final = frozenset({"file_id", "file_ids", "previous_response_id", "validation_file"})
"""Fields, at any depth, that name an object which the provider reads for the call."""
_TELLING: Final = (b"file_id", b"previous_response_id", b"validation_file")

_decode_made: Final = msgspec.json.Decoder(_Made).decode
_decode_list: Final = msgspec.json.Decoder(_Listed).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MAKERS: Final = frozenset({Operation.BATCH, Operation.MESSAGE_BATCH, Operation.FINE_TUNING})


class Resources:
    """See the module."""

    def __init__(self, books: Books, clock: Clock) -> None:
        self._books = books
        self._clock = clock

    def provider_of(
        self, snapshot: Snapshot, key: KeySpec, dialect: Dialect, resource: str, wanted: str = ""
    ) -> Provider | Refusal:
        """The provider that has an object of the caller's, or that new ones go to.

        `wanted` names a provider (`x-outlay-provider`); without it the first of the dialect that is not an engine.
        """
        candidates = [
            p for p in snapshot.providers.values() if p.dialect is dialect and wanted in ("", p.name)
        ]
        candidates.sort(key=lambda provider: provider.billing.value == "self_hosted")
        if not candidates:
            return Refusal(404, "route_not_found", "No provider here serves this route.")
        if not resource:
            return candidates[0]
        for provider in candidates:
            if provider.client_auth is not ClientAuth.NONE or self.owns(provider, key, resource):
                return provider
        return not_found(resource)

    def owns(self, provider: Provider, key: KeySpec, resource: str) -> bool:
        """Whether an object is the caller's."""
        if not resource.isprintable():
            return False
        row = self._books.owner(provider.name, resource)
        return row is not None and (row.org, row.team) == (key.org, key.team)

    def own_stored(self, entry: Entry, response_id: str | None) -> None:
        """A response of a stream that the provider keeps."""
        identity = entry.chain.identity
        if response_id is not None:
            self.own(entry.provider.name, identity.org, identity.team, identity.key, response_id)

    def is_anothers(self, snapshot: Snapshot, key: KeySpec, body: bytes) -> Refusal | None:
        """A refusal if a request reads a file, or goes on from a response, that another team made through here."""
        for named in _named_in(body):
            if not named.isprintable():
                return not_found(
                    named
                )  # no provider names an object so, and not every store can be asked for it
            for provider in snapshot.providers.values():
                row = self._books.owner(provider.name, named)
                if row is not None and (row.org, row.team) != (key.org, key.team):
                    return not_found(named)
        return None

    def is_anothers_in(self, snapshot: Snapshot, key: KeySpec, data: bytes) -> Refusal | None:
        """The same of every line of a batch's file."""
        if not names_objects(data):
            return None
        for line in data.split(b"\n"):
            theirs = self.is_anothers(snapshot, key, line) if names_objects(line) else None
            if theirs is not None:
                return theirs
        return None

    def own(self, provider: str, org: str, team: str, key: str, resource: str) -> None:
        """An object was made."""
        if 0 < len(resource) <= MAX_ID_CHARS and resource.isprintable():
            self._books.own(OwnerRow(provider, resource, org, team, key, self._clock.now()))

    def seen(  # noqa: PLR0917 - one call site
        self, match: Match, intent: CallIntent, entry: Entry, status: int, body: bytes, here: str
    ) -> bytes:
        """Take note of what an answer made, and leave out of a list what is not the caller's.

        `here` is the gateway's address as the client knows it: an answer that names where results lie at the provider
        (`results_url`) must bring the client back here.
        """
        route = match.route
        if status >= 300:
            return body
        if b'"results_url"' in body and route.dialect is Dialect.ANTHROPIC:
            body = _bring_back(body, here)
        identity = entry.chain.identity
        is_new = route.method == "POST" and not match.resource and route.operation is Operation.FREE
        if (
            is_new
            or route.operation in _MAKERS
            or (
                entry.aim.operation is Operation.RESPONSES
                and not entry.translates
                and b'"store":false' not in body
            )
        ):
            made = _read(_decode_made, body)
            if made is not None:
                self.own(entry.provider.name, identity.org, identity.team, identity.key, made.id)
        elif match.resource and route.operation is Operation.FREE:
            # a job's results are files of whose job it is
            made = _read(_decode_made, body)
            for name in made.files if made is not None else ():
                if self._books.owner(entry.provider.name, name) is None:
                    self.own(entry.provider.name, identity.org, identity.team, identity.key, name)
        elif route.lists and entry.provider.client_auth is ClientAuth.NONE:
            return self._own_part(entry, body)
        return body

    def _own_part(self, entry: Entry, body: bytes) -> bytes:
        listed, fields = _read(_decode_list, body), _read(_decode_fields, body)
        identity = entry.chain.identity
        if listed is None or fields is None or listed.data is None:
            return b'{"object":"list","data":[],"has_more":false}'
        kept = []
        for item in listed.data:
            made = _read(_decode_made, bytes(item))
            row = None if made is None else self._books.owner(entry.provider.name, made.id)
            if row is not None and (row.org, row.team) == (identity.org, identity.team):
                kept.append(item)
        changed: dict[str, object] = dict(fields)
        changed["data"] = kept
        # what stands at the ends of the provider's page may be another's
        for name in ("first_id", "last_id"):
            if name in changed:
                at = 0 if name == "first_id" else -1
                made = _read(_decode_made, bytes(kept[at])) if kept else None
                changed[name] = None if made is None else made.id
        return msgspec.json.encode(changed)


def _bring_back(body: bytes, here: str) -> bytes:
    """The body with each `results_url` leading to this gateway instead of its provider."""
    return _RESULTS.sub(lambda found: found[1] + msgspec.json.encode(here + found[2].decode("latin-1")), body)


def names_objects(body: bytes) -> bool:
    """Whether a body may name an object of the provider's: only then is it worth `Resources.is_anothers`."""
    return any(name in body for name in _TELLING) or has_escaped_ascii(body)


def _named_in(body: bytes) -> list[str]:
    """Every object that JSON names; of a name given twice both, since a provider may read either."""
    found: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        for name, value in pairs:
            if name in _NAMING:
                values: list[object] = value if isinstance(value, list) else [value]
                found.extend(item for item in values if isinstance(item, str))

    try:
        # numbers stay text: huge ones would be slow, or refused by int()
        json.loads(body, object_pairs_hook=collect, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return []
    return found


def not_found(resource: str) -> Refusal:
    """An object that is not there, or not the caller's: the same answer."""
    return Refusal(
        404,
        "resource_not_found",
        f"No object {resource[:100]!r} of this team was made through this gateway.",
    )


def _read(decode: Callable[[bytes], _T], body: bytes) -> _T | None:
    try:
        return decode(body)
    except (ValueError, RecursionError):
        return None
