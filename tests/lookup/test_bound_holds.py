"""The promise of a hold: whatever is served within the intent's limits never costs more than the bound."""

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pricing_cases import TIMES, intents, prices, usages_within

from outlay.kernel.clock import UnixNanos
from outlay.lookup.book import PriceBook
from outlay.lookup.cost import Cost, Quote, Unbounded, Unpriced, bound, cost, with_output
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import CallIntent

REAL = (
    ("openai", "gpt-6-sol"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-opus-5-5"),
    ("deepseek", "deepseek-v4-pro"),
    ("x-ai", "grok-4.3"),
    ("google", "gemini-2.5-pro"),
    ("groq", "openai/gpt-oss-120b"),
    ("perplexity", "sonar-pro"),
    ("openai", "gpt-audio"),
    ("openai", "gpt-realtime"),
    ("google", "gemini-2.5-flash"),
    ("openai", "gpt-image-1.5"),
)


def _check(
    data: st.DataObject, price: ModelPrice, intent: CallIntent, max_output: int, at: UnixNanos
) -> None:
    quote = bound(price, intent, max_output, at)
    if isinstance(quote, Unbounded):
        event(f"unbounded: {quote.reason.split(':')[0][:30]}")
        return
    usage = data.draw(usages_within(price, intent, max_output))
    priced = cost(price, usage, at, intent)
    if isinstance(priced, Unpriced) and any(
        f"cache_read_{kind}" in priced.reason for kind in ("audio", "image")
    ):
        event("cached media without a price")  # refused, never billed as something else
        return
    if isinstance(priced, Unpriced) and intent.units and not (usage.input_tokens or usage.output_tokens):
        event("units for which tokens stand, without tokens")
        return
    assert isinstance(priced, Cost), priced
    assert priced.total_nanos <= quote.total_nanos
    assert priced.total_nanos == sum(line[3] for line in priced.lines)
    other = data.draw(st.integers(0, 10_000))
    assert with_output(quote, other) == bound(price, intent, other, at)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), price=prices(), intent=intents(), max_output=st.integers(0, 2_000), at=TIMES)
def test_no_served_call_costs_more_than_its_hold(
    data: st.DataObject, price: ModelPrice, intent: CallIntent, max_output: int, at: UnixNanos
) -> None:
    _check(data, price, intent, max_output, at)


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(), which=st.sampled_from(REAL), intent=intents(), max_output=st.integers(0, 2_000), at=TIMES
)
def test_real_prices_hold_too(
    book: PriceBook,
    data: st.DataObject,
    which: tuple[str, str],
    intent: CallIntent,
    max_output: int,
    at: UnixNanos,
) -> None:
    price = book.find(*which, at)
    assert isinstance(price, ModelPrice)
    _check(data, price, intent, max_output, at)


@settings(max_examples=100, deadline=None)
@given(price=prices(), intent=intents(), max_output=st.integers(0, 500), more=st.integers(0, 2_000), at=TIMES)
def test_a_longer_input_or_output_is_never_cheaper_to_hold(
    price: ModelPrice, intent: CallIntent, max_output: int, more: int, at: UnixNanos
) -> None:
    small = bound(price, intent, max_output, at)
    longer = msgspec.structs.replace(intent, input_tokens_bound=intent.input_tokens_bound + more)
    large = bound(price, longer, max_output + more, at)
    if isinstance(small, Quote):
        assert isinstance(large, Quote)
        assert large.total_nanos >= small.total_nanos
