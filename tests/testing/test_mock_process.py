"""The mock as a process of its own, and the tools that start and end it."""

import json
import os
import signal
import sys
import urllib.request

import pytest

from outlay.testing import ChildProcess, free_port, wait_for_listener

MOCK = [sys.executable, "-m", "outlay.testing.mock"]
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}


def ask(url: str) -> None:
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(CHAT).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def test_it_tells_its_address_serves_and_ends_on_a_signal(tmp_path):
    meter_file = tmp_path / "meter.jsonl"
    config = {"prices": {"*": {"input": 1_000_000, "output": 2_000_000}}, "behaviour": {"output_tokens": 3}}
    command = [
        *MOCK,
        "--port",
        str(free_port()),
        "--json-config",
        json.dumps(config),
        "--meter-file",
        str(meter_file),
    ]
    with ChildProcess(command) as child:
        line = child.wait_for_json()
        assert line["pid"] == child.pid
        wait_for_listener(line["port"])
        ask(line["url"])
        ask(line["url"])
        # written before the answer left: it survives even a kill
        os.kill(child.pid, signal.SIGKILL)
        assert child.end() == -signal.SIGKILL
    entries = [json.loads(text) for text in meter_file.read_text().splitlines()]
    assert [entry["cost_nanos"] for entry in entries] == [12, 12]


def test_a_signal_ends_it_in_order():
    with ChildProcess(MOCK) as child:
        child.wait_for_json()
        assert child.end(signal.SIGTERM) == 0
    assert child.exit_status == 0


def test_a_config_may_be_a_file_and_a_wrong_one_says_so(tmp_path):
    file = tmp_path / "mock.json"
    file.write_text('{"behaviour": {"failure": "sulk"}}')
    command = [*MOCK, "--json-config", f"@{file}"]
    with ChildProcess(command) as child, pytest.raises(ChildProcessError, match="ended with 2"):
        child.wait_for_json()
    assert any("sulk" in line for line in child.output)


def test_a_child_that_says_nothing_is_a_timeout():
    with (
        ChildProcess(
            [sys.executable, "-c", "import time; print('not json', flush=True); time.sleep(60)"]
        ) as child,
        pytest.raises(TimeoutError, match="not json"),
    ):
        child.wait_for_json(seconds=2)
