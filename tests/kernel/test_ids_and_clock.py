"""Ids rise whatever the clock does; clocks never go backwards within a process."""

import time
import uuid

import pytest

from outlay.kernel.clock import ManualClock, SystemClock
from outlay.kernel.ids import IdMaker, id_header, id_text, id_time_ms, parse_id

MS = 1_000_000
SECOND = 1_000_000_000


def test_ids_are_uuid7_of_their_time() -> None:
    clock = ManualClock()
    made = IdMaker(clock).make()
    found = uuid.UUID(bytes=made)
    assert found.version == 7
    assert found.variant == uuid.RFC_4122
    assert id_time_ms(made) == clock.now() // MS


def test_ids_rise_within_a_millisecond_and_over_it() -> None:
    clock = ManualClock()
    maker = IdMaker(clock)
    made = []
    for at in range(20_000):
        if at % 1000 == 999:
            clock.advance(MS)
        made.append(maker.make())
    assert made == sorted(set(made))
    assert all(uuid.UUID(bytes=value).version == 7 for value in made[::100])
    assert all(uuid.UUID(bytes=value).variant == uuid.RFC_4122 for value in made[::100])


def test_ids_rise_over_a_step_back() -> None:
    clock = ManualClock()
    maker = IdMaker(clock)
    first = maker.make()
    clock.set(clock.now() - 3600 * SECOND)
    second = maker.make()
    third = maker.make(clock.now() + 5)
    assert first < second < third
    assert id_time_ms(third) == id_time_ms(first)


def test_two_makers_do_not_meet() -> None:
    clock = ManualClock()
    one, two = IdMaker(clock), IdMaker(clock)
    assert {one.make() for _ in range(2000)}.isdisjoint({two.make() for _ in range(2000)})


def test_text_and_back() -> None:
    made = IdMaker(ManualClock()).make()
    assert parse_id(id_text(made)) == parse_id(made.hex()) == parse_id(str(uuid.UUID(bytes=made))) == made
    assert id_header(made).decode() == id_text(made)


@pytest.mark.parametrize("text", ["", "req_", "req_12", "req_" + "g" * 32, "req_" + "0" * 34, "é" * 32])
def test_what_is_no_id(text: str) -> None:
    assert parse_id(text) is None


def test_a_manual_clock() -> None:
    clock = ManualClock(100)
    clock.advance(5)
    assert (clock.now(), clock.monotonic()) == (105, 5)
    clock.set(1)
    assert (clock.now(), clock.monotonic()) == (1, 5)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


class Wall:
    """The system's clocks, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.mono = 1_790_000_000 * SECOND, 50 * SECOND
        monkeypatch.setattr(time, "time_ns", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.mono)

    def both(self, nanos: int) -> None:
        self.wall += nanos
        self.mono += nanos


def test_a_stepped_wall_clock_moves_nothing_until_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    clock = SystemClock()
    start = clock.now()
    wall.wall += 10 * SECOND
    assert clock.now() == start
    assert clock.drift() == 10 * SECOND
    assert clock.reanchor(20 * SECOND)
    assert clock.now() == start + 10 * SECOND == wall.wall
    assert clock.drift() == 0


def test_a_step_back_never_runs_the_clock_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    clock = SystemClock()
    start = clock.now()
    wall.wall -= 10 * SECOND
    assert clock.reanchor(20 * SECOND)
    assert clock.now() == start
    # what was seen once is not a new step, and a slow drift is taken up look by look
    assert clock.reanchor(0)
    wall.both(SECOND)
    assert clock.now() == start + SECOND
    wall.wall += 10 * SECOND
    assert clock.reanchor(20 * SECOND)
    assert clock.now() == start + SECOND
    assert clock.drift() == 0


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND])
def test_a_large_jump_is_refused_until_it_is_accepted(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    wall = Wall(monkeypatch)
    clock = SystemClock()
    start = clock.now()
    wall.wall += step
    assert not clock.reanchor(60 * SECOND)
    assert not clock.reanchor(60 * SECOND)
    assert clock.now() == start
    assert clock.reanchor(2**62)
    assert clock.now() == max(start, start + step)
    assert clock.reanchor(60 * SECOND)
