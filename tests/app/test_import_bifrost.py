"""Bifrost's config.json: virtual keys go on working, budgets start from what was used, the rest is listed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outlay.app.cli.main import main
from outlay.app.config import load_config, secret_hash
from outlay.app.control import open_operations
from outlay.app.operations import Operations

VALUE = "sk-bf-0f1e2d3c-4b5a-6978"


def source(now: datetime) -> dict[str, Any]:
    """A file as Bifrost's own schema has it."""
    return {
        "$schema": "https://www.getbifrost.ai/schema",
        "client": {"enable_logging": True},
        "providers": {
            "openai": {
                "keys": [
                    {"name": "a", "value": "env.OPENAI_A", "models": ["gpt-4o", "gpt-4o-mini"], "weight": 0.7},
                    {"name": "b", "value": "sk-written-out", "models": ["gpt-4o"], "weight": 0.3},
                ],
                "network_config": {"max_retries": 2, "stream_idle_timeout_in_seconds": 90, "enforce_http2": True},
                "concurrency_and_buffer_size": {"concurrency": 40, "buffer_size": 100},
            },
            "anthropic": {"keys": [{"name": "c", "value": "env.ANTHROPIC", "models": ["*"], "weight": 1}]},
            "vertex": {"keys": [{"name": "d", "models": ["*"], "weight": 1}]},
        },
        "governance": {
            "budgets": [
                {"id": "b1", "max_limit": 10.5, "reset_duration": "1M", "current_usage": 3.25,
                 "last_reset": now.replace(day=1, hour=1).isoformat(), "virtual_key_id": "vk1"},
                {"id": "b2", "max_limit": 100, "reset_duration": "1w", "current_usage": 7,
                 "last_reset": (now - timedelta(days=2)).isoformat(), "team_id": "t1"},
                {"id": "b3", "max_limit": 50, "reset_duration": "1d", "current_usage": 49,
                 "last_reset": (now - timedelta(days=9)).isoformat(), "customer_id": "c1"},
            ],
            "rate_limits": [{"id": "r1", "token_max_limit": 1000, "token_reset_duration": "1h"}],
            "customers": [{"id": "c1", "name": "Initech"}],
            "teams": [{"id": "t1", "name": "search", "customer_id": "c1", "rate_limit_id": "r1"}],
            "virtual_keys": [
                {"id": "vk1", "name": "ci", "value": VALUE, "team_id": "t1", "calendar_aligned": True,
                 "provider_configs": [{"provider": "openai", "allowed_models": ["gpt-4o"]}]},
                {"id": "vk2", "name": "off", "value": "sk-bf-off", "is_active": False},
                {"id": "vk3", "name": "none", "value": "sk-bf-without-providers", "provider_configs": []},
            ],
        },
    }  # fmt: skip


def test_it_is_carried_over_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, path = tmp_path / "config.json", tmp_path / "outlay.yaml"
    file.write_text(json.dumps(source(datetime.now(UTC))))

    def run(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = main([*arguments, "--json", "-c", str(path)])
        return code, json.loads(capsys.readouterr().out)

    code, told = run("import", "bifrost", "--config", str(file), "--dry-run")
    assert (code, told["changes"], path.exists()) == (0, True, False)
    code, done = run("import", "bifrost", "--config", str(file))
    assert (code, done["conflicts"]) == (0, [])
    assert "sk-written-out" not in path.read_text("utf-8")
    assert VALUE not in path.read_text("utf-8")
    declared = load_config(path, {}).declared
    assert [provider.name for provider in declared.providers] == ["openai", "openai-2", "anthropic"]
    assert (declared.providers[0].idle_timeout_s, declared.providers[0].max_concurrent) == (90, 40)
    routes = {model.name: model for model in declared.models}
    assert [(t.provider, t.weight) for t in routes["gpt-4o"].targets] == [("openai", 70), ("openai-2", 30)]
    assert routes["gpt-4o"].targets == routes["openai/gpt-4o"].targets
    assert (routes["openai/gpt-4o-mini"].model, routes["openai/gpt-4o-mini"].retries) == ("gpt-4o-mini", 2)
    with open_operations(path, {}) as operations:
        assert isinstance(operations, Operations)
        keys = {key.name: key for key in operations.snapshot.keys.values()}
    assert keys["ci"].secret_sha256 == secret_hash(VALUE)
    assert (keys["ci"].team, keys["ci"].customer) == ("search", "Initech")
    assert keys["ci"].allow_models == ("gpt-4o", "openai/gpt-4o")
    assert keys["none"].deny_models == ("*",), "no provider means none at all there"
    assert "off" not in keys
    code, shown = run("budget", "list")
    budgets = {budget["name"]: budget for budget in shown["budgets"]}
    assert {
        name: (b["window"], sum(a["spent_nanos"] for a in b["accounts"])) for name, b in budgets.items()
    } == {
        "key/ci": ("month", 3_250_000_000),
        "team/search": ("7d", 7_000_000_000),
        "customer/Initech": ("1d", 0),
    }, "a window that ended there starts from 0"
    listed = {item["where"] for item in done["unmapped"]}
    assert {
        "client",
        "providers.vertex",
        "providers.openai.keys[1]",
        "providers.openai.network_config.enforce_http2",
        "team search: rate_limit_id",
    } <= listed
    code, again = run("import", "bifrost", "--config", str(file))
    assert (code, again["changes"]) == (0, False)
    assert run("ledger", "verify")[1]["is_right"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not Bifrost's config.json"),
        ('{"governance": {"budgets": {"id": 1}}}', "governance.budgets"),
        ('{"providers": []}', "providers"),
    ],
)
def test_a_bad_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    assert main(["import", "bifrost", "--config", str(file), "-c", str(tmp_path / "outlay.yaml")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "outlay.yaml").exists()
