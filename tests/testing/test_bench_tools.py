"""The benchmark's own parts tell the truth: every request is counted, faults are seen, the proxy changes nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import machine
from bench.natives import Load, Mock, _parse, compile_tools, request_bytes, running_mock
from bench.subjects import Subject, start_raw_proxy

from outlay.testing import MockProvider

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
    ),
]
HEADERS = {"authorization": "Bearer sk-any"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("natives")
    compile_tools(made)
    return made


@pytest.fixture
def mock(folder: Path) -> Iterator[Mock]:
    with running_mock(folder, None) as running:
        yield running


@pytest.fixture
def proxy(mock: Mock) -> Iterator[Subject]:
    subject = start_raw_proxy(mock.port)
    yield subject
    subject.stop()


def exactly(folder: Path, port: int, count: int, *options: str, stream: bool = False):
    """Run the load for exactly so many requests."""
    file = folder / f"{port}.request"
    file.write_bytes(request_bytes(HEADERS, stream=stream))
    command = [str(folder / "load"), "--port", str(port), "--request", str(file), "--requests", str(count)]
    command += [*options, *(["--stream"] if stream else [])]
    return _parse(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def ask(port: int, *, stream: bool) -> bytes:
    """Everything that one raw request brings back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request_bytes({**HEADERS, "connection": "close"}, stream=stream))
        client.settimeout(10)
        data = b""
        while not data.endswith((b"}", b"0\r\n\r\n")):
            more = client.recv(65536)
            if not more:
                break
            data += more
        return data


@pytest.mark.parametrize("connections", ["1", "7"])
def test_load_and_mock_count_the_same(folder, mock, connections):
    result = exactly(folder, mock.port, 500, "--connections", connections)
    assert (result.requests, result.faults) == (500, 0)
    assert result.latency.count == 500
    assert result.latency.p50 <= result.latency.p99 <= result.latency.max
    assert mock.counts()["requests"] == 500


def test_every_chunk_of_every_stream_is_seen(folder, mock):
    mock.pace(chunks=9)
    result = exactly(folder, mock.port, 40, "--connections", "4", stream=True)
    assert (result.requests, result.faults) == (40, 0)
    assert result.chunk_lag.count == 9 * 40
    assert result.first_event.count == 40
    assert mock.counts()["streams"] == 40


def test_paced_streams_come_later_but_whole(folder, mock):
    mock.pace(chunks=5, first_ms=20, chunk_ms=2)
    result = exactly(folder, mock.port, 6, "--connections", "3", stream=True)
    assert result.chunk_lag.count == 30
    assert result.first_event.p50 >= 20_000
    assert result.latency.p50 >= 28_000


def test_the_load_agrees_with_a_meter_of_another_make(folder):
    with MockProvider() as provider:
        result = exactly(folder, provider.port, 200, "--connections", "8")
        assert (result.requests, result.faults) == (200, 0)
        provider.wait_for(200)
        provider.behave(status=503)
        assert exactly(folder, provider.port, 50, "--connections", "5").faults == 50
        provider.behave(status=200, failure="cut")
        assert exactly(folder, provider.port, 50, "--connections", "5").faults == 50


def test_the_proxy_changes_nothing(mock, proxy):
    # the mock numbers its answers
    through, direct = (
        json.loads(ask(port, stream=False).partition(b"\r\n\r\n")[2]) for port in (proxy.port, mock.port)
    )
    assert {**through, "id": ""} == {**direct, "id": ""}
    mock.pace(chunks=3)
    events = [line for line in ask(proxy.port, stream=True).split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"data: [DONE]"
    assert [json.loads(line[6:])["choices"][0]["finish_reason"] for line in events[:-1]] == [None] * 3 + [
        "stop"
    ]


def test_the_proxy_keeps_its_upstream_connections(folder, proxy):
    result = exactly(folder, proxy.port, 300, "--connections", "3")
    assert (result.requests, result.faults) == (300, 0)
    sockets = [os.readlink(f"/proc/{proxy.pid}/fd/{name}") for name in os.listdir(f"/proc/{proxy.pid}/fd")]
    # the listener, three kept to the upstream, and what the event loop itself uses; the clients have gone
    assert sum(name.startswith("socket:") for name in sockets) <= 2 * (3 + 1 + 4)  # of 300 calls


def test_streams_are_held_while_the_caller_looks(folder, mock, proxy):
    mock.pace(chunks=100, chunk_ms=1000)
    with Load(folder, None).held_streams(proxy.port, HEADERS, connections=40) as problem:
        assert problem is None
        assert mock.counts()["open_streams"] == 40


def test_a_refusing_subject_holds_nothing(folder):
    with (
        MockProvider(behaviour={"status": 503}) as provider,
        Load(folder, None).held_streams(provider.port, HEADERS, connections=5) as problem,
    ):
        assert problem is not None
        assert "'not_ok': 5" in problem


def test_a_child_is_pinned_with_its_threads():
    cores = machine.choose_cores()
    before = os.sched_getaffinity(0)
    with machine.started_on(cores.load):
        done = subprocess.run(
            [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert os.sched_getaffinity(0) == before
    expected = sorted(before) if cores.load is None else [cores.load]
    assert json.loads(done.stdout) == expected


def test_a_tree_is_measured_with_its_children():
    code = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); "
        "sys.stdin.read(); p.kill(); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        child = int(process.stdout.readline())
        assert set(machine.process_tree(process.pid)) == {process.pid, child}
        assert machine.rss_megabytes(process.pid) > machine.rss_megabytes(child) > 0
        process.communicate("")
