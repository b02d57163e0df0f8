"""Runs one command: imports its module, hands it a `Terminal`, and turns errors into messages and exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

from outlay.app.cli.exit_codes import CONFLICT, FAILED, INTERRUPTED, NOT_FOUND, UNAVAILABLE, USAGE
from outlay.app.cli.output import Terminal
from outlay.app.config import ConfigErrors
from outlay.kernel.errors import ConfigError, NotFound, OutlayError, ReadOnlyObject, StoreError

Command = Callable[[argparse.Namespace, Terminal], int]


class Conflict(OutlayError):
    """The name is taken."""

    code = "conflict"
    http_status = 409


def run(options: argparse.Namespace) -> int:
    """Run the command that `options.run` names as `module:function`."""
    module, _, function = options.run.partition(":")
    terminal = Terminal(is_json=options.json)
    try:
        command: Command = getattr(import_module(f"outlay.app.cli.{module}"), function)
        code = command(options, terminal)
        sys.stdout.flush()
        return code
    except OutlayError as error:
        terminal.fail(_lines(error), _as_json(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # the reader (head, less) has enough; keep the interpreter from flushing into the closed pipe again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def exit_code(error: OutlayError) -> int:
    """The exit code of an error; see `outlay --help`."""
    match error:
        case ReadOnlyObject() | Conflict():
            return CONFLICT
        case ConfigError():
            return USAGE
        case NotFound():
            return NOT_FOUND
        case StoreError():
            return UNAVAILABLE
        case _:
            return FAILED


def _lines(error: OutlayError) -> list[str]:
    problems = error.problems if isinstance(error, ConfigErrors) else (error,)
    return [str(problem) for problem in problems]


def _as_json(error: OutlayError) -> dict[str, object]:
    found: dict[str, object] = {"code": error.code, "message": str(error)}
    if isinstance(error, ConfigErrors):
        found["problems"] = [
            {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.problem}
            for problem in error.problems
        ]
    return found
