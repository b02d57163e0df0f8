"""Rules of the code base that no linter knows: sizes, names, where SQL and the environment may stand, imports."""

import ast
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "outlay"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 600
NO_NOUNS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "shared", "stuff"}
MONEY_ROOMS = ("kernel", "flow", "lookup/cost.py", "lookup/price.py", "wire")
SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\b", re.S)
SQL_ROOMS = ("flow/ledger/",)
ENVIRONMENT_ROOMS = ("app/",)
DOCUMENTED_ROOMS = ("kernel/", "flow/", "lookup/", "wire/")
HEAVY = ("fastapi", "uvicorn", "starlette", "pydantic", "genai_prices", "jinja2", "numpy")


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def trees(*rooms: str) -> list[tuple[str, ast.Module]]:
    """The parsed files of rooms (all, if none is given)."""
    chosen = [path for path in FILES if not rooms or name_of(path).startswith(rooms)]
    assert chosen, f"no file in {rooms}"
    return [(name_of(path), parsed(path)) for path in chosen]


@lru_cache(maxsize=1000)
def parsed(path: Path) -> ast.Module:
    """The tree of a file; parsing is the slow part."""
    return ast.parse(path.read_text("utf-8"))


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 50


def test_no_file_is_two_files() -> None:
    sizes = {name_of(path): path.read_text("utf-8").count("\n") for path in FILES}
    assert {name: lines for name, lines in sizes.items() if lines > MAX_LINES} == {}


def test_modules_are_named_after_nouns() -> None:
    names = {part for path in FILES for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert names.isdisjoint(NO_NOUNS)


def test_every_module_says_what_it_is() -> None:
    silent = [
        name for name, tree in trees() if tree.body and not ast.get_docstring(tree) and name != "__init__.py"
    ]
    assert silent == []


def test_no_float_near_money() -> None:
    found = []
    for name, tree in trees(*MONEY_ROOMS):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
                found.append(f"{name}:{node.lineno} float()")
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not _is_path(node):
                found.append(f"{name}:{node.lineno} true division")
    assert found == []


def _is_path(node: ast.BinOp) -> bool:
    return isinstance(node.right, ast.Constant) and isinstance(node.right.value, str)


def test_sql_stands_in_the_ledger_only() -> None:
    found = []
    for name, tree in trees():
        if name.startswith(SQL_ROOMS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value):
                found.append(f"{name}:{node.lineno}")
    assert found == []


def test_the_environment_is_read_in_app_only() -> None:
    found = []
    for name, tree in trees():
        if name.startswith(ENVIRONMENT_ROOMS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                found.append(f"{name}:{node.lineno}")
    # the mock's child processes inherit an environment without proxies; it is no part of the product's path
    assert [place for place in found if not place.startswith("testing/")] == []


def is_enumeration(node: ast.stmt) -> bool:
    """An enumeration may be plain by its name and its members."""
    return isinstance(node, ast.ClassDef) and any(
        getattr(base, "id", "") in ("StrEnum", "IntEnum", "Enum") for base in node.bases
    )


def test_public_functions_say_what_they_do() -> None:
    found = []
    for name, tree in trees(*DOCUMENTED_ROOMS):
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            is_public = not node.name.startswith("_") and not is_enumeration(node)
            if is_public and not ast.get_docstring(node):
                found.append(f"{name}:{node.lineno} {node.name}")
    assert found == []


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|NotImplemented)\b")
    found = [name_of(path) for path in FILES if marks.search(path.read_text("utf-8"))]
    assert found == []


def test_no_bare_except() -> None:
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{name}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize("module", ["outlay", "outlay.flow.gateway.server", "outlay.app.serve"])
def test_the_request_path_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(name for name in sys.modules if '.' not in name))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(said.stdout.split()).isdisjoint(HEAVY)


def test_importing_starts_nothing() -> None:
    names = [
        "outlay." + name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in FILES
        if name_of(path).startswith(("kernel/", "flow/", "wire/", "lookup/"))
    ]
    code = (
        f"import threading, socket, importlib\n"
        f"socket.socket.connect = socket.socket.bind = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
