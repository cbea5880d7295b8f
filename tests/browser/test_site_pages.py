"""Pages without scripts: the index over boards, pages of methods, of evasion, and the overview of a large board."""

from __future__ import annotations

from pathlib import Path

import pytest
from leaderboard.factory import evaded, evasion
from leaderboard.folders import two_boards, write_evasion

from ue_bench.leaderboard import parts, site

from .conftest import Open, Violations

NARROW = {"width": 400, "height": 800}
PAGES = {
    "index": "index.html",
    "protector": "methods/protectors/deephiding.html",
    "countermeasure": "methods/countermeasures/jpeg.html",
    "evasion": "demo/evasion.html",
    "overview": "cifar10-micro/index.html",
}
pages = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boards with the pages of all methods: one has results of evasion, too, and the other is split."""
    folder = two_boards(tmp_path_factory.mktemp("site") / "boards")
    write_evasion(folder / "demo", [*evaded(), evasion("raeg", "vanilla", 64.0, victim="vgg11", transfer=True)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "MOST_RESULTS", 40)
        site.write(folder, with_methods=True)
    assert (folder / "cifar10-micro" / "rows-2.html").is_file()
    return folder


@pages
@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
def test_axe_finds_nothing(visit: Open, axe: Violations, root: Path, name: str, look: str) -> None:
    settings = {"viewport": NARROW} if look == "narrow" else {"color_scheme": look}
    page = visit(root / PAGES[name], **settings)
    assert axe(page) == []
    if look == "narrow":
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    if look == "dark":
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 28)"


@pages
def test_pages_are_used_by_keyboard_alone(visit: Open, root: Path, name: str) -> None:
    """Every link and every table that scrolls is a stop, in the order of the page, and shows that it has the focus."""
    page = visit(root / PAGES[name], viewport=NARROW)
    wanted = page.eval_on_selector_all("a[href], [tabindex='0']", "all => all.map(one => one.outerHTML.slice(0, 120))")
    stops = []
    for _ in wanted:
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", stops[-1]
    assert stops == wanted


def test_wide_tables_scroll_by_keys_beside_a_column_that_stays(visit: Open, root: Path) -> None:
    page = visit(root / PAGES["overview"], viewport=NARROW)
    frame = page.locator("#panel-1 .scroll")
    frame.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    for _ in range(100):  # scrolling is smooth, and the page's policy lets no condition be evaluated in it
        if frame.evaluate("e => e.scrollLeft") > 100:
            break
        page.wait_for_timeout(50)
    assert frame.evaluate("e => e.scrollLeft") > 100
    left, name = frame.bounding_box(), frame.locator("tbody .name").first.bounding_box()
    assert left is not None
    assert name is not None
    assert abs(left["x"] - name["x"]) <= 2


def test_links_lead_from_the_index_to_a_cell_and_back(visit: Open, root: Path) -> None:
    page = visit(root / "index.html")
    page.click("section.card h2 a >> text=CIFAR-10 micro")
    assert page.url.endswith("cifar10-micro/index.html")
    page.click("tbody .name a >> nth=1")
    assert "rows-" in page.url
    page.locator("[data-cell]").first.click()
    assert page.is_visible("#detail-body .accuracy")
    page.keyboard.press("Escape")
    page.click("a >> text=All boards")
    assert page.url.endswith("boards/index.html")
    page.click("#protectors a >> text=em >> nth=0")
    page.click("#board-1 a")
    assert "index.html#panel-1" in page.url


@pages
def test_paper_is_light_and_holds_whole_tables(visit: Open, root: Path, name: str) -> None:
    page = visit(root / PAGES[name], viewport={"width": 1054, "height": 726}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    style = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert style == ["rgb(255, 255, 255)", "rgb(23, 32, 42)"]
    edges = page.eval_on_selector_all("table tr > *", "all => all.map(one => one.getBoundingClientRect().right)")
    assert max(edges, default=0) <= 1054 + 1
