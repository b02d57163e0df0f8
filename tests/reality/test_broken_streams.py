"""Streams that break, on every dialect's route and through every translation, at every point, on either side.

`test_broken_calls` asks the same of chats and messages with a gateway for each case. Here one gateway serves all
cases; each is compared with what the provider says it billed for that very attempt.
"""

import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.reality.lanes import LANES, End, Lane, Rig, call, calling, rig_of, seen

U, C, M = "outcome_unknown", "counted", "metered"
LAST = 99
"""More content than there is: everything but what follows the content."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_of(tmp_path_factory.mktemp("streams")) as found:
        yield found


class Fault(NamedTuple):
    """What the provider does, and what may come of it."""

    behaviour: dict[str, Any]
    bases: tuple[str, ...]
    passed: End
    """How the stream ends for a client of the provider's own dialect."""
    translated: End
    """How it ends for one of another dialect."""


def _cut(**changes: Any) -> dict[str, Any]:
    return {"failure": "cut", "bill": "full", **changes}


FAULTS = {
    "cut after the head": Fault(_cut(after_bytes=0), (U,), End.ERROR, End.ERROR),
    "cut after the opening": Fault(_cut(after_chunks=0), (U,), End.ERROR, End.ERROR),
    "cut after the first content": Fault(_cut(bill="ahead"), (U,), End.ERROR, End.ERROR),
    "cut in mid-stream": Fault(_cut(after_chunks=5), (U,), End.ERROR, End.ERROR),
    "reset in mid-stream": Fault(_cut(after_chunks=5, reset=True), (U,), End.ERROR, End.ERROR),
    "cut behind the content": Fault(_cut(after_chunks=LAST), (U,), End.ERROR, End.ERROR),
    # where bytes pass at once, half an event is out: no event of ours can follow it
    "cut within an event": Fault(_cut(failure="cut_json", after_chunks=3), (U,), End.BROKEN, End.ERROR),
    "early end": Fault(_cut(failure="early_end", after_chunks=3), (U,), End.OPEN, End.ERROR),
    "early end behind the content": Fault(
        _cut(failure="early_end", after_chunks=LAST), (U,), End.OPEN, End.ERROR
    ),
    "error event": Fault(_cut(failure="stream_error", after_chunks=3), (U,), End.ERROR, End.ERROR),
    "error event at once": Fault(_cut(failure="stream_error", after_chunks=0), (U,), End.ERROR, End.ERROR),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("lane", LANES, ids=str)
def test_the_provider_breaks_off(rig: Rig, lane: Lane, name: str) -> None:
    fault = FAULTS[name]
    rig.behave(**fault.behaviour)
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    assert answer.status == 200
    rig.check(*fault.bases)
    expected = fault.translated if lane.is_translated else fault.passed
    if expected is End.BROKEN and lane.form in ("chat", "completions"):
        expected = End.ERROR  # usage is taken out of these, so half an event waits here and is dropped
    assert answer.end(lane.form) is expected


def last_event(rig: Rig, lane: Lane) -> tuple[int, int]:
    """(bytes of the provider's stream, those of its last event) of a call of this lane."""
    rig.behave()
    assert call(rig.gateway.url, lane.form, f"hosted-{lane.server}").end(lane.form) is End.WHOLE
    rig.check(M)
    asked = rig.mock.calls[-1]
    lines = [f"POST {asked.path}?{asked.query} HTTP/1.1".encode()]
    lines += [name + b": " + value for name, value in asked.headers if name != b"connection"]
    with socket.create_connection(("127.0.0.1", rig.mock.port), timeout=10) as connection:
        connection.sendall(b"\r\n".join([*lines, b"connection: close"]) + b"\r\n\r\n" + asked.body)
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    body = seen(raw).body
    if lane.server == "bedrock":
        start = 0
        while (size := int.from_bytes(body[start : start + 4], "big")) < len(body) - start:
            start += size
        return len(body), len(body) - start
    mark = b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n"
    return len(body), len(body) - body.rindex(mark, 0, len(body) - len(mark)) - len(mark)


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_cut_around_the_last_event(rig: Rig, lane: Lane) -> None:
    size, last = last_event(rig, lane)
    rig.behave(**_cut(after_bytes=size - last))
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    rig.check(U, M)
    assert answer.end(lane.form) is End.ERROR
    # the answer is whole, only the transfer is not: nobody needs to ask again, and the usage is known
    rig.behave(**_cut(after_bytes=size))
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    rig.check(M)
    assert answer.end(lane.form) is End.WHOLE


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_a_body_that_is_no_stream(rig: Rig, lane: Lane) -> None:
    rig.behave(failure="garbage", bill="full")
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    rig.check(U)
    assert answer.status == 200
    assert answer.is_complete
    if lane.is_translated:
        assert answer.end(lane.form) is End.ERROR
    else:
        assert b"upstream proxy says hello" in answer.body


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_half_an_event_in_a_stream_that_goes_on(rig: Rig, lane: Lane) -> None:
    rig.behave(failure="truncated_json", after_chunks=3, bill="full")
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    # the usage comes all the same, but for binary frames, which cannot be told apart any more
    rig.check(U if lane.server == "bedrock" else M)
    assert answer.is_complete
    if lane.is_translated:
        assert answer.end(lane.form) is End.ERROR


@pytest.mark.parametrize("usage", ["omit", "null", "zero"])
@pytest.mark.parametrize("lane", LANES, ids=str)
def test_usage_that_is_not_stated(rig: Rig, lane: Lane, usage: str) -> None:
    rig.behave(usage=usage)
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    assert answer.end(lane.form) is End.WHOLE
    charge, entry = rig.check(M if usage == "zero" else C, M)
    if usage == "zero":
        # an explicit zero is the provider's word
        assert (charge.cost_nanos, entry.cost_nanos) == (0, 0)
    else:
        assert charge.cost_nanos >= entry.cost_nanos > 0


LEAVING = ("before the first byte", "after the head", "after the first event", "in mid-stream", "at the end")


def leave(rig: Rig, lane: Lane, model: str, when: str) -> None:
    """Call, read so far, and go."""
    with calling(rig.gateway.url, lane.form, model) as connection:
        rig.wait_for_a_call()
        if when == "before the first byte":
            return
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(1)
        reads = {"after the first event": 1, "in mid-stream": 5, "at the end": 10_000}.get(when, 0)
        for _ in range(reads):
            if not connection.recv(65536):
                return


@pytest.mark.parametrize("when", LEAVING)
@pytest.mark.parametrize("lane", LANES, ids=str)
def test_the_client_leaves_a_stream_that_is_drained(rig: Rig, lane: Lane, when: str) -> None:
    rig.behave(first_byte_ms=10, chunk_ms=2, on_client_gone="none")
    leave(rig, lane, f"hosted-{lane.server}", when)
    charge, entry = rig.check(M)
    assert entry.outcome == "complete", "the answer was not read to its end"
    assert charge.cost_nanos > 0


@pytest.mark.parametrize("when", LEAVING)
@pytest.mark.parametrize("lane", LANES, ids=str)
def test_the_client_leaves_a_stream_that_is_cancelled(rig: Rig, lane: Lane, when: str) -> None:
    is_whole = when in ("before the first byte", "at the end")
    # an engine that makes 16 tokens more than it sends before it notices
    output = 20 if is_whole else 120
    rig.behave(first_byte_ms=10, chunk_ms=4, output_tokens=output, on_client_gone="ahead")
    leave(rig, lane, f"self-{lane.server}", when)
    if is_whole:
        rig.check(M)  # before the first byte nothing tells whether it is a stream: read to its end
        return
    charge, entry = rig.check(C)
    assert entry.outcome == "client_gone", "the engine went on for nobody"
    assert charge.cost_nanos < charge.hold_nanos
