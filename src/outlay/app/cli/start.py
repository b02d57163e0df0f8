"""`outlay init`, `config check`, `up`: the file, and running what it says."""

import argparse
import os
import secrets
from pathlib import Path
from typing import Final

from outlay.app.cli.access import open_config
from outlay.app.cli.exit_codes import CONFLICT, OK
from outlay.app.cli.output import Terminal
from outlay.app.cli.starter import starter_text
from outlay.app.config import Config, build_snapshot, config_origins, new_secret
from outlay.kernel.errors import StoreError
from outlay.lookup.feed import feed_of

OWNER_ONLY: Final = 0o600


def init(options: argparse.Namespace, terminal: Terminal) -> int:
    """Write a starter file whose token and key are random; it is readable by its owner only."""
    path = Path(options.config)
    if path.exists() and not options.force:
        message = f"{path} is there already; --force replaces it"
        terminal.fail([message], {"code": "conflict", "message": message})
        return CONFLICT
    text = starter_text(secrets.token_urlsafe(32), new_secret())
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        fresh.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
    config = open_config(options.config)
    terminal.document({"file": str(path), "key": "dev", "gateway_port": config.gateway.port})
    terminal.text(f"wrote {path} (mode 0600: it holds a random admin token and the secret of the key `dev`)")
    terminal.text("next: export OPENAI_API_KEY or ANTHROPIC_API_KEY, then `outlay up`")
    return OK


def check(options: argparse.Namespace, terminal: Terminal) -> int:
    """Check the file and everything it makes; print each effective value and its origin, secrets hidden."""
    config = open_config(options.config)
    build_snapshot(config, [], feed_of([]), 0)
    values = config_origins(config)
    notes = config_notes(config)
    terminal.document(
        {
            "file": str(config.path),
            "ledger": str(config.ledger_place),
            "values": [value._asdict() for value in values],
            "notes": notes,
        }
    )
    terminal.table(("KEY", "VALUE", "FROM"), values)
    for note in notes:
        terminal.note(note)
    terminal.text(f"{config.file} is right")
    return OK


def config_notes(config: Config) -> list[str]:
    """What is allowed, but probably not meant."""
    notes = [
        f"{config.place(f'providers[{index}]')}: provider {provider.name!r} has no api_key: it will refuse calls"
        for index, provider in enumerate(config.declared.providers)
        if not provider.api_key and not provider.self_hosted
    ]
    if not config.declared.providers:
        notes.append(f"{config.file}: no providers: no call can pass")
    if not config.console.admin_token:
        notes.append(f"{config.file}: no console.admin_token: the console will not start")
    if not any(budget.is_hard for budget in config.declared.budgets):
        notes.append(f"{config.file}: no hard budget: nothing is refused for its cost")
    return notes


def up(options: argparse.Namespace, terminal: Terminal) -> int:
    """Run until stopped."""
    from outlay.app.up import run_up

    return run_up(Path(options.config), terminal.note)
