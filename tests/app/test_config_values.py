"""A good outlay.yaml: every value arrives exactly, defaults follow from names, and each value knows its origin."""

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from outlay.app.config import Config, build_snapshot, config_origins, load_config, parse_config
from outlay.app.config.tree import Declared, GatewaySection
from outlay.flow.authorize import Clamp
from outlay.flow.budgets import AccessRule, Origin
from outlay.flow.gateway.snapshot import NO_EXPIRY, OnClientGone, Provider, Settings, Snapshot
from outlay.flow.outcome import Billing
from outlay.flow.windows import WindowKind
from outlay.kernel.clock import UnixNanos
from outlay.lookup.feed import feed_of
from outlay.lookup.price import ModelPrice
from outlay.wire.intent import Dialect, Operation

TEXT = """\
version: 1
org: acme
ledger: sqlite:///data/books.db
gateway:
  port: ${PORT:-4200}
  clamp: never
  wait_s: 0
  sync: full
console:
  admin_token: ${TOKEN}
providers:
  - name: openai
    api_key: pre-${OPENAI}-post
  - name: local
    self_hosted: true
    base_url: http://127.0.0.1:8080/v1
    models: ["llama-*"]
  - {name: proxy, dialect: anthropic, base_url: "https://proxy.example", prices: anthropic, models: [claude-x]}
models:
  - {name: fast, provider: openai, model: gpt-5-mini}
keys:
  - name: dev
    secret: sk-outlay-0123456789
    team: 42
    tags: {feature: chat, "a.b": "x"}
    allow_models: ["gpt-*"]
    expires: 2030-01-01
  - {name: ci, org: other, secret_sha256: "CI_HASH", expires: 2030-01-01T12:00:00+02:00}
budgets:
  - {name: tenth, limit_usd: 0.1}
  - {name: nano, limit_usd: 0.000000001, window: 24h, soft: true}
  - {name: large, limit_usd: 1_234_567.890123456, window: week, timezone: Europe/Berlin, scope: {team: "*"}}
  - {name: text, limit_usd: "30", hard: false}
  - {name: meter, limit_usd: none, scope: {tag.feature: "c*"}}
access:
  - {scope: {environment: ci}, deny: [gpt-4*]}
prices:
  - {kind: self_hosted, provider: local, model: llama-3, usd_per_hour: 1.80, tokens_per_second: 500}
  - {kind: custom, provider: openai, model: tuned, usd_per_mtok: {input: 0.1, output: 0.3}, valid_from: 2026-01-01}
  - {kind: discount, name: deal, provider: openai, multiplier: 0.5, valid_to: 2026-06-01}
""".replace("CI_HASH", sha256(b"ci-secret").hexdigest())
ENVIRON = {"TOKEN": "t" * 16, "OPENAI": "sk-live"}
FILE = Path("/srv/outlay/outlay.yaml")
JANUARY = UnixNanos(1_767_225_600_000_000_000)
"""2026-01-01T00:00:00Z."""


def place(text: str) -> str:
    """`outlay.yaml:12` of the one line of TEXT that holds `text`."""
    (line,) = [number for number, line in enumerate(TEXT.splitlines(), 1) if text in line]
    return f"outlay.yaml:{line}"


@pytest.fixture
def config() -> Config:
    return parse_config(TEXT, FILE, ENVIRON)


@pytest.fixture
def snapshot(config: Config) -> Snapshot:
    return build_snapshot(config, [], feed_of([]), 7)


def test_top_level(config: Config, snapshot: Snapshot) -> None:
    assert config.org == "acme"
    assert config.local_path == Path("/srv/outlay/data/books.db")
    assert config.console.admin_token == "t" * 16
    assert (config.gateway.host, config.gateway.port, config.gateway.sync.value) == (
        "127.0.0.1",
        4200,
        "full",
    )
    assert snapshot.version == 7
    # raises are asked for in the console unless the operator names another place
    raise_url = f"{config.console.address}/approvals?request={{request_id}}"
    assert snapshot.settings == Settings(clamp=Clamp.NEVER, wait_s=0, raise_url=raise_url)


def test_the_environment_wins_over_a_default_unless_it_is_empty() -> None:
    text = "gateway: {port: '${PORT:-4200}', raise_url: '$${request_id} ${X:-}'}\n"
    assert parse_config(text, FILE, {"PORT": "4300"}).gateway.port == 4300
    config = parse_config(text, FILE, {"PORT": ""})
    assert config.gateway.port == 4200
    assert config.gateway.raise_url == "${request_id} "


