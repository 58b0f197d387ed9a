"""A real browser, headless, that pages are looked at with: what they ask for, what goes wrong in them, what axe finds.

    from browser import chromium, visit  # `chromium` is a fixture of a module

    def test_page(chromium, tmp_path):
        with visit(chromium, path.as_uri(), dark=True, width=400) as visited:
            visited.page.get_by_role("button", name="Sort").press("Enter")
            assert (visited.problems, visited.outside(), visited.axe()) == ([], [], [])
            visited.screenshot("report-dark-narrow")

Where there is no Chromium, the tests that use the fixture are skipped. Screenshots are kept in `build/screenshots`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome")
# it asks nobody for anything of its own; root has no sandbox
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
BAD = ("error", "warning")
LOCAL = ("data:", "blob:", "about:")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one module: Playwright's loop of events would be in the way of asyncio in others."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visited:
    """A page that is open: what it has asked for, and errors of its scripts and of the console, policies' too."""

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def outside(self) -> list[str]:
        """What was asked for beyond the page itself."""
        return [url for url in self.requests if not url.startswith(LOCAL)][1:]

    def axe(self, **options: Any) -> list[str]:
        """What axe-core finds by its rules of WCAG 2.1 (A, AA) and of best practice: rule, place, what to do."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"], **options}).response["violations"]
        return [f"{rule['id']}: {node['target']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]

    def screenshot(self, name: str, *, full: bool = True) -> Path:
        """A picture of the page, kept to be looked at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=full)
        return path


@contextmanager
def visit(
    browser: Browser, url: str, *, dark: bool = False, width: int = 1280, height: int = 800, **options: Any
) -> Iterator[Visited]:
    """The page at `url`, loaded, in a window of so many CSS pixels; `options` are those of Playwright's new_context."""
    scheme = "dark" if dark else "light"
    size = {"width": width, "height": height}
    context = browser.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce", **options)
    try:
        visited = Visited(context.new_page())
        visited.page.set_default_timeout(20_000)
        visited.page.on("request", lambda request: visited.requests.append(request.url))
        visited.page.on("pageerror", lambda error: visited.problems.append(str(error)))
        visited.page.on(
            "console", lambda said: said.type in ("error", "warning") and visited.problems.append(said.text)
        )
        visited.page.goto(url)
        yield visited
    finally:
        context.close()
