"""A config's policies in an embedded client: what it holds to exactly, and what it refuses at `wrap`, by name."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest

import outlay
from outlay.flow.ledger.reader import LedgerReader
from outlay.kernel.errors import ConfigError
from tests import world
from tests.sdk.shop import GPT_CALL_HELD_NANOS, GPT_CALL_NANOS, SAY, Shop, shop

CONFIG = """
org: acme
gateway: {{mode: {mode}}}
providers:
  - {{name: openai, base_url: "{url}/v1", api_key: unused}}
policies:
{policies}
"""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@contextmanager
def site(folder: Path, *policies: str, mode: str = "enforce") -> Iterator[tuple[Shop, Any]]:
    """A shop, and a function that wraps a client of it under a config with these policies."""
    with shop(folder) as place:
        path = folder / "outlay.yaml"
        lines = "\n".join(f"  - {policy}" for policy in policies)
        path.write_text(CONFIG.format(url=place.mock.url, policies=lines, mode=mode))

        def wrap(**more: Any) -> openai.OpenAI:
            return place.gpt(config=path, **more)

        yield place, wrap


def call(client: openai.OpenAI, **more: Any) -> None:
    client.chat.completions.create(model="gpt-test", messages=SAY, **{"max_tokens": 80, **more})  # type: ignore[call-overload]


def refusal_of(client: openai.OpenAI, **more: Any) -> outlay.CallRefused:
    with pytest.raises(outlay.CallRefused) as caught:
        call(client, **more)
    return caught.value


def test_the_worst_case_of_one_call(tmp_path: Path) -> None:
    # what `SAY` is held at fits to the nano-dollar; a token more does not
    with site(tmp_path, "{name: cap, max_usd_per_call: 0.0013275}") as (place, wrap):
        client = wrap()
        call(client)
        with outlay.run() as run:
            found = refusal_of(client, max_tokens=81)
        assert (found.error_code, found.policy, found.limit, run.calls) == (
            "call_above_policy",
            "cap",
            "0.0013275",
            0,
        )
        assert GPT_CALL_HELD_NANOS == 1_327_500
        assert len(place.mock.calls) == 1


def test_price_ceilings_hold_for_the_callers_of_their_scope(tmp_path: Path) -> None:
    ceiling = "{name: cheap, scope: {team: search}, max_output_usd_per_mtok: 9.99}"
    with site(tmp_path, ceiling, "{name: plenty, max_input_usd_per_mtok: 2.5}") as (place, wrap):
        found = refusal_of(wrap(team="search"))
        assert (found.error_code, found.policy) == ("price_above_ceiling", "cheap")
        call(wrap(team="ads"))
        place.wait_for(1)


def test_hours(tmp_path: Path) -> None:
    today = datetime.now(UTC).weekday()
    far = [DAYS[(today + days) % 7] for days in (3, 4)]
    closed = f"{{name: later, scope: {{team: search}}, hours: {whole_days(far)}}}"
    open_now = f"{{name: always, hours: {whole_days(DAYS)}}}"
    with site(tmp_path, closed, open_now) as (_, wrap):
        found = refusal_of(wrap(team="search"))
        assert (found.error_code, found.policy) == ("outside_hours", "later")
        assert str(found.opens_at) > datetime.now(UTC).isoformat()
        call(wrap())


def whole_days(days: Sequence[str]) -> str:
    return f"{{days: [{', '.join(days)}], start: '00:00', end: '24:00'}}"


def test_models_velocity_and_what_a_call_is_held_at(tmp_path: Path) -> None:
    with site(
        tmp_path,
        "{name: models, scope: {team: ads}, deny_models: ['gpt-*']}",
        "{name: pace, usd_per_hour: 0.002, clamp: always}",
        "{name: watched, shadow: true, usd_per_minute: 0.000001}",
        "{name: calm, runaway: 'off', providers: [openai]}",
    ) as (place, wrap):
        assert refusal_of(wrap(team="ads")).error_code == "model_not_allowed"
        client = wrap()
        call(client)
        # an account is in a call's hold once, whoever declares it
        assert [one["spent"] for one in hourly(place)] == [GPT_CALL_NANOS]
        # the second is clamped to what is left, the third finds nothing
        call(client, max_tokens=200)
        assert refusal_of(client).budget == "pace/usd-per-hour"


def hourly(place: Shop) -> list[dict[str, Any]]:
    """Accounts of the hourly pace."""
    with LedgerReader(place.ledger) as reader:
        return [
            {"spent": one.spent_nanos}
            for one in reader.accounts(time.time_ns())
            if one.budget == "pace/usd-per-hour"
        ]


def test_each_line_of_a_batch_is_a_call(tmp_path: Path) -> None:
    def submit(client: openai.OpenAI, *max_tokens: int) -> Any:
        lines = [
            json.dumps(
                {
                    "custom_id": str(index),
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"model": "gpt-test", "messages": SAY, "max_tokens": most},
                }
            )
            for index, most in enumerate(max_tokens)
        ]
        file = client.files.create(file=("b.jsonl", "\n".join(lines).encode()), purpose="batch")
        return client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    with site(tmp_path, "{name: cap, scope: {run: night*}, max_usd_per_call: 0.0006}") as (_, wrap):
        client = wrap()
        with outlay.run(name="nightly"):
            with pytest.raises(outlay.CallRefused, match=r"line 3.*'cap'") as caught:
                submit(client, 50, 50, 500)
            assert caught.value.error_code == "call_above_policy"
            # all of them together may cost more
            batch = submit(client, 50, 50, 50)
        while batch.status != "completed":
            batch = client.batches.retrieve(batch.id)


def test_a_gateway_s_shadow_mode_is_not_a_client_s(tmp_path: Path) -> None:
    with site(tmp_path, "{name: cap, max_usd_per_call: 0.0001}", mode="shadow") as (place, wrap):
        assert refusal_of(wrap()).policy == "cap"
        assert place.mock.calls == []


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ("{name: p, requests_per_minute: 1}", "requests_per_minute"),
        ("{name: p, tokens_per_minute: 1000}", "tokens_per_minute"),
        ("{name: p, parallel: 2, max_usd_per_call: 1}", "parallel"),
        (
            "{name: p, ladder: [{at_percent: 80, budget: p/usd-per-hour, use: gpt-mini}], usd_per_hour: 5}",
            "ladder",
        ),
        ("{name: p, runaway: pause}", "runaway"),
        ("{name: p, shadow: true, max_usd_per_call: 1}", "shadow"),
        ("{name: p, scope: {model: 'gpt-*', run: 'x*', team: search}, parallel: 2}", "parallel"),
    ],
)
def test_what_it_cannot_hold_to_is_refused_by_name(tmp_path: Path, policy: str, field: str) -> None:
    with site(tmp_path, policy, "{name: fine, max_usd_per_call: 1}") as (_, wrap):
        with pytest.raises(ConfigError, match=rf"policy 'p' \(outlay.yaml:\d+\): {field}\. .*gateway="):
            wrap(team="search")
        # one that observes refuses nothing, and says so
        outlay.langchain_callback(config=tmp_path / "outlay.yaml", ledger=tmp_path / "sdk.db", team="search")
        with pytest.raises(ConfigError, match=f"policy 'p'.*{field}"):
            outlay.langchain_callback(
                enforce=True, config=tmp_path / "outlay.yaml", ledger=tmp_path / "sdk.db", team="search"
            )


def test_a_callback_that_enforces_holds_to_them_too(tmp_path: Path) -> None:
    from langchain_openai import ChatOpenAI

    with site(tmp_path, "{name: cap, max_usd_per_call: 0.000001}") as (place, _):
        handler = outlay.langchain_callback(
            enforce=True, config=tmp_path / "outlay.yaml", ledger=place.ledger, book=world.book()
        )
        model = ChatOpenAI(model="gpt-test", base_url=place.mock.url + "/v1", api_key="key", max_tokens=80)
        with pytest.raises(outlay.CallRefused) as caught:
            model.invoke("hello", config={"callbacks": [handler]})
        assert caught.value.policy == "cap"
        assert place.mock.calls == []


def test_policies_of_others_are_no_matter(tmp_path: Path) -> None:
    with site(tmp_path, "{name: p, scope: {team: ads}, requests_per_minute: 1}") as (_, wrap):
        client = wrap(team="search")
        for _ in range(2):
            call(client)
