"""Runs in the ledger: found in memory or in the store, opened, and written with the tick's batch. Decides no money."""

from collections.abc import Callable, Sequence

from outlay.flow.ledger.port import Batch, RunRow, Store
from outlay.flow.runs import MAX_DEPTH, Run, RunKey, RunTerms
from outlay.flow.scope import Identity

MAX_RUNS = 100_000
"""Runs remembered; forgetting one costs a look-up in the store."""

_Plan = dict[RunKey, RunKey | None]
"""Runs that a call opens -> the run above, each after those above it."""


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

    def open(self, line: Sequence[tuple[RunKey, RunTerms]], pinned: str, now: int) -> list[RunKey]:
        """Open runs (the outermost first), or take what a later call says of them; the keys of those that changed.

        All or nothing: what one of them may not be leaves the others as they were. `pinned` is a run that the caller's
        key pins above all of its runs. Raises RunProblem.
        """
        plan: _Plan = {}
        for key, terms in line:
            if key in plan or self.find(key) is not None:
                self._check_open(key, terms, pinned, plan)
            else:
                self._plan(key, terms.parent, pinned, plan)
        changed = list(plan)
        for key, above in plan.items():
            self._make(key, None if above is None else self.find(above), now)
        for key, terms in line:
            run = self.find(key)
            if run is not None and run.lower(terms):
                self.touch(run)
                changed.append(key)
        return changed

    def touch(self, run: Run) -> None:
        """A run changed: its row is written with the current batch."""
        if not run.is_dirty:
            run.is_dirty = True
            self._batch().dirty_runs.append(run)

    def _check_open(self, key: RunKey, terms: RunTerms, pinned: str, plan: _Plan) -> None:
        """A run that is open, or will be by this call, stays where it hangs."""
        above = self._above(key, plan)
        if terms.parent and (above is None or above[2] != terms.parent):
            shown = "none" if above is None else repr(above[2])
            raise RunProblem(f"the run {key[2]!r} is open with another parent ({shown})")
        if pinned and key[2] != pinned and pinned not in self._names(key, plan):
            raise RunProblem(f"the run {key[2]!r} does not hang under the run this key pins")

    def _plan(self, key: RunKey, said: str, pinned: str, plan: _Plan) -> None:
        """Where a new run will hang; its parent is planned before it, if that is new, too."""
        name = said or (pinned if key[2] != pinned else "")
        if not name:
            plan[key] = None
            return
        above = (key[0], key[1], name)
        if name != key[2] and above not in plan and self.find(above) is None:
            self._plan(above, "", pinned, plan)
        names = self._names(above, plan)
        if key[2] in names:
            raise RunProblem("a run cannot be its own parent")
        if pinned and pinned not in names:
            raise RunProblem(f"the run {name!r} does not hang under the run this key pins")
        if len(names) > MAX_DEPTH:
            raise RunProblem(f"at most {MAX_DEPTH} runs may stand above a run")
        plan[key] = above

    def _above(self, key: RunKey, plan: _Plan) -> RunKey | None:
        if key in plan:
            return plan[key]
        run = self.find(key)
        return None if run is None or run.parent is None else run.parent.key

    def _names(self, key: RunKey, plan: _Plan) -> list[str]:
        """The run and those above it, as they will be."""
        names, at = [key[2]], self._above(key, plan)
        while at is not None:
            names.append(at[2])
            at = self._above(at, plan)
        return names

    def _make(self, key: RunKey, parent: Run | None, now: int) -> None:
        run = Run(key, now, parent)
        self._remember(key, run)
        self.touch(run)

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
