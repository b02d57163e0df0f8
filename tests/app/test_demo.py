"""The demo as its user runs it: both halves, exit code, JSON; its own invariants are what it asserts."""

import json
import subprocess
import sys

import pytest

from outlay.app.demo.workload import SEED, WORKERS, jobs


def test_the_workload_is_the_same_every_time() -> None:
    first, second = (list(jobs(WORKERS[0], 5, SEED)) for _ in range(2))
    assert first == second
    assert 10 < len(first) < 150
    assert [job.at_s for job in first] == sorted(job.at_s for job in first)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_demo() -> None:
    command = [sys.executable, "-m", "outlay.app.cli.main", "demo", "--seconds", "6", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    firewall, model = found["firewall"], found["model"]
    assert firewall["spend_nanos"] == firewall["meter_nanos"] > 0
    assert firewall["overspend_nanos"] == firewall["open_holds"] == 0
    assert firewall["refused"]
    assert firewall["runaway"]["spent_nanos"] <= 500_000_000
    assert 0 < model["spend_nanos"] <= model["limit_nanos"]
    assert model["refusal"]["status"] == 402
    assert "every invariant held" in done.stderr


def test_wrong_arguments() -> None:
    command = [sys.executable, "-m", "outlay.app.cli.main", "demo", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--seconds takes 3 to 90" in done.stderr
