"""Runs: limits of an agent's work, nested, carried by the context into tasks and threads."""

import asyncio
import contextvars
import threading
from pathlib import Path

import pytest

import outlay
from outlay.kernel.errors import OutlayError
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
