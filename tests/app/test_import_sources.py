"""Durations as windows, names, and LiteLLM's model list as providers and routes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from outlay.app.config.tree import CustomEntry, ModelEntry
from outlay.app.importing.lengths import length_of, nanos_of
from outlay.app.importing.litellm_source import plan_litellm
from outlay.app.importing.plan import Plan, readable_names
from outlay.flow.gateway.snapshot import Strategy

NOW = nanos_of(datetime(2026, 11, 25, 12, tzinfo=UTC))  # a Wednesday


def at(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - as LiteLLM's columns keep it


@pytest.mark.parametrize(
    ("duration", "resets_at", "window", "since"),
    [
        (None, None, "lifetime", None),
        ("30d", at(2026, 12, 1), "month", at(2026, 11, 1)),
        ("1mo", at(2026, 12, 1), "month", at(2026, 11, 1)),
        ("7d", at(2026, 11, 30), "week", at(2026, 11, 23)),
        ("24h", at(2026, 11, 26), "day", at(2026, 11, 25)),
        # an older LiteLLM counted from the making of the key
        ("30d", at(2026, 12, 9, 8), "30d", at(2026, 11, 9, 8)),
        ("14d", at(2026, 12, 1), "14d", at(2026, 11, 17)),
        ("2h", at(2026, 11, 25, 13), "2h", at(2026, 11, 25, 11)),
    ],
)
def test_a_calendar_only_where_the_reset_is_its_end(
    duration: str | None, resets_at: datetime | None, window: str, since: datetime | None
) -> None:
    found = length_of(duration, resets_at, "UTC", NOW)
    assert found is not None
    assert found.window == window
    assert found.since == (0 if since is None else nanos_of(since))
    assert not found.is_over


def test_a_window_that_ended_and_was_not_emptied() -> None:
    found = length_of("30d", at(2026, 11, 1), "UTC", NOW)
    assert found is not None
    assert found.is_over
    assert length_of("soon", None, "UTC", NOW) is None


def test_a_name_that_two_have_is_nobodys() -> None:
    assert readable_names([("a", "x"), ("b", "x"), ("c", "y"), ("d", None), ("e", " ")]) == {
        "a": "a",
        "b": "b",
        "c": "y",
        "d": "d",
        "e": "e",
    }


def planned(tmp_path: Path, config: dict[str, Any]) -> Plan:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return plan_litellm(None, path, {}, NOW)


def deployment(name: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": params}


def test_several_deployments_are_targets(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        {
            "model_list": [
                deployment("fast", model="openai/gpt-5-mini", api_key="os.environ/ONE", rpm=300),
                deployment(
                    "fast",
                    model="azure/mini",
                    api_base="https://x.openai.azure.com",
                    api_key="os.environ/TWO",
                ),
                deployment("fast", model="openai/gpt-5-mini", api_key="sk-written-out", rpm=100),
                deployment("claude", model="anthropic/claude-haiku-4-5"),
                deployment(
                    "own",
                    model="hosted_vllm/llama",
                    api_base="http://gpu:8000/v1",
                    input_cost_per_token=0.0000001,
                ),
                deployment("openai/*", model="openai/*"),
            ],
            "litellm_settings": {
                "fallbacks": [{"claude": ["fast"]}],
                "max_budget": 100,
                "budget_duration": "30d",
            },
            "router_settings": {"model_group_alias": {"quick": "fast"}},
        },
    )
    providers = {entry.name: entry for entry in plan.providers}
    assert set(providers) == {"openai", "openai-2", "azure", "anthropic", "vllm"}
    assert providers["openai"].api_key == "${ONE:-}"
    assert providers["openai-2"].api_key == "${OPENAI_API_KEY:-}"
    assert providers["openai-2"].prices == "openai"
    assert providers["azure"].base_url == "https://x.openai.azure.com/openai"
    assert providers["azure"].api_version
    assert providers["vllm"].self_hosted
    routes = {model.name: model for model in plan.models}
    assert [(t.provider, t.weight) for t in routes["fast"].targets] == [
        ("openai", 300),
        ("azure", 1),
        ("openai-2", 100),
    ]
    assert routes["fast"].strategy is Strategy.WEIGHTED
    assert routes["quick"].targets == routes["fast"].targets
    assert routes["claude"].strategy is Strategy.ORDERED
    assert [t.provider for t in routes["claude"].targets] == ["anthropic", "openai", "azure", "openai-2"]
    assert routes["own"] == ModelEntry(name="own", provider="vllm", model="llama")
    assert plan.prices == [CustomEntry(provider="vllm", model="llama", usd_per_mtok={"input": "0.1"})]
    assert [(b.name, b.scope, b.limit_usd, b.window) for b in plan.budgets] == [("proxy", {}, "100", "month")]
    listed = {item.where for item in plan.unmapped}
    assert {"model_list[2] fast: api_key", "model_list[5] openai/*", "model_list[0] fast: rpm"} <= listed
    assert "sk-written-out" not in str(plan)
