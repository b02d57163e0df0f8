"""A run's own limits: money, calls and time, for a run and all that it begot, over restarts, at any concurrency."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway.snapshot import Disclose, Mode, OnClientGone, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.flow.outcome import Billing
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget, key
from tests.reality.load import Reply, post

BODY = {"model": "gpt-test", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
NOWAIT = Settings(disclose=Disclose.ALL, wait_s=0)


async def call(
    gateway: RunningGateway, run: str = "r", body: Any = None, secret: str = SECRET, **said: str
) -> Reply:
    headers = {"x-outlay-run": run} if run else {}
    headers |= {f"x-outlay-run-{name.replace('_', '-')}": value for name, value in said.items()}
    return await post(gateway.url, body or BODY, secret=secret, headers=headers)


def hold_of_a_call(gateway: RunningGateway) -> int:
    """What a call of this shape is held at, in nanos."""
    assert asyncio.run(call(gateway, "probe")).status == 200
    until = time.monotonic() + 5
    while time.monotonic() < until:
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            for charge in reader.charges():
                return charge.hold_nanos
    raise AssertionError("the call was not charged")


def usd(nanos: int) -> str:
    return f"{nanos // 10**9}.{nanos % 10**9:09d}"


def code(reply: Reply) -> str:
    return "" if reply.status == 200 else str(reply.error["code"])


async def many(gateway: RunningGateway, count: int, **said: str) -> list[Reply]:
    return await asyncio.gather(*(call(gateway, **said) for _ in range(count)))


def test_money_is_enough_for_three_of_forty(tmp_path: Path) -> None:
    behaviour = {"output_tokens": 100, "first_byte_ms": 200}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")], settings=NOWAIT) as gateway,
    ):
        held = hold_of_a_call(gateway)
        cap = usd(3 * held + held // 2)
        replies = asyncio.run(many(gateway, 40, budget_usd=cap))
        assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 37
        busy = next(reply for reply in replies if reply.status == 429)
        assert (busy.error["budget"], busy.error["scope"]) == ("outlay.run", "org=acme,run=r,team=search")
        spent = replies[0]
        for _ in range(
            3
        ):  # a call costs less than it is held at: one more may fit, and a larger figure raises nothing
            spent = asyncio.run(call(gateway, budget_usd="9"))
        assert (spent.status, spent.error["budget"]) == (402, "outlay.run")
        assert spent.error["limit"] == cap.rstrip("0")
        # another run, and the same name of another team, are not touched
        assert asyncio.run(call(gateway, "s")).status == 200
        gateway.swap(keys=(key(), key("other", "sk-outlay-other", team="ads")))
        assert asyncio.run(call(gateway, "r", secret="sk-outlay-other")).status == 200
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert found.findings == ()
        assert -held < found.most_over_limit_nanos <= 0
        assert found.spend_nanos == mock.meter.total_nanos


def test_calls_are_counted_exactly_and_over_a_restart(tmp_path: Path) -> None:
    with MockProvider(prices=MOCK_PRICES) as mock:
        for expected in (4, 0):
            with RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")]) as gateway:
                replies = asyncio.run(many(gateway, 30, max_calls="4"))
                assert sum(reply.status == 200 for reply in replies) == expected
                refused = [reply for reply in replies if reply.status != 200]
                assert {(reply.status, code(reply)) for reply in refused} == {(402, "run_calls_spent")}
                assert {reply.headers["x-should-retry"] for reply in refused} == {"false"}
                assert refused[0].error["max_calls"] == 4
                # a larger figure, said later, raises nothing
                assert code(asyncio.run(call(gateway, max_calls="99"))) == "run_calls_spent"


def test_time_is_up_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    behaviour = {"output_tokens": 500, "tokens_per_chunk": 1, "chunk_ms": 20, "on_client_gone": "sent"}
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "9")],
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
        ) as gateway,
    ):
        stream = {**BODY, "max_tokens": 500, "stream": True}
        reply = asyncio.run(call(gateway, body=stream, max_seconds="1"))
        assert reply.status == 200
        assert b'"code":"run_expired"' in reply.body
        assert b"[DONE]" not in reply.body
        assert code(asyncio.run(call(gateway))) == "run_expired"
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).open_holds == 0


def test_a_deadline_that_is_lowered_cuts_what_is_open(tmp_path: Path) -> None:
    """Also of a run that had none, and of what runs below it; the opening call of a run of no time is refused."""
    behaviour = {"output_tokens": 400, "tokens_per_chunk": 1, "chunk_ms": 20, "on_client_gone": "sent"}

    async def scene(gateway: RunningGateway) -> list[Reply]:
        stream = {**BODY, "max_tokens": 400, "stream": True}
        open_ones = [
            asyncio.create_task(call(gateway, run, stream, **said))
            for run, said in (
                ("plain", {}),
                ("long", {"max_seconds": "600"}),
                ("child", {"parent": "root"}),
                ("other", {"max_seconds": "600"}),
            )
        ]
        await asyncio.sleep(0.3)
        for run in ("plain", "long", "root"):
            lowered = asyncio.create_task(call(gateway, run, stream, max_seconds="1"))
            open_ones.append(lowered)
        return await asyncio.gather(*open_ones)

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("all", "9")],
            billing=Billing.SELF_HOSTED,
            on_client_gone=OnClientGone.CANCEL,
        ) as gateway,
    ):
        for _ in range(2):  # the first call of all is refused, too
            assert code(asyncio.run(call(gateway, "none", max_seconds="0"))) == "run_expired"
        plain, long, child, other, *_ = asyncio.run(scene(gateway))
        for reply in (plain, long, child):
            assert reply.status == 200
            assert b'"code":"run_expired"' in reply.body
            assert b"[DONE]" not in reply.body
        assert other.finish == "stop"
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).findings == ()


def test_children_spend_from_the_remainder_of_their_parents(tmp_path: Path) -> None:
    """nodetool #5489: $2.00 were billed under a cap of $1.25 when children opened budgets of their own."""
    behaviour = {"output_tokens": 100}

    async def scene(gateway: RunningGateway) -> int:
        served = 0
        for turn in range(12):
            child = await call(gateway, f"child-{turn}", parent="root", budget_usd="5")
            grandchild = await call(gateway, f"grand-{turn}", parent=f"child-{turn}")
            served += (child.status == 200) + (grandchild.status == 200)
            for reply in (child, grandchild):
                if reply.status != 200:
                    assert (reply.status, reply.error["budget"]) == (402, "outlay.run")
                    assert reply.error["scope"] == "org=acme,run=root,team=search"
        return served

    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")], settings=NOWAIT) as gateway,
    ):
        cap = 6 * hold_of_a_call(gateway)
        assert asyncio.run(call(gateway, "root", budget_usd=usd(cap))).status == 200
        served = 1 + asyncio.run(scene(gateway))
        assert 6 <= served < 12
        gateway.call(gateway.books.flush)
        found = audit(gateway.path)
        assert (found.findings, found.charges) == ((), served + 1)
        assert found.most_over_limit_nanos <= 0
        assert found.spend_nanos == mock.meter.total_nanos <= cap * (served + 1) // served
        with LedgerReader(gateway.path) as reader:
            by_run = {row.group["run"]: row.cost_nanos for row in reader.spend(["run"])}
        # each charge is one run's own: parents' accounts hold more, the ledger counts once
        assert sum(by_run.values()) == found.spend_nanos


