"""LiteLLM's config.yaml, read: models and settings, with amounts as exact decimals."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from outlay.kernel.errors import ConfigError

MAX_BYTES: Final = 8 * 1024 * 1024
SECTIONS: Final = ("model_list", "litellm_settings", "router_settings", "general_settings")


def read_config(path: Path) -> dict[str, Any]:
    """The sections of a file; absent ones are empty. Raises ConfigError naming the file and the line."""
    import yaml

    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", file=path.name) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8", file=path.name) from error
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", file=path.name) from error
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB", file=path.name)
    try:
        found = yaml.load(text, Loader=_exact_loader())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(f"not YAML: {error.problem}", file=path.name, line=line) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"not YAML: {str(error).splitlines()[0]}", file=path.name) from error
    if not isinstance(found, dict):
        raise ConfigError("needs a mapping at the top: model_list, litellm_settings, ...", file=path.name)
    return found


def section(found: Mapping[str, Any], name: str, file: str) -> Mapping[str, Any]:
    """One section that is a mapping. Raises ConfigError if it is something else."""
    value = found.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError("needs a mapping", file=file, key=name)
    return value


def _exact_loader() -> Any:
    import yaml

    class Exact(yaml.SafeLoader):
        """Numbers with a fraction stay what is written."""

    def fraction(loader: Any, node: Any) -> object:
        text = str(loader.construct_scalar(node)).replace("_", "").lower().lstrip("+")
        if text.lstrip("-").startswith((".inf", ".nan")) or ":" in text:
            return text
        return Decimal(text)

    Exact.add_constructor("tag:yaml.org,2002:float", fraction)
    return Exact
