"""What both SDK suites share: a mock and a gateway in front of it, and the check that ends every test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget

MODELS = ("gpt-test", "embed-test", "claude-test")


@contextmanager
def firewall(
    folder: Path, budgets: list[Any] | None = None, behaviour: dict[str, object] | None = None, **changes: Any
) -> Iterator[tuple[MockProvider, RunningGateway]]:
    """A mock and a gateway; at the end nothing is held, the books are right and equal the provider's meter."""
    declared = [budget("all", "1000")] if budgets is None else budgets
    with (
        MockProvider(prices=MOCK_PRICES, behaviour=behaviour, models=MODELS) as mock,
        RunningGateway(folder / "l.db", mock.url, declared, **changes) as gateway,
    ):
        yield mock, gateway
        mock.wait_for(0)
        charges(gateway)
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert found.spend_nanos == mock.meter.total_nanos


def charges(gateway: RunningGateway) -> list[ChargeView]:
    """All charges, newest first."""
    gateway.call(gateway.books.flush)
    with LedgerReader(gateway.path) as reader:
        return reader.charges()
