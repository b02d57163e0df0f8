"""outlay.yaml, read whole or not at all: `load_config` returns a checked `Config` or raises every problem at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import msgspec

from outlay.app.config.checks import Known, check_records, ledger_text
from outlay.app.config.convert import hashed, with_defaults
from outlay.app.config.decode import Decoder, Place
from outlay.app.config.document import MAX_BYTES, DocumentError, Problem, Scalar, Sequence, Table, read_yaml
from outlay.app.config.tree import (
    ConsoleSection,
    CustomEntry,
    Declared,
    GatewaySection,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    SelfHostedEntry,
    price_name,
)
from outlay.flow.ledger.place import Database, LedgerPlace, is_database
from outlay.kernel.errors import ConfigError

MAX_PROBLEMS: Final = 50
"""Problems told at once."""
PRICE_ENTRIES: Final = get_args(PriceEntry)


class ConfigErrors(ConfigError):
    """All problems of a file; the message has one line for each."""

    def __init__(self, problems: tuple[ConfigError, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems[:MAX_PROBLEMS]))
        self.problems = problems
        first = problems[0]
        self.file, self.line, self.key = first.file, first.line, first.key


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """A checked outlay.yaml. Holds secrets of providers and console: never print it, use `config_origins`."""

    path: Path
    """Absolute."""
    declared: Declared
    """The tree, with every default filled in and keys' secrets replaced by their hashes."""
    places: Mapping[str, Place]
    """By path (`budgets[2].limit_usd`)."""

    @property
    def file(self) -> str:
        """The file's name, as errors and places show it."""
        return self.path.name

    @property
    def folder(self) -> Path:
        """What relative paths in the file start from."""
        return self.path.parent

    @property
    def org(self) -> str:
        """Organisation of keys that name none."""
        return self.declared.org

    @property
    def gateway(self) -> GatewaySection:
        """Where the gateway listens, and its limits."""
        return self.declared.gateway

    @property
    def console(self) -> ConsoleSection:
        """Where the console listens, and its token."""
        return self.declared.console

    @property
    def local_path(self) -> Path:
        """The SQLite file, absolute; the owner's socket and the compiled prices lie beside it.

        With a ledger in a database they lie beside outlay.yaml, as if there were a file of this name.
        """
        ledger = self.declared.ledger
        name = self.path.stem + ".pg" if is_database(ledger) else ledger_text(ledger)
        return (self.folder / name).resolve()

    @property
    def ledger_place(self) -> LedgerPlace:
        """Where the ledger is."""
        ledger = self.declared.ledger
        return Database(ledger) if is_database(ledger) else self.local_path

    def place(self, path: str) -> str:
        """`outlay.yaml:31` of a path."""
        found = self.places.get(path)
        return self.file if found is None or found.line is None else f"{self.file}:{found.line}"

    def owned_names(self) -> dict[tuple[str, str], str]:
        """(kind, name) of every key, budget and price of the file -> `outlay.yaml:31`."""
        found = {
            ("key", key.name): self.place(f"keys[{index}]") for index, key in enumerate(self.declared.keys)
        }
        found.update(
            (("budget", budget.name), self.place(f"budgets[{index}]"))
            for index, budget in enumerate(self.declared.budgets)
        )
        found.update(
            (("policy", policy.name), self.place(f"policies[{index}]"))
            for index, policy in enumerate(self.declared.policies)
        )
        found.update(
            (("price", price_name(price)), self.place(f"prices[{index}]"))
            for index, price in enumerate(self.declared.prices)
        )
        return found

    def model_prices(self) -> dict[str, str]:
        """`provider/model` of every model's own price in the file, dated or not -> `outlay.yaml:31`."""
        return {
            f"{price.provider}/{price.model}": self.place(f"prices[{index}]")
            for index, price in enumerate(self.declared.prices)
            if isinstance(price, CustomEntry | SelfHostedEntry)
        }


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read and check a file. Raises ConfigErrors with every problem, `file:line: key: problem`."""
    text = read_text(path, "there is no such file; `outlay init` writes one")
    return parse_config(text, path, environ)


def parse_config(text: str, path: Path, environ: Mapping[str, str]) -> Config:
    """Check the text of a file; `path` gives its name and the folder that relative paths start from.

    Raises ConfigErrors with every problem.
    """
    path = path.absolute()
    decoder = Decoder()
    try:
        root = read_yaml(text, environ)
    except DocumentError as error:
        raise errors_by_line(path, [error.problem], {}) from error
    if root is None or not isinstance(root, Table):
        what = (
            "the file is empty; `outlay init` writes a starter"
            if root is None
            else "needs a mapping at the top"
        )
        raise errors_by_line(path, [Problem("", 1, what)], {})
    declared = decoder.struct(root, Declared, "")
    report_duplicates(root, decoder)
    records = {
        at: with_defaults(record) if isinstance(record, ProviderEntry) else record
        for at, record in decoder.records.items()
    }
    check_records(records, _known(root, path.parent), decoder.refine)
    if decoder.problems or not isinstance(declared, Declared):
        raise errors_by_line(path, decoder.problems, decoder.places)
    effective = msgspec.structs.replace(
        declared,
        providers=tuple(with_defaults(provider) for provider in declared.providers),
        keys=tuple(hashed(key) for key in declared.keys),
    )
    config = Config(path, effective, decoder.places)
    _refuse_equal_secrets(config)
    return config


def read_text(path: Path, absent: str) -> str:
    """The text of a file; `absent` says what to do if there is none. Raises ConfigErrors."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise one_error(path, absent) from error
    except UnicodeDecodeError as error:
        raise one_error(path, "the file is not UTF-8") from error
    except OSError as error:
        raise one_error(path, f"the file cannot be read: {error.strerror}") from error


