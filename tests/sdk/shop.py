"""What the SDK's tests share: the mock provider, wrapped clients of all vendors, and the check that ends a test."""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
from google import genai

import outlay
from outlay.flow.ledger.audit import Audit, audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.testing import MockProvider
from tests import world

SAY = [{"role": "user", "content": "hello"}]
GPT_CALL_HELD_NANOS = 1_327_500
"""What `SAY` with `max_tokens=80` is held at: a token a byte of its body."""
GPT_CALL_NANOS = 812_500
"""What the mock bills for `SAY` at gpt-test: 5 tokens in, 80 out."""


FREE = ("free", "count_tokens", "moderation", "models")


def billed_rows(ledger: Path) -> int:
    """Charges and open holds of calls that are not free."""
    with LedgerReader(ledger) as reader:
        rows = reader.spend(("operation",), 0, 2**62)
        ended = sum(row.charges for row in rows if row.group["operation"] not in FREE)
    return ended + audit(ledger).open_holds


class Shop:
    """A mock, a ledger file, and clients of it."""

    def __init__(self, mock: MockProvider, ledger: Path) -> None:
        self.mock = mock
        self.ledger = ledger
        self._clients: list[Any] = []

    def close(self) -> None:
        """Close what the tests' synchronous clients have open."""
        for client in self._clients:
            client.close()

    def forget(self) -> None:
        """Close the clients and let go of them."""
        self.close()
        self._clients.clear()

    def wrap(self, client: Any, provider: str, **more: Any) -> Any:
        more = {"ledger": self.ledger, "book": world.book(), "budget_usd": 100, "budget": "all", **more}
        made = outlay.wrap(client, provider=provider, **more)
        if not inspect.iscoroutinefunction(made.close):
            self._clients.append(made)
        return made

    def gpt(self, **more: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=self.mock.url + "/v1", api_key="key", max_retries=2)
        return self.wrap(client, "openai", **more)

    def async_gpt(self, **more: Any) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(base_url=self.mock.url + "/v1", api_key="key", max_retries=2)
        return self.wrap(client, "openai", **more)

    def claude(self, **more: Any) -> anthropic.Anthropic:
        return self.wrap(anthropic.Anthropic(base_url=self.mock.url, api_key="key"), "anthropic", **more)

    def async_claude(self, **more: Any) -> anthropic.AsyncAnthropic:
        return self.wrap(anthropic.AsyncAnthropic(base_url=self.mock.url, api_key="key"), "anthropic", **more)

    def gemini(self, **more: Any) -> genai.Client:
        options = {"base_url": self.mock.url}
        return self.wrap(genai.Client(api_key="key", http_options=options), "google", **more)

    def audit(self) -> Audit:
        return audit(self.ledger)

    def charges(self) -> list[ChargeView]:
        """All charges, newest first."""
        with LedgerReader(self.ledger) as reader:
            return reader.charges(1000)

    def wait_for(self, charges: int, *, holds: int = 0) -> Audit:
        """Wait until so many charges are booked and so many holds are open."""
        deadline = time.monotonic() + 20
        while True:
            found = self.audit()
            if (found.charges, found.open_holds) == (charges, holds):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


@contextmanager
def shop(folder: Path, *, is_exact: bool = True, **behaviour: object) -> Iterator[Shop]:
    """A mock and a ledger; at the end nothing is held, the books are right and (`is_exact`) equal the meter."""
    with MockProvider(prices=world.meter_prices(), models=world.MODELS, behaviour=behaviour or None) as mock:
        found = Shop(mock, folder / "sdk.db")
        try:
            yield found
        finally:
            found.close()
        mock.wait_for(0)
        books = found.audit()
        assert books.findings == ()
        assert books.open_holds == 0
        assert books.most_over_limit_nanos <= 0
        if is_exact:
            assert books.spend_nanos == mock.meter.total_nanos
        else:
            assert books.spend_nanos >= mock.meter.total_nanos
