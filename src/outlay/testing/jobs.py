"""What the mock's jobs have in common: how they go on by being asked for, and how the lines of a batch are run.

A job is done at the n-th GET (knob `polls`). Holds no vendor's format.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from outlay.testing.answer import Answer, Identity, Piece
from outlay.testing.behaviour import Behaviour, JobEnd, Resolve
from outlay.testing.call import Ask, BookCharge, Call, Charge, Handler
from outlay.testing.meter import NOTHING

MAX_KEPT = 2_000
"""Files, or jobs of one kind, that are remembered; the oldest go first."""
BATCH_TIER = "batch"
"""The price class of a batch line: rates of `model@batch` where the price table has them."""


class Stage(StrEnum):
    """Where a job is, whatever its vendor calls it."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (Stage.WAITING, Stage.RUNNING)


_ENDS = {JobEnd.DONE: Stage.DONE, JobEnd.FAILED: Stage.FAILED, JobEnd.EXPIRED: Stage.EXPIRED}


class Progress(msgspec.Struct):
    """The life of one job."""

    behaviour: Behaviour
    stage: Stage = Stage.WAITING
    gets: int = 0

    def asked(self) -> bool:
        """Go on by one GET; True if the job ended by it."""
        if not self.stage.is_open:
            return False
        self.gets += 1
        return self.settle()

    def settle(self) -> bool:
        """Take the stage that the GETs so far amount to; True if the job ended by it."""
        polls = self.behaviour.polls
        if self.gets >= polls:
            self.stage = _ENDS[self.behaviour.job_end]
            return True
        if self.gets >= polls - 1 and self.gets:
            self.stage = Stage.RUNNING
        return False

    def finished_lines(self, count: int) -> int:
        """How many of a batch's lines were finished when it ended."""
        match self.stage:
            case Stage.DONE:
                return count
            case Stage.EXPIRED:
                return self._some(count)
            case Stage.CANCELLED:
                # one that nobody has seen running has finished nothing, unless a knob says so
                if self.gets == 0 and self.behaviour.job_lines is None:
                    return 0
                return self._some(count)
            case _:
                return 0

    def _some(self, count: int) -> int:
        lines = self.behaviour.job_lines
        return count // 2 if lines is None else min(lines, count)


class Line(NamedTuple):
    """One request of a batch, and what became of it."""

    custom_id: str
    answer: Answer

    @property
    def is_good(self) -> bool:
        return self.answer.status == 200

    @property
    def body(self) -> msgspec.Raw:
        """The answer's JSON text."""
        return msgspec.Raw(b"".join(piece.data for piece in self.answer.pieces))


class LineRunner(NamedTuple):
    """Runs the lines of batches through the rooms that answer single calls."""

    handlers: Mapping[str, Handler]
    """By path."""
    resolve: Resolve
    """The behaviour of a line: default, model and directive; the queue is for calls."""

    def run(self, ask: Ask, path: str, rows: Iterable[tuple[str, object]]) -> list[Line]:
        """The lines' answers; (custom id, body) each."""
        handle = self.handlers[path]
        lines = []
        for index, (custom_id, body) in enumerate(rows):
            call = Call("POST", path, "", [], msgspec.json.encode(body), ask.call.received_at)
            serial = f"{ask.identity.serial}{index:06x}"
            identity = Identity(ask.identity.sequence, serial, ask.identity.created)
            answer, _ = handle(Ask(call, {}, self.resolve, identity))
            answer.service_tier = BATCH_TIER
            answer.speed = None
            lines.append(Line(custom_id, answer))
        return lines


def book_lines(book: BookCharge, call: Call, job: str, lines: Iterable[Line]) -> None:
    """One entry of the meter for each good line, under the call that started the batch."""
    for line in lines:
        if line.is_good and line.answer.tokens is not NOTHING:
            book(Charge(call, line.answer, line.answer.tokens, job))


def keep(kept: OrderedDict[str, Any], key: str, value: object) -> None:
    """Remember `value`, and forget the oldest beyond `MAX_KEPT`."""
    kept[key] = value
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)


def jsonl(rows: Iterable[object]) -> bytes:
    """JSON lines."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def page(ask: Ask, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One page of a listing, newest first, as both vendors write it: `limit` and `after` or `after_id`."""
    limit = ask.call.parameter("limit") or "20"
    size = int(limit) if limit.isdecimal() and int(limit) else 20
    after = ask.call.parameter("after") or ask.call.parameter("after_id")
    newest = rows[::-1]
    start = next((index + 1 for index, row in enumerate(newest) if row["id"] == after), 0)
    shown = newest[start : start + size]
    return {
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + size < len(newest),
    }


def plain_piece(data: bytes) -> list[Piece]:
    """A body that is not generated."""
    return [Piece(data, 0)]
