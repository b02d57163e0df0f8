"""Answers about runs: which there are, and every charge of one and of the runs below it. Read-only, like the reader."""

from typing import Any

import msgspec

from outlay.flow.ledger.directory import decode_identity
from outlay.flow.ledger.reader import MAX_ROWS, LedgerReader
from outlay.flow.ledger.rows import AT_ONCE, among, total
from outlay.flow.run_report import RunCharge
from outlay.flow.runs import MAX_DEPTH
from outlay.flow.scope import Identity
from outlay.kernel.errors import NotFound, OutlayError
from outlay.lookup.price import ModelPrice

MAX_RUN_CHARGES = 100_000
"""Charges of one run that are looked at; a run that has more is a runaway whatever they say."""


class RunView(msgspec.Struct, frozen=True):
    """One run. Amounts in nanos, times in UTC ns."""

    org: str
    team: str
    name: str
    agent: str
    parent: str
    cost_nanos: int
    """Of its own charges; `tree_nanos` has those of the runs below it, too."""
    tree_nanos: int
    calls: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    first_at: int
    last_at: int
    cap_nanos: int | None
    max_calls: int | None
    deadline: int | None


class _Row(msgspec.Struct):
    """A run as it is gathered."""

    agent: str = ""
    parent: str = ""
    cost: int = 0
    calls: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    first: int = 2**63 - 1
    last: int = 0
    cap: int | None = None
    max_calls: int | None = None
    deadline: int | None = None

    def add(self, agent: str, *figures: int) -> None:
        """What one of its agents did."""
        cost, calls, read, cached, output, first, last = figures
        self.agent = max(self.agent, agent)
        self.cost += cost
        self.calls += calls
        self.input += read
        self.cached += cached
        self.output += output
        self.first = min(self.first, first)
        self.last = max(self.last, last)


Key = tuple[str, str, str]


