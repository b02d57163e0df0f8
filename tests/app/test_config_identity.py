"""`tags` and `identity` of outlay.yaml: what they become, and a line for everything that may be wrong with them."""

from pathlib import Path

import pytest

from outlay.app.config import build_snapshot, config_origins, parse_config
from outlay.flow.tags import TagRules, TagSpec
from outlay.kernel.errors import ConfigError
from outlay.lookup.feed import feed_of
from tests.tokens import jwk, jwks, rsa_key

BASE = """\
providers: [{name: openai, api_key: x}]
keys: [{name: staff, secret: sk-outlay-0123456789}]
"""
ISSUER = "name: sso, issuer: 'https://i', audience: outlay, key: staff"


def problem(text: str, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        build_snapshot(parse_config(BASE + text, folder / "outlay.yaml", {}), [], feed_of([]), 1)
    return str(caught.value)


def test_tags_become_rules(tmp_path: Path) -> None:
    text = """\
tags:
  - {name: feature, required: true, allowed: [chat, "rag-*"], scope: {team: search}}
  - {name: cost-center, client_settable: false, shadow: true}
  - {name: release, allowed: [1, 2], default: 1}
"""
    config = parse_config(BASE + text, tmp_path / "outlay.yaml", {})
    assert build_snapshot(config, [], feed_of([]), 1).tag_rules == TagRules(
        (
            TagSpec("feature", True, ("chat", "rag-*"), scope={"team": "search"}),
            TagSpec("cost-center", client_settable=False, shadow=True),
            TagSpec("release", allowed=("1", "2"), default="1"),
        )
    )
    shadow = parse_config(BASE + text + "gateway: {mode: shadow}\n", tmp_path / "outlay.yaml", {})
    assert build_snapshot(shadow, [], feed_of([]), 1).tag_rules.is_shadow


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("{required: true}", "tags[0]: needs name"),
        ("{name: '', required: true}", "needs 1 to 128 characters"),
        ("{name: a}", "asks nothing"),
        ("{name: a, allowed: ['a*b']}", "`*` only at the end"),
        ("{name: a, default: 'x*'}", "needs a value without `*`"),
        ("{name: a, default: unattributed}", "needs a value without `*`"),
        ("{name: a, allowed: [x], default: y}", "is not one of the allowed values"),
        ("{name: a, required: true, scope: {tema: x}}", "did you mean team?"),
        ("{name: a, required: true}, {name: a, required: true}", "the name 'a' is taken"),
        ("{name: a, require: true}", "did you mean required?"),
    ],
)
def test_what_is_wrong_with_a_tag(tag: str, message: str, tmp_path: Path) -> None:
    assert message in problem(f"tags: [{tag}]\n", tmp_path)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "needs exactly one of jwks_url, jwks_file, public_key_file, secret"),
        (f"jwks_file: keys.json, secret: {'x' * 32}", "needs exactly one of"),
        ("jwks_file: none.json", "there is no such file"),
        ("jwks_url: 'http://login.example/keys'", "needs https: who changes the keys"),
        ("jwks_url: 'ftp://login.example/keys'", "needs an https:// address"),
        ("jwks_url: 'file:///etc/keys'", "needs an https:// address"),
        ("jwks_url: 'https://me:pw@login.example/keys'", "needs an https:// address"),
        ("jwks_url: 'https://[/keys'", "needs an https:// address"),
        ("secret: short", "shorter than 32 characters"),
        ("jwks_file: keys.json, algorithms: [HS256]", "'HS256' does not go with it"),
        ("jwks_file: keys.json, algorithms: [none]", "'none' does not go with it"),
        (f"secret: {'x' * 32}, algorithms: [RS256]", "'RS256' does not go with it"),
        ("jwks_file: keys.json, claims: {org: tid}", "no claim fills this in"),
        ("jwks_file: keys.json, claims: {run: jti}", "no claim fills this in"),
        ("jwks_file: keys.json, claims: {tags.: x}", "no claim fills this in"),
        ("jwks_file: keys.json, claims: {user: ' sub'}", "needs the name of a claim"),
        ("jwks_file: keys.json, claim: {user: sub}", "did you mean claims?"),
        ("jwks_file: keys.json, max_age_s: -1", "must be between 0"),
        ("jwks_file: keys.json, ca_file: none.pem", "there is no such file"),
    ],
)
def test_what_is_wrong_with_an_issuer(rest: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(jwk(rsa_key(), "k1")))
    assert message in problem(f"identity: [{{{ISSUER}, {rest}}}]\n", tmp_path)


def test_an_issuer_stands_for_a_key_that_there_is(tmp_path: Path) -> None:
    text = "identity: [{name: sso, issuer: i, audience: a, key: nobody, jwks_url: 'http://127.0.0.1:9/k'}]\n"
    assert "the key 'nobody', which there is not" in problem(text, tmp_path)


def test_a_shared_secret_is_not_shown(tmp_path: Path) -> None:
    text = f"identity: [{{{ISSUER}, secret: {'x' * 32}, claims: {{user: sub}}}}]\n"
    config = parse_config(BASE + text, tmp_path / "outlay.yaml", {})
    shown = {value.path: value.value for value in config_origins(config)}
    assert shown["identity[0].secret"] == "***"
    assert shown["identity[0].claims.user"] == "sub"
