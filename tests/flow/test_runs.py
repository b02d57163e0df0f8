"""When a run bars its next call: a table of its calls and its time."""

import pytest

from outlay.flow.runs import Run, RunTerms

SECOND = 1_000_000_000
OPENED = 100 * SECOND


@pytest.mark.parametrize(
    ("terms", "calls", "now", "code"),
    [
        (RunTerms(), 10**6, OPENED + 10**18, ""),
        (RunTerms(max_calls=2), 1, OPENED, ""),
        (RunTerms(max_calls=2), 2, OPENED, "run_calls_spent"),
        (RunTerms(max_calls=0), 0, OPENED, "run_calls_spent"),
        (RunTerms(max_seconds=1), 0, OPENED + SECOND - 1, ""),
        (RunTerms(max_seconds=1), 0, OPENED + SECOND, "run_expired"),
        (RunTerms(max_seconds=0), 0, OPENED, "run_expired"),
        # the call that opens a run began a moment before it
        (RunTerms(max_seconds=0), 0, OPENED - 1, "run_expired"),
        (RunTerms(max_seconds=1), 0, OPENED - 1, ""),
        (RunTerms(max_calls=0, max_seconds=0), 0, OPENED, "run_expired"),
    ],
)
def test_what_bars_a_run(terms: RunTerms, calls: int, now: int, code: str) -> None:
    run = Run(("acme", "search", "r"), OPENED)
    run.lower(terms)
    run.calls = calls
    assert run.bars(now) == code
