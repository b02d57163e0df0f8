"""A ledger restored from an older backup: nothing is spent from it until somebody has looked."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outlay.app.cli.main import main
from outlay.app.mark import Mark
from outlay.flow.ledger.memory import MemoryStore
from outlay.testing import MockProvider
from outlay.testing.processes import ChildProcess
from tests.harness import MOCK_PRICES
from tests.reality.load import Reply, post
from tests.reality.test_kill9 import CONFIG, SECRET, Gateway

REQUEST = {"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


def test_an_older_copy_spends_nothing_until_it_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "outlay.yaml"
    ledger = tmp_path / "outlay.db"

    def call(gateway: Gateway) -> Reply:
        return asyncio.run(post(gateway.url, REQUEST, secret=SECRET))

    def doctor(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["doctor", *words, "-c", str(config)])
        return code, capsys.readouterr().out

    with MockProvider(prices=MOCK_PRICES) as mock:
        config.write_text(CONFIG.format(url=mock.url, secret=SECRET, port=0, limit="10"))
        config.chmod(0o600)
        gateway = Gateway(config)
        assert call(gateway).status == 200
        gateway.stop()
        older = tmp_path / "backup.db"
        shutil.copy(ledger, older)
        gateway = Gateway(config)
        assert call(gateway).status == 200, "a ledger that has all of it is no older one"
        gateway.process.kill()
        gateway.reap()
        gateway = Gateway(config)
        assert call(gateway).status == 200, "nor is one whose gateway was killed"
        gateway.stop()

        for name in ("outlay.db-wal", "outlay.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        shutil.copy(older, ledger)
        gateway = blocked(config)
        reply = call(gateway)
        assert (reply.status, reply.error["code"]) == (503, "ledger_restored")
        code, said = doctor()
        assert code == 1 and "--accept-restore" in said
        gateway.stop()
        gateway = blocked(config)
        assert call(gateway).status == 503, "it is not forgotten by a restart"
        assert doctor("--accept-clock")[0] == 1
        assert doctor("--accept-restore")[0] == 0
        assert call(gateway).status == 200
        gateway.stop()
        gateway = Gateway(config)
        assert call(gateway).status == 200
        gateway.stop()
        assert len(mock.meter.entries) == 5


def test_a_mark_that_was_cut_off_is_no_mark(tmp_path: Path) -> None:
    """A power loss may leave an empty file."""
    (tmp_path / "outlay.db.mark").write_bytes(b"")
    assert Mark(tmp_path / "outlay.db").missing(MemoryStore()) is None
    (tmp_path / "outlay.db.mark").write_bytes(b"00ff")
    assert Mark(tmp_path / "outlay.db").missing(MemoryStore()) is not None


def test_another_ledger_needs_a_restart(tmp_path: Path) -> None:
    """The gateway went on with the old one, and commands spoke to nobody."""
    config = tmp_path / "outlay.yaml"
    text = CONFIG.format(url="http://127.0.0.1:9", secret=SECRET, port=0, limit="10")
    config.write_text(text)
    config.chmod(0o600)
    with ChildProcess([sys.executable, "-m", "outlay.app.serve", str(config)]) as gateway:
        assert gateway.wait_for_json()["event"] == "listening"
        config.write_text(text + "ledger: other.db\n")
        told = gateway.wait_for_json()
        assert told["event"] == "config_rejected" and "needs a restart" in told["message"]
    assert not (tmp_path / "other.db").exists()


def blocked(config: Path) -> Gateway:
    """A gateway that says first that it is blocked."""
    gateway = object.__new__(Gateway)
    command = [sys.executable, "-m", "outlay.app.serve", str(config)]
    gateway.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert gateway.process.stdout is not None
    first, second = (json.loads(gateway.process.stdout.readline()) for _ in range(2))
    assert (first["event"], first["code"]) == ("blocked", "ledger_restored")
    gateway.url = f"http://127.0.0.1:{second['port']}"
    return gateway
