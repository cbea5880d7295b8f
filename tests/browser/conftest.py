"""Open pages in a real headless Chromium.

Where playwright or Chromium is missing these tests are skipped and say why; UE_BENCH_REQUIRE_BROWSER=1 makes them fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from ue_bench.leaderboard.build import render
from ue_bench.leaderboard.evidence import PICTURES

from .made_up import BOARD, BROAD, BROAD_BOARD, EVIDENCE, MANY, PICTURE, RESULTS, THREE, VICTIMS_BOARD

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
Open = Callable[..., "Page"]
Violations = Callable[["Page"], list[tuple[str, str, str]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


def needed(found: Any, what: str) -> Any:
    """Return ``found``; without it skip the test, or fail where browsers are required."""
    if not found:
        stop = pytest.fail if os.environ.get("UE_BENCH_REQUIRE_BROWSER") else pytest.skip
        stop(f"{what}: pip install 'ue-bench[browser]' and a Chromium are needed to open pages")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    needed(importlib.util.find_spec("playwright"), "playwright is not installed")
    path = needed(next(filter(None, map(shutil.which, NAMES)), None), "there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        started = library.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe() -> Violations:
    """Returns what axe finds wrong on a page: rule, impact, and the first element."""
    found = importlib.util.find_spec("axe_playwright_python")
    folder = needed(found and found.submodule_search_locations, "axe-playwright-python is not installed")[0]
    script = (Path(folder) / "axe.min.js").read_text(encoding="utf-8")

    def violations(page: Page) -> list[tuple[str, str, str]]:
        page.evaluate(script)
        report: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in report["violations"]]

    return violations


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The boards of this folder as files: ``one`` with a table, ``many`` with tables of several settings, ``three`` of
    three victims, ``broad`` of 50 columns."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {
        "one": render(RESULTS, BOARD, None, EVIDENCE),
        "many": render(MANY, BOARD),
        "three": render(THREE, VICTIMS_BOARD),
        "broad": render(BROAD, BROAD_BOARD),
    }
    for name, files in texts.items():
        (folder / f"{name}.html").write_text(files["index.html"], encoding="utf-8")
    (folder / PICTURES).mkdir()
    Image.new("RGB", (5, 3)).save(folder / PICTURES / PICTURE)
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page at an address. No page may write to the console, or ask for anything beyond its folder."""
    contexts, said, asked, own = [], list[str](), list[str](), ["data:", "blob:"]

    def go(name: str | Path = "one", hash: str = "", **settings: Any) -> Page:
        path = name if isinstance(name, Path) else pages[name]
        given = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"} | settings
        context = browser.new_context(**given)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url.partition("#")[0]))
        own.append(path.parent.as_uri())
        page.goto(f"{path.as_uri()}{hash}")
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(tuple(own))] == []
