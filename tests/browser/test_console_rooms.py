"""The console in a real Chromium: filters, drill-down, approving, killing, live figures, keyboard, accessibility."""

import re
import threading
from typing import Any

import httpx
import pytest

from tests.browser.conftest import ADS, DEV, TOKEN, Site


def look_at(page: Any, site: Site, path: str) -> None:
    page.goto(site.root + path)
    assert page.url == site.root + path


def test_filters_live_in_the_address_and_come_back(page: Any, site: Site) -> None:
    for secret, model in ((DEV, "gpt-test"), (ADS, "gpt-test"), (ADS, "gpt-other")):
        assert site.call(secret, model).status_code == 200
    look_at(page, site, "/")
    groups = page.get_by_role("region", name="Spend by team, last 24 hours")
    groups.get_by_role("link", name="ads").wait_for()
    page.get_by_label("Range").select_option("1h")
    page.wait_for_url("**/?range=1h")
    page.locator("select[name=team]").select_option("ads")
    page.wait_for_url("**/?range=1h&team=ads")
    page.locator(".part[data-part=kpis]").get_by_text("2 charges").wait_for()
    page.reload()
    assert page.locator("select[name=team]").input_value() == "ads"
    assert page.get_by_label("Range").input_value() == "1h"
    page.go_back()
    page.wait_for_url("**/?range=1h")
    assert page.locator("select[name=team]").input_value() == ""
    page.locator(".part[data-part=kpis]").get_by_text("3 charges").wait_for()
    page.go_forward()
    page.get_by_role("link", name="team=ads : take this filter away").click()
    page.wait_for_url("**/?range=1h")
    # drill down: a team's figures by model, then the charges behind them
    page.get_by_role("region", name="Spend by team, last hour").get_by_role("link", name="ads").click()
    page.wait_for_url("**team=ads**")
    page.get_by_role("heading", name="Spend by model over time").wait_for()
    page.get_by_role("region", name="Spend by model, last hour").get_by_role(
        "link", name="gpt-other"
    ).wait_for()
    assert page.locator("svg.chart rect").count() == 2
    page.locator(".part[data-part=kpis] a").first.click()
    rows = page.get_by_role("region", name="Charges, newest first").locator("tbody tr")
    assert rows.count() == 2
    rows.first.get_by_role("link").click()
    page.wait_for_url("**/charges?request=req_*")
    assert page.get_by_role("region", name="Charges, newest first").locator("tbody tr").count() == 1


def test_a_budgets_account_leads_to_its_charges(page: Any, site: Site) -> None:
    assert site.call().status_code == 200
    look_at(page, site, "/budgets")
    page.get_by_role("link", name="team=search").first.click()
    page.wait_for_url("**/budgets/account/*")
    page.get_by_text("declared in outlay.yaml:11").wait_for()
    page.get_by_role("region", name="Charges, newest first").locator("tbody tr").first.wait_for()
    page.get_by_text("Raise it for a while").click()
    page.get_by_label("Amount, USD").fill("0.5")
    page.get_by_label("Note").fill("a release")
    page.get_by_role("button", name="Raise").click()
    page.get_by_role("status").filter(has_text="Raised each-team (team=search) by $0.50").wait_for()


def test_an_ask_is_approved_and_the_next_call_passes(page: Any, site: Site) -> None:
    refused = site.call()
    while refused.status_code == 200:
        refused = site.call()
    assert refused.status_code == 402
    where = refused.json()["error"]["raise_url"].removeprefix("http://console.test")
    look_at(page, site, where)
    page.get_by_label("Why", exact=True).fill("the release")
    page.get_by_role("button", name="Ask for it").click()
    page.get_by_role("status").filter(has_text="Asked: ask_").wait_for()
    assert site.call().status_code == 402
    page.get_by_label("USD", exact=True).fill("0.01")
    page.get_by_label("Hours", exact=True).last.fill("2")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("status").filter(has_text="Raised each-team (team=search) by $0.01").wait_for()
    assert site.call().status_code == 200
    raises = page.locator(".part[data-part=raises]")
    raises.get_by_text(re.compile("(119 min|2 h 0 min) left")).wait_for()
    raises.get_by_role("button", name="End the raise of each-team, team=search").click()
    page.get_by_role("status").filter(has_text="Ended the raise").wait_for()
    page.get_by_text("No budget is raised.").wait_for()


