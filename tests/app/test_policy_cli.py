"""Policies as code: a file is checked, planned, applied whole or not at all, traced; and replayed over the ledger."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outlay.app.cli.main import main
from outlay.app.config import load_config
from outlay.flow.ledger.history import HistoryReader
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget, key
from tests.reality.load import post

CONFIG = """\
org: acme
gateway: {port: 0}
providers:
  - {name: openai, api_key: mock, base_url: "http://127.0.0.1:9/v1", models: [gpt-test, small]}
budgets:
  - {name: company, limit_usd: 100, window: lifetime}
policies:
  - {name: of-the-file, scope: {team: ops}, parallel: 3}
prices:
  - {kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {input: 2.5, output: 10}}
  - {kind: custom, provider: openai, model: small, usd_per_mtok: {input: 0.25, output: 1}}
"""
FILE = """\
budgets:
  - {name: each-team, scope: {team: "*"}, limit_usd: 20, window: month}
policies:
  - {name: pace, scope: {team: "*"}, requests_per_minute: 60}
  - name: cheaper
    ladder:
      - {at_percent: 80, budget: each-team, use: small}
      - {at_percent: 95, budget: company, pause: true}
"""


class Shown(NamedTuple):
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Shown]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outlay.yaml").write_text(CONFIG)
    (tmp_path / "policies.yaml").write_text(FILE)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("apply", "policies.yaml")`: a command of `outlay policy` on the folder's files."""

    def run_one(command: str, *arguments: str) -> Shown:
        paths = [str(folder / word) if word.endswith(".yaml") else word for word in arguments]
        code = main(["policy", command, *paths, "-c", str(folder / "outlay.yaml")])
        return Shown(code, *capsys.readouterr())

    return run_one


def write(folder: Path, text: str) -> None:
    (folder / "policies.yaml").write_text(text)


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_a_good_file_is_checked_without_a_ledger(folder: Path, run: Run) -> None:
    found = run("check", "policies.yaml")
    assert (found.code, found.out) == (0, "policies.yaml is good: 2 policies, 1 budgets\n")
    assert not (folder / "outlay.db").exists()
    (folder / "outlay.yaml").unlink()
    found = run("check", "policies.yaml")
    assert found.code == 0
    assert "not looked up" in found.err


def test_every_problem_is_told_with_its_line(folder: Path, run: Run) -> None:
    write(
        folder,
        """\
budgets:
  - {name: b, limit_usd: -1}
  - {name: b, limit_usd: 1, window: fortnight}
policies:
  - {name: p, requests_per_minute: 0}
  - {name: q, ladder: [{at_percent: 120, budget: b, use: small}]}
  - {name: r, colour: red, parallel: 1}
surprise: 1
""",
    )
    found = run("check", "policies.yaml", "--json")
    assert found.code == 2
    problems = {(item["line"], item["key"]) for item in found.json["error"]["problems"]}
    assert problems >= {
        (2, "budgets[0].limit_usd"),
        (3, "budgets[1].name"),
        (3, "budgets[1].window"),
        (5, "policies[0].requests_per_minute"),
        (6, "policies[1].ladder[0].at_percent"),
        (7, "policies[2].colour"),
        (8, "surprise"),
    }
    assert "policies.yaml:5: policies[0].requests_per_minute: must be 1 or more" in found.err
    for command in ("plan", "apply", "simulate"):
        assert run(command, "policies.yaml").code == 2


@pytest.mark.parametrize("text", ["", "- a\n", "policies: [", "keys: []\n"])
def test_what_is_no_file_of_policies_is_an_error(folder: Path, run: Run, text: str) -> None:
    write(folder, text)
    found = run("check", "policies.yaml")
    assert found.code == 2
    assert "policies.yaml" in found.err
    assert run("check", "absent.yaml").code == 2


