"""Outlay in shadow in front of a real LiteLLM proxy: few calls, and every difference is one that the docs explain."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.shadow_litellm import VENV, environment

CALLS = 207
"""Three of each kind."""
EXPLAINED = {
    "claude-haiku-4-5 messages: web search",
    "claude-sonnet-4-5 chat: above 200k",
    "claude-sonnet-4-5 messages: above 200k",
    "gpt-5.4 above 272k, priority",
}
"""The rows of docs/shadow-litellm.md."""


@pytest.mark.timeout(200)
def test_every_difference_is_explained() -> None:
    try:
        environment(VENV, seconds=60)
    except subprocess.SubprocessError:
        pytest.skip("LiteLLM's wheels cannot be installed here within a minute")
    done = subprocess.run(
        [sys.executable, "-m", "bench.shadow_litellm", "--calls", str(CALLS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line
        for line in done.stdout.splitlines()
        if line[:6] in ("gpt-4o", "gpt-5-", "gpt-5.", "claude", "o4-min")
    ]
    assert len(rows) == 68
    differing = {f"{line.split()[0]} {line[24:54].strip()}" for line in rows if "DIFFERS" in line}
    assert differing == EXPLAINED
    assert "missing" not in done.stdout
