"""Runs: limits of an agent's work, nested, carried by the context into tasks and threads."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import outlay
from outlay.flow.sdk.runs import current_run
from outlay.kernel.errors import ConfigError, OutlayError
from tests.sdk.shop import GPT_CALL_NANOS, SAY, shop


def call(client: object, **more: object) -> None:
    client.chat.completions.create(model="gpt-test", messages=SAY, **{"max_tokens": 80, **more})  # type: ignore[attr-defined]


def test_a_run_has_a_limit_of_its_own(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with outlay.run(budget_usd="0.0025") as run, pytest.raises(outlay.BudgetExceeded) as caught:
            while True:
                call(client)
        assert caught.value.budget == "outlay.run"
        assert run.id in str(caught.value.scope)
        # two calls fit; the third's worst case does not
        assert (run.cost_usd, run.calls) == ("0.001625", 2)
        assert run.remaining_usd == "0.000875"
        # outside, the client is free of it
        call(client)
        assert run.cost_usd == "0.001625"
        assert {one.identity.get("run") for one in place.charges()} == {run.id, None}


def test_a_child_draws_from_its_parents_remainder(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with outlay.run(budget_usd="0.003", name="parent") as parent:
            call(client)
            with outlay.run(budget_usd=1, name="child") as child:
                assert child.remaining_usd == "0.0021875"
                call(client)
                with pytest.raises(outlay.BudgetExceeded) as caught:
                    for _ in range(5):
                        call(client)
                assert "run=parent" in str(caught.value.scope)
            assert parent.calls == child.calls + 1
        spent = int(place.audit().spend_nanos)
        assert parent.cost_usd.replace("0.", "").ljust(9, "0") == f"{spent:09d}"


def test_calls_and_seconds(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with outlay.run(max_calls=2) as run:
            call(client)
            client.models.list()
            call(client)
            with pytest.raises(outlay.BudgetExceeded) as caught:
                call(client)
            assert caught.value.error_code == "run_calls_spent"
        assert run.calls == 2
        with outlay.run(max_seconds=0), pytest.raises(outlay.BudgetExceeded) as late:
            call(client)
        assert late.value.error_code == "run_expired"


def test_a_refused_call_takes_no_place_in_the_run(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt(budget_usd="0.00001", budget="small")
        with outlay.run(max_calls=3) as run:
            for _ in range(5):
                with pytest.raises(outlay.BudgetExceeded) as caught:
                    call(client)
                assert caught.value.error_code == "budget_spent"
        assert run.calls == 0
        place.wait_for(0)


def test_the_context_carries_a_run_into_tasks_and_threads(tmp_path: Path) -> None:
    async def work(place: object) -> None:
        async with place.async_gpt() as client:  # type: ignore[attr-defined]
            async with outlay.run() as run:
                await asyncio.gather(
                    *(client.chat.completions.create(model="gpt-test", messages=SAY) for _ in range(3))
                )
            assert run.calls == 3

    with shop(tmp_path) as place:
        asyncio.run(work(place))
        client = place.gpt()
        with outlay.run() as run:
            copied = contextvars.copy_context()
            threads = [
                threading.Thread(target=copied.run, args=(call, client)),
                threading.Thread(target=run.bind(call), args=(client,)),
            ]
            for thread in threads:
                thread.start()
                thread.join()
            # a plain thread starts with an empty context
            plain = threading.Thread(target=call, args=(client,))
            plain.start()
            plain.join()
        assert run.calls == 2


def test_a_name_continues_a_run(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        for _ in range(2):
            with outlay.run(name="nightly", budget_usd=1) as run:
                call(place.gpt())
        assert run.cost_usd == "0.001625"
        assert 2 * GPT_CALL_NANOS == 1_625_000


def test_what_is_left_is_what_the_ledger_says(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        with outlay.run(name="nightly", budget_usd="0.002"):
            call(client)
        for more in ({"budget_usd": 10}, {}):
            with outlay.run(name="nightly", **more) as run, outlay.run() as child:
                with pytest.raises(outlay.BudgetExceeded):
                    call(client)
                assert (run.cost_usd, run.remaining_usd, child.remaining_usd) == (
                    "0.0008125",
                    "0.0011875",
                    "0.0011875",
                )


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        *(("budget_usd", wrong) for wrong in (-1, True, "a lot", "nan", "1e99", 1e-12)),
        *(("max_calls", wrong) for wrong in ("3", -1, 1.5, True, 2**31 + 1)),
        *(("max_seconds", wrong) for wrong in ("3", -1, 0.5, False, 10**9)),
        *(("name", wrong) for wrong in (7, None, "a*", "two\nlines", " padded", "\ud800", 129 * "x")),
    ],
)
def test_what_no_run_can_have_is_refused_at_once(argument: str, wrong: object) -> None:
    with pytest.raises(ConfigError, match=f"^{argument}: .*; (use|leave)|^budget_usd: .*below zero"):
        outlay.run(**{argument: wrong})  # type: ignore[arg-type]


def test_what_a_run_can_have() -> None:
    run = outlay.run(budget_usd=0, max_calls=0, max_seconds=2**20, name="b\u00fc\u00e4ro, team=x")
    assert (run.limit_nanos, run.max_calls, run.max_seconds) == (0, 0, 2**20)
    assert outlay.run(budget_usd=0.5).id != outlay.run(name="").id


def test_a_run_has_its_money_in_one_place(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        one, other = place.gpt(), place.gpt(ledger=tmp_path / "other.db")
        with outlay.run(budget_usd=1) as run:
            call(one)
            with pytest.raises(outlay.CallRefused) as caught:
                call(other)
            assert caught.value.error_code == "run_elsewhere"
            with pytest.raises(OutlayError), run:
                pass


def in_thread(work: Callable[[], None]) -> None:
    """Do something in a thread, which starts with an empty context; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(20)


