"""What can be typed: every command and option, and the `module:function` that each runs. Imports argparse only."""

import argparse
from typing import Any, Final

from outlay.app.cli.parser_steering import (
    add_alert,
    add_approve,
    add_kill,
    add_policy,
    add_raises,
    add_run,
)

_EPILOG: Final = """\
exit codes:
  0  ok; for `quote`: the request may pass
  1  failed or denied; for `quote`: it would be refused; for `ledger verify`: the books are wrong;
     for `policy plan --detailed-exitcode`: there is something to do
  2  wrong usage, or a wrong outlay.yaml
  3  no such key, budget, policy, price or request
  4  conflict: the name is taken, or outlay.yaml owns it
  5  the gateway or the ledger is unavailable

Every command takes --json: one JSON document on stdout, amounts as decimal USD text (..._usd) and as whole
nano-dollars (..._nanos), times as ISO UTC text. Errors go to stderr; with --json stdout then holds {"error": ...}.
"""
MEDIA_CLASSES: Final = (
    "input-audio",
    "output-audio",
    "cache-read-audio",
    "input-image",
    "output-image",
    "cache-read-image",
    "input-video",
)
PINNED_DIMENSIONS: Final = (
    "org",
    "team",
    "project",
    "user",
    "agent",
    "workload",
    "deployment",
    "environment",
    "customer",
)


class _Group:
    """Adds commands to a parser: `key` and, below it, `key create`, ..."""

    def __init__(self, parent: Any, name: str, title: str) -> None:
        self._commands = parent.add_parser(name, help=title, description=title)
        self._commands.set_defaults(parser=self._commands, run=None)
        self._below = self._commands.add_subparsers(metavar="COMMAND", title="commands")

    def add(self, name: str, run: str, title: str) -> argparse.ArgumentParser:
        """One command."""
        return _command(self._below, name, run, title)


