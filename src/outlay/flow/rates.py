"""Counters in time: requests and tokens a minute, calls in flight. Pure; the owner gives the time.

A ring of one-second buckets: what is counted stays for at least a minute and at most a second longer, so no rolling
minute ever holds more than the limit. Tokens are held at a call's upper bound and become what was used when it ends,
as money does. Counters start empty with the process: a minute later they are exact again.
"""

from collections import deque

SECOND_NS = 1_000_000_000
WINDOW_S = 60


class Meter:
    """A rolling minute of counts. `held` counts always, what is posted leaves after a minute."""

    __slots__ = ("_buckets", "held", "posted")

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque()
        self.held = 0
        self.posted = 0

    def total(self, now: int) -> int:
        """What counts at `now` (UTC ns)."""
        self._leave(now // SECOND_NS)
        return self.held + self.posted

    def post(self, count: int, now: int) -> None:
        """Something happened."""
        second = now // SECOND_NS
        self._leave(second)
        if self._buckets and self._buckets[-1][0] >= second:
            self._buckets[-1][1] += count
        else:
            self._buckets.append([second, count])
        self.posted += count

    def room_in(self, needed: int, now: int) -> int:
        """Seconds until `needed` of what was posted has left; a whole window if held money alone stands in the way."""
        second = now // SECOND_NS
        gone = 0
        for start, count in self._buckets:
            gone += count
            if gone >= needed:
                return max(1, start + WINDOW_S + 1 - second)
        return WINDOW_S

    def _leave(self, second: int) -> None:
        buckets = self._buckets
        while buckets and buckets[0][0] + WINDOW_S < second:
            self.posted -= buckets.popleft()[1]


class RateLimits:
    """The counters of one policy and scope value."""

    __slots__ = (
        "__weakref__",
        "in_flight",
        "name",
        "parallel",
        "requests",
        "requests_limit",
        "scope",
        "tokens",
        "tokens_limit",
    )

    def __init__(self, name: str, scope: str) -> None:
        self.name = name
        self.scope = scope
        self.requests = Meter()
        self.tokens = Meter()
        self.in_flight = 0
        self.requests_limit: int | None = None
        self.tokens_limit: int | None = None
        self.parallel: int | None = None

    def refuses(self, tokens: int, now: int, *, is_first: bool) -> tuple[str, int, int, int] | None:
        """Why a call of at most `tokens` may not begin: (kind, limit, in use, seconds to wait); None if it may.

        `is_first`: the first attempt of a request, which counts as one; further attempts count their tokens only.
        """
        if self.parallel is not None and self.in_flight >= self.parallel:
            return "parallel", self.parallel, self.in_flight, 1
        limit = self.requests_limit
        if limit is not None and is_first:
            used = self.requests.total(now)
            if used >= limit:
                return "requests_per_minute", limit, used, self.requests.room_in(used + 1 - limit, now)
        limit = self.tokens_limit
        if limit is not None:
            used = self.tokens.total(now)
            if used + tokens > limit:
                return "tokens_per_minute", limit, used, self.tokens.room_in(used + tokens - limit, now)
        return None

    def begin(self, tokens: int, now: int, *, is_first: bool) -> None:
        """A call begins; the caller has asked `refuses` in the same breath."""
        self.in_flight += 1
        if is_first:
            self.requests.post(1, now)
        self.tokens.held += tokens

    def end(self, held_tokens: int, used_tokens: int, now: int) -> None:
        """The call ended: its bound is let go, what it used counts for a minute."""
        self.in_flight -= 1
        self.tokens.held -= held_tokens
        self.tokens.post(used_tokens, now)

    def is_idle(self, now: int) -> bool:
        """Nothing is in flight and nothing counts any more at `now` (UTC ns)."""
        return not (self.in_flight or self.requests.total(now) or self.tokens.total(now))
