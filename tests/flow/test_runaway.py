"""Runaway detection: circles of every length, near-copies, errors, stale results; and honest work that goes on."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from outlay.flow.runaway import (
    ANCHORS,
    DEFAULT_THRESHOLDS,
    KEPT,
    MAX_PERIOD,
    SKETCH,
    Finding,
    RunWatch,
    Signature,
    Verdict,
)


def call(action: int, result: int | None = None, **changes: object) -> Signature:
    found = {"action": action, "result": action * 7 if result is None else result, "has_tool_result": True}
    return Signature(**{**found, **changes})  # type: ignore[arg-type]


def play(calls: Iterable[Signature]) -> list[Finding]:
    watch = RunWatch()
    return [watch.see(signature, DEFAULT_THRESHOLDS) for signature in calls]


def first_stop(findings: list[Finding]) -> int | None:
    return next((at for at, finding in enumerate(findings) if finding.verdict is Verdict.STOP), None)


@pytest.mark.parametrize("length", range(1, MAX_PERIOD + 1))
def test_a_circle_of_any_length_is_stopped_within_eight_rounds(length: int) -> None:
    work = [call(1000 + number) for number in range(12)]
    circle = [call(number) for number in range(1, length + 1)]
    at = first_stop(play(work + circle * 9))
    assert at is not None
    assert at < 12 + 8 * length


def test_work_that_is_new_each_time_is_never_stopped() -> None:
    findings = play(call(number) for number in range(1, 2_000))
    assert {finding.verdict for finding in findings} == {Verdict.OK}


def test_the_same_tool_with_new_results_is_work() -> None:
    findings = play(call(5, result=number) for number in range(500))
    assert first_stop(findings) is None


def test_polls_that_end_are_let_go_and_polls_that_do_not_are_stopped() -> None:
    three_polls = [call(1), call(2), call(9, 9), call(9, 9), call(9, 9), call(3), call(4), call(5), call(6)]
    assert first_stop(play(three_polls)) is None
    assert first_stop(play([call(1), call(2), *[call(9, 9)] * 12])) is not None


def test_results_that_differ_by_a_time_of_day_are_alike() -> None:
    chance = random.Random(3)
    base = sorted(chance.getrandbits(32) for _ in range(32))

    def noisy(number: int) -> Signature:
        sketch = [*base]
        sketch[number % 32] = chance.getrandbits(32)
        return call(4, result=number, sketch=tuple(sorted(sketch)))

    assert first_stop(play(noisy(number) for number in range(12))) is not None


def test_failures_in_a_row() -> None:
    findings = play(call(number, is_error=True) for number in range(1, 20))
    assert findings[5].verdict is Verdict.WARN
    assert first_stop(findings) == DEFAULT_THRESHOLDS.errors_stop - 1
    # what was answered in between, or worked, begins the count anew
    watch = RunWatch()
    for number in range(200):
        watch.ended(100, is_error=number % 4 != 0)
        assert watch.see(call(number, has_tool_result=False), DEFAULT_THRESHOLDS).verdict is Verdict.OK
    mixed = play(call(number, is_error=number % 3 != 0) for number in range(1, 60))
    assert first_stop(mixed) is None


def test_failed_calls_count_as_failures() -> None:
    watch = RunWatch()
    for number in range(20):
        last = watch.see(Signature(0, number), DEFAULT_THRESHOLDS)
        watch.ended(0, is_error=True)
    assert last.verdict is Verdict.STOP


def test_wandering_among_what_was_seen_is_stopped_in_the_end() -> None:
    chance = random.Random(5)
    work = [call(number) for number in range(20)]
    wander = [call(chance.randrange(20)) for _ in range(80)]
    at = first_stop(play(work + wander))
    assert at is not None
    assert at < 20 + 30


def test_growth_and_acceleration_warn_and_do_not_stop() -> None:
    grown = play(call(number, input_tokens=1_000 * number) for number in range(1, 60))
    assert grown[-1].verdict is Verdict.WARN
    assert "grown" in grown[-1].reason
    watch = RunWatch()
    for number in range(40):
        found = watch.see(call(number), DEFAULT_THRESHOLDS)
        watch.ended(100 if number < 30 else 5_000, is_error=False)
    assert found.verdict is Verdict.WARN
    assert first_stop(grown) is None


def test_forgiven_is_forgotten_and_memory_is_bounded() -> None:
    watch = RunWatch()
    for _ in range(10):
        found = watch.see(call(1), DEFAULT_THRESHOLDS)
    assert found.verdict is Verdict.STOP
    watch.forgive()
    assert watch.see(call(1), DEFAULT_THRESHOLDS).verdict is Verdict.OK
    for number in range(10 * KEPT):
        watch.see(call(number % 97), DEFAULT_THRESHOLDS)
    assert len(watch._recent) == KEPT
    assert sum(watch._seen.values()) == KEPT
    chance = random.Random(7)
    for number in range(10 * KEPT):
        sketch = tuple(sorted(chance.getrandbits(32) for _ in range(SKETCH)))
        watch.see(call(number % 5, number, sketch=sketch, shape=1), DEFAULT_THRESHOLDS)
    assert len(watch._results._sketches) == KEPT
    assert 0 < len(watch._results._anchors) <= ANCHORS * KEPT
    assert set(watch._results._anchors.values()) <= set(watch._results._sketches)


def test_real_sessions_when_they_are_here() -> None:
    traces = (
        Path(__file__).resolve().parents[3] / "shared" / "data" / "claude-code-traces" / "requests.parquet"
    )
    if not traces.exists():
        pytest.skip("the traces are not here: ../shared/data/claude-code-traces")
    pytest.importorskip("duckdb", reason="duckdb reads the traces")
    from bench import runaway

    sessions = runaway._sessions()
    stopped = sum(Verdict.STOP in runaway._played(session, DEFAULT_THRESHOLDS) for session in sessions)
    assert stopped <= 0.005 * len(sessions)
    chance = random.Random(11)
    counter = next(kind for kind in runaway.KINDS if kind.name == "counter, noisy")
    for length, loop in (
        (1, runaway.CLEAN),
        (3, runaway.CLEAN),
        (8, runaway.CLEAN),
        (1, counter),
        (3, counter),
    ):
        long = [session for session in sessions if len(session) >= length + 4][:100]
        caught = sum(
            runaway._repeats_until_stop(session, length, DEFAULT_THRESHOLDS, loop, chance) is not None
            for session in long
        )
        assert caught >= 0.95 * len(long)
