"""The gateways themselves: how Outlay, TensorZero, LiteLLM and Portkey are configured and started."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.machine import Cores, child_environment, started_on
from bench.natives import Mock
from bench.peers.environment import Environment, plain_environment
from bench.peers.gateway import (
    CALL_MICROS,
    CALL_TOKENS,
    MODEL,
    PROBE,
    START_SECONDS,
    Caller,
    Gateway,
    NotRunning,
    free_port,
)

_RUN_OUTLAY = "import sys; from outlay.app.cli.main import main; sys.exit(main())"
_SCOPES = ("team", "project", "user", "team user")
"""What each of a caller's four budgets is of, in Outlay, and the tags of TensorZero's four limits."""


class Outlay(Gateway):
    """`outlay up` as it is configured for work: four budgets on every call, holds durable, charges written."""

    name = "Outlay"
    setting = "4 budgets in money on every call, holds on disk before the call leaves, every charge written (SQLite)"
    has_budgets = True

    def __init__(self, folder: Path, mock: Mock, cores: Cores, callers: Sequence[str]) -> None:
        super().__init__(folder, mock, cores)
        self._callers = callers

    def start(self, calls: int) -> None:
        self.port = free_port()
        limit = Decimal(round(calls * CALL_MICROS)) / 1_000_000
        budgets = [
            f'{{name: each-{scope.replace(" ", "-")}, scope: {_scope(scope)}, limit_usd: "{limit}", window: lifetime}}'
            for scope in _SCOPES
        ]
        keys = [
            f'{{name: {name}, secret: "{_secret(name)}", team: {name}, project: {name}, user: {name}}}'
            for name in self._callers
        ]
        keys.append(f'{{name: {PROBE}, secret: "{_secret(PROBE)}"}}')
        provider = (
            f'{{name: openai, base_url: "{self.mock.url}/v1", api_key: sk-mock, max_connections: 4096}}'
        )
        sections = {"providers": [provider], "keys": keys, "budgets": budgets}
        lines = ["org: bench", f"gateway: {{port: {self.port}}}"]
        for section, rows in sections.items():
            lines += [f"{section}:", *(f"  - {row}" for row in rows)]
        config = self.folder / "outlay.yaml"
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        self.restart()

    def restart(self) -> None:
        command = [sys.executable, "-c", _RUN_OUTLAY, "up", "-c", str(self.folder / "outlay.yaml")]
        self.launch(command, child_environment())
        self.await_answer(self.caller(PROBE))

    def caller(self, name: str) -> Caller:
        return Caller(name, {"authorization": f"Bearer {_secret(name)}"})

    def booked(self, caller: Caller) -> float:
        from outlay.flow.ledger.reader import LedgerReader

        with LedgerReader(self.folder / "outlay.db") as reader:
            rows = reader.spend(["team"])
        nanos = sum(row.cost_nanos for row in rows if row.group["team"] == caller.name)
        return nanos / 1e3 / CALL_MICROS


def _scope(names: str) -> str:
    """Of `outlay.yaml`: an account for every value."""
    return "{" + ", ".join(f'{name}: "*"' for name in names.split()) + "}"


def _secret(name: str) -> str:
    """A key for loopback only, the same in every run."""
    return f"sk-outlay-bench-of-peers-{name}"


def _tag(scope: str) -> str:
    return scope.replace(" ", "_")


_RUN_TENSORZERO = """
import json, sys, time
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=sys.argv[2] or None, async_setup=False
)
print(json.dumps({"url": gateway.base_url}), flush=True)
time.sleep(1e9)
"""
_READ_VALKEY = """
import json, sys, valkey
store = valkey.Valkey(port=int(sys.argv[1]), decode_responses=True)
print(json.dumps({key: store.hgetall(key) for key in store.keys("tensorzero_ratelimit:*")}))
"""


class TensorZero(Gateway):
    """The Rust gateway out of its wheel, with or without limits of tokens, which it keeps in Valkey."""

    has_budgets = True
    counts_tokens = True

    def __init__(
        self, folder: Path, mock: Mock, cores: Cores, env: Environment, *, with_limits: bool
    ) -> None:
        super().__init__(folder, mock, cores)
        self._env, self._with_limits = env, with_limits
        self.name = "TensorZero, token limits" if with_limits else "TensorZero"
        self.setting = (
            "4 limits of tokens a month on every call, in Valkey on the same core"
            if with_limits
            else "no budgets, no metering, no keys"
        )
        self.has_budgets = with_limits
        self._valkey: subprocess.Popen[bytes] | None = None
        self._valkey_port = 0
        self._capacity = 0

    def start(self, calls: int) -> None:
        self._capacity = calls * CALL_TOKENS
        lines = [
            "[gateway]",
            "observability.enabled = false",
            "disable_pseudonymous_usage_analytics = true",
            f'[models."{MODEL}"]',
            'routing = ["mock"]',
            f'[models."{MODEL}".providers.mock]',
            'type = "openai"',
            f'model_name = "{MODEL}"',
            f'api_base = "{self.mock.url}/v1/"',
            'api_key_location = "none"',
        ]
        if self._with_limits:
            lines += ["[rate_limiting]", "enabled = true", 'backend = "valkey"']
            for scope in _SCOPES:
                lines += [
                    "[[rate_limiting.rules]]",
                    "always = true",
                    f"tokens_per_month = {self._capacity}",
                    f'scope = [{{ tag_key = "{_tag(scope)}", tag_value = "tensorzero::each" }}]',
                ]
            self._start_valkey()
        (self.folder / "tensorzero.toml").write_text("\n".join(lines) + "\n")
        self.restart()

    def restart(self) -> None:
        self.log.write_bytes(b"")
        python = str(self._env.program("tensorzero", "python"))
        valkey = f"redis://127.0.0.1:{self._valkey_port}" if self._with_limits else ""
        command = [python, "-c", _RUN_TENSORZERO, str(self.folder / "tensorzero.toml"), valkey]
        self.launch(command, plain_environment())
        self.port = self._said_port()
        self.await_answer(self.caller(PROBE))

    def caller(self, name: str) -> Caller:
        changes: dict[str, Any] = {"model": f"tensorzero::model_name::{MODEL}"}
        if name != PROBE:
            changes["tensorzero::tags"] = {_tag(scope): name for scope in _SCOPES}
        return Caller(name, {"authorization": "Bearer sk-any"}, "/openai/v1/chat/completions", changes)

    def booked(self, caller: Caller) -> float | None:
        if not self._with_limits:
            return None
        python = str(self._env.program("tensorzero", "python"))
        done = subprocess.run(
            [python, "-c", _READ_VALKEY, str(self._valkey_port)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=plain_environment(),
        )
        buckets = json.loads(done.stdout)
        left = [int(row["balance"]) for key, row in buckets.items() if f'"{caller.name}"' in key]
        return (self._capacity - min(left)) / CALL_TOKENS if left else 0.0

    def stop(self) -> None:
        super().stop()
        if self._valkey is not None:
            self._valkey.terminate()
            self._valkey.wait()
            self._valkey = None
            self.stores.clear()

    def _start_valkey(self) -> None:
        self._valkey_port = free_port()
        command = [str(self._env.valkey), "--bind", "127.0.0.1", "--port", str(self._valkey_port)]
        with started_on(self.cores.subject):
            self._valkey = subprocess.Popen(
                [*command, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"],
                stdout=subprocess.DEVNULL,
                cwd=self.folder,
            )
        self.stores.append(self._valkey.pid)

    def _said_port(self) -> int:
        """It picks its own and says so."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log.read_text("utf-8", "replace").splitlines():
                if line.startswith('{"url"'):
                    return int(json.loads(line)["url"].split(":")[2].split("/")[0])
            time.sleep(0.1)
        raise NotRunning(f"it did not say its port: {self.log_end()}")


_ON_LOOPBACK = """
const { Server } = require("node:net");
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  const options = typeof first === "object" ? first : { port: first };
  return listen.call(this, { ...options, host: "127.0.0.1" }, ...rest.filter((one) => typeof one === "function"));
};
"""


class Portkey(Gateway):
    """Portkey's open-source gateway on node; kept on the loopback, as it would listen everywhere."""

    name = "Portkey"
    setting = "no budgets, no metering, no keys"

    def __init__(self, folder: Path, mock: Mock, cores: Cores, env: Environment) -> None:
        super().__init__(folder, mock, cores)
        self._env = env

    def start(self, calls: int) -> None:
        self.port = free_port()
        (self.folder / "loopback.cjs").write_text(_ON_LOOPBACK)
        self.restart()

    def restart(self) -> None:
        command = ["node", "--require", str(self.folder / "loopback.cjs"), str(self._env.portkey)]
        self.launch([*command, f"--port={self.port}", "--headless"], plain_environment(NODE_ENV="production"))
        self.await_answer(self.caller(PROBE))

    def caller(self, name: str) -> Caller:
        headers = {
            "authorization": "Bearer sk-any",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{self.mock.url}/v1",
        }
        return Caller(name, headers)
