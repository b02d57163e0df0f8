"""Waiting for money that others hold: fair, bounded, and nobody is forgotten."""

from outlay.flow.accounts import Account
from outlay.flow.budgets import BudgetSpec
from outlay.flow.waiting import PASSING_NS, Waiter, WaitingRoom
from outlay.flow.windows import parse_window

LATE = PASSING_NS + 1


def account(limit: int) -> Account:
    return Account(limit, BudgetSpec("b", {}, limit, parse_window("lifetime")), (), 0, 1)


class Call:
    """A call that needs `needed` in each of its accounts and takes it once it fits."""

    def __init__(
        self, room: WaitingRoom, accounts: list[Account], needed: int, *, since: int = 0, size: int = 10
    ) -> None:
        self.accounts, self.needed = accounts, needed
        self.is_in = False
        self.is_over = False
        self.waiter = Waiter(self.retry, self.on_timeout, size, since, since + 10 * PASSING_NS)
        blocked = self.retry()
        assert blocked is not None, "the test wants it to wait"
        self.has_room = room.join(self.waiter, *blocked)

    def retry(self) -> tuple[Account, int] | None:
        for found in self.accounts:
            if found.available < self.needed:
                return found, self.needed
        for found in self.accounts:
            found.hold(self.needed)
        self.is_in = True
        return None

    def on_timeout(self) -> None:
        self.is_over = True


def room_of(count: int = 100, size: int = 1000) -> WaitingRoom:
    return WaitingRoom(count, size)


def test_oldest_first_and_all_who_fit() -> None:
    room, money = room_of(), account(100)
    money.hold(100)
    calls = [Call(room, [money], 30, since=at) for at in range(4)]
    money.release(95)
    room.pump(money, 10)
    assert [call.is_in for call in calls] == [True, True, True, False]
    assert (room.count, room.bytes, money.waiting) == (1, 10, 1)
    money.release(30)
    room.pump(money, 10)
    assert calls[3].is_in
    assert (room.count, room.bytes, money.waiting, room.accounts()) == (0, 0, 0, [])


def test_a_small_call_may_pass_a_large_one_for_a_while() -> None:
    room, money = room_of(), account(100)
    money.hold(100)
    large = Call(room, [money], 80)
    small = Call(room, [money], 10, since=1)
    money.release(20)
    room.pump(money, PASSING_NS - 1)
    assert (large.is_in, small.is_in) == (False, True)


def test_from_then_on_nobody_passes_it() -> None:
    room, money = room_of(), account(100)
    money.hold(100)
    large = Call(room, [money], 80)
    small = Call(room, [money], 10, since=1)
    for _ in range(7):
        money.release(10)
        room.pump(money, LATE)
        assert (large.is_in, small.is_in) == (False, False)
    money.release(10)
    room.pump(money, LATE)
    assert large.is_in
    assert not small.is_in
    money.release(80)
    room.pump(money, LATE)
    assert small.is_in


def test_a_new_call_stands_behind_who_needs_no_more_or_has_waited() -> None:
    room, money = room_of(), account(100)
    assert not room.must_queue(money, 1, 0)
    money.hold(100)
    call = Call(room, [money], 50)
    assert room.must_queue(money, 50, 0)
    assert room.must_queue(money, 60, 0)
    assert not room.must_queue(money, 49, PASSING_NS - 1)
    assert room.must_queue(money, 1, PASSING_NS)
    room.leave(call.waiter)
    assert not room.must_queue(money, 60, LATE)


def test_count_and_bytes_are_bounded() -> None:
    room, money = room_of(3, 25), account(10)
    money.hold(10)
    assert [Call(room, [money], 5).has_room for _ in range(3)] == [True, True, False]
    room = room_of(2, 1000)
    calls = [Call(room, [money], 5) for _ in range(3)]
    assert [call.has_room for call in calls] == [True, True, False]
    room.leave(calls[0].waiter)
    room.leave(calls[0].waiter)
    assert (room.count, room.bytes) == (1, 10)
    assert Call(room, [money], 5).has_room


def test_a_call_moves_to_the_account_that_blocks_it_now() -> None:
    room, one, two = room_of(), account(100), account(101)
    one.hold(100)
    call = Call(room, [one, two], 50)
    assert (one.waiting, two.waiting) == (1, 0)
    two.hold(101)
    one.release(100)
    room.pump(one, 1)
    assert not call.is_in
    assert (one.waiting, two.waiting, room.accounts()) == (0, 1, [two])
    two.release(101)
    room.pump(two, 2)
    assert call.is_in
    assert (one.waiting, two.waiting, room.count, room.accounts()) == (0, 0, 0, [])
    assert (one.held, two.held) == (50, 50)


def test_who_left_is_not_asked() -> None:
    room, money = room_of(), account(100)
    money.hold(100)
    gone, stays = Call(room, [money], 10), Call(room, [money], 10)
    room.leave(gone.waiter)
    assert money.waiting == 1
    money.release(100)
    room.pump(money, 1)
    assert not gone.is_in
    assert stays.is_in
    assert room.count == 0


def test_who_waited_long_enough_is_told_once() -> None:
    room, money = room_of(), account(100)
    money.hold(100)
    early, later = Call(room, [money], 10), Call(room, [money], 10, since=5)
    room.expire(10 * PASSING_NS - 1)
    assert not early.is_over
    room.expire(10 * PASSING_NS)
    assert early.is_over
    assert not later.is_over
    assert (room.count, money.waiting) == (1, 1)
    early.is_over = False
    room.expire(10 * PASSING_NS)
    assert not early.is_over


def test_many_gone_waiters_do_not_hide_the_one_behind_them() -> None:
    room, money = room_of(1000, 100_000), account(100)
    money.hold(100)
    gone = [Call(room, [money], 10) for _ in range(500)]
    last = Call(room, [money], 10)
    for call in gone:
        room.leave(call.waiter)
    money.release(10)
    room.pump(money, 1)
    assert last.is_in
