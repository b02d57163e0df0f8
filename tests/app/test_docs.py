"""The documentation names every key that outlay.yaml may hold, with its default, and nothing links to nowhere."""

import re
from enum import Enum
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from outlay.app.config import tree
from outlay.flow.gateway.snapshot import Settings

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = {
    "gateway": tree.GatewaySection,
    "console": tree.ConsoleSection,
    "providers": tree.ProviderEntry,
    "models": tree.ModelEntry,
    "keys": tree.KeyEntry,
    "budgets": tree.BudgetEntry,
    "policies": tree.PolicyEntry,
    "alerts": tree.AlertsSection,
    "access": tree.AccessEntry,
    "tags": tree.TagEntry,
    "identity": tree.IssuerEntry,
}


def rows(text: str) -> dict[str, str]:
    """First cell without its quotes -> second cell, of every table row."""
    return {name: default.strip() for name, default in re.findall(r"^\| `(\w+)` \|([^|]*)\|", text, re.M)}


def section(name: str) -> str:
    text = (DOCS / "configuration.md").read_text()
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_operations_list_every_limit_with_its_default() -> None:
    found = rows((DOCS / "operations.md").read_text().split("\n## Limits\n")[1])
    expected = {}
    for field in msgspec.structs.fields(Settings):
        value = field.default.value if isinstance(field.default, Enum) else field.default
        expected[field.name] = f"`{value}`" if value != "" else ""
    assert found == expected


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_section_is_documented(name: str) -> None:
    limits = set(Settings.__struct_fields__) if name == "gateway" else set()
    assert set(rows(section(f"`{name}`"))) == set(SECTIONS[name].__struct_fields__) - limits


def test_top_level_and_prices_are_documented() -> None:
    assert set(rows(section("Top level"))) == set(tree.Declared.__struct_fields__)
    table = {
        kind: set(re.findall(r"`(\w+)`", keys))
        for kind, keys in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", section("`prices`"), re.M)
        if kind != "kind"  # the head
    }
    assert table == {
        str(kind.__struct_config__.tag): set(kind.__struct_fields__) for kind in get_args(tree.PriceEntry)
    }


def test_no_row_is_without_meaning_and_links_lead_somewhere() -> None:
    pages = list(DOCS.rglob("*.md"))
    assert len(pages) >= 12
    for page in pages:
        text = page.read_text()
        assert not re.search(r"\|\s*\|$", text, re.M), page.name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
