"""Runaway detection on what agents really send: requests, as a gateway reads them. Loops that vary, and honest work."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from outlay.flow.runaway import DEFAULT_THRESHOLDS, RunWatch, Signature, Thresholds, Verdict
from outlay.wire.intent import Operation
from outlay.wire.tail import read_tail

WORDS = [
    f"{first}{last}"
    for first in ("mer", "lo", "ta", "quin", "so", "ve")
    for last in ("ra", "dor", "n", "lis")
]
LIMITS = DEFAULT_THRESHOLDS


def prose(seed: object, words: int = 120) -> str:
    chance = random.Random(str(seed))
    return " ".join(chance.choice(WORDS) + str(chance.randrange(10)) for _ in range(words))


def request(tool: str, arguments: dict[str, Any], result: str) -> bytes:
    call = {"id": "c", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
    return json.dumps(
        {
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": result},
            ]
        }
    ).encode()


def said(text: str) -> bytes:
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "I think."}]
    return json.dumps({"messages": [*turns, {"role": "user", "content": text}]}).encode()


def verdicts(bodies: Iterable[bytes]) -> list[Verdict]:
    watch, found = RunWatch(), []
    for body in bodies:
        tail = read_tail(Operation.CHAT, body)
        assert tail is not None
        signature = Signature(
            tail.action, tail.result, tail.sketch, tail.has_tool_result, tail.is_error, 1_000, tail.shape
        )
        found.append(watch.see(signature, LIMITS).verdict)
    return found


def stop(bodies: Iterable[bytes]) -> int | None:
    """How many calls came until the run was stopped."""
    found = verdicts(bodies)
    return found.index(Verdict.STOP) + 1 if Verdict.STOP in found else None


REPORT = prose("report")
PAGE = prose("page")
FAILED = "E: the file is locked by another process"

ABOUT_EIGHT = {
    "a counter": lambda n: request("read", {"path": "a.txt", "attempt": n}, REPORT),
    "a counter in quotes": lambda n: request("read", {"path": "a.txt", "attempt": str(n)}, REPORT),
    "a counter, a word changes": lambda n: request(
        "read", {"path": "a.txt", "n": n}, f"{REPORT} {WORDS[n % 20]}"
    ),
    "a counter, a time changes": lambda n: request("read", {"n": n}, f"{PAGE} at 12:{n:02}:31 {REPORT}"),
    "a time in the arguments": lambda n: request(
        "read", {"now": f"2026-07-{n % 28 + 1:02}T10:{n:02}:00Z"}, REPORT
    ),
    "a short result with a time": lambda n: request(
        "build", {}, f"running at 2026-07-28T12:{n:02}:07.{n}81Z"
    ),
    "a short result with seconds": lambda n: request(
        "build", {}, f'{{"state":"queued","at":{1785241000 + n}}}'
    ),
    "a long result without spaces": lambda n: request(
        "list", {"try": n}, json.dumps({"now": f"12:{n:02}", "rows": REPORT.split()}, separators=(",", ":"))
    ),
    "a result too long to be read whole": lambda n: request(
        "read", {"try": n}, f"{prose('long', 4_000)} {n}"
    ),
    "what a program says, with a time": lambda n: said(f"It is 12:{n:02}. Go on."),
}


@pytest.mark.parametrize("name", ABOUT_EIGHT)
def test_a_loop_that_varies_is_stopped_after_about_eight_calls(name: str) -> None:
    found = stop(ABOUT_EIGHT[name](number) for number in range(60))
    assert found is not None
    assert found <= 8


def test_ping_pong_with_counters_is_stopped_too() -> None:
    both = [
        body
        for n in range(60)
        for body in (request("read", {"n": n}, f"{REPORT} {n}"), request("look", {"n": n}, f"{n} {PAGE}"))
    ]
    assert (stop(both) or 99) <= 16
    one_is_short = [
        body
        for n in range(60)
        for body in (request("read", {"n": n}, f"{REPORT} {n}"), request("lock", {"n": n}, FAILED))
    ]
    # half of its calls say nothing: "locked" may be what a lock that is free no more says of each row
    assert (stop(one_is_short) or 99) <= 26


STALE: dict[str, Callable[[int], bytes]] = {
    "other words each time": lambda n: request("sh", {"do": f"check {prose(n, 5)}"}, f"{REPORT} {n}"),
    "two in turn that begin alike": lambda n: request(
        "sh", {"do": prose(n, 5)}, f"{REPORT[:400]} {prose(n % 2, 60)} {n}"
    ),
    "other tools": lambda n: request(f"tool_{WORDS[n % 20]}", {"n": prose(n, 2)}, f"{n} {REPORT}"),
}


@pytest.mark.parametrize("name", STALE)
def test_nearly_the_same_result_is_no_new_result_whatever_the_call(name: str) -> None:
    found = verdicts(STALE[name](number) for number in range(60))
    assert found.index(Verdict.STOP) in range(LIMITS.stale_results_stop, LIMITS.stale_results_stop + 3)
    assert found.index(Verdict.WARN) in range(LIMITS.stale_results_warn, LIMITS.stale_results_warn + 3)


def test_a_short_result_of_calls_that_differ_in_numbers_counts_half() -> None:
    found = verdicts(request("read", {"path": "a.txt", "attempt": n}, FAILED) for n in range(60))
    assert found.index(Verdict.STOP) == 2 * LIMITS.stale_results_stop
    assert found.index(Verdict.WARN) == 2 * LIMITS.stale_results_warn


def test_echoes_of_new_calls_are_told_and_not_stopped() -> None:
    found = verdicts(edit(n) for n in range(200))
    assert found.index(Verdict.WARN) == LIMITS.echoes_warn
    assert Verdict.STOP not in found


def snapshot(n: int) -> str:
    """A test run's output: of forty tests, one more passes each time."""
    rows = [
        f"tests/test_{WORDS[at % 24]}.py::test_{at} {'PASSED' if at < n else 'FAILED'}" for at in range(40)
    ]
    return "\n".join([*rows, f"{40 - n} failed, {n} passed in {n % 7}.31s"])


