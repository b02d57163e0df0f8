"""Client requests: 100,000 generated and mutated ones, and those that once found something."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import cases
from tests.fuzz.choices import Choices, Drawn, Seeded
from tests.fuzz.messages import conversation
from tests.fuzz.mutations import mutated
from tests.fuzz.ours import Answering, ours
from tests.fuzz.reading import End
from tests.fuzz.rule import check, cut, shrunk
from tests.fuzz.seeds import FRESH, SEED

PIECEWISE = (1, 2, 3, 7)


def case(choices: Choices) -> tuple[list[bytes], Answering]:
    """What comes in, and when it is answered."""
    pieces = conversation(choices)
    if choices.upto(1):
        at = choices.upto(len(pieces) - 1)
        pieces[at] = mutated(choices, pieces[at])
    answering = choices.of(tuple(Answering))
    return cut(choices, pieces), answering


def run(seed: str, count: int) -> int:
    """Check `count` cases of a seed; returns how many requests the gateway took."""
    taken = 0
    for number in range(count):
        pieces, answering = case(Seeded((seed, number)))
        try:
            taken += sum(message.is_whole for message in check(pieces, answering).messages)
        except AssertionError:
            small = shrunk(pieces, answering)
            print(f"OUTLAY_FUZZ_SEED={seed} case {number}, made smaller: {small!r}, {answering}")
            check(small, answering)
            raise
    return taken


def test_a_few_thousand() -> None:
    assert run(SEED, 2_000) > 500, "the generator makes nothing that is taken"
    run(FRESH, 2_000)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_by_seed(part: int) -> None:
    assert run(f"{SEED}-{part}", 12_500) > 4_000


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_by_a_fresh_seed(part: int) -> None:
    run(f"{FRESH}-{part}", 12_500)


@st.composite
def drawn_case(draw: st.DrawFn) -> tuple[list[bytes], Answering]:
    return case(Drawn(draw))


@given(drawn_case())
@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_hypothesis_finds_none(found: tuple[list[bytes], Answering]) -> None:
    check(*found)


@pytest.mark.slow
@given(drawn_case())
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_hypothesis_finds_none_in_many(found: tuple[list[bytes], Answering]) -> None:
    check(*found)


@pytest.mark.parametrize("answering", Answering)
@pytest.mark.parametrize("why", cases.REFUSED)
def test_what_is_refused(why: str, answering: Answering) -> None:
    pieces = cases.REFUSED[why]
    data = b"".join(pieces)
    for way in [
        list(pieces),
        *([data[at : at + size] for at in range(0, len(data), size)] for size in PIECEWISE),
    ]:
        found = check(way, answering)
        assert found.end is End.REFUSED
        assert [message.body for message in found.messages] in ([], [b"hello"])


@pytest.mark.parametrize("answering", Answering)
@pytest.mark.parametrize("why", cases.TAKEN)
def test_what_is_taken(why: str, answering: Answering) -> None:
    pieces, bodies = cases.TAKEN[why]
    data = b"".join(pieces)
    for way in [
        list(pieces),
        *([data[at : at + size] for at in range(0, len(data), size)] for size in PIECEWISE),
    ]:
        found = check(way, answering)
        assert tuple(message.body for message in found.messages if message.is_whole) == bodies


@pytest.mark.parametrize("why", cases.BEHIND_A_RUNNING_REQUEST)
def test_what_waits_behind_a_running_request(why: str) -> None:
    pieces, taken = cases.BEHIND_A_RUNNING_REQUEST[why]
    found = check(list(pieces), Answering.LATE)
    assert len(found.messages) == taken
    assert found.end in (End.REFUSED, End.SWITCHED)


def test_behind_too_many_blank_lines_nothing_is_pipelined() -> None:
    found = check([cases.MANY_LINES + cases.GET], Answering.SOON)
    assert (found.end, found.messages) == (End.REFUSED, [])
    part = check([cases.MANY_LINES + cases.GET[:20], cases.GET[20:], cases.HELLO], Answering.SOON)
    assert (part.end, part.messages) == (End.REFUSED, [])


def test_two_answerings_read_alike() -> None:
    for number in range(300):
        pieces, _ = case(Seeded(("answering", number)))
        whole = [ours(pieces, answering).messages for answering in Answering]
        taken = [[message for message in found if message.is_whole] for found in whole]
        assert taken[0][: len(taken[1])] == taken[1][: len(taken[0])]
        assert taken[1][: len(taken[2])] == taken[2][: len(taken[1])]