def _command(parent: Any, name: str, run: str, title: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = parent.add_parser(name, help=title, description=title)
    found.set_defaults(parser=found, run=run)
    found.add_argument("-c", "--config", default="outlay.yaml", metavar="FILE", help="default: outlay.yaml")
    found.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return found


def make_parser() -> argparse.ArgumentParser:
    """The parser of everything. `options.run` names what to run, None for a group without a command."""
    parser = argparse.ArgumentParser(
        prog="outlay",
        description="AI financial firewall: budgets hold what a call can cost before it is sent.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.set_defaults(parser=parser, run=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _add_running(commands)
    _add_keys(commands)
    _add_budgets(commands)
    _add_prices(commands)
    _add_reports(commands)
    _add_imports(commands)
    add_run(_Group(commands, "run", "runs of agents"))
    add_alert(_Group(commands, "alert", "who is told when a budget nears its limit"))
    add_approve(_Group(commands, "approve", "raises that callers ask for, and paused work"))
    add_policy(_Group(commands, "policy", "policies as code: check, plan, apply, simulate"))
    add_kill(_Group(commands, "kill", "stop spending now: a run, key, team, model or everything"))
    return parser


class _Version(argparse.Action):
    """Prints the version, imported only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from outlay import __version__

        print(f"outlay {__version__}")
        parser.exit()


def _add_running(commands: Any) -> None:
    init = _command(
        commands, "init", "start:init", "write a commented starter outlay.yaml with fresh secrets (mode 0600)"
    )
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    config = _Group(commands, "config", "outlay.yaml")
    config.add("check", "start:check", "check outlay.yaml; print effective values and where each comes from")
    _command(commands, "up", "start:up", "run the gateway and the console")
    _command(commands, "demo", "", "the whole firewall against a mock provider, and a real local model")
    _command(
        commands, "status", "state:status", "what runs, and its counters; exit code 5 if no gateway runs"
    )
    doctor = _command(
        commands, "doctor", "state:doctor", "look for what is wrong; exit code 1 if something is"
    )
    accept = doctor.add_mutually_exclusive_group()
    accept.add_argument(
        "--accept-recovery",
        action="store_true",
        help="go on spending after a host crash that may have lost rows",
    )
    accept.add_argument(
        "--accept-restore",
        action="store_true",
        help="go on spending from a ledger that is older than what this gateway wrote",
    )
    accept.add_argument(
        "--accept-clock", action="store_true", help="go on spending after the system clock jumped"
    )


def _add_keys(commands: Any) -> None:
    group = _Group(commands, "key", "virtual keys: who a caller is")
    create = group.add("create", "keys:create", "make a key; its secret is shown once")
    create.add_argument("name", metavar="NAME")
    for dimension in PINNED_DIMENSIONS:
        create.add_argument(
            f"--{dimension}", default="", metavar="VALUE", help="pinned: the caller cannot override it"
        )
    create.add_argument(
        "--tag", action="append", default=[], metavar="NAME=VALUE", help="pinned tag, repeatable"
    )
    create.add_argument("--allow-model", action="append", default=[], metavar="PATTERN", help="repeatable")
    create.add_argument("--deny-model", action="append", default=[], metavar="PATTERN", help="repeatable")
    create.add_argument("--run-parent", metavar="RUN", help="run above all runs of this key")
    create.add_argument("--expires", metavar="DATE", help="ISO date or date and time, UTC")
    group.add("list", "keys:show_all", "all keys, without secrets")
    rotate = group.add("rotate", "keys:rotate", "give a key a new secret; the old one goes on for a while")
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument(
        "--overlap",
        default="24h",
        metavar="LENGTH",
        help="how long old secrets go on: 24h (default), 30m, 7d; 0 cuts at once",
    )
    revoke = group.add("revoke", "keys:revoke", "refuse a key from now on")
    revoke.add_argument("name", metavar="NAME")


def _add_budgets(commands: Any) -> None:
    group = _Group(commands, "budget", "budgets: how much may be spent")
    group.add("list", "budgets:show_all", "all budgets with what is spent, held and available")
    show = group.add("show", "budgets:show", "one budget, with past windows")
    show.add_argument("name", metavar="NAME")
    put = group.add("set", "budgets:put", "make or change a budget; what is not given stays as it is")
    put.add_argument("name", metavar="NAME")
    put.add_argument(
        "--scope",
        action="append",
        metavar="DIMENSION=VALUE",
        help="team=search, run=*, tag.feature=chat*; repeatable",
    )
    put.add_argument("--limit", metavar="USD", help="100, 0.25, or none to meter only")
    put.add_argument(
        "--window", metavar="WINDOW", help="month (default), day, week, quarter, year, lifetime, 24h, 7d"
    )
    put.add_argument("--timezone", metavar="ZONE", help="IANA name, default UTC")
    kind = put.add_mutually_exclusive_group()
    kind.add_argument("--soft", action="store_true", default=None, help="count and report, never refuse")
    kind.add_argument("--hard", action="store_true", default=None, help="refuse (default)")
    delete = group.add("delete", "budgets:delete", "take a budget away")
    delete.add_argument("name", metavar="NAME")
    add_raises(group)


def _add_prices(commands: Any) -> None:
    group = _Group(commands, "price", "prices: what a call costs")
    show = group.add("show", "prices:show", "the price of a model in force now, or at a time")
    show.add_argument("model", metavar="MODEL", help="MODEL or PROVIDER/MODEL")
    show.add_argument(
        "--provider", metavar="NAME", help="price source; default: the first that knows the model"
    )
    show.add_argument("--at", metavar="DATE", help="ISO date or date and time, UTC")
    show.add_argument("--history", action="store_true", help="every price it had until then")
    diff = group.add("diff", "prices:diff", "what your own entries change, or what changed since a date")
    diff.add_argument("--provider", metavar="NAME", help="price source; default: all of outlay.yaml")
    diff.add_argument("--since", metavar="DATE", help="compare the price list of that date with now")
    check = group.add("check", "prices:check", "prices that are stale, doubtful, contradictory or refused")
    check.add_argument("--provider", metavar="NAME", help="price source; default: all of outlay.yaml")
    check.add_argument("--strict", action="store_true", help="exit code 1 if there is a finding")
    group.add("list", "prices:show_all", "your own price entries, of outlay.yaml and the ledger")
    put = group.add("set", "prices:put", "set a model's price; amounts are USD per million tokens")
    put.add_argument("model", metavar="MODEL", help="MODEL or PROVIDER/MODEL")
    put.add_argument("--provider", metavar="NAME", help="price source; needed if MODEL does not name it")
    put.add_argument("--input", required=True, metavar="USD")
    for name in ("output", "cache-read", "cache-write", "cache-write-1h", "cache-write-12h", *MEDIA_CLASSES):
        put.add_argument(f"--{name}", metavar="USD")
    put.add_argument(
        "--unit",
        action="append",
        default=[],
        metavar="NAME=USD",
        help="USD for one image, audio_ms, character, page, search_unit, training_token; repeatable",
    )
    put.add_argument("--per-request", metavar="USD", help="flat fee on every call")
    put.add_argument("--context-window", metavar="TOKENS", type=int)
    put.add_argument("--max-output-tokens", metavar="TOKENS", type=int)
    put.add_argument("--alias", action="append", default=[], metavar="NAME", help="another name, repeatable")
    put.add_argument("--from", dest="valid_from", metavar="DATE", help="in force from then on")
    put.add_argument("--to", dest="valid_to", metavar="DATE", help="in force until then")
    delete = group.add("delete", "prices:delete", "take a price of yours away")
    delete.add_argument("name", metavar="NAME", help="PROVIDER/MODEL, or its name in `price list`")
    delete.add_argument("--provider", metavar="NAME", help="if NAME is a model alone")


def _add_reports(commands: Any) -> None:
    quote = _command(
        commands,
        "quote",
        "quotes:quote",
        "what a request would be held at, and what it would get now: passed, moved by a ladder, or refused",
    )
    quote.add_argument("--key", metavar="NAME", help="quote as the bearer of this key")
    quote.add_argument("--file", metavar="FILE", default="-", help="request body as JSON; default: stdin")
    quote.add_argument("--path", default="/v1/chat/completions", help="default: /v1/chat/completions")
    spend = _command(commands, "spend", "spend:spend", "what was spent, by whom, on what")
    spend.add_argument(
        "--by",
        default="team,model",
        metavar="GROUPS",
        help="dimensions, tag.NAME, served, basis, status, day, hour",
    )
    spend.add_argument(
        "--since", default="30d", metavar="WHEN", help="7d, 12h, 2w, today, or an ISO date; default 30d"
    )
    spend.add_argument("--until", metavar="WHEN", help="default: now")
    ledger = _Group(commands, "ledger", "the books")
    unknown = ledger.add(
        "unknown", "ledger:unknown", "charges booked at the held amount: their outcome is unknown"
    )
    unknown.add_argument("--limit", type=int, default=100, metavar="N", help="newest first, default 100")
    resolve = ledger.add("resolve", "ledger:resolve", "book what a call of unknown outcome really cost")
    resolve.add_argument("id", metavar="ID", help="req_... of the request (or of a later attempt)")
    cost = resolve.add_mutually_exclusive_group(required=True)
    cost.add_argument("--cost", metavar="USD")
    cost.add_argument("--not-billed", action="store_true", help="the same as --cost 0")
    resolve.add_argument("--note", default="", metavar="TEXT", help="why; kept with the posting")
    ledger.add(
        "verify", "ledger:verify", "recompute the ledger from its rows; exit code 1 if the books are wrong"
    )
    show = ledger.add("show", "ledger:show", "all attempts of a request")
    show.add_argument("id", metavar="REQUEST_ID")


def _add_imports(commands: Any) -> None:
    title = "keys, budgets, spend so far and models of another gateway"
    group = commands.add_parser("import", help=title, description=title)
    group.set_defaults(parser=group, run=None)
    below = group.add_subparsers(metavar="COMMAND", title="commands")
    litellm = _import(below, "litellm", "from LiteLLM's PostgreSQL, its config.yaml, or both")
    litellm.add_argument("--database", metavar="URL", help="postgresql://user:password@host:5432/litellm")
    litellm.add_argument("--config", dest="source_config", metavar="FILE", help="LiteLLM's config.yaml")
    bifrost = _import(below, "bifrost", "from Bifrost's config.json")
    bifrost.add_argument("--config", dest="source_config", metavar="FILE", required=True, help="config.json")


def _import(parent: Any, name: str, title: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = parent.add_parser(name, help=title, description=title)
    found.set_defaults(parser=found, run=f"imports:{name}")
    found.add_argument(
        "-c",
        dest="config",
        default="outlay.yaml",
        metavar="FILE",
        help="outlay.yaml, written if there is none",
    )
    found.add_argument("--json", action="store_true", help="one JSON document on stdout")
    found.add_argument("--dry-run", action="store_true", help="say what would be made; change nothing")
    found.add_argument(
        "--replace", action="store_true", help="overwrite stored objects that differ from the source"
    )
    return found