def edit(n: int) -> bytes:
    return request(
        "edit", {"path": f"src/{WORDS[n % 24]}.py", "old": prose(n, 4), "new": prose(-n - 1, 4)}, "ok"
    )


HONEST: dict[str, list[bytes]] = {
    "many edits that are answered ok": [edit(n) for n in range(300)],
    "numbered files that are written": [
        request("write", {"path": f"out/part_{n}.txt"}, "File updated") for n in range(200)
    ],
    "numbered rows that are worked off": [request("done", {"row": n}, "ok") for n in range(40)],
    "a file read page by page": [
        request("read", {"path": "a.txt", "offset": 100 * n, "limit": 100}, prose(n, 300)) for n in range(100)
    ],
    "a table of numbers read page by page": [
        request(
            "rows", {"page": n}, "\n".join(f"{n * 50 + at}, {(n * 50 + at) ** 2 % 977}" for at in range(50))
        )
        for n in range(100)
    ],
    "pages of one site, which begin and end alike": [
        request("get", {"page": n}, f"{prose('nav', 500)} {prose(n, 3_000)} {prose('foot', 500)}")
        for n in range(100)
    ],
    "a job that is polled ten times": [
        *[edit(n) for n in range(5)],
        *[
            request("poll", {"job": 17}, json.dumps({"state": "running", "percent": 9 * n}))
            for n in range(11)
        ],
        *[edit(n) for n in range(5)],
    ],
    "a test suite that is run again and again": [
        body for n in range(40) for body in (request("sh", {"do": "pytest -q"}, snapshot(n)), edit(n))
    ],
    "a file that is edited line by line, and shown each time": [
        request(
            "edit", {"line": n, "text": prose(n, 6)}, "\n".join(prose((at, at <= n), 6) for at in range(40))
        )
        for n in range(40)
    ],
    "questions of one form": [
        said(f"{prose('instructions', 400)} Question: {prose(n, 6)}") for n in range(200)
    ],
    "a person who says yes": [said("yes" if n % 2 else prose(n, 5)) for n in range(60)],
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_is_not_stopped(name: str) -> None:
    assert stop(HONEST[name]) is None


def test_the_thresholds_that_the_docs_state_are_in_force() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "steering.md").read_text()
    rows = {
        cells[1].strip(" `"): cells[2].strip()
        for line in text.splitlines()
        if len(cells := line.split("|")) == 5
    }
    for name in Thresholds.__struct_fields__:
        assert rows[name] == str(getattr(DEFAULT_THRESHOLDS, name)), name