def one_error(path: Path, message: str) -> ConfigErrors:
    """An error about the whole file."""
    return ConfigErrors((ConfigError(message, file=path.name),))


def errors_by_line(path: Path, problems: list[Problem], places: Mapping[str, Place]) -> ConfigErrors:
    """All problems by line. One that knows no line gets that of its path, or of the nearest path above it."""

    def line_of(problem: Problem) -> int | None:
        at = problem.path
        while problem.line is None and at and at not in places:
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return problem.line if problem.line is not None else places[at].line if at else None

    found = sorted(((line_of(problem) or 0, problem) for problem in problems), key=lambda pair: pair[0])
    return ConfigErrors(
        tuple(
            ConfigError(problem.message, file=path.name, line=line or None, key=problem.path or None)
            for line, problem in found
        )
    )


def _known(root: Table, folder: Path) -> Known:
    """What entries may refer to, by what the nodes say, so that one wrong entry raises no second error."""
    providers = dict(_texts(root, "providers", "name"))
    named = {text for text in providers.values() if text}
    priced = dict(_texts(root, "providers", "prices"))
    sources = {source or providers.get(index, "") for index, source in priced.items()}
    return Known(folder, named, sources - {""}, set(_routed(root)))


def _routed(root: Table) -> Iterator[str]:
    """Providers that a top-level model leads to."""
    yield from (text for _, text in _texts(root, "models", "provider"))
    for _, item in _items(root, "models"):
        yield from (text for _, text in _texts(item, "targets", "provider"))


def _texts(root: Table, section: str, field: str) -> Iterator[tuple[int, str]]:
    """(index, text of a field) of every entry of a list; "" where it is absent."""
    for index, item in _items(root, section):
        found = item.get(field)
        yield index, found.text if isinstance(found, Scalar) else ""


def _items(root: Table, section: str) -> Iterator[tuple[int, Table]]:
    found = root.get(section)
    if isinstance(found, Sequence):
        for index, item in enumerate(found.items):
            if isinstance(item, Table):
                yield index, item


def report_duplicates(root: Table, decoder: Decoder) -> None:
    """Two entries of one name; a model name may lead to one provider of each dialect."""
    for section in ("providers", "keys", "budgets", "policies", "tags", "identity"):
        seen: dict[str, int | None] = {}
        for index, item in _items(root, section):
            found = item.get("name")
            if not isinstance(found, Scalar) or not found.text:
                continue
            _report_second(decoder, seen, found.text, f"{section}[{index}].name", found.line)
    models: dict[str, int | None] = {}
    prices: dict[str, int | None] = {}
    dialects = {
        record.name: with_defaults(record).dialect
        for record in decoder.records.values()
        if isinstance(record, ProviderEntry)
    }
    for path, record in list(decoder.records.items()):
        if decoder.has_problem(path):
            continue
        place = decoder.places.get(path)
        line = None if place is None else place.line
        if isinstance(record, ModelEntry):
            key = f"{record.name}\n{dialects.get(record.provider)}"
            _report_second(decoder, models, key, f"{path}.name", line)
        elif isinstance(record, PRICE_ENTRIES):
            _report_second(decoder, prices, price_name(record), path, line)


def _report_second(
    decoder: Decoder, seen: dict[str, int | None], name: str, path: str, line: int | None
) -> None:
    if name in seen:
        shown = name.partition("\n")[0]
        decoder.report(path, line, f"the name {shown!r} is taken in line {seen[name]}; choose another")
    else:
        seen[name] = line


def _refuse_equal_secrets(config: Config) -> None:
    """Two keys of one secret: a bearer would be either. Raises ConfigErrors."""
    seen: dict[str, int] = {}
    problems = []
    for index, key in enumerate(config.declared.keys):
        mine = [key.secret_sha256, *(old.secret_sha256 for old in key.previous)]
        first = min(seen.setdefault(digest, index) for digest in mine)
        if first != index:
            problems.append(
                ConfigError(
                    f"has the secret of the key in {config.place(f'keys[{first}]')}; give each its own",
                    file=config.file,
                    line=config.places[f"keys[{index}]"].line,
                    key=f"keys[{index}]",
                )
            )
    if problems:
        raise ConfigErrors(tuple(problems))
