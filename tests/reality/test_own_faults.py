"""Defects of our own, planted: whatever raises between a hold and its end, the hold ends and the client hears of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.gateway import admission, exchange, settlement
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.kernel.errors import StoreError
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import Reply, post

REQUEST = {"model": "gpt-test", "max_tokens": 80, "messages": [{"role": "user", "content": "hi"}]}


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("planted")


def only_charge(gateway: RunningGateway) -> ChargeView:
    gateway.call(gateway.books.flush)
    with LedgerReader(gateway.path) as reader:
        assert reader.totals()["open_holds"] == 0
        (charge,) = reader.charges()
    assert audit(gateway.path).findings == ()
    return charge


@pytest.mark.parametrize(
    ("name", "stream", "basis"),
    [
        ("upstream_request", False, "void"),
        ("settle_usage", False, "outcome_unknown"),
        ("settle_usage", True, "outcome_unknown"),
        ("answer_head", True, "outcome_unknown"),
    ],
)
def test_the_hold_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stream: bool, basis: str
) -> None:
    monkeypatch.setattr(settlement if name == "settle_usage" else exchange, name, broken)
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")]) as gateway,
    ):
        reply = asyncio.run(post(gateway.url, {**REQUEST, "stream": stream}))
        if stream and name == "settle_usage":
            assert reply.status == 200 and b'"code":"internal_error"' in reply.body
        else:
            assert reply.status in (500, 502)
            assert reply.error["code"] in ("internal_error", "upstream_failed")
        charge = only_charge(gateway)
        assert charge.basis == basis
        assert charge.cost_nanos == (0 if basis == "void" else charge.hold_nanos)
        assert charge.cost_nanos >= mock.meter.total_nanos


def test_a_store_that_cannot_be_asked_is_down_and_no_fault_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sight of an account asks the store; the simulator found the answer to be a 500 (seed 13)."""

    def is_gone(*_: Any) -> Any:
        raise StoreError("the ledger's database failed")

    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("team", "1", {"team": "*"})]) as gateway,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(gateway.books.directory._store, "find_account", is_gone, raising=False)
            reply = asyncio.run(post(gateway.url, REQUEST))
            assert (reply.status, reply.error["code"]) == (503, "ledger_down")
        assert not mock.calls
        assert asyncio.run(post(gateway.url, REQUEST)).status == 200
        assert only_charge(gateway).cost_nanos == mock.meter.total_nanos


def test_a_waiter_that_breaks_leaves_the_others_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = admission.authorize, []

    def second_retry_breaks(*arguments: Any) -> Any:
        calls.append(1)
        # three calls: one is held, two wait (a decision each); the first retry after that is broken
        return broken() if len(calls) == 3 else real(*arguments)

    monkeypatch.setattr(admission, "authorize", second_retry_breaks)
    settings = Settings(disclose=Disclose.ALL, wait_s=10)
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"first_byte_ms": 400}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("one", "0.0018")], settings=settings) as gateway,
    ):

        async def three() -> list[Reply]:
            return list(await asyncio.gather(*(post(gateway.url, REQUEST) for _ in range(3))))

        replies = asyncio.run(three())
        assert sorted(reply.status for reply in replies)[-1] == 500
        assert sum(reply.status == 500 for reply in replies) == 1
        assert all(reply.status in (200, 402, 500) for reply in replies)
        gateway.call(gateway.books.flush)
        assert gateway.call(lambda: gateway.gateway.room.count) == 0
        assert audit(gateway.path).findings == ()
        assert audit(gateway.path).open_holds == 0
