"""LiteLLM's proxy: without a database, and with PostgreSQL, where its keys have budgets."""

import hashlib
import json
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import Cores, cpu_seconds_of, process_tree, started_on
from bench.natives import Mock
from bench.peers.environment import Environment, NotToBeHad, plain_environment
from bench.peers.gateway import CALL_MICROS, MODEL, PROBE, Caller, Gateway, NotRunning, free_port, post

_MASTER = "sk-master-of-the-bench"
FLUSH_SECONDS = 25.0
"""LiteLLM writes what was spent each ten seconds or so; what is not there by then does not come."""


class Postgres:
    """A server of the bench's own, on the gateway's core, with one empty database of LiteLLM's making."""

    def __init__(self, migrations: Sequence[Path], cores: Cores) -> None:
        try:
            import psycopg
            from tests.postgres import Server
        except ImportError as problem:
            raise NotToBeHad(f"no PostgreSQL server from wheels: {problem}") from None
        self._folder = Path(tempfile.mkdtemp(prefix="outlay-peers-postgres-"))
        with started_on(cores.subject):
            self._server = Server(self._folder)
        with psycopg.connect(self._server.url, autocommit=True) as db:
            db.execute("CREATE DATABASE litellm")
        parts = urllib.parse.urlsplit(self._server.url)
        # Prisma wants a host in its place; the socket's folder in the query is what counts
        user = parts.netloc.rpartition("@")[0] or "postgres:"
        self.url = f"postgresql://{user}@localhost/litellm?{parts.query}"
        with psycopg.connect(self.url, autocommit=True) as db:
            for migration in migrations:
                db.execute(migration.read_bytes())

    @property
    def pid(self) -> int:
        return int((self._folder / "postmaster.pid").read_text().split()[0])

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """What a query finds."""
        import psycopg

        with psycopg.connect(self.url) as db:
            return list(db.execute(sql, values).fetchall())

    def stop(self) -> None:
        self._server.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)


class LiteLLM(Gateway):
    """One worker. The database, if any, outlives a kill of the proxy."""

    def __init__(
        self, folder: Path, mock: Mock, cores: Cores, env: Environment, *, with_database: bool
    ) -> None:
        super().__init__(folder, mock, cores)
        self._env, self._with_database = env, with_database
        self.name = "LiteLLM + PostgreSQL" if with_database else "LiteLLM"
        self.setting = (
            "1 worker, 1 budget in money on the key, spend written each 10 s or so; Prisma's engine in its"
            " WebAssembly build; PostgreSQL on the same core"
            if with_database
            else "1 worker, no database: no budgets, no keys but the master's"
        )
        self.has_budgets = with_database
        self._calls = 0
        self._secrets: dict[str, str] = {}
        self._postgres: Postgres | None = None

    def start(self, calls: int) -> None:
        self.port = free_port()
        self._calls = calls
        model = {"model": f"openai/{MODEL}", "api_base": f"{self.mock.url}/v1", "api_key": "sk-mock"}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": model}],
            "litellm_settings": {"num_retries": 0, "telemetry": False},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "general_settings": {"master_key": _MASTER},
        }
        (self.folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
        if self._with_database:
            self._postgres = Postgres(self._env.migrations, self.cores)
            self.stores.append(self._postgres.pid)
        self.restart()

    def restart(self) -> None:
        variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "HOME": str(self.folder)}
        program = self._env.program("litellm", "litellm")
        if self._postgres is not None:
            variables |= self._env.prisma_variables()
            variables |= {
                "DATABASE_URL": self._postgres.url,
                "DISABLE_SCHEMA_UPDATE": "true",
                # its look for differences of the schema needs an engine that is not here; it goes on without
                "LITELLM_PRISMA_COMMAND_TIMEOUT": "1",
            }
        env = plain_environment(**variables)
        env["PATH"] = f"{program.parent}:{env['PATH']}"
        command = [str(program), "--config", str(self.folder / "litellm.yaml"), "--host", "127.0.0.1"]
        self.launch([*command, "--port", str(self.port), "--num_workers", "1"], env)
        self.await_answer(self.caller(PROBE))

    def caller(self, name: str) -> Caller:
        if name == PROBE or not self._with_database:
            return Caller(name, {"authorization": f"Bearer {_MASTER}"})
        if name not in self._secrets:
            body = {
                "max_budget": round(self._calls * CALL_MICROS) / 1e6,
                "models": [MODEL],
                "key_alias": name,
            }
            try:
                made = post(
                    f"http://127.0.0.1:{self.port}/key/generate", body, {"authorization": f"Bearer {_MASTER}"}
                )
            except OSError as problem:
                raise NotRunning(f"no key could be made: {problem}") from None
            self._secrets[name] = json.loads(made)["key"]
        return Caller(name, {"authorization": f"Bearer {self._secrets[name]}"})

    def booked(self, caller: Caller) -> float | None:
        """The key's spend, from which its budget is enforced, once what waits to be written had its time."""
        if self._postgres is None:
            return None
        time.sleep(FLUSH_SECONDS)
        sql = 'SELECT spend FROM "LiteLLM_VerificationToken" WHERE token = %s'
        rows = self._postgres.rows(sql, (_hash(self._secrets[caller.name]),))
        return float(rows[0][0]) * 1e6 / CALL_MICROS if rows else 0.0

    def logged(self, caller: Caller) -> int:
        """Successful calls in its log of spend."""
        assert self._postgres is not None
        sql = """SELECT count(*) FROM "LiteLLM_SpendLogs" WHERE api_key = %s AND status = 'success'"""
        return int(self._postgres.rows(sql, (_hash(self._secrets[caller.name]),))[0][0])

    def outside_seconds(self) -> float:
        return (
            0.0
            if self._postgres is None
            else sum(cpu_seconds_of(pid) for pid in process_tree(self._postgres.pid))
        )

    def stop(self) -> None:
        super().stop()
        if self._postgres is not None:
            self._postgres.stop()
            self._postgres = None
            self.stores.clear()


def _hash(secret: str) -> str:
    """How LiteLLM stores a key."""
    return hashlib.sha256(secret.encode()).hexdigest()