def test_the_worked_example_of_the_docs_is_good(folder: Path, run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    write(folder, page.split("```yaml\n")[1].split("```")[0])
    assert run("check", "policies.yaml").out == "policies.yaml is good: 5 policies, 1 budgets\n"


def test_a_pattern_that_could_never_match_is_a_problem(folder: Path, run: Run) -> None:
    write(
        folder,
        """\
policies:
  - {name: a, deny_models: ["*-preview"]}
  - {name: b, ladder: [{at_percent: 9, budget: company, use: small, models: ["g*t"]}]}
""",
    )
    problems = run("check", "policies.yaml", "--json").json["error"]["problems"]
    assert [item["key"] for item in problems] == ["policies[0].deny_models", "policies[1].ladder[0].models"]


def test_a_rung_on_a_budget_that_is_nowhere_has_its_line(folder: Path, run: Run) -> None:
    text = "policies:\n  - name: p\n    ladder:\n      - {at_percent: 5, budget: gone, pause: true}\n"
    write(folder, text)
    found = run("check", "policies.yaml")
    assert found.code == 2
    assert "policies.yaml:4: policies[0].ladder[0].budget: there is no budget 'gone'" in found.err
    # a budget of the ledger will do, and so does one of a velocity
    main(["budget", "set", "gone", "--limit", "5", "-c", str(folder / "outlay.yaml")])
    assert run("check", "policies.yaml").code == 0
    write(folder, text.replace("gone", "v/usd-per-hour") + "  - {name: v, usd_per_hour: 1}\n")
    assert run("check", "policies.yaml").code == 0


def test_plan_apply_and_apply_again(folder: Path, run: Run) -> None:
    planned = run("plan", "policies.yaml", "--json").json
    assert names(planned["made"]) == ["each-team", "cheaper", "pace"]
    assert (planned["is_applied"], planned["has_changes"]) == (False, True)
    assert run("plan", "policies.yaml", "--detailed-exitcode").code == 1
    assert names(run("list", "--json").json["policies"]) == ["of-the-file"]

    applied = run("apply", "policies.yaml", "--note", "as agreed on Monday", "--json")
    assert applied.code == 0
    assert applied.json["is_applied"]
    assert names(run("list", "--json").json["policies"]) == ["cheaper", "of-the-file", "pace"]
    again = run("apply", "policies.yaml", "--json").json
    assert (again["is_applied"], again["has_changes"], len(again["unchanged"])) == (False, False, 3)
    assert run("plan", "policies.yaml", "--detailed-exitcode").code == 0
    assert "nothing to do: 3 objects are as the file says" in run("plan", "policies.yaml").out

    write(folder, FILE.replace("requests_per_minute: 60", "requests_per_minute: 30, shadow: true"))
    out = run("plan", "policies.yaml").out
    assert "~ policy pace\n    requests_per_minute: 60 -> 30\n    shadow: - -> true\n" in out
    assert run("apply", "policies.yaml", "--note", "slower").code == 0
    versions = run("history", "pace", "--json").json["versions"]
    assert [(item["version"], item["note"]) for item in versions] == [
        (2, "slower"),
        (1, "as agreed on Monday"),
    ]
    assert all(item["actor"].startswith("cli:") and item["at"] for item in versions)
    assert {"field": "requests_per_minute", "old": 60, "new": 30} in versions[0]["changes"]
    assert [item["version"] for item in run("history", "cheaper", "--json").json["versions"]] == [1]


def test_prune_deletes_what_the_file_does_not_name_in_the_sections_it_has(folder: Path, run: Run) -> None:
    run("apply", "policies.yaml")
    write(folder, "policies:\n  - {name: pace, scope: {team: '*'}, requests_per_minute: 60}\n")
    assert not run("plan", "policies.yaml", "--json").json["has_changes"]
    planned = run("plan", "policies.yaml", "--prune", "--json").json
    assert (names(planned["deleted"]), names(planned["unchanged"])) == (["cheaper"], ["pace"])
    # the ladder that needs the budget goes in the same step, so the budget may, too
    write(folder, "policies: []\nbudgets: []\n")
    out = run("apply", "policies.yaml", "--prune").out
    assert "- budget each-team\n- policy cheaper\n- policy pace\n" in out
    assert "0 made, 0 changed, 3 deleted" in out
    assert names(run("list", "--json").json["policies"]) == ["of-the-file"]
    assert run("history", "pace", "--json").json["versions"][0]["is_deleted"]
    # made again, its history goes on
    write(folder, FILE)
    run("apply", "policies.yaml")
    assert [item["version"] for item in run("history", "pace", "--json").json["versions"]] == [3, 2, 1]


def test_nothing_is_applied_where_outlay_yaml_owns_a_name(folder: Path, run: Run) -> None:
    write(folder, FILE + "  - {name: of-the-file, parallel: 9}\n")
    found = run("apply", "policies.yaml", "--json")
    assert found.code == 4
    assert found.json["read_only"] == [{"kind": "policy", "name": "of-the-file", "place": "outlay.yaml:8"}]
    assert not found.json["is_applied"]
    assert names(run("list", "--json").json["policies"]) == ["of-the-file"]
    plan = run("plan", "policies.yaml")
    assert (plan.code, "! policy of-the-file: read-only, declared in outlay.yaml:8" in plan.out) == (0, True)


def test_a_file_that_cannot_stand_with_the_rest_changes_nothing(folder: Path, run: Run) -> None:
    ladder = "policies:\n  - {name: l, ladder: [{at_percent: 1, budget: e, pause: true}]}\n"
    write(folder, "budgets:\n  - {name: e, limit_usd: 1}\n" + ladder)
    assert run("apply", "policies.yaml").code == 0
    # the stored ladder stays, and needs the budget
    write(folder, "budgets:\n  - {name: new, limit_usd: 1}\n")
    found = run("apply", "policies.yaml", "--prune")
    assert found.code == 2
    assert "rung on the budget 'e'" in found.err
    with LedgerReader(folder / "outlay.db") as reader:
        assert {row.name for row in reader.objects() if row.kind == "budget" and row.body} == {"e"}


def test_list_show_and_delete(folder: Path, run: Run) -> None:
    run("apply", "policies.yaml")
    shown = run("show", "cheaper", "--json").json
    assert (shown["origin"], shown["version"]) == ("store", 1)
    assert shown["body"]["ladder"][0] == {"at_percent": 80, "budget": "each-team", "use": "small"}
    assert "requests_per_minute" in run("show", "pace").out
    assert "outlay.yaml:8" in run("show", "of-the-file").out
    out = run("list").out
    assert "requests_per_minute 60" in out
    assert run("show", "nobody").code == run("history", "nobody").code == run("delete", "nobody").code == 3
    assert run("delete", "of-the-file").code == 4
    assert run("delete", "pace").code == 0
    assert run("show", "pace").code == 3
    assert "deleted by cli:" in run("history", "pace").out


# -- simulate -----------------------------------------------------------------------------------------------------

CALLS = 60
# 50 tokens out, 10 in, as the mock answers
BODY = {"model": "gpt-test", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
OTHER = "sk-outlay-other"


@pytest.fixture
def filled(folder: Path) -> int:
    """A ledger that a real gateway filled under a tight budget, many calls at once; what was spent, in nanos."""
    with MockProvider(prices=MOCK_PRICES, behaviour={"output_tokens": 50, "first_byte_ms": 20}) as mock:
        keys = [key(), key("other", OTHER, team="ads")]
        with RunningGateway(
            folder / "outlay.db", mock.url, [budget("company", "0.02")], keys=keys
        ) as gateway:

            async def all_at_once() -> None:
                secrets = [OTHER if number % 3 == 0 else "sk-outlay-test" for number in range(CALLS)]
                await asyncio.gather(*(post(gateway.url, BODY, secret=secret) for secret in secrets))

            asyncio.run(all_at_once())
    with LedgerReader(folder / "outlay.db") as reader:
        totals = reader.totals()
    assert 0 < totals["spend_nanos"] <= 20_000_000
    assert totals["charges"] > 10
    return totals["spend_nanos"]


def simulated(run: Run, *arguments: str) -> Any:
    found = run("simulate", "policies.yaml", *arguments, "--json")
    assert found.code == 0, found.err
    document = found.json
    total = document["total"]
    assert document["agrees"]
    assert (total["charges"], total["cost_nanos"]) == (
        document["ledger"]["charges"],
        document["ledger"]["cost_nanos"],
    )
    assert sum(item["charges"] for item in document["refused"]) == total["refused"]["charges"]
    assert sum(item["remaining_nanos"] for item in document["by_team_and_model"]) == total["remaining_nanos"]
    return document


@pytest.mark.slow
def test_a_ledger_refuses_nothing_under_the_budget_it_was_made_under(
    folder: Path, run: Run, filled: int
) -> None:
    write(folder, "budgets:\n  - {name: company, limit_usd: 0.02, window: lifetime}\n")
    document = simulated(run, "--replace")
    assert (document["refused"], document["total"]["remaining_nanos"]) == ([], filled)
    assert document["ledger"]["cost_nanos"] == filled


@pytest.mark.slow
def test_a_lower_limit_holds_in_the_replay(folder: Path, run: Run, filled: int) -> None:
    limit = filled // 2
    write(folder, f"budgets:\n  - {{name: half, limit_usd: {limit / 1e9:.9f}, window: lifetime}}\n")
    document = simulated(run)
    assert 0 < document["total"]["remaining_nanos"] <= limit
    assert document["budgets"] == ["company", "half"]
    assert {item["by"] for item in document["refused"]} == {"half"}
    assert simulated(run, "--until", "1h")["ledger"]["charges"] == 0


@pytest.mark.slow
def test_a_ladder_prices_the_same_tokens_at_the_other_model(folder: Path, run: Run, filled: int) -> None:
    write(
        folder,
        """\
budgets:
  - {name: each-team, scope: {team: "*"}, limit_usd: 10}
policies:
  - name: cheaper
    scope: {team: search}
    ladder: [{at_percent: 1, budget: tiny, use: small}]
  - {name: night, shadow: true, scope: {team: ads}, max_output_usd_per_mtok: 5}
  - {name: no-ads, scope: {team: ads}, deny_models: ["gpt-*"], shadow: true}
""".replace('each-team, scope: {team: "*"}, limit_usd: 10', "tiny, soft: true, limit_usd: 0.000000001"),
    )
    document = simulated(run)
    (moved,) = document["rerouted"]
    assert (moved["by"], moved["from"], moved["to"]) == ("cheaper", "gpt-test", "small")
    # a tenth of the price
    assert moved["old_nanos"] == 10 * moved["new_nanos"] > 0
    assert document["total"]["remaining_nanos"] == filled - moved["saved_nanos"]
    marked = {(item["by"], item["code"]): item["charges"] for item in document["marked"]}
    ads = sum(item["charges"] for item in document["by_team_and_model"] if item["team"] == "ads")
    assert marked["night", "price_above_ceiling"] == marked["no-ads", "model_not_allowed"] == ads
    assert "what clients would have done after a refusal" in document["not_known"][0]
    out = run("simulate", "policies.yaml").out
    assert "would have been rerouted:" in out
    assert "as the ledger says" in out
    # nothing was applied
    assert names(run("list", "--json").json["policies"]) == ["of-the-file"]


@pytest.mark.slow
@pytest.mark.parametrize("window", ["lifetime", "day", "5m"])
def test_a_replay_begins_with_what_was_spent_before(folder: Path, run: Run, filled: int, window: str) -> None:
    config = load_config(folder / "outlay.yaml", {})
    write(folder, f"budgets:\n  - {{name: half, limit_usd: {filled // 2 / 1e9:.9f}, window: {window}}}\n")
    with HistoryReader(config.local_path) as reader:
        times = [row[0] for row in reader.past(0, 2**62)]
    assert times == sorted(times)
    assert len(times) == simulated(run)["ledger"]["charges"]
    from outlay.app.config.policy_file import read_policies
    from outlay.app.simulating import simulate

    middle = times[len(times) * 3 // 4]
    file = read_policies(folder / "policies.yaml", {})
    whole = simulate(config, file, 0, 2**62, replaces=True)
    rest = simulate(config, file, middle, 2**62, replaces=True)
    assert rest.agrees
    assert rest.ledger_charges < whole.ledger_charges
    # three quarters of it were spent before: there is no room for any
    assert rest.found.total.remaining_nanos == 0
    assert {cause.by for cause in rest.found.refused} == {"half"}
