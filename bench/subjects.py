"""What is measured: the mock itself (direct), the raw proxy, the Outlay gateway. Each starts pinned and is ended."""

import importlib.util
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import Cores, child_environment, started_on
from bench.natives import BODY

DIRECT, RAW, OUTLAY = "direct", "raw proxy", "outlay"
_DIMENSIONS = ("org", "team", "project", "user")
_RUN_OUTLAY = "import sys; from outlay.app.cli.main import main; sys.exit(main())"
"""The `outlay` command without its script: works from a checkout, too."""
_START_SECONDS = 60.0
_END_SECONDS = 10.0


class SubjectMissing(Exception):
    """A subject that cannot be started here; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A running server that takes OpenAI chat completions on 127.0.0.1."""

    name: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    """None: direct; the mock is not ours to measure."""

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    def stop(self) -> None:
        """End it in order, by force if it does not."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def start_subjects(workdir: Path, upstream_port: int, cores: Cores) -> tuple[list[Subject], dict[str, str]]:
    """Direct, raw proxy and Outlay; and why one is missing, by name."""
    subjects = [Subject(DIRECT, upstream_port)]
    missing: dict[str, str] = {}
    with started_on(cores.subject):
        subjects.append(start_raw_proxy(upstream_port))
        try:
            subjects.append(start_outlay(workdir, f"http://127.0.0.1:{upstream_port}"))
        except SubjectMissing as problem:
            missing[OUTLAY] = str(problem)
    return subjects, missing


def start_raw_proxy(upstream_port: int) -> Subject:
    """The baseline, in front of the upstream."""
    program = Path(__file__).resolve().parent / "raw_proxy.py"
    process = subprocess.Popen(
        [sys.executable, str(program), "--upstream-port", str(upstream_port)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the raw proxy ended with {process.wait()}")
    return Subject(RAW, json.loads(line)["port"], {"authorization": "Bearer sk-bench"}, process)


def start_outlay(
    workdir: Path, upstream_url: str, budgets: int = 4, change: Callable[[str], str] = lambda text: text
) -> Subject:
    """`outlay up` in front of the upstream, with one key under so many budgets, none of which it can spend.

    Raises `SubjectMissing` if this build has no `outlay up`, or if it does not answer a first call.
    """
    if not _has_command_line():
        raise SubjectMissing("this build has no `outlay up` yet")
    gateway_port = _free_port()
    key = "sk-outlay-" + secrets.token_hex(16)
    config = workdir / "outlay.yaml"
    config.write_text(change(_outlay_config(upstream_url, gateway_port, key, budgets)))
    log = workdir / "outlay.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN_OUTLAY, "up", "-c", str(config)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=workdir,
            env=child_environment(),
        )
    subject = Subject(OUTLAY, gateway_port, {"authorization": f"Bearer {key}"}, process)
    problem = _first_call(subject)
    if problem is not None:
        subject.stop()
        tail = " | ".join(log.read_text().strip().splitlines()[-3:])
        raise SubjectMissing(f"`outlay up` did not answer: {problem}; its log ends: {tail or '(empty)'}")
    return subject


def _has_command_line() -> bool:
    try:
        return importlib.util.find_spec("outlay.app.cli.main") is not None
    except ModuleNotFoundError:
        return False


def _outlay_config(upstream_url: str, gateway_port: int, key: str, budgets: int) -> str:
    """outlay.yaml: one provider, one key, `budgets` budgets on the dimensions that the key pins; no console."""
    rows = "\n".join(
        f'  - {{name: bench-{index}, scope: {{{_DIMENSIONS[index % len(_DIMENSIONS)]}: bench}}, limit_usd: "1000000"}}'
        for index in range(budgets)
    )
    return f"""\
org: bench
gateway: {{port: {gateway_port}}}
providers:
  - {{name: openai, base_url: "{upstream_url}/v1", api_key: sk-bench, max_connections: 4096}}
keys:
  - {{name: bench, secret: "{key}", team: bench, project: bench, user: bench}}
budgets:
{rows}
"""


def _first_call(subject: Subject) -> str | None:
    """Try until the subject answers 200; None, or the last problem."""
    assert subject.process is not None
    request = urllib.request.Request(
        f"http://127.0.0.1:{subject.port}/v1/chat/completions",
        json.dumps(BODY).encode(),
        {"content-type": "application/json", **subject.headers},
        method="POST",
    )
    problem = "it never listened"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if subject.process.poll() is not None:
            return f"it ended with {subject.process.returncode}"
        try:
            with urllib.request.urlopen(request, timeout=5):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return f"HTTP {error.code}: {error.read(300).decode('utf-8', 'replace')}"
        except OSError as error:
            problem = str(error)
        time.sleep(0.05)
    return problem


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