def test_a_run_is_killed_with_a_live_stream(page: Any, site: Site) -> None:
    site.mock.behave(output_tokens=80, chunks=40, chunk_ms=500)
    lines: list[str] = []
    began = threading.Event()

    def stream() -> None:
        body = {
            "model": "gpt-test",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": "x"}],
        }
        headers = {"authorization": f"Bearer {DEV}", "x-outlay-run": "endless"}
        with httpx.stream(
            "POST", f"{site.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        ) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                began.set()

    assert site.call(x_outlay_run="endless").status_code == 200
    reader = threading.Thread(target=stream)
    reader.start()
    assert began.wait(30)
    look_at(page, site, "/runs?range=1h")
    page.get_by_role("link", name="endless").click()
    page.wait_for_url("**/runs/search/endless")
    page.get_by_text("Pause or kill").click()
    page.get_by_label("Why (callers read it)").fill("it never ends")
    page.get_by_role("button", name="Kill").click()
    page.get_by_role("status").filter(has_text="Killed endless: cut 1 calls in flight").wait_for()
    reader.join(30)
    assert not reader.is_alive() and any("killed" in line for line in lines)
    assert page.locator(".state.killed").inner_text() == "killed: it never ends"
    assert site.call(x_outlay_run="endless").status_code == 403
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("status").filter(has_text="endless goes on.").wait_for()


def test_figures_come_up_to_date_by_themselves_and_leave_a_form_alone(page: Any, site: Site) -> None:
    assert site.call().status_code == 200
    look_at(page, site, "/?range=1h")
    kpis = page.locator(".part[data-part=kpis]")
    kpis.get_by_text("1 charges").wait_for()
    page.get_by_text("Spend by team over time (UTC): the figures as a table").click()
    assert site.call().status_code == 200
    kpis.get_by_text("2 charges").wait_for()
    # what was open is open still
    assert page.locator("#behind-spend").get_attribute("open") is not None
    assert site.call(x_outlay_run="r1").status_code == 200
    look_at(page, site, "/runs/search/r1?range=1h")
    page.get_by_text("Pause or kill").click()
    field = page.get_by_label("Why (callers read it)")
    field.fill("half a sen")
    assert site.call(x_outlay_run="r1").status_code == 200
    page.locator(".part[data-part=waterfall] tbody tr").nth(1).wait_for()
    assert field.input_value() == "half a sen"


def test_everything_is_reached_by_keyboard(page: Any, site: Site) -> None:
    assert site.call().status_code == 200
    look_at(page, site, "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "range"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?range=6h")
    page.locator("#behind-spend summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#behind-spend").get_attribute("open") is not None
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="Colours: dark").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_phone(page: Any, site: Site, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    refused = site.call(x_outlay_run="r1")
    while refused.status_code == 200:
        refused = site.call(x_outlay_run="r1")
    where = refused.json()["error"]["raise_url"].removeprefix("http://console.test")
    request_id = refused.headers["x-outlay-request-id"]
    asked = {"request_id": request_id, "reason": "more"}
    api = httpx.Client(base_url=site.root, headers={"authorization": f"Bearer {TOKEN}"})
    assert api.post("/api/v1/asks", json=asked).status_code == 201
    raised = {"budget": "company", "usd": "1", "hours": 1, "note": "x"}
    assert api.post("/api/v1/raises", json=raised).status_code == 201
    api.close()
    page.emulate_media(color_scheme=scheme)
    account = "/budgets/account/1"
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for path in (
            "/?range=1h",
            "/budgets",
            account,
            where,
            "/approvals",
            "/runs",
            "/runs/search/r1",
            "/charges",
        ):
            page.goto(site.root + path)
            for summary in page.locator("summary").all():
                summary.click()
            # axe's own script may run: the check is not part of the page
            found = Axe().run(page)
            assert found.violations_count == 0, (path, width, found.generate_report())
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide == 0, (path, width)