def test_a_budget_for_each_run_covers_what_a_run_begot(tmp_path: Path) -> None:
    each = budget("each-run", "0.0041", {"run": "*"})
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 100}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [each], settings=NOWAIT) as gateway,
    ):
        replies = [asyncio.run(call(gateway, f"child-{turn}", parent="root")) for turn in range(6)]
        assert [reply.status for reply in replies] == [200, 200, 200, 402, 402, 402]
        assert replies[-1].error["budget"] == "each-run"
        assert "run=root" in replies[-1].error["scope"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("r", {"budget_usd": "a lot"}),
        ("r", {"budget_usd": "-1"}),
        ("r", {"budget_usd": "1e99"}),
        ("r", {"max_calls": "1.5"}),
        ("r", {"max_seconds": "-3"}),
        ("r", {"parent": "r"}),
        ("r", {"above": "root"}),
        ("r", {"above": '{"run": "root"}'}),
        ("r", {"above": '[{"run": "root", "budget_usd": 2}]'}),
        ("r", {"above": '[{"run": "root", "budget_usd": "much"}]'}),
        ("r", {"above": '[{"run": "a*"}]'}),
        ("r", {"above": '[{"run": "x"}]', "parent": "root"}),
        ("r", {"above": '[{"run": "child"}, {"run": "root"}]'}),
        ("r", {"parent": "a*"}),
        ("", {"budget_usd": "1"}),
        ("child", {"parent": "stranger"}),
        ("root", {"parent": "child"}),
        ("deep-9", {"parent": "deep-8"}),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, run: str, said: dict[str, str]) -> None:
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")]) as gateway,
    ):
        assert asyncio.run(call(gateway, "child", parent="root")).status == 200
        for depth in range(1, 9):
            above = asyncio.run(call(gateway, f"deep-{depth}", parent=f"deep-{depth - 1}"))
            assert above.status == 200
        reply = asyncio.run(call(gateway, run, **said))
        assert (reply.status, code(reply)) == (400, "bad_header")
        assert reply.error["param"].startswith("x-outlay-run")
        gateway.call(gateway.books.flush)
        assert len(mock.meter.entries) == 9


