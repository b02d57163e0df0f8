"""`outlay` before anything runs: help, init, config check, up with a wrong file. Exit codes as --help says them."""

import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from outlay.app.cli.main import main

BAD = {
    "unknown key": ("budgtes: []\n", "outlay.yaml:1: budgtes: unknown key; did you mean budgets?"),
    "negative limit": (
        "budgets:\n  - {name: a, limit_usd: -1}\n",
        "outlay.yaml:2: budgets[0].limit_usd: '-1' is negative; use 0 or more",
    ),
    "NaN": (
        "budgets:\n  - {name: a, limit_usd: .nan}\n",
        "outlay.yaml:2: budgets[0].limit_usd: '.nan' is not a finite number",
    ),
    "missing secret": (
        "keys:\n  - {name: a, secret: '${NOT_SET_ANYWHERE}'}\n",
        "outlay.yaml:2: keys[0].secret: missing secret: environment variable NOT_SET_ANYWHERE is not set",
    ),
    "two budgets of one name": (
        "budgets:\n  - {name: a, limit_usd: 1}\n  - {name: a, limit_usd: 2}\n",
        "outlay.yaml:3: budgets[1].name: the name 'a' is taken in line 2; choose another",
    ),
}


def outlay(*arguments: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, with hardly any environment."""
    return subprocess.run(
        [sys.executable, "-m", "outlay.app.cli.main", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", [("config", "check"), ("up",)], ids=" ".join)
def test_a_wrong_file_is_exit_code_2(tmp_path: Path, name: str, command: tuple[str, ...]) -> None:
    text, expected = BAD[name]
    (tmp_path / "outlay.yaml").write_text(text)
    done = outlay(*command, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"outlay: {expected}"), done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "outlay.db").exists()


def test_errors_for_programs(tmp_path: Path) -> None:
    (tmp_path / "outlay.yaml").write_text("orgg: x\ngateway: {port: -1}\n")
    done = outlay("config", "check", "--json", folder=tmp_path)
    assert done.returncode == 2
    error = msgspec.json.decode(done.stdout)["error"]
    assert error["code"] == "config_invalid"
    assert [(problem["line"], problem["key"]) for problem in error["problems"]] == [
        (1, "orgg"),
        (2, "gateway.port"),
    ]
    assert done.stderr.count("outlay: outlay.yaml:") == 2


def test_init_passes_its_own_check_without_environment(tmp_path: Path) -> None:
    assert outlay("init", folder=tmp_path).returncode == 0
    path = tmp_path / "outlay.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    done = outlay("config", "check", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "provider 'openai' has no api_key" in done.stderr
    quiet = outlay("config", "check", folder=tmp_path, OPENAI_API_KEY="sk-a", ANTHROPIC_API_KEY="sk-b")
    assert quiet.stderr == ""
    assert re.search(r"providers\[0\]\.api_key +\*\*\* +env OPENAI_API_KEY", quiet.stdout)


def secrets_of(path: Path) -> list[str]:
    return re.findall(r"(?:admin_token|secret): \"?([\w-]+)", path.read_text())


def test_init_makes_fresh_secrets_and_shows_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for name in ("a.yaml", "b.yaml"):
        assert main(["init", "-c", str(tmp_path / name)]) == 0
        assert main(["config", "check", "-c", str(tmp_path / name)]) == 0
        found += secrets_of(tmp_path / name)
    assert len(found) == len(set(found)) == 4
    assert all(len(secret) >= 40 for secret in found)
    shown = "".join(capsys.readouterr())
    assert not [secret for secret in found if secret in shown]


def test_init_replaces_a_file_only_if_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "outlay.yaml"
    path.write_text("mine")
    path.chmod(0o644)
    assert main(["init", "-c", str(path)]) == 4
    assert path.read_text() == "mine"
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["init", "--force", "-c", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("# Outlay")


def test_commented_lines_of_the_starter_are_right_too(tmp_path: Path) -> None:
    """Everything that can be commented in is a key that exists."""
    assert main(["init", "-c", str(tmp_path / "outlay.yaml")]) == 0
    lines = []
    for line in (tmp_path / "outlay.yaml").read_text().splitlines():
        found = re.match(r"( *)# ?( *(?:- )?(?:\{.*\}|[a-z_]+:.*))$", line)
        lines.append(found[1] + found[2] if found else line)
    (tmp_path / "all.yaml").write_text("\n".join(lines))
    uncommented = [line for line in lines if not line.lstrip().startswith("#")]
    assert any(line.startswith("prices:") for line in uncommented)
    assert any("raise_url" in line for line in uncommented)
    done = outlay("config", "check", "-c", "all.yaml", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["key"]) == 2
    for wrong in (["nope"], ["key", "create"], ["ledger", "resolve", "req_1"], ["spend", "--sinc"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for code in range(6):
        assert re.search(rf"^  {code}  ", shown, re.MULTILINE)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "outlay 0.1.0\n"


def test_help_imports_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the latency; what is asserted is the cause: no module is imported that help does not need."""
    command = [sys.executable, "-X", "importtime", "-m", "outlay.app.cli.main", "--help"]
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        times.append(time.perf_counter() - started)
    with capsys.disabled():
        print(f"\noutlay --help: {min(times) * 1000:.0f} ms")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {
        "msgspec",
        "yaml",
        "apsw",
        "asyncio",
        "uvloop",
        "outlay.kernel.errors",
        "outlay.app.config",
    }


def test_every_command_has_its_function() -> None:
    """A command that is listed can be run: its module and function exist."""
    import argparse
    from importlib import import_module

    from outlay.app.cli.parser import make_parser

    def commands(parser: argparse.ArgumentParser) -> list[str]:
        found = [parser.get_default("run")] if parser.get_default("run") else []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    found += commands(below)
        return found

    runs = commands(make_parser())
    assert len(runs) >= 24
    for run in runs:
        module, _, function = run.partition(":")
        assert callable(getattr(import_module(f"outlay.app.cli.{module}"), function)), run
