"""Runaway detection on real coding-agent sessions: loops injected, and clean sessions as they are.

Sessions: `../shared/data/claude-code-traces` (metadata of 21,349 requests, no text). A call's signature is made from
what the trace has of its content: new input tokens, kinds of input, output tokens; so calls of equal size count as
equal, which can only raise the false alarms. A loop repeats the last k calls with growing context from a random
point on; the noisy kind changes a fiftieth of each result's shingles. In a loop with a counter no action comes twice,
but all have the shape of the call they repeat; in a reworded one they have not even that. The trace has no arguments,
so these two are made up; "any shape" plays the clean sessions as if all their calls had one shape, which again can
only raise the false alarms. What was said without a tool's result (a sixth of the calls) is repeated as it was: varied,
it is not looked for. All tools' results are taken for long ones.
"""

import random
import time
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

from bench.measures import Table
from outlay.flow.runaway import SKETCH, RunWatch, Signature, Thresholds, Verdict

TRACES: Final = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "claude-code-traces" / "requests.parquet"
)
LENGTHS: Final = (1, 2, 3, 5, 8)
REPEATS: Final = 8
REWORDED_REPEATS: Final = 30
"""What is reworded is left to the rule of stale results, which counts calls."""
SEEDS: Final = 3


class _Loop(NamedTuple):
    """How the repeats of a loop differ from what they repeat."""

    name: str = ""
    noise: int = 0
    """Per cent of a result's shingles that change."""
    is_counted: bool = False
    is_reworded: bool = False
    repeats: int = REPEATS


KINDS: Final = (
    _Loop(),
    _Loop("noisy", 2),
    _Loop("counter", 0, is_counted=True),
    _Loop("counter, noisy", 2, is_counted=True),
    _Loop("reworded, noisy", 2, is_reworded=True, repeats=REWORDED_REPEATS),
)
CLEAN: Final = _Loop()


class _Call(NamedTuple):
    new_tokens: int
    kinds: str
    output_tokens: int
    input_tokens: int


def table() -> Table:
    """See the module."""
    found = Table(f"runaway: loops stopped within {REPEATS} repeats, clean sessions stopped")
    sessions = _sessions()
    limits = Thresholds()
    for name, shape in (("clean", 0), ("clean (any shape)", 1)):
        played = [_played(session, limits, shape) for session in sessions]
        found.rows[name] = {
            "sessions": len(sessions),
            "stopped %": 100 * sum(Verdict.STOP in verdicts for verdicts in played) / len(sessions),
            "warned %": 100 * sum(Verdict.WARN in verdicts for verdicts in played) / len(sessions),
        }
    for kind in KINDS:
        for length in LENGTHS:
            caught, after, total = 0, [], 0
            for seed in range(SEEDS):
                chance = random.Random(1000 * seed + length)
                for session in sessions:
                    if len(session) < length + 4:
                        continue
                    total += 1
                    repeats = _repeats_until_stop(session, length, limits, kind, chance)
                    if repeats is not None:
                        caught += 1
                        after.append(repeats)
            row = found.rows.setdefault(f"loop of {length}{f' ({kind.name})' if kind.name else ''}", {})
            row["loops"] = total
            row["caught %"] = 100 * caught / total
            row["median repeats"] = sorted(after)[len(after) // 2] if after else -1
    found.rows["cost"] = {"us a call": _microseconds(sessions, limits)}
    found.notes.append(
        f"reworded loops have {REWORDED_REPEATS} repeats; only tools' results and calls vary in any loop"
    )
    found.notes.append(
        "a loop that a person watches costs every repeat; the detector is asked before each call is held"
    )
    return found


def _sessions() -> list[list[_Call]]:
    import duckdb

    if not TRACES.exists():
        raise SystemExit(f"the traces are not here: {TRACES.name} of ../shared/data/claude-code-traces")
    rows: list[Any] = (
        duckdb.connect()
        .execute(
            "SELECT trace, agent, in_tok, in_types, out_tok FROM read_parquet(?) ORDER BY trace, agent, i",
            [str(TRACES)],
        )
        .fetchall()
    )
    found: dict[tuple[str, str], list[_Call]] = {}
    for trace, agent, tokens, kinds, output in rows:
        calls = found.setdefault((trace, agent), [])
        before = calls[-1].input_tokens if calls else 0
        calls.append(_Call(tokens - before, kinds or "", output, tokens))
    return list(found.values())


def _signature(call: _Call, loop: _Loop, chance: random.Random, shape: int = 0) -> Signature:
    seed = f"{call.new_tokens}|{call.kinds}|{call.output_tokens}"
    if "tool_result" not in call.kinds:
        return Signature(0, crc32(seed.encode()), input_tokens=call.input_tokens)
    shingles = [*_shingles(seed)]
    for _ in range(len(shingles) * loop.noise // 100):
        shingles[chance.randrange(len(shingles))] = chance.getrandbits(32)
    changed = chance.getrandbits(32) if loop.noise else 0
    action = crc32(f"out {call.output_tokens}".encode())
    varied = chance.getrandbits(32) if loop.is_counted or loop.is_reworded else action
    return Signature(
        varied,
        crc32(seed.encode()) ^ changed,
        tuple(sorted(shingles)[:SKETCH]),
        True,
        False,
        call.input_tokens,
        shape or (varied if loop.is_reworded else action),
    )


@cache
def _shingles(seed: str) -> tuple[int, ...]:
    return tuple(crc32(f"{seed}|{index}".encode()) for index in range(200))


def _played(session: list[_Call], limits: Thresholds, shape: int = 0) -> list[Verdict]:
    watch, chance = RunWatch(), random.Random(1)
    return [watch.see(_signature(call, CLEAN, chance, shape), limits).verdict for call in session]


def _repeats_until_stop(
    session: list[_Call], length: int, limits: Thresholds, loop: _Loop, chance: random.Random
) -> int | None:
    """Whole repeats of the last calls before the loop was stopped; None if it was not within `loop.repeats`."""
    at = chance.randrange(length + 2, len(session))
    watch = RunWatch()
    for call in session[:at]:
        watch.see(_signature(call, CLEAN, chance), limits)
    tokens = session[at - 1].input_tokens
    for repeat in range(loop.repeats):
        for call in session[at - length : at]:
            tokens += max(call.new_tokens, 0) + call.output_tokens
            again = call._replace(input_tokens=tokens)
            if watch.see(_signature(again, loop, chance), limits).verdict is Verdict.STOP:
                return repeat + 1
    return None


def _microseconds(sessions: list[list[_Call]], limits: Thresholds) -> float:
    chance = random.Random(1)
    asked = [[_signature(call, CLEAN, chance) for call in session] for session in sessions[:50]]
    began = time.perf_counter()
    for signatures in asked:
        watch = RunWatch()
        for signature in signatures:
            watch.see(signature, limits)
    return (time.perf_counter() - began) / sum(map(len, asked)) * 1e6
