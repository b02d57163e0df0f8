"""Providers' answers: generated and mutated ones, and those that once found something."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.answer_messages import answers
from tests.fuzz.answers import Answer, check
from tests.fuzz.choices import Choices, Drawn, Seeded
from tests.fuzz.mutations import mutated
from tests.fuzz.rule import cut
from tests.fuzz.seeds import FRESH, SEED

CODED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
KEPT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def case(choices: Choices) -> tuple[list[bytes], bool]:
    """What a provider sends, and whether it closes then."""
    pieces = answers(choices)
    if choices.upto(1):
        at = choices.upto(len(pieces) - 1)
        pieces[at] = mutated(choices, pieces[at])
    closes = choices.upto(1) == 1
    return cut(choices, pieces), closes


def run(seed: str, count: int) -> int:
    """Check `count` cases of a seed; returns how many answers were whole."""
    whole = 0
    for number in range(count):
        pieces, closes = case(Seeded(("answers", seed, number)))
        try:
            whole += check(pieces, closes).is_whole
        except AssertionError:
            print(f"OUTLAY_FUZZ_SEED={seed} answer {number}")
            raise
    return whole


def test_a_thousand() -> None:
    assert run(SEED, 1_000) > 250, "the generator makes nothing that is taken"
    run(FRESH, 1_000)


@pytest.mark.slow
def test_many() -> None:
    run(f"{SEED}-many", 20_000)
    run(f"{FRESH}-many", 20_000)


@st.composite
def drawn_case(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    return case(Drawn(draw))


@given(drawn_case())
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_hypothesis_finds_none(found: tuple[list[bytes], bool]) -> None:
    check(*found)


@pytest.mark.parametrize(
    "data",
    [
        CODED % b"chunked\t",  # llhttp reads to the end of the connection
        CODED % b"gzip, chunked",
        CODED % b"gzip",
        CODED % b"chunked\r\nTransfer-Encoding: chunked",
        CODED % b"chunked\r\nContent-Length: 2",
        (CODED % b"chunked")[:-2] + b"Transfer-Encoding: x\r\n\r\n",
        KEPT.replace(b": 2", b": 000000000000000000002"),
        KEPT.replace(b"200 OK", b"099 x") + KEPT,
        b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n" + KEPT,
    ],
)
def test_an_answer_that_is_not_read(data: bytes) -> None:
    assert check([data], False).failed


@pytest.mark.parametrize(
    "data",
    [
        KEPT.replace(b"/1.1", b"/1.0"),
        KEPT.replace(b"/1.1", b"/1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
        KEPT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        KEPT + b"x",
        KEPT + KEPT,
    ],
)
def test_a_connection_that_is_not_kept(data: bytes) -> None:
    found = check([data], False)
    assert (found.body, found.is_free) == (b"{}", False)


def test_a_connection_that_is_kept() -> None:
    spaced = KEPT.replace(b"\r\n\r\n", b"\r\nx: y \t\r\n\r\n")
    assert check([spaced], False) == Answer(
        status=200, fields=((b"x", b"y"),), body=b"{}", is_whole=True, is_free=True, ends=1
    )
