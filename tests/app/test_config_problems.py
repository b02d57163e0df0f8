"""Wrong outlay.yaml files: each problem is named with file, line and key, all of them at once, and no value leaks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.app.config import ConfigErrors, load_config, parse_config

FILE = Path("/nowhere/outlay.yaml")
PROVIDER = "providers: [{name: openai, api_key: k}]\n"


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse_config(text, FILE, environ)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


BUDGET = "budgets:\n  - name: all\n    limit_usd: {}\n"
KEY = "keys:\n  - name: dev\n    secret: sk-outlay-0123456789\n    {}\n"

CASES = [
    # shape
    ("", "outlay.yaml:1: the file is empty; `outlay init` writes a starter"),
    ("- a\n", "outlay.yaml:1: needs a mapping at the top"),
    ("org: [a]\n", "outlay.yaml:1: org: needs text"),
    ("\nbudget: []\n", "outlay.yaml:2: budget: unknown key; did you mean budgets?"),
    ("gateway:\n  ports: 1\n", "outlay.yaml:2: gateway.ports: unknown key; did you mean port?"),
    ("budgets: {a: 1}\n", "outlay.yaml:1: budgets: needs a list"),
    ("gateway: 4100\n", "outlay.yaml:1: gateway: needs a mapping of "),
    ("version: 2\n", "outlay.yaml:1: version: this release reads version 1, not 2"),
    ("org: a\norg: b\n", "outlay.yaml:2: org: stands here a second time (first in line 1); remove one"),
    ("keys:\n  - team: x\n", "outlay.yaml:2: keys[0]: needs name"),
    ("org: 'a\n", "outlay.yaml:1: not YAML: found unexpected end of stream"),
    ("a: 1\n---\nb: 2\n", "outlay.yaml:2: a second document begins here; keep one"),
    ("org: !!python/name:os.system x\n", "outlay.yaml:1: tags (!...) are not used here; remove the tag"),
    ("<<: {org: a}\n", "outlay.yaml:1: merge keys (<<) are not supported; write the values out"),
    # types
    ("gateway:\n  port: yes\n", "outlay.yaml:2: gateway.port: needs a whole number, not 'yes'"),
    ("gateway:\n  wait_s: 1.5\n", "outlay.yaml:2: gateway.wait_s: needs a whole number, not '1.5'"),
    ("gateway:\n  wait_s: -1\n", "outlay.yaml:2: gateway.wait_s: must be between 0 and "),
    ("gateway:\n  wait_s: '5'\n", "outlay.yaml:2: gateway.wait_s: needs a whole number without quotes"),
    ("gateway:\n  port: 0x10\n", "outlay.yaml:2: gateway.port: needs a whole number, not '0x10'"),
    ("gateway:\n  max_headers: 0\n", "outlay.yaml:2: gateway.max_headers: must be 1 or more"),
    ("gateway:\n  port: 70000\n", "outlay.yaml:2: gateway.port: must be between 0 (any free port) and 65535"),
    ("gateway:\n  sync: fast\n", "outlay.yaml:2: gateway.sync: 'fast' is not known; use normal or full"),
    (
        "gateway:\n  clamp: no\n",
        "outlay.yaml:2: gateway.clamp: 'no' is not known; use never or when_unset or always",
    ),
    ("console:\n  port: 4100\n", "outlay.yaml:2: console.port: is the gateway's port; choose another"),
    ("console:\n  admin_token: short\n", "outlay.yaml:2: console.admin_token: shorter than 16 characters"),
    (KEY.format("team: yes"), "outlay.yaml:4: keys[0].team: needs text, not true or false; put it in quotes"),
    (
        KEY.format("expires: 2026-13-01"),
        "outlay.yaml:4: keys[0].expires: '2026-13-01' is not a date; write 2026-12-31",
    ),
    (KEY.format("tags: {a: ''}"), "outlay.yaml:4: keys[0].tags.a: needs 1 to 128 characters"),
    (KEY.format("secret_sha256: aa"), "outlay.yaml:2: keys[0]: has both secret and secret_sha256; keep one"),
    (
        KEY.format("allow_models: ['g*t']"),
        "outlay.yaml:4: keys[0].allow_models[0]: `*` may stand at the end only",
    ),
    # money
    (BUDGET.format(-1), "outlay.yaml:3: budgets[0].limit_usd: '-1' is negative; use 0 or more"),
    (BUDGET.format("-0.01"), "outlay.yaml:3: budgets[0].limit_usd: '-0.01' is negative; use 0 or more"),
    (BUDGET.format(".nan"), "outlay.yaml:3: budgets[0].limit_usd: '.nan' is not a finite number"),
    (BUDGET.format("NaN"), "outlay.yaml:3: budgets[0].limit_usd: 'NaN' is not a finite number"),
    (BUDGET.format("-.inf"), "outlay.yaml:3: budgets[0].limit_usd: '-.inf' is not a finite number"),
    (BUDGET.format("true"), "outlay.yaml:3: budgets[0].limit_usd: needs a number, not true or false"),
    (BUDGET.format("1:30"), "outlay.yaml:3: budgets[0].limit_usd: '1:30' is not a plain decimal number"),
    (BUDGET.format("0100"), "outlay.yaml:3: budgets[0].limit_usd: '0100' is not a plain decimal number"),
    (
        BUDGET.format("1.0000000001"),
        "outlay.yaml:3: budgets[0].limit_usd: '1.0000000001' is no limit: finer than",
    ),
    (BUDGET.format("1e30"), "outlay.yaml:3: budgets[0].limit_usd: '1e30' is no limit: amount out of range"),
    (BUDGET.format("$5"), "outlay.yaml:3: budgets[0].limit_usd: '$5' is not a plain decimal number"),
    (BUDGET.format(""), "outlay.yaml:3: budgets[0].limit_usd: needs a number, not nothing"),
    # budgets
    (
        BUDGET.format("1\n    window: fortnight"),
        "outlay.yaml:4: budgets[0].window: unknown window 'fortnight'; use day",
    ),
    (
        BUDGET.format("1\n    timezone: Mars/X"),
        "outlay.yaml:4: budgets[0].timezone: unknown time zone 'Mars/X'",
    ),
    (
        BUDGET.format("1\n    scope: {teem: a}"),
        "outlay.yaml:4: budgets[0].scope.teem: unknown dimension; did you mean team?",
    ),
    (
        BUDGET.format("1\n    scope: {team: 'a*b'}"),
        "outlay.yaml:4: budgets[0].scope.team: `*` may stand at the end",
    ),
    (
        BUDGET.format("1\n    soft: true\n    hard: true"),
        "outlay.yaml:4: budgets[0].soft: contradicts `hard`",
    ),
    (
        BUDGET.format("1\n  - name: all\n    limit_usd: 2"),
        "outlay.yaml:4: budgets[1].name: the name 'all' is taken in line 2; choose another",
    ),
    (
        "budgets: [{name: outlay.run, limit_usd: 1}]\n",
        "outlay.yaml:1: budgets[0].name: 'outlay.run' is built in",
    ),
    # references
    (
        "models: [{name: a, provider: openia, model: b}]\n" + PROVIDER,
        "outlay.yaml:1: models[0].provider: unknown provider 'openia'; did you mean 'openai'?",
    ),
    (
        PROVIDER + "prices:\n  - {kind: fee, provider: x, usd_per_request: 1}\n",
        "outlay.yaml:3: prices[0].provider: unknown provider",
    ),
    (
        PROVIDER + "prices:\n  - {kind: dicount, provider: openai}\n",
        "outlay.yaml:3: prices[0].kind: unknown kind; did you mean discount?",
    ),
    (
        PROVIDER + "prices:\n  - {provider: openai}\n",
        "outlay.yaml:3: prices[0]: needs kind: one of discount, custom",
    ),
    (
        PROVIDER
        + "prices:\n  - {kind: custom, provider: openai, model: m, usd_per_mtok: {input: 1, tea: 2}}\n",
        "outlay.yaml:3: prices[0].usd_per_mtok: unknown token class 'tea'",
    ),
    (
        PROVIDER
        + "prices:\n  - {kind: discount, provider: openai, multiplier: 85}\n"
        + "  - {kind: discount, provider: openai, multiplier: 1}\n",
        "outlay.yaml:4: prices[1]: the name 'discount:openai/*' is taken in line 3; choose another",
    ),
    (
        PROVIDER + "prices:\n  - {kind: discount, provider: openai, multiplier: 850}\n",
        "outlay.yaml:3: prices[0].multiplier: multiplier '850' is above 100 (a percentage?)",
    ),
    (
        "providers: [{name: x}]\n",
        "outlay.yaml:1: providers[0]: needs dialect: openai, anthropic, google, cohere or bedrock",
    ),
    (
        "providers: [{name: openai, base_url: 'ftp://u:pw@h'}]\n",
        "outlay.yaml:1: providers[0].base_url: needs an http://",
    ),
    (
        "providers: [{name: openai, headers: {host: x}}]\n",
        "outlay.yaml:1: providers[0].headers.host: is not a header that may",
    ),
    (
        "providers: [{name: openai, ca_file: no.pem}]\n",
        "outlay.yaml:1: providers[0].ca_file: there is no such file",
    ),
    (
        "providers: [{name: l, self_hosted: true, base_url: 'http://h'}]\n",
        "outlay.yaml:1: providers[0]: no model leads here",
    ),
    ("access: [{scope: {team: a}}]\n", "outlay.yaml:1: access[0]: needs allow or deny"),
    # the ledger
    (
        "ledger: postgresql://user:p@ss@host/books\n",
        "outlay.yaml:1: ledger: cannot be read as postgresql://user:password@host/database;"
        " escape @ : / ? # in the password",
    ),
    ("ledger: mysql://h/d\n", "outlay.yaml:1: ledger: unknown kind of ledger 'mysql'"),
    # the environment
    (
        KEY.replace("sk-outlay-0123456789", "${{NO_SUCH}}").format(""),
        "outlay.yaml:3: keys[0].secret: missing secret: environment variable NO_SUCH is not set",
    ),
    ("org: ${a b}\n", "outlay.yaml:1: ${a b} is not a variable; write ${NAME} or ${NAME:-default}"),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[1][13:70] for case in CASES])
def test_each_problem_is_named(text: str, expected: str) -> None:
    found = problems(text)
    assert [line for line in found if line.startswith(expected)], found
    assert len(found) == 1, "one mistake, one message"


def test_all_problems_at_once_in_the_order_of_lines() -> None:
    text = (
        "orgg: x\n"
        "gateway: {port: 99999, wait_s: true}\n"
        "budgets:\n"
        "  - {name: a, limit_usd: .nan, window: fortnight}\n"
        "  - {name: a, limit_usd: 1, scope: {teem: x}}\n"
        "keys:\n"
        "  - {name: k, secret: '${NO_SUCH}', expires: soon}\n"
    )
    assert [line.split(": ")[0:2] for line in problems(text)] == [
        ["outlay.yaml:1", "orgg"],
        ["outlay.yaml:2", "gateway.wait_s"],
        ["outlay.yaml:2", "gateway.port"],
        ["outlay.yaml:4", "budgets[0].limit_usd"],
        ["outlay.yaml:4", "budgets[0].window"],
        ["outlay.yaml:5", "budgets[1].name"],
        ["outlay.yaml:5", "budgets[1].scope.teem"],
        ["outlay.yaml:7", "keys[0].secret"],
        ["outlay.yaml:7", "keys[0].expires"],
    ]


def test_two_keys_of_one_secret() -> None:
    text = "keys:\n  - {name: a, secret: sk-outlay-0123456789}\n  - {name: b, secret: sk-outlay-0123456789}\n"
    (found,) = problems(text)
    assert found == "outlay.yaml:3: keys[1]: has the secret of the key in outlay.yaml:2; give each its own"


SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "text",
    [
        "console: {admin_token: '${S}', port: x}\n",
        "keys: [{name: '${S}', secret: '${S}', expires: '${S}'}]\n",
        "budgets: [{name: a, limit_usd: '${S}', window: '${S}', timezone: '${S}', scope: {x: '${S}'}}]\n",
        "gateway: {port: '${S}', sync: '${S}'}\n",
        "providers: [{name: openai, base_url: 'https://u:${S}@h', output_limit_field: '${S}', dialect: '${S}'}]\n",
        "models: [{name: m, provider: '${S}', model: m}]\n",
        "prices: [{kind: fee, provider: '${S}', usd_per_request: '${S}'}]\n",
        "ledger: ${S}://x\n",
        f"keys: [{{name: a, secret: {SECRET}, secret_sha256: {SECRET}}}]\n",
        f"providers: [{{name: openai, api_key: '{SECRET} x', headers: {{h: '{SECRET}é'}}}}]\n",
    ],
)
def test_problems_never_show_secrets_or_the_environment(text: str) -> None:
    assert SECRET not in "\n".join(problems(text, S=SECRET))


def test_bombs_are_refused_quickly_and_in_bounds() -> None:
    deep = "org: " + "[" * 300_000
    assert problems(deep) == ["outlay.yaml:1: nested deeper than 16 levels"]
    wide = "x0: &x0 [a]\n" + "".join(
        f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 100)}]\n" for level in range(1, 9)
    )
    assert "more than 200000 values (aliases followed)" in problems(wide)[0]
    assert "has no anchor before it" in problems("a: &a [*a]\n")[0]
    assert problems("#" * (1024 * 1024 + 1)) == ["outlay.yaml: the file is larger than 1024 KiB"]


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "outlay.yaml"
    with pytest.raises(ConfigErrors, match=r"outlay\.yaml: there is no such file; `outlay init` writes one"):
        load_config(path, {})
    path.write_bytes(b"org: \xff\xfe\n")
    with pytest.raises(ConfigErrors, match="not UTF-8"):
        load_config(path, {})


_WORDS = [
    *("budgets", "keys", "prices", "providers", "name", "limit_usd", "scope", "kind", "custom", "openai"),
    *("${X}", "${X:-y}", "1", "-1", ".nan", "true", "~"),
]
_MARKS = ["&a ", "*a", "'", '"', "#", "{", "}", "[", "]", ": ", "- ", "\n", "  ", "\t"]
_PIECES = st.sampled_from([*_WORDS, *_MARKS])


@given(st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=60).map("".join)))
def test_any_text_is_a_config_or_config_errors(text: str) -> None:
    try:
        parse_config(text, FILE, {"X": "x"})
    except ConfigErrors as error:
        assert error.problems
