"""Rotated keys: old secrets go on for their overlap and no longer, and the key stays the same key."""

from pathlib import Path

import pytest

from outlay.app.config import KeyEntry, StoredObject, build_snapshot, parse_config, rotated
from outlay.app.config.identity import MAX_PREVIOUS
from outlay.app.config.values import moment_text, parse_moment, secret_hash
from outlay.flow.gateway.keys import KeySpec
from outlay.kernel.clock import NANOS_PER_SECOND, UnixNanos
from outlay.kernel.errors import ConfigError
from outlay.lookup.feed import feed_of

DAY = 86_400
NOW = UnixNanos(1_790_000_000 * NANOS_PER_SECOND + 123_456_789)
FIRST = KeyEntry(name="k", secret_sha256="1" * 64, team="search")


def at(seconds: int) -> UnixNanos:
    return UnixNanos(NOW + seconds * NANOS_PER_SECOND)


def ends(key: KeyEntry) -> list[tuple[str, int]]:
    """(first digit of the hash, seconds after NOW) of each earlier secret."""
    return [
        (old.secret_sha256[0], round((parse_moment(old.until) - NOW) / NANOS_PER_SECOND))
        for old in key.previous
    ]


def test_secrets_end_one_after_the_other() -> None:
    second = rotated(FIRST, "2" * 64, DAY, NOW)
    assert (second.secret_sha256[0], second.team, ends(second)) == ("2", "search", [("1", DAY)])
    third = rotated(second, "3" * 64, DAY, at(DAY // 2))
    # a rotation never makes an old secret live longer
    assert ends(third) == [("1", DAY), ("2", DAY * 3 // 2)]
    # a short overlap holds for all that came before
    assert ends(rotated(third, "4" * 64, 60, at(DAY // 2))) == [
        ("1", DAY // 2 + 60),
        ("2", DAY // 2 + 60),
        ("3", DAY // 2 + 60),
    ]
    cut = rotated(third, "4" * 64, 0, at(DAY // 2))
    assert all(parse_moment(old.until) <= at(DAY // 2) for old in cut.previous)


def test_too_many_at_once_are_refused_and_ended_ones_make_room() -> None:
    key = FIRST
    for number in range(MAX_PREVIOUS):
        key = rotated(key, f"{number + 2}" * 64, DAY, at(number))
    with pytest.raises(ConfigError, match="4 earlier secrets are in their overlap"):
        rotated(key, "9" * 64, DAY, at(60))
    assert len(rotated(key, "9" * 64, 0, at(60)).previous) == MAX_PREVIOUS
    later = rotated(key, "9" * 64, DAY, at(DAY + 2))
    assert [name for name, _ in ends(later)] == ["2", "3", "4", "5"]
    for overlap_s in (-1, 91 * DAY):
        with pytest.raises(ConfigError, match="overlap: must be between"):
            rotated(FIRST, "2" * 64, overlap_s, NOW)


def test_moments_come_back_never_later() -> None:
    assert 0 <= NOW - parse_moment(moment_text(NOW)) < 1_000


TEXT = """\
providers: [{name: openai, api_key: x}]
keys:
  - name: k
    secret: sk-outlay-the-new-one
    team: search
    expires: 2030-01-01
    previous:
      - {secret: sk-outlay-the-old-one, until: 2029-01-01}
      - {secret_sha256: "HASH", until: 2031-01-01T00:00:00Z}
""".replace("HASH", secret_hash("sk-outlay-the-oldest"))


def test_the_file_has_earlier_secrets_too() -> None:
    config = parse_config(TEXT, Path("/srv/outlay.yaml"), {})
    assert config.declared.keys[0].previous[0].secret == ""
    snapshot = build_snapshot(config, [], feed_of([]), 1)
    found = [
        snapshot.key_of(f"sk-outlay-the-{name}".encode()) for name in ("new-one", "old-one", "oldest", "none")
    ]
    assert found[3] is None
    opened = [key for key in found if isinstance(key, KeySpec)]
    assert [(key.name, key.team, key.ends_as) for key in opened] == [
        ("k", "search", "key_expired"),
        ("k", "search", "key_rotated"),
        # the key itself ends before this secret does
        ("k", "search", "key_expired"),
    ]
    assert [key.expires_at for key in opened] == [
        parse_moment("2030-01-01"),
        parse_moment("2029-01-01"),
        parse_moment("2030-01-01"),
    ]
    assert list(snapshot.named) == ["k"]


@pytest.mark.parametrize(
    ("previous", "problem"),
    [
        ("{secret: sk-outlay-the-old-one}", "needs until"),
        ("{until: 2029-01-01}", "needs either secret or secret_sha256"),
        ("{secret: short, until: 2029-01-01}", "shorter than 16 characters"),
        ("{secret_sha256: abc, until: 2029-01-01}", "needs the 64 lower-case"),
        ("{secret: sk-outlay-the-new-one, until: 2029-01-01}", "is the key's current secret"),
        ("{secret: sk-outlay-the-old-one, until: soon}", "is not a date"),
    ],
)
def test_what_is_wrong_with_an_earlier_secret(previous: str, problem: str) -> None:
    text = f"""\
providers: [{{name: openai, api_key: x}}]
keys: [{{name: k, secret: sk-outlay-the-new-one, previous: [{previous}]}}]
"""
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_config(text, Path("/srv/outlay.yaml"), {})
    assert "sk-outlay" not in str(caught.value)


def test_a_secret_of_the_past_is_nobody_elses() -> None:
    twice = TEXT + "  - {name: other, secret: sk-outlay-the-old-one}\n"
    with pytest.raises(ConfigError, match="has the secret of the key in outlay"):
        parse_config(twice, Path("/srv/outlay.yaml"), {})
    config = parse_config("providers: [{name: openai, api_key: x}]\n", Path("/srv/outlay.yaml"), {})
    hashes = {name: secret_hash(name) for name in ("one", "two")}
    stored = [
        StoredObject(
            "key",
            "a",
            1,
            f'{{"name":"a","secret_sha256":"{hashes["one"]}",'
            f'"previous":[{{"secret_sha256":"{hashes["two"]}","until":"2029-01-01"}}]}}',
        ),
        StoredObject("key", "b", 1, f'{{"name":"b","secret_sha256":"{hashes["two"]}"}}'),
    ]
    with pytest.raises(ConfigError, match="'a' and 'b' have one secret"):
        build_snapshot(config, stored, feed_of([]), 1)
