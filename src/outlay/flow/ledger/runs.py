"""Runs in the ledger: found in memory or in the store, opened, and written with the tick's batch. Decides no money."""

from collections.abc import Callable

from outlay.flow.ledger.port import Batch, RunRow, Store
from outlay.flow.runs import MAX_DEPTH, Run, RunKey, RunTerms
from outlay.flow.scope import Identity

MAX_RUNS = 100_000
"""Runs remembered; forgetting one costs a look-up in the store."""


class RunProblem(ValueError):
    """What a call says of its run cannot be; the message is for the caller."""


class Runs:
    """See the module. `batch` gives the batch of the current tick."""

    def __init__(self, store: Store, batch: Callable[[], Batch]) -> None:
        self._store = store
        self._batch = batch
        self._runs: dict[RunKey, Run | None] = {}
        self._next_cleaning = MAX_RUNS

    def of(self, identity: Identity) -> Run | None:
        """The identity's run, if anything is known of it beside its name."""
        if not identity.run:
            return None
        return self.find((identity.org, identity.team, identity.run))

    def find(self, key: RunKey) -> Run | None:
        """A run by its key."""
        found = self._runs.get(key, _MISSING)
        if found is not _MISSING:
            return found
        row = self._store.run(*key)
        run = None
        if row is not None:
            parent = self.find((key[0], key[1], row.parent)) if row.parent else None
            run = Run(key, row.opened_at, parent)
            run.cap_nanos, run.max_calls, run.deadline = row.cap_nanos, row.max_calls, row.deadline
            run.calls = row.calls
        self._remember(key, run)
        return run

    def open(self, key: RunKey, terms: RunTerms, pinned: str, now: int) -> bool:
        """Open a run, or take what a later call says of it; tells whether anything changed.

        `pinned` is a run that the caller's key pins above all of its runs. Raises RunProblem.
        """
        run = self.find(key)
        if run is None:
            self._make(key, self._parent_of(key, terms.parent, pinned, now), terms, now)
            return True
        if terms.parent and (run.parent is None or run.parent.name != terms.parent):
            above = "none" if run.parent is None else repr(run.parent.name)
            raise RunProblem(f"the run {key[2]!r} is open with another parent ({above})")
        if pinned and key[2] != pinned and pinned not in {ancestor.name for ancestor in run.line()}:
            raise RunProblem(f"the run {key[2]!r} does not hang under the run this key pins")
        if run.lower(terms):
            self.touch(run)
            return True
        return False

    def touch(self, run: Run) -> None:
        """A run changed: its row is written with the current batch."""
        if not run.is_dirty:
            run.is_dirty = True
            self._batch().dirty_runs.append(run)

    def _parent_of(self, key: RunKey, said: str, pinned: str, now: int) -> Run | None:
        name = said or (pinned if key[2] != pinned else "")
        if not name:
            return None
        if name == key[2]:
            raise RunProblem("a run cannot be its own parent")
        above = (key[0], key[1], name)
        parent = self.find(above)
        if parent is None:
            grandparent = self._parent_of(above, "", pinned, now) if pinned else None
            parent = self._make(above, grandparent, RunTerms(), now)
        line = parent.line()
        if pinned and pinned not in {ancestor.name for ancestor in line}:
            raise RunProblem(f"the run {name!r} does not hang under the run this key pins")
        if len(line) >= MAX_DEPTH:
            raise RunProblem(f"at most {MAX_DEPTH} runs may stand above a run")
        return parent

    def _make(self, key: RunKey, parent: Run | None, terms: RunTerms, now: int) -> Run:
        run = Run(key, now, parent)
        run.lower(terms)
        self._remember(key, run)
        self.touch(run)
        return run

    def put_away(self) -> None:
        """Forget runs that the store has as they are. Only when every chain looks again before its next use: two
        objects for one run would be two counts."""
        before = self._batch().before
        unwritten = {row[:3] for row in before.runs} if before is not None else set()
        kept = {
            key: run
            for key, run in self._runs.items()
            if run is not None and (run.is_dirty or key in unwritten)
        }
        for run in list(kept.values()):
            kept.update((above.key, above) for above in run.line())
        self._runs = dict(kept)
        self._next_cleaning = max(MAX_RUNS, 2 * len(self._runs))

    def _remember(self, key: RunKey, run: Run | None) -> None:
        if len(self._runs) >= self._next_cleaning:
            # of those that are known there must be one object only, so they stay until all chains look again
            self._runs = {name: kept for name, kept in self._runs.items() if kept is not None}
            self._next_cleaning = max(MAX_RUNS, 2 * len(self._runs))
        self._runs[key] = run


_MISSING: Run | None = Run(("", "", ""), 0)


def run_row(run: Run) -> RunRow:
    """The row of a run as it is now."""
    parent = "" if run.parent is None else run.parent.name
    return RunRow(*run.key, parent, run.cap_nanos, run.max_calls, run.deadline, run.opened_at, run.calls)