@pytest.mark.parametrize(
    ("ledger", "path"),
    [
        ("outlay.db", "/srv/outlay/outlay.db"),
        ("/var/l.db", "/var/l.db"),
        ("sqlite:////var/l.db", "/var/l.db"),
        ("sqlite:///l.db", "/srv/outlay/l.db"),
        ("../l.db", "/srv/l.db"),
    ],
)
def test_ledger_paths(ledger: str, path: str) -> None:
    assert parse_config(f"ledger: {ledger}\n", FILE, {}).local_path == Path(path)


def test_providers_and_their_defaults(snapshot: Snapshot) -> None:
    assert snapshot.providers["openai"] == Provider(
        name="openai",
        dialect=Dialect.OPENAI,
        base_url="https://api.openai.com/v1",
        api_key="pre-sk-live-post",
        models=("*",),
        apis=(Operation.CHAT, Operation.RESPONSES),
        output_limit_field="max_completion_tokens",
        has_hidden_output=True,
    )
    assert snapshot.providers["local"] == Provider(
        name="local",
        dialect=Dialect.OPENAI,
        base_url="http://127.0.0.1:8080/v1",
        billing=Billing.SELF_HOSTED,
        on_client_gone=OnClientGone.CANCEL,
        models=("llama-*",),
        keepalive_s=4,
    )
    proxy = snapshot.providers["proxy"]
    assert (proxy.prices, proxy.dialect, proxy.keepalive_s) == ("anthropic", Dialect.ANTHROPIC, 30)


def test_a_provider_that_serves_everything_is_asked_last(snapshot: Snapshot) -> None:
    def target(model: str) -> tuple[str, str]:
        aims = snapshot.aims(Dialect.OPENAI, Operation.CHAT, model)
        assert aims is not None
        return aims.targets[0].provider.name, aims.targets[0].model

    assert target("llama-3") == ("local", "llama-3")
    assert target("gpt-9") == ("openai", "gpt-9")
    assert target("fast") == ("openai", "gpt-5-mini")
    assert snapshot.aims(Dialect.ANTHROPIC, Operation.MESSAGES, "claude-y") is None


def test_keys_keep_only_hashes(config: Config, snapshot: Snapshot) -> None:
    key = snapshot.key_of(b"sk-outlay-0123456789")
    assert key is not None
    assert (key.name, key.org, key.team, key.expires_at) == ("dev", "acme", "42", 1_893_456_000_000_000_000)
    assert key.tags == {"feature": "chat", "a.b": "x"}
    assert (key.origin, key.place) == (Origin.YAML, place("name: dev"))
    other = snapshot.key_of(b"ci-secret")
    assert other is not None
    # 12:00 in a zone two hours ahead is 10:00 UTC
    assert (other.org, other.expires_at) == ("other", 1_893_456_000_000_000_000 + 10 * 3_600 * 1_000_000_000)
    assert all(not key.secret for key in config.declared.keys)
    assert "sk-outlay-0123456789" not in repr(config) + repr(config.declared.keys)
    assert NO_EXPIRY not in (key.expires_at, other.expires_at)


def test_limits_are_exact(snapshot: Snapshot) -> None:
    limits = {budget.name: budget.limit_nanos for budget in snapshot.budgets}
    assert limits == {
        "tenth": 100_000_000,
        "nano": 1,
        "large": 1_234_567_890_123_456,
        "text": 30_000_000_000,
        "meter": None,
    }


def test_budget_windows_and_kinds(snapshot: Snapshot) -> None:
    found = {budget.name: budget for budget in snapshot.budgets}
    assert {name: budget.hard for name, budget in found.items()} == {
        "tenth": True,
        "nano": False,
        "large": True,
        "text": False,
        "meter": True,
    }
    assert (found["nano"].window.kind, found["nano"].window.seconds) == (WindowKind.ROLLING, 86_400)
    assert (found["large"].window.kind, found["large"].window.zone) == (WindowKind.WEEK, "Europe/Berlin")
    assert found["tenth"].window.kind is WindowKind.MONTH
    assert found["meter"].scope == {"tag.feature": "c*"}
    assert found["large"].place == place("name: large")


def test_access_and_key_rules(snapshot: Snapshot) -> None:
    assert snapshot.rules == (
        AccessRule({"environment": "ci"}, (), ("gpt-4*",)),
        AccessRule({"key": "dev"}, ("gpt-*",), ()),
    )


