"""Entry point of `outlay`: reads arguments, imports the one module that is asked for, turns errors into exit codes.

Imports nothing but argparse and sys until a command runs, so that `--help` is instant.
"""

import sys
from collections.abc import Sequence

from outlay.app.cli.exit_codes import USAGE
from outlay.app.cli.parser import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `outlay --help`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["demo"] and not {"-h", "--help"} & set(arguments):
        return _demo(arguments[1:])
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        options.parser.print_help()
        return USAGE
    from outlay.app.cli.run import run

    return run(options)


def _demo(arguments: list[str]) -> int:
    # the demo reads its own arguments
    from importlib import import_module

    return int(import_module("outlay.app.demo.main").run_demo(arguments))


if __name__ == "__main__":
    sys.exit(main())
