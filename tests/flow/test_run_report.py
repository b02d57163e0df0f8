"""Where a run's money went: parts that add up to its charges, whatever the charges are."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outlay.flow.run_report import RunCharge, split_run


def charge(number: int, **changes: Any) -> RunCharge:
    """A call of run r: input at 1 USD a million, cached at a tenth, output at 10."""
    found: dict[str, Any] = {
        "id": f"{number:04d}",
        "request_id": f"q{number}",
        "attempt": 1,
        "run": "r",
        "agent": "",
        "model": "m",
        "placed_at": number,
        "first_byte_at": None,
        "settled_at": number + 1,
        "status": "settled",
        "basis": "metered",
        "hold_nanos": 10**9,
        "input_tokens": 1_000,
        "cache_read_tokens": 0,
        "output_tokens": 100,
        "reasoning_tokens": 0,
        "input_rate": 10**9,
        "cache_read_rate": 10**8,
        "output_rate": 10**10,
    } | changes
    if "cost_nanos" not in found:
        plain = (found["input_tokens"] or 0) - found["cache_read_tokens"]
        found["cost_nanos"] = (
            plain * 1_000 + found["cache_read_tokens"] * 100 + found["output_tokens"] * 10_000
        )
    return RunCharge(**found)


def test_a_worked_example() -> None:
    """Three calls of a growing context; the last is tried twice; a run below it; one of unknown outcome."""
    parts = split_run(
        "r",
        [
            charge(1),
            charge(2, input_tokens=1_500, cache_read_tokens=1_000, output_tokens=300, reasoning_tokens=200),
            charge(
                3,
                request_id="q3",
                input_tokens=None,
                cost_nanos=7_000,
                basis="outcome_unknown",
                output_tokens=0,
            ),
            charge(4, request_id="q3", attempt=2, input_tokens=1_600),
            charge(5, run="child", cost_nanos=4_000),
            charge(6, input_tokens=None, output_tokens=0, cost_nanos=9_000, basis="outcome_unknown"),
        ],
    )
    assert parts.first_call == 1_000_000 + 1_000_000
    # 1,100 tokens of call 2 were sent before: 1,000 of them cached, 100 not
    # 1,600 of call 4 were: all that call 2 had, and its answer without the reasoning
    assert parts.resent_context == 1_000 * 100 + 100 * 1_000 + 1_600 * 1_000
    assert parts.reasoning == 200 * 10_000
    assert (parts.retries, parts.sub_agents, parts.unknown) == (7_000, 4_000, 9_000)
    assert parts.new_work == (400 * 1_000 + 100 * 10_000) + 100 * 10_000
    assert parts.multiplier_tenths == parts.total * 10 // 2_000_000
    assert (
        parts.total
        == sum((parts.first_call, parts.new_work, parts.resent_context, parts.reasoning, parts.retries))
        + parts.sub_agents
        + parts.unknown
    )


def test_agents_of_one_run_have_contexts_of_their_own() -> None:
    parts = split_run("r", [charge(1), charge(2, agent="b"), charge(3, agent="b")])
    assert parts.resent_context == 1_000 * 1_000


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            charge,
            st.integers(0, 50),
            request_id=st.sampled_from(["a", "b", "c", "d"]),
            attempt=st.integers(1, 3),
            run=st.sampled_from(["r", "child"]),
            agent=st.sampled_from(["", "x"]),
            cost_nanos=st.integers(0, 10**12),
            input_tokens=st.one_of(st.none(), st.integers(0, 10**6)),
            cache_read_tokens=st.integers(0, 10**6),
            output_tokens=st.integers(0, 10**5),
            reasoning_tokens=st.integers(0, 10**5),
        ),
        max_size=30,
    )
)
def test_the_parts_always_add_up(charges: list[RunCharge]) -> None:
    parts = split_run("r", charges)
    named = [parts.first_call, parts.new_work, parts.resent_context, parts.reasoning, parts.retries]
    assert min(named) >= 0
    assert sum(named) + parts.sub_agents + parts.unknown == parts.total == sum(c.cost_nanos for c in charges)