def test_prices_reach_the_book(snapshot: Snapshot) -> None:
    engine = snapshot.book.find("local", "llama-3", JANUARY)
    assert isinstance(engine, ModelPrice)
    # 1.80 USD an hour / (3600 s x 500 tokens/s) x 10**6 tokens = 1 USD
    assert (engine.rates.input, engine.rates.output) == (0, 1_000_000_000)
    tuned = snapshot.book.find("openai", "tuned", JANUARY)
    assert isinstance(tuned, ModelPrice)
    assert (tuned.rates.input, tuned.rates.output) == (50_000_000, 150_000_000)
    assert "deal" in tuned.price_id
    assert not isinstance(snapshot.book.find("openai", "tuned", UnixNanos(JANUARY - 1)), ModelPrice)
    after = snapshot.book.find("openai", "tuned", UnixNanos(JANUARY + 151 * 86_400 * 1_000_000_000))
    assert isinstance(after, ModelPrice)
    assert after.rates.input == 100_000_000


def test_names_the_file_owns(config: Config) -> None:
    owned = config.owned_names()
    assert owned["key", "dev"] == place("name: dev")
    assert owned["budget", "meter"] == place("name: meter")
    assert {name for kind, name in owned if kind == "price"} == {
        "local/llama-3",
        "openai/tuned@2026-01-01",
        "deal",
    }


def test_origins(config: Config) -> None:
    origins = {value.path: (value.value, value.origin) for value in config_origins(config)}
    assert origins["org"] == ("acme", place("org: acme"))
    assert origins["gateway.port"] == ("4200", place("port:"))
    assert origins["gateway.max_headers"] == ("128", "default")
    assert origins["console.admin_token"] == ("***", "env TOKEN")
    assert origins["providers[0].api_key"] == ("***", "env OPENAI")
    assert origins["providers[1].api_key"] == ("", "default")
    assert origins["providers[0].base_url"] == ("https://api.openai.com/v1", "default")
    assert origins["keys[0].secret_sha256"] == ("***", place("secret: sk-"))
    assert origins["budgets[0].limit_usd"] == ("0.1", place("name: tenth"))
    assert origins["budgets[2].scope.team"] == ("*", place("name: large"))
    assert origins["prices[1].kind"] == ("custom", place("kind: custom"))


def test_origins_never_show_a_secret(config: Config) -> None:
    shown = "\n".join(" ".join(value) for value in config_origins(config))
    for secret in ("sk-live", "t" * 16, "sk-outlay-0123456789", sha256(b"ci-secret").hexdigest()):
        assert secret not in shown


def test_every_setting_can_be_written() -> None:
    """The gateway section follows `Settings` field by field, defaults included."""
    assert parse_config("version: 1\n", FILE, {}).declared == Declared()
    defaults = msgspec.structs.asdict(Settings())
    assert {name: getattr(GatewaySection(), name) for name in defaults} == defaults
    written = {name: 7 for name, value in defaults.items() if isinstance(value, int)}
    written["default_max_output_tokens"] = 9
    text = "gateway:\n" + "".join(f"  {name}: {value}\n" for name, value in written.items())
    settings = build_snapshot(parse_config(text, FILE, {}), [], feed_of([]), 0).settings
    assert {name: getattr(settings, name) for name in written} == written


def test_every_provider_field_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / "outlay.yaml").write_text("""\
providers:
  - name: p
    dialect: openai
    base_url: https://h/v1
    api_key: k
    prices: openai
    billing: bills_errors
    on_client_gone: cancel
    models: [m]
    output_limit_field: max_completion_tokens
    has_hidden_output: false
    headers: {x-team: a}
    send_request_id: true
    max_connections: 1
    connect_timeout_s: 2
    first_byte_timeout_s: 3
    idle_timeout_s: 4
    keepalive_s: 5
    ca_file: ca.pem
""")
    config = load_config(tmp_path / "outlay.yaml", {})
    assert build_snapshot(config, [], feed_of([]), 0).providers["p"] == Provider(
        name="p",
        dialect=Dialect.OPENAI,
        base_url="https://h/v1",
        api_key="k",
        price_source="openai",
        billing=Billing.BILLS_ERRORS,
        on_client_gone=OnClientGone.CANCEL,
        models=("m",),
        output_limit_field="max_completion_tokens",
        has_hidden_output=False,
        headers={"x-team": "a"},
        send_request_id=True,
        max_connections=1,
        connect_timeout_s=2,
        first_byte_timeout_s=3,
        idle_timeout_s=4,
        keepalive_s=5,
        ca_file=str(tmp_path / "ca.pem"),
    )


def test_aliases_and_empty_sections_are_ordinary_yaml() -> None:
    text = "access:\n  - {scope: &ci {environment: ci}, deny: [a]}\n  - {scope: *ci, deny: [b]}\nkeys:\ngateway:\n"
    config = parse_config(text, FILE, {})
    assert [entry.scope for entry in config.declared.access] == [{"environment": "ci"}] * 2
    assert config.declared.keys == ()
