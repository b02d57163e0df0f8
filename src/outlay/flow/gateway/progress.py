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
    """What answers usually are, by model and key, in output tokens. Forgets what gave no answer for longest."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], deque[int]] = {}

    def learn(self, model: str, key: str, output_tokens: int) -> None:
        """A stream ended by itself with so many tokens."""
        # taken out and put in again: the first is the one whose last answer is oldest
        found = self._answers.pop((model, key), None)
        if found is None:
            if len(self._answers) >= MAX_LEARNED:
                del self._answers[next(iter(self._answers))]
            found = deque(maxlen=KEPT_ANSWERS)
        self._answers[model, key] = found
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
        "_blocked_by",
        "_cut",
        "_gateway",
        "_go_on",
        "_hold",
        "_how",
        "_provider",
        "_quote",
        "_waiter",
        "declared",
        "granted",
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
        """Held on the disk, a choice."""
        self.granted = slice_tokens
        """Held, on the disk or on its way there."""
        self._blocked_by: Account | None = None
        self._hold: Hold | None = None
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
        """Whether what was seen may go on: the hold of it, and of what the engine has made ahead, is on the disk.

        Asks for more in good time. What nothing covers, on the disk or on its way there, cuts the stream at once: an
        engine makes on while nobody reads, so waiting for money is only free as long as what is held reaches.
        """
        if self.granted >= self.declared or reader.usage_is_final:
            return self.held_tokens >= self.declared or reader.usage_is_final
        choices = max(1, self._quote.choices)
        ahead = self._provider.run_ahead_tokens
        covered = -(-seen_tokens(reader, self._how) // choices) + ahead
        if self._waiter is None and covered + max(ahead, self.granted // 4) >= self.granted:
            self._ask(covered)
        if covered > self.granted and self.granted < self.declared:
            self._give_up(self._blocked_by)
            return False
        return covered <= self.held_tokens

    def end(self) -> None:
        """The stream is over."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._gateway.room.leave(waiter)
        self._go_on, self._cut = _nothing, _cut_nothing

    def _ask(self, needed: int) -> None:
        blocked = self._extend(needed)
        if blocked is not None:
            self._wait(needed, *blocked)

    def _extend(self, needed: int) -> tuple[Account, int] | None:
        """Extend the hold by a quarter and the run-ahead, or at least to what is needed; else what blocks, and how
        much is needed there."""
        hold = self._hold
        if hold is None or hold.is_ended:
            return None
        ahead, granted = self._provider.run_ahead_tokens, self.granted
        extra = 0
        for tokens in (
            max(needed, granted) + max(granted // 4, 2 * ahead, LEAST_SLICE),
            needed + ahead,
            needed + 1,
        ):
            wanted = min(max(tokens, granted + 1), self.declared)
            extra = output_bound(self._quote, wanted) - output_bound(self._quote, granted)
            if self._gateway.books.extend(hold, extra, partial(self._extended, wanted)):
                self.granted = wanted
                self._waiter = None
                return None
        account = next((found for found in hold.accounts if found.available < extra), None)
        if account is None:
            raise AssertionError("an extension that no account refuses is placed")
        self._blocked_by = account
        return account, extra

    def _extended(self, tokens: int, error: StoreError | None) -> None:
        if error is None:
            self.held_tokens = max(self.held_tokens, tokens)
            self._go_on()
        else:
            self._cut(error)

    def _wait(self, needed: int, account: Account, nanos: int) -> None:
        """Wait for money that others hold, as long as what is held reaches; the stream goes on meanwhile."""
        gateway = self._gateway
        own = 0 if self._hold is None else self._hold.nanos
        if account.spent + own + nanos > account.cap:
            # neither what is spent nor what this stream itself holds comes back: what is held is used, then it ends
            return
        now = gateway.clock.monotonic()
        deadline = now + gateway.settings.extend_wait_ms * 1_000_000
        waiter = Waiter(lambda: self._extend(needed), self._waited, 0, now, deadline)
        if gateway.room.join(waiter, account, nanos, is_first=True):
            self._waiter = waiter

    def _waited(self) -> None:
        """Nothing came free in time; the next part of the stream asks again, or ends it."""
        self._waiter = None

    def _give_up(self, account: Account | None) -> None:
        hold = self._hold
        if account is None and hold is not None:
            account = min(hold.accounts, key=lambda found: found.available, default=None)
        if account is not None:
            self._cut(account)


def _nothing() -> None:
    return None


def _cut_nothing(_why: Account | StoreError) -> None:
    return None
