"""outlay.yaml: its tree, how it is read, and the snapshot it makes. The only room that the environment is handed to."""

from outlay.app.config.build import StoredObject, build_snapshot, check_object, yaml_owner
from outlay.app.config.identity import MAX_OVERLAP_S, rotated
from outlay.app.config.load import Config, ConfigErrors, load_config, parse_config
from outlay.app.config.origins import ValueOrigin, config_origins
from outlay.app.config.tree import (
    BudgetEntry,
    ConsoleSection,
    KeyEntry,
    PersonEntry,
    PriceEntry,
    Role,
    price_name,
)
from outlay.app.config.values import new_secret, parse_moment, secret_hash

__all__ = [
    "MAX_OVERLAP_S",
    "BudgetEntry",
    "Config",
    "ConfigErrors",
    "ConsoleSection",
    "KeyEntry",
    "PersonEntry",
    "PriceEntry",
    "Role",
    "StoredObject",
    "ValueOrigin",
    "build_snapshot",
    "check_object",
    "config_origins",
    "load_config",
    "new_secret",
    "parse_config",
    "parse_moment",
    "price_name",
    "rotated",
    "secret_hash",
    "yaml_owner",
]
