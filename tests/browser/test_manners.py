"""How a page behaves: by keyboard, on paper, on narrow and dark screens, without scripts, for assistive software."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Open, Violations
from .made_up import COLUMNS, ROWS

ROOT = Path(__file__).resolve().parents[2]
BOARDS = sorted(path.parent / "index.html" for path in (ROOT / "leaderboards").glob("*/results"))
TABLE = "#panel-1 table.measured"
A4_LANDSCAPE = {"width": 1054, "height": 726}  # pixels between margins of 9 mm, 96 an inch


@pytest.mark.parametrize(
    ("name", "address"),
    [
        *(("one", address) for address in ("", "#view=turned", "#view=scatter", "#row=em&with=ops", "cell")),
        ("many", "#view=curves"),
        ("three", "#view=victims"),
    ],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Open, axe: Violations, name: str, address: str, scheme: str) -> None:
    page = visit(name, "" if address == "cell" else address, color_scheme=scheme)
    if address == "cell":
        page.locator("[data-cell]").first.click()
    assert axe(page) == []


@pytest.mark.parametrize(("name", "address"), [("one", ""), ("three", "#view=victims")])
def test_axe_finds_nothing_on_a_narrow_screen(visit: Open, axe: Violations, name: str, address: str) -> None:
    page = visit(name, address, viewport={"width": 400, "height": 800})
    assert axe(page) == []


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.parent.name)
def test_pages_of_this_repository_open_quickly_and_quietly(visit: Open, path: Path) -> None:
    page = visit(path)
    assert page.locator("section.panel:visible").count() >= 1
    page.locator("[data-cell]").first.click()
    assert page.is_visible("#detail svg")
    file = page.get_attribute("#detail .file a", "href")
    assert file is not None
    assert (path.parent / file).is_file()
    assert path.stat().st_size < 1_500_000


def test_a_page_is_used_by_keyboard_alone(visit: Open) -> None:
    page = visit()
    stops = []
    for _ in range(40):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
        if stops[-1].startswith("<body"):
            break
    stops = [stop for stop in stops if not stop.startswith("<body")]
    assert len(stops) < 25
    assert 'class="skip"' in stops[0]
    assert sum("data-cell" in stop for stop in stops) + sum("data-row" in stop for stop in stops) == 1

    page.locator(f"{TABLE} button[tabindex='0']").focus()
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    for key in ("ArrowDown", *["ArrowRight"] * 2):
        page.keyboard.press(key)
    assert page.evaluate(focused).startswith("em against mixup")
    for key, label in (("End", "em against at"), ("ArrowUp", "none against at"), ("ArrowDown", "em against at")):
        page.keyboard.press(key)
        assert page.evaluate(focused).startswith(label)
    page.keyboard.press("Enter")
    assert page.inner_text("#detail-title") == "em against at"
    page.keyboard.press("Escape")
    assert not page.is_visible("#detail")
    assert page.evaluate(focused).startswith("em against at")
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.get_attribute(f"{TABLE} th[data-key=name]", "aria-sort") == "ascending"


def test_the_skip_link_leads_to_the_table(visit: Open) -> None:
    page = visit()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "panel-1"


def test_head_and_first_column_stay_in_sight(visit: Open) -> None:
    page = visit(viewport={"width": 760, "height": 360})
    frame = page.locator("#panel-1 .scroll")
    frame.scroll_into_view_if_needed()
    frame.evaluate("box => { box.scrollTop = 150; box.scrollLeft = 500; }")
    edges = page.evaluate(
        """() => { const at = (selector) => document.querySelector(selector).getBoundingClientRect();
        const frame = at('#panel-1 .scroll');
        return { top: at('#panel-1 thead .heads').bottom - frame.top,
                 left: at('#panel-1 tr[data-name=cuda] .name').left - frame.left,
                 scrolled: document.querySelector('#panel-1 .scroll').scrollTop }; }"""
    )
    assert edges["scrolled"] > 50
    assert 0 < edges["top"] < 160
    assert abs(edges["left"]) <= 2


def test_a_narrow_screen_shows_victims_as_a_list(visit: Open) -> None:
    page = visit("three", "#view=victims", viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = [one.bounding_box() for one in page.locator("#victims-1 tr[data-name=cuda] td.cell").all()]
    assert len(boxes) == 3
    assert all(box is not None and 0 <= box["x"] < box["x"] + box["width"] <= 400 for box in boxes)


def test_a_narrow_screen_shows_a_list(visit: Open) -> None:
    page = visit(viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    cells = page.locator(f"{TABLE} tr[data-name=ops] td.cell")
    assert cells.count() == len(COLUMNS)
    for i in range(len(COLUMNS)):
        box = cells.nth(i).bounding_box()
        assert box is not None
        assert 0 <= box["x"] < box["x"] + box["width"] <= 400
    label = cells.last.evaluate("one => getComputedStyle(one, '::before').content")
    assert label == '"at"'


PRINTED = [("one", ""), ("three", "#view=victims"), ("broad", "")]
PRINTED_BOARDS = [(path, view) for path in BOARDS for view in ("", "#view=turned")]


@pytest.mark.parametrize(
    ("name", "address"),
    [*PRINTED, *PRINTED_BOARDS],
    ids=[f"{name}{view}" for name, view in [*PRINTED, *((path.parent.name, view) for path, view in PRINTED_BOARDS)]],
)
def test_paper_holds_every_column_in_colour(visit: Open, tmp_path: Path, name: str | Path, address: str) -> None:
    page = visit(name, address, viewport=A4_LANDSCAPE, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    edges = page.eval_on_selector_all("table tr > *", "all => all.map(one => one.getBoundingClientRect().right)")
    assert max(edges) <= A4_LANDSCAPE["width"] + 1
    style = page.locator("[data-cell]").first.evaluate(
        "one => [getComputedStyle(one).printColorAdjust, getComputedStyle(document.body).backgroundColor]"
    )
    assert style == ["exact", "rgb(255, 255, 255)"]
    assert not page.is_visible("#tools")
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_dark_screen_is_dark(visit: Open) -> None:
    page = visit(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 28)"


def test_a_page_without_scripts_shows_its_table(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    assert not page.is_visible("#tools")
    assert page.locator(f"{TABLE} tbody tr[data-name]").count() == len(ROWS)
    assert page.is_visible(f"{TABLE} tr[data-name=em] td[data-label='at']")
