"""Progressive holds: a stream that states no output limit is held for a first slice, and the hold grows as it passes.

Only where cancelling verifiably stops billing (`progressive` of a provider). A hold always covers what was seen and
what the engine may have made ahead of it; an extension is durable before more is forwarded; one that does not fit
waits a moment for money to come free and then cuts the stream, well-formed. The first slice is learned: what a model's
answers to a key usually are, so that many streams are not begun with money for few.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from outlay.flow.accounts import Account
from outlay.flow.authorize import output_bound
from outlay.flow.gateway.snapshot import Progressive, Provider
from outlay.flow.ledger.charge import Hold
from outlay.flow.waiting import Waiter
from outlay.kernel.errors import StoreError
from outlay.lookup.cost import Quote, with_output
from outlay.wire.intent import Dialect
from outlay.wire.stream import StreamReader

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

KEPT_ANSWERS: Final = 64
"""Answers of a model and key that the next slice is learned from."""
ENOUGH_ANSWERS: Final = 8
"""Before there are so many, the operator's first slice stands in."""
MAX_LEARNED: Final = 10_000
SLICE_PERCENT: Final = 85
"""Answers that the first slice covers: the rest extend."""
LEAST_SLICE: Final = 16


class Slices:
    """What answers usually are, by model and key, in output tokens. Forgets what is not asked for."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], deque[int]] = {}

    def learn(self, model: str, key: str, output_tokens: int) -> None:
        """A stream ended by itself with so many tokens."""
        found = self._answers.get((model, key))
        if found is None:
            if len(self._answers) >= MAX_LEARNED:
                del self._answers[next(iter(self._answers))]
            found = self._answers[model, key] = deque(maxlen=KEPT_ANSWERS)
        found.append(output_tokens)

    def first(self, model: str, key: str, default: int) -> int:
        """Tokens of the first slice: covers most of the answers seen; `default` until enough were."""
        found = self._answers.get((model, key))
        if found is None or len(found) < ENOUGH_ANSWERS:
            return default
        ordered = sorted(found)
        return max(LEAST_SLICE, ordered[min(len(ordered) - 1, len(ordered) * SLICE_PERCENT // 100)])


def seen_tokens(reader: StreamReader, how: Progressive) -> int:
    """Output tokens that have passed, an upper bound by what the operator says of the engine."""
    stated = 0 if reader.usage is None or reader.usage_is_final else reader.usage.output_tokens
    match how:
        case Progressive.EVENTS:
            return max(stated, reader.deltas)
        case Progressive.USAGE if stated:
            return stated
        case _:
            # a token of a byte-level tokenizer is at least one byte
            return max(stated, reader.output_bytes, reader.deltas)


def how_counted(provider: Provider) -> Progressive:
    """How what passes is counted. Anthropic's format states a token at the start and all at the end: in between its
    usage says nothing, and bytes are counted."""
    how = provider.progressive
    return Progressive.BYTES if how is Progressive.USAGE and provider.dialect is Dialect.ANTHROPIC else how


class Progress:
    """One stream's hold as it grows. The exchange tells what passes; this says whether it may go on."""

    __slots__ = (
        "_cut",
        "_gateway",
        "_go_on",
        "_hold",
        "_how",
        "_is_asking",
        "_provider",
        "_quote",
        "_waiter",
        "declared",
        "held_tokens",
    )

    def __init__(self, gateway: "Gateway", provider: Provider, quote: Quote, slice_tokens: int) -> None:
        """`quote` is of the declared maximum; `slice_tokens` is held at first, a choice."""
        self._gateway = gateway
        self._provider = provider
        self._how = how_counted(provider)
        self._quote = quote
        self.declared = quote.max_output_tokens
        self.held_tokens = slice_tokens
        self._hold: Hold | None = None
        self._is_asking = False
        self._waiter: Waiter | None = None
        self._go_on: Callable[[], None] = _nothing
        self._cut: Callable[[Account | StoreError], None] = _cut_nothing

    @property
    def quote(self) -> Quote:
        """What is held now."""
        return with_output(self._quote, self.held_tokens)

    @property
    def whole(self) -> Quote:
        """What the declared maximum would be held at."""
        return self._quote

    def begin(
        self, hold: Hold, go_on: Callable[[], None], cut: Callable[[Account | StoreError], None]
    ) -> None:
        """The first slice is held. `go_on`: what was held back may pass; `cut`: an account, or the ledger, takes no
        extension."""
        self._hold, self._go_on, self._cut = hold, go_on, cut

    def may_pass(self, reader: StreamReader) -> bool:
        """Whether what was seen is covered; asks for an extension in good time."""
        choices = max(1, self._quote.choices)
        seen = -(-seen_tokens(reader, self._how) // choices)
        ahead = self._provider.run_ahead_tokens
        if self.held_tokens >= self.declared or reader.usage_is_final:
            return True
        if seen + 2 * ahead >= self.held_tokens:
            self._ask(seen + ahead)
        return seen + ahead <= self.held_tokens

    def end(self) -> None:
        """The stream is over."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._gateway.room.leave(waiter)
        self._go_on, self._cut = _nothing, _cut_nothing

    def _ask(self, needed: int) -> None:
        if self._is_asking or self._hold is None:
            return
        self._is_asking = True
        blocked = self._extend(needed)
        if blocked is not None:
            self._wait(needed, *blocked)

    def _extend(self, needed: int) -> tuple[Account, int] | None:
        """Extend the hold by half of what it is, or by what is needed at least; else what blocks, and how much."""
        hold = self._hold
        if hold is None or hold.is_ended:
            return None
        held = self.held_tokens
        wide = max(needed, held + held // 2, held + LEAST_SLICE)
        for tokens in (
            min(wide, self.declared),
            min(needed + self._provider.run_ahead_tokens, self.declared),
        ):
            extra = output_bound(self._quote, tokens) - output_bound(self._quote, held)
            if self._gateway.books.extend(hold, extra, partial(self._extended, tokens)):
                return None
        account = next((found for found in hold.accounts if found.available < extra), hold.accounts[0])
        return account, extra

    def _extended(self, tokens: int, error: StoreError | None) -> None:
        self._is_asking = False
        if error is None:
            self.held_tokens = tokens
            self._go_on()
        else:
            self._cut(error)

    def _wait(self, needed: int, account: Account, nanos: int) -> None:
        gateway = self._gateway
        own = 0 if self._hold is None else self._hold.nanos
        if account.spent + own + nanos > account.cap:
            # neither what is spent nor what this stream itself holds comes back: waiting cannot help, and the engine
            # goes on meanwhile
            self._give_up(account)
            return
        now = gateway.clock.monotonic()
        deadline = now + gateway.settings.extend_wait_ms * 1_000_000
        waiter = Waiter(lambda: self._extend(needed), lambda: self._give_up(account), 0, now, deadline)
        self._waiter = waiter
        if not gateway.room.join(waiter, account, nanos, is_first=True):
            self._waiter = None
            self._give_up(account)

    def _give_up(self, account: Account) -> None:
        self._waiter = None
        self._cut(account)


def _nothing() -> None:
    return None


def _cut_nothing(_why: Account | StoreError) -> None:
    return None