def test_a_pinned_parent_is_evaded_by_no_fresh_name(tmp_path: Path) -> None:
    keys = [key(run_parent="nightly"), key("free", "sk-outlay-free")]
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 100}) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "9")], keys=keys, settings=NOWAIT
        ) as gateway,
    ):
        cap = 3 * hold_of_a_call(gateway)
        assert asyncio.run(call(gateway, "nightly", budget_usd=usd(cap))).status == 200
        # a run that another key opened is not under it
        assert asyncio.run(call(gateway, "elsewhere", secret="sk-outlay-free", max_calls="9")).status == 200
        for run, parent in (("elsewhere", ""), ("x", "elsewhere")):
            reply = asyncio.run(call(gateway, run, **({"parent": parent} if parent else {})))
            assert (reply.status, code(reply)) == (400, "bad_header")
        fresh = [asyncio.run(call(gateway, f"fresh-{turn}")) for turn in range(4)]
        assert [reply.status for reply in fresh] == [200, 200, 402, 402]
        assert "run=nightly" in fresh[-1].error["scope"]
        nameless = asyncio.run(call(gateway, ""))
        assert (nameless.status, nameless.error["budget"]) == (402, "outlay.run")
        below = asyncio.run(call(gateway, "below", parent="fresh-0"))
        assert (below.status, below.error["budget"]) == (402, "outlay.run")


def test_shadow_mode_records_and_refuses_nothing(tmp_path: Path) -> None:
    settings = Settings(mode=Mode.SHADOW)
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 100}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")], settings=settings) as gateway,
    ):
        cap = usd(hold_of_a_call(gateway) * 3 // 2)
        for _ in range(3):
            assert asyncio.run(call(gateway, budget_usd=cap, max_calls="2")).status == 200
        until = time.monotonic() + 5
        reasons: list[str | None] = []
        while len(reasons) < 4 and time.monotonic() < until:
            gateway.call(gateway.books.flush)
            with LedgerReader(gateway.path) as reader:
                reasons = [charge.reason for charge in reader.charges()]
        assert sum(reason is None for reason in reasons) == 2
        assert sum("outlay.run" in (reason or "") for reason in reasons) == 1
        assert sum("run_calls_spent: r" in (reason or "") for reason in reasons) == 1
        assert audit(gateway.path).findings == ()


def test_the_first_call_of_all_may_be_a_childs(tmp_path: Path) -> None:
    """An SDK's nested runs: the outer run has a limit, and only the inner one ever calls."""
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 100}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")], settings=NOWAIT) as gateway,
    ):
        cap = usd(2 * hold_of_a_call(gateway))
        above = json.dumps([{"run": "outer", "budget_usd": cap}, {"run": "middle", "max_calls": 9}])
        replies = [asyncio.run(call(gateway, f"inner-{turn}", above=above)) for turn in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 402, 402]
        assert "run=outer" in replies[-1].error["scope"]
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).findings == ()


def test_what_is_refused_opens_and_lowers_nothing(tmp_path: Path) -> None:
    """A line of nine runs above, or one that ends in a contradiction, leaves every run as it was."""
    nine = [{"run": "child"}, *({"run": f"q{turn}", "budget_usd": "0"} for turn in range(7))]
    wrong = [{"run": "q0", "max_calls": 0}, {"run": "open", "max_calls": 0}, {"run": "q1"}]
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "9")]) as gateway,
    ):
        assert asyncio.run(call(gateway, "open", max_calls="9")).status == 200
        assert asyncio.run(call(gateway, "child", parent="open")).status == 200
        for above in (nine, wrong):
            refused = asyncio.run(call(gateway, "z", above=json.dumps(above)))
            assert (refused.status, code(refused)) == (400, "bad_header")
        for run in ("q0", "q1", "open"):
            assert code(asyncio.run(call(gateway, run))) == ""
        # the key would have to be its own run's parent
        gateway.swap(keys=(key(run_parent="boss"),))
        assert code(asyncio.run(call(gateway, "boss", parent="x"))) == "bad_header"
        assert code(asyncio.run(call(gateway, "x"))) == ""
        eight = json.dumps([{"run": "boss"}, *({"run": f"w{turn}"} for turn in range(7))])
        assert code(asyncio.run(call(gateway, "below", above=eight))) == ""
        gateway.call(gateway.books.flush)
        with closing(sqlite3.connect(gateway.path)) as db:
            found = db.execute("SELECT name FROM runs").fetchall()
        opened = {"open", "child", "boss", "x", "below", *(f"w{turn}" for turn in range(7))}
        assert {name for (name,) in found} == opened
