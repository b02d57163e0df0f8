"""Answers about runs: which there are, and every charge of one and of the runs below it. Read-only, like the reader."""

from typing import Any

import msgspec

from outlay.flow.ledger.reader import MAX_ROWS, LedgerReader
from outlay.flow.run_report import RunCharge
from outlay.flow.runs import MAX_DEPTH
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
        return sorted(views, key=lambda view: -view.last_at)[:limit]

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
        rows = self._all(
            "SELECT i.body ->> '$.org', i.body ->> '$.team', i.body ->> '$.run', max(i.body ->> '$.agent'),"
            " sum(c.cost), sum(c.calls), sum(c.input), sum(c.cached), sum(c.output), min(c.first), max(c.last)"
            " FROM interned i JOIN (SELECT identity_id, sum(cost_nanos + adjustment_nanos) AS cost,"
            " sum(attempt = 1) AS calls, sum(coalesce(input_tokens, 0)) AS input,"
            " sum(coalesce(cache_read_tokens, 0)) AS cached, sum(coalesce(output_tokens, 0)) AS output,"
            " min(placed_at) AS first, max(settled_at) AS last FROM charges WHERE id >= ?1 AND placed_at >= ?2"
            " GROUP BY identity_id) c ON c.identity_id = i.id"
            " WHERE i.kind = 'identity' AND i.body ->> '$.run' IS NOT NULL GROUP BY 1, 2, 3",
            (low, since_ns),
        )
        found = {(row[0] or "", row[1] or "", row[2]): _Row(row[3] or "", "", *row[4:11]) for row in rows}
        for org, team, name, parent, cap, calls, deadline in self._opened():
            key = (org, team, name)
            row = found.get(key)
            if row is None:
                # a run without charges is of interest only as the one above others
                row = found[key] = _Row(first=0)
            row.parent, row.cap, row.max_calls, row.deadline = parent, cap, calls, deadline
        return found

    def _opened(self) -> list[tuple[Any, ...]]:
        if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'runs'", ()):
            return []
        return self._all(
            "SELECT org, team, name, parent, cap_nanos, max_calls, deadline FROM runs"
            f" ORDER BY opened_at DESC LIMIT {MAX_ROWS}",
            (),
        )

    def _charges_of(self, keys: set[Key], since_ns: int) -> list[RunCharge]:
        low = max(0, since_ns // 1_000_000 - 60_000).to_bytes(6, "big")
        rows = self._all(
            "SELECT c.id, c.request_id, c.attempt, i.body, c.route_id, c.price_id, c.placed_at, c.first_byte_at,"
            " c.settled_at, c.status, c.basis, c.cost_nanos + c.adjustment_nanos, c.hold_nanos, c.input_tokens,"
            " coalesce(c.cache_read_tokens, 0), coalesce(c.output_tokens, 0), coalesce(c.reasoning_tokens, 0),"
            " c.http_status, c.reason FROM charges c JOIN interned i ON i.kind = 'identity' AND i.id = c.identity_id"
            " WHERE c.id >= ?1 AND i.body ->> '$.run' IN (SELECT value FROM json_each(?2))"
            f" ORDER BY c.placed_at LIMIT {MAX_RUN_CHARGES}",
            (low, msgspec.json.encode(sorted({key[2] for key in keys})).decode()),
        )
        found = []
        for row in rows:
            identity: dict[str, Any] = msgspec.json.decode(row[3])
            if (identity.get("org", ""), identity.get("team", ""), identity.get("run", "")) not in keys:
                continue
            names = RunCharge.__struct_fields__
            values = (
                row[0].hex(),
                row[1].hex(),
                row[2],
                identity["run"],
                str(identity.get("agent", "")),
                self._route(row[4])["model"],
                *row[6:17],
                *_rates(self._body("price", row[5])),
                *row[17:],
            )
            found.append(RunCharge(**dict(zip(names, values, strict=True))))
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
