"""What commands reach: the configuration, the operations of the ledger's owner, the ledger itself to read."""

import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlay.app.config import Config, load_config
from outlay.kernel.errors import ConfigError

if TYPE_CHECKING:  # commands that only read outlay.yaml need no ledger
    from outlay.app.operations import Operating
    from outlay.flow.ledger.reader import LedgerReader


def open_config(path: str) -> Config:
    """The checked file. Raises ConfigErrors. The only place where commands hand the environment on."""
    return load_config(Path(path), os.environ)


@contextmanager
def operating(path: str) -> "Iterator[Operating]":
    """Operations of the running gateway, or of the ledger if none runs. Raises ConfigErrors, StoreError."""
    from outlay.app.control import open_operations

    with open_operations(Path(path), os.environ) as operations:
        yield operations


@contextmanager
def reading(config: Config) -> "Iterator[LedgerReader]":
    """The ledger, read-only. Raises StoreError if there is none yet."""
    from outlay.flow.ledger.reader import LedgerReader

    with LedgerReader(config.ledger_place) as reader:
        yield reader


def actor() -> str:
    """Who types: kept with every change."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # a container's user without a name
        return f"cli:{os.getuid()}"


def objects_of(config_path: str, kind: str) -> list[dict[str, Any]]:
    """All objects of a kind, of file and store, by name."""
    with operating(config_path) as operations:
        found = [found for found in operations.objects() if found["kind"] == kind]
    return sorted(found, key=lambda item: str(item["name"]))


def pairs(texts: Sequence[str], option: str) -> Mapping[str, str]:
    """`NAME=VALUE` options as a mapping. Raises ConfigError."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise ConfigError(f"{text!r} is not NAME=VALUE", key=option)
        if name in found:
            raise ConfigError(f"{name} is given twice", key=option)
        found[name] = value
    return found