class RunReader(LedgerReader):
    """See the module."""

    def runs(self, since_ns: int = 0, limit: int = 200, *, run: str | None = None) -> list[RunView]:
        """Runs with a charge since then, the newest first; one run and those below it if `run` is given."""
        found = self._gathered(since_ns)
        trees: dict[Key, int] = {}
        for key, row in found.items():
            line, at = [key], row
            while at.parent and len(line) <= MAX_DEPTH and (above := (key[0], key[1], at.parent)) not in line:
                line.append(above)
                at = found.get(above, _Row())
            for above in line:
                trees[above] = trees.get(above, 0) + row.cost
        views = [_view(key, row, trees[key]) for key, row in found.items() if row.calls or trees[key]]
        views = [view for view in views if run is None or run in (view.name, view.parent)]
        return sorted(views, key=lambda view: (-view.last_at, view.org, view.team, view.name))[:limit]

    def run_charges(
        self, run: str, *, team: str | None = None, org: str | None = None, since_ns: int = 0
    ) -> tuple[RunView, list[RunCharge]]:
        """A run and all charges of it and of the runs below it, in the order in which they were placed.

        Raises NotFound; OutlayError if runs of several teams have that name and none is chosen.
        """
        found = self._gathered(since_ns)
        keys = [
            key
            for key in found
            if key[2] == run and (team is None or key[1] == team) and (org is None or key[0] == org)
        ]
        if not keys:
            raise NotFound(f"no run {run!r} has a charge; `outlay run list` names those that have")
        if len(keys) > 1:
            teams = ", ".join(sorted(f"{key[0]}/{key[1] or 'unattributed'}" for key in keys))
            raise OutlayError(f"runs of several teams are named {run!r} ({teams}); choose one with --team")
        key = keys[0]
        below = {key}
        for _ in range(MAX_DEPTH):
            below |= {
                other for other, row in found.items() if (*other[:2], row.parent) in below and row.parent
            }
        charges = self._charges_of(below, since_ns)
        tree = sum(charge.cost_nanos for charge in charges)
        return _view(key, found[key], tree), charges

    def _gathered(self, since_ns: int) -> dict[Key, _Row]:
        low = max(0, since_ns // 1_000_000 - 60_000).to_bytes(6, "big")
        org, team, run, agent = (
            self._rows.member("i.body", name) for name in ("org", "team", "run", "agent")
        )
        rows = self._all(
            f"SELECT {org}, {team}, {run}, {agent}, {total('c.cost')}, {total('c.calls')}, {total('c.input')},"
            f" {total('c.cached')}, {total('c.output')}, min(c.first), max(c.last) FROM interned i JOIN"
            f" (SELECT identity_id, {total('cost_nanos + adjustment_nanos')} AS cost,"
            f" count(CASE WHEN attempt = 1 THEN 1 END) AS calls, {total('input_tokens')} AS input,"
            f" {total('cache_read_tokens')} AS cached, {total('output_tokens')} AS output,"
            " min(placed_at) AS first, max(settled_at) AS last FROM charges WHERE id >= ? AND placed_at >= ?"
            " GROUP BY identity_id) c ON c.identity_id = i.id"
            f" WHERE i.kind = 'identity' AND {run} IS NOT NULL GROUP BY 1, 2, 3, 4",
            (low, since_ns),
        )
        found: dict[Key, _Row] = {}
        for row in rows:
            found.setdefault((row[0] or "", row[1] or "", row[2]), _Row()).add(row[3] or "", *row[4:])
        for org, team, name, parent, cap, calls, deadline in self._opened():
            key = (org, team, name)
            # a run without charges is of interest only as the one above others
            opened = found.setdefault(key, _Row(first=0))
            opened.parent, opened.cap, opened.max_calls, opened.deadline = parent, cap, calls, deadline
        return found

    def _opened(self) -> list[tuple[Any, ...]]:
        if not self._rows.has("runs"):
            return []
        rows = self._all(
            "SELECT org, team, name, parent, cap_nanos, max_calls, deadline, opened_at FROM runs"
            f" ORDER BY opened_at DESC LIMIT {MAX_ROWS}"
        )
        return [row[:-1] for row in sorted(rows, key=lambda row: (-row[7], row[:3]))]

    def _charges_of(self, keys: set[Key], since_ns: int) -> list[RunCharge]:
        identities = self._identities_of(keys)
        low = max(0, since_ns // 1_000_000 - 60_000).to_bytes(6, "big")
        rows = self._all(
            "SELECT id, request_id, attempt, identity_id, route_id, price_id, placed_at, first_byte_at, settled_at,"
            " status, basis, cost_nanos + adjustment_nanos, hold_nanos, input_tokens, coalesce(cache_read_tokens, 0),"
            " coalesce(output_tokens, 0), coalesce(reasoning_tokens, 0), http_status, reason FROM charges"
            f" WHERE id >= ? AND {among('identity_id', identities)} ORDER BY placed_at, id LIMIT {MAX_RUN_CHARGES}",
            (low,),
        )
        self._learn("route", {row[4] for row in rows})
        self._learn("price", {row[5] for row in rows})
        found = []
        for row in rows:
            identity = identities[row[3]]
            names = RunCharge.__struct_fields__
            values = (
                row[0].hex(),
                row[1].hex(),
                row[2],
                identity.run,
                identity.agent,
                self._route(row[4])["model"],
                *row[6:17],
                *_rates(self._body("price", row[5])),
                *row[17:],
            )
            found.append(RunCharge(**dict(zip(names, values, strict=True))))
        return found

    def _identities_of(self, keys: set[Key]) -> dict[int, Identity]:
        """Who made calls in these runs."""
        names = sorted({key[2] for key in keys})
        found: dict[int, Identity] = {}
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            rows = self._all(
                "SELECT id, body FROM interned WHERE kind = 'identity'"
                f" AND {self._rows.member('body', 'run')} IN ({','.join('?' * len(some))})",
                some,
            )
            for number, body in rows:
                identity = decode_identity(body)
                if (identity.org, identity.team, identity.run) in keys:
                    found[number] = identity
        return found


def _rates(body: str) -> tuple[int, int, int]:
    """(input, cache read, output) of a stored price."""
    try:
        rates = msgspec.json.decode(body, type=ModelPrice).rates
    except msgspec.ValidationError:
        return 0, 0, 0  # an imported opening has no rates
    read = rates.input if rates.cache_read is None else rates.cache_read
    return rates.input, read, rates.output or 0


def _view(key: Key, row: _Row, tree: int) -> RunView:
    return RunView(
        *key,
        row.agent,
        row.parent,
        row.cost,
        tree,
        row.calls,
        row.input,
        row.cached,
        row.output,
        row.first,
        row.last,
        row.cap,
        row.max_calls,
        row.deadline,
    )
