"""A real Chromium for the pages. Without one these tests are skipped by name: CI installs Debian's."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from outlay.testing import ChildProcess, MockProvider
from tests.harness import MOCK_PRICES

TOKEN = "the-admin-token-of-this-test"
DEV = "sk-outlay-of-the-dev-key"
ADS = "sk-outlay-of-the-ads-key"
CONFIG = """\
org: acme
gateway: {{port: 0, wait_s: 0}}
console: {{port: 0, url: http://console.test, admin_token: {token}}}
providers:
  - {{name: openai, api_key: mock, base_url: "{url}/v1"}}
keys:
  - {{name: dev, secret: {dev}, team: search}}
  - {{name: ads, secret: {ads}, team: ads}}
budgets:
  - {{name: company, limit_usd: 5, window: lifetime}}
  - {{name: each-team, scope: {{team: "*"}}, limit_usd: 0.01, window: month}}
prices:
  - {{kind: custom, provider: openai, model: gpt-test, usd_per_mtok: {{input: 2.5, output: 10}}}}
  - {{kind: custom, provider: openai, model: gpt-other, usd_per_mtok: {{input: 2.5, output: 10}}}}
"""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WAIT_MS = 30_000


def chromium_path() -> str | None:
    """`CHROMIUM` in the environment, or what Debian installs."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs a browser, and is slow."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if chromium_path() is None:
                item.add_marker(
                    pytest.mark.skip(reason="no chromium: apt-get install chromium, or set CHROMIUM")
                )


class Site(NamedTuple):
    """A gateway, its console, and the mock behind them."""

    url: str
    root: str
    path: Path
    mock: MockProvider

    def call(self, secret: str = DEV, model: str = "gpt-test", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
        return httpx.post(
            f"{self.url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {secret}", **named},
            timeout=30,
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    path = tmp_path / "outlay.yaml"
    with MockProvider(prices={**MOCK_PRICES, "gpt-other": MOCK_PRICES["gpt-test"]}) as mock:
        path.write_text(CONFIG.format(url=mock.url, token=TOKEN, dev=DEV, ads=ADS))
        with (
            ChildProcess([sys.executable, "-m", "outlay.app.serve", str(path)]) as gateway,
            ChildProcess([sys.executable, "-m", "outlay.app.console.main", str(path)]) as console,
        ):
            url = f"http://127.0.0.1:{gateway.wait_for_json()['port']}"
            yield Site(url, f"http://127.0.0.1:{console.wait_for_json()['port']}", path, mock)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for a module, each test with a profile of its own: while it runs, so does a loop in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, site: Site) -> Iterator[Any]:
    """A signed-in page that may say nothing on its console."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    found = context.new_page()
    said: list[str] = []
    found.on(
        "console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None
    )
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(site.root + "/runs?range=1h")
    assert "/signin?next=" in found.url
    found.get_by_label("Your token").fill(TOKEN)
    found.keyboard.press("Enter")
    found.wait_for_url(site.root + "/runs?range=1h")
    yield found
    context.close()
    assert said == []
