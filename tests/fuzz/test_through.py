"""Through a whole gateway, on real sockets: what reaches the provider is what the client asked, once, and no more."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest

from outlay.flow.gateway.snapshot import Disclose
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from tests.flow.test_client_http import Wire, post
from tests.fuzz.answer_messages import answers
from tests.fuzz.choices import Seeded
from tests.fuzz.messages import CONNECTIONS, FIELDS, Grammar
from tests.fuzz.mutations import mutated
from tests.fuzz.ours import SETTINGS, Answering, ours
from tests.fuzz.raw_upstream import GOOD, GOOD_ANSWER, RawUpstream
from tests.fuzz.reading import End, Reading
from tests.fuzz.reference import reference
from tests.fuzz.rule import is_tolerated
from tests.fuzz.seeds import FRESH, SEED
from tests.harness import SECRET, RunningGateway, budget

DEADLINE_S = 10
pytestmark = pytest.mark.slow


@contextmanager
def stage(folder: Path, **provider: Any) -> Iterator[tuple[RawUpstream, RunningGateway]]:
    """A gateway before a provider that listens closely; afterwards it must be as if nothing had been."""
    settings = msgspec.structs.replace(SETTINGS, disclose=Disclose.ALL)
    with (
        RawUpstream() as upstream,
        RunningGateway(
            folder / "l.db", upstream.url, [budget("all", "1000")], settings=settings, **provider
        ) as gateway,
    ):
        tasks = gateway.call(lambda: len(asyncio.all_tasks()))
        yield upstream, gateway
        upstream.answer = None
        wire = Wire(gateway.url)
        wire.send(post())
        status, _, body = wire.answer()
        assert (status, json.loads(body)) == (200, json.loads(GOOD))
        wire.socket.close()
        gateway.call(gateway.books.flush)
        assert gateway.call(lambda: gateway.books.open_holds) == 0
        assert gateway.call(lambda: len(gateway.gateway.exchanges)) == 0
        assert gateway.call(lambda: len(asyncio.all_tasks())) <= tasks
        assert upstream.faults == []
    found = audit(folder / "l.db")
    assert (found.findings, found.open_holds) == ((), 0)


def conversation(choices: Seeded, name: str) -> bytes:
    """Calls that are good but for what was done to their HTTP; each says its name."""
    data = b""
    for number in range(choices.of((1, 1, 1, 2, 3))):
        body = json.dumps(
            {"model": "gpt-test", "user": f"{name}-{number}", "max_tokens": 5, "messages": []}
        ).encode()
        grammar = Grammar(choices)
        lines, payload = grammar.framed(body)
        line = b"POST /v1/chat/completions HTTP/1.1" if choices.upto(9) else grammar.first_line()
        more = [choices.of(FIELDS + CONNECTIONS) for _ in range(choices.of((0, 0, 0, 1)))]
        fields = [b"Host: x", b"Authorization: Bearer " + SECRET.encode(), *more, *lines]
        data += b"\r\n".join([line, *fields, b"", b""]) + payload
    return mutated(choices, data) if choices.upto(3) else data


class Caller:
    """Sends bytes on a connection of their own, and reads what a client must get for them."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._port = int(gateway.url.rsplit(":", 1)[1])

    def ask(self, data: bytes, expected: Reading) -> int:
        """How many answers came; each request that is taken and the refusal must have one, within the deadline."""
        count = len(expected.messages) - (expected.end is End.OPEN and not _is_last_whole(expected))
        methods = [message.method for message in expected.messages[:count]]
        if expected.end is End.REFUSED:
            methods.append(b"GET")
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S) as connection,
            connection.makefile("rb") as stream,
        ):
            connection.sendall(data)
            for number, method in enumerate(methods):
                if not self._answer(stream, method):
                    return number
        return len(methods)

    def read_strictly(self, data: bytes) -> int:
        """The status of the one answer to one call, read by h11: a client must get one, and it must be sound."""
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        status = 0
        with socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S) as connection:
            connection.sendall(data)
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(connection.recv(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.EndOfMessage):
                    assert client.trailing_data[0] == b""
                    return status
                else:
                    assert isinstance(event, h11.Data)

    def _answer(self, stream: Any, method: bytes) -> bool:
        while True:
            line = stream.readline()
            if not line:
                return False
            assert line.startswith(b"HTTP/1.1 "), line
            fields = {}
            while (header := stream.readline()) != b"\r\n":
                assert header.endswith(b"\r\n"), header
                name, _, value = header.partition(b": ")
                fields[name.lower()] = value.strip()
            if line.startswith(b"HTTP/1.1 100"):
                continue
            if method != b"HEAD":
                assert b"content-length" in fields, fields
                length = int(fields[b"content-length"])
                assert len(stream.read(length)) == length
            return True


def _is_last_whole(reading: Reading) -> bool:
    return not reading.messages or reading.messages[-1].is_whole


def names(bodies: list[bytes]) -> Counter[str]:
    """Who the bodies say they are."""
    found: Counter[str] = Counter()
    for body in bodies:
        try:
            found[str(json.loads(body)["user"])] += 1
        except (ValueError, KeyError, TypeError):
            found["nobody"] += 1
    return found


@pytest.mark.parametrize("seed", [SEED, FRESH], ids=["same", "fresh"])
def test_nothing_is_smuggled(tmp_path: Path, seed: str) -> None:
    print(f"OUTLAY_FUZZ_SEED={seed}")
    with stage(tmp_path) as (upstream, gateway):
        caller, answered = Caller(gateway), 0
        for number in range(4_000):
            choices = Seeded(("through", seed, number))
            data = conversation(choices, f"case{number}")
            before = len(upstream.requests)
            answered += caller.ask(data, ours([data], Answering.SOON))
            sent = names([body for _, body in upstream.requests[before:]])
            read = reference(data)
            asked = names([message.body for message in read.messages if message.is_whole])
            assert is_tolerated(read) or not sent - asked, f"case {number}: {data!r}"
            assert upstream.faults == [], f"case {number}: {data!r}"
        assert answered > 3_000
        made = len(upstream.requests)
        assert made > 500, "nothing came through"
        for head, _ in upstream.requests:
            assert (head.method, head.target) == (b"POST", b"/v1/chat/completions")
            fields = [name for name, _ in head.headers]
            assert len(fields) == len(set(fields))
            assert b"transfer-encoding" not in fields
            assert dict(head.headers)[b"authorization"] == b"Bearer mock-key"
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            assert reader.totals()["charges"] == made


@pytest.mark.parametrize("seed", [SEED, FRESH], ids=["same", "fresh"])
def test_whatever_a_provider_answers(tmp_path: Path, seed: str) -> None:
    print(f"OUTLAY_FUZZ_SEED={seed}")
    with stage(tmp_path) as (upstream, gateway):
        caller = Caller(gateway)
        for number in range(2_000):
            choices = Seeded(("provider", seed, number))
            answer = b"".join(answers(choices))
            if choices.upto(1):
                answer = mutated(choices, answer)
            if not choices.upto(3):
                answer = answer.replace(b"{}", GOOD)
            upstream.answer = lambda answer=answer: answer  # type: ignore[misc]
            try:
                caller.read_strictly(post())
            except (h11.RemoteProtocolError, AssertionError) as error:
                raise AssertionError(f"answer {number}: {answer!r}") from error
            assert gateway.call(lambda: gateway.books.open_holds) == 0, f"answer {number}: {answer!r}"


def test_a_call_that_waits_gets_no_connection_that_was_given_up(tmp_path: Path) -> None:
    """Behind the answer before stood another one: the connection was handed over while it was being closed."""
    with stage(tmp_path, max_connections=1) as (upstream, gateway):
        upstream.closes = False
        upstream.answer = lambda: GOOD_ANSWER + GOOD_ANSWER
        wires = [Wire(gateway.url) for _ in range(5)]
        for wire in wires:
            wire.send(post())
        assert [wire.answer()[0] for wire in wires] == [200] * 5
        for wire in wires:
            wire.socket.close()
        assert len(upstream.requests) == 5