def test_a_child_entered_again_in_a_thread_still_draws_from_its_parent(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        parent, child = outlay.run(budget_usd="0.002", name="parent"), outlay.run(budget_usd=10, name="child")

        def again() -> None:
            with child:
                call(client)

        with parent, child:
            in_thread(again)
            with pytest.raises(outlay.BudgetExceeded) as caught:
                for _ in range(9):
                    call(client)
            assert "run=parent" in str(caught.value.scope)
        # also when neither is open elsewhere
        with pytest.raises(outlay.BudgetExceeded):
            in_thread(again)
        assert (parent.cost_usd, parent.calls) == (child.cost_usd, child.calls) == ("0.0008125", 1)


def test_a_run_has_one_place_for_good(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        child, bound, alone = outlay.run(name="child"), outlay.run(name="bound"), outlay.run(name="alone")
        with outlay.run(name="parent", budget_usd=1) as parent:
            with child:
                pass
            with child:
                pass
            with pytest.raises(OutlayError, match="open already"), outlay.run(name="parent"):
                pass
            # bound here, called elsewhere for the first time
            work = bound.bind(call)
        in_thread(lambda: work(client))
        assert (parent.calls, bound.calls) == (1, 1)
        with alone:
            pass
        with outlay.run(name="other"):
            with (
                pytest.raises(
                    OutlayError, match=r"'child' was first entered in run 'parent'.*in run 'other'"
                ),
                child,
            ):
                pass
            with pytest.raises(OutlayError, match="'alone' was first entered outside of any run"), alone:
                pass
            # what was refused has changed nothing here
            call(client)
        assert [one.identity.get("run") for one in place.charges()] == ["other", "bound"]


def test_many_contexts_enter_and_leave_one_run_in_any_order(tmp_path: Path) -> None:
    async def worker(run: outlay.Run, entered: asyncio.Event, leave: asyncio.Event) -> list[str]:
        seen = []
        async with run:
            entered.set()
            await leave.wait()
            seen.append(here())
        seen.append(here())
        return seen

    async def work() -> None:
        run = outlay.run(name="shared")
        events = [(asyncio.Event(), asyncio.Event()) for _ in range(3)]
        tasks = [asyncio.create_task(worker(run, *pair)) for pair in events]
        for entered, _ in events:
            await entered.wait()
        with outlay.run(name="mine"):
            for (_, leave), task in zip(events, tasks, strict=True):
                leave.set()
                assert await task == ["shared", ""]
                assert here() == "mine"

    asyncio.run(work())
    # threads: the first to enter is the first to leave
    run, both, one_left = outlay.run(name="shared"), threading.Barrier(2), threading.Event()

    def enter(is_first: bool) -> list[str]:
        with run:
            both.wait(10)
            if not is_first:
                one_left.wait(10)
            inside = here()
        one_left.set()
        return [inside, here()]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(enter, (True, False))) == [["shared", ""]] * 2


def test_runs_left_out_of_order_leave_the_others_open() -> None:
    def agent() -> Iterator[None]:
        with outlay.run(name="generator"):
            yield

    steps = agent()
    next(steps)
    with outlay.run(name="inner"):
        assert list(steps) == []
        assert here() == "inner"
    assert here() == ""


def here() -> str:
    """Name of the run of this context."""
    run = current_run()
    return "" if run is None else run.id
