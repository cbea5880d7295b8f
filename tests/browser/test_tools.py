"""Every tool of a board's page: filter, order, columns, views, downloads, and an address that holds all of it."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from ue_bench.leaderboard.statistics import panels

from .conftest import Open
from .made_up import AGAINST, COLUMNS, ROWS, THREE, VICTIMS, VICTIMS_BOARD

if TYPE_CHECKING:
    from playwright.sync_api import Page

PRINTED = "Deep Hiding (ICLR 2024 submission), Table 1"
TABLE = "#panel-1 table.measured"


def shown_rows(page: Page, table: str = TABLE) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr[data-name]", "rows => rows.filter(r => r.checkVisibility()).map(r => r.dataset.name)"
    )
    return found


def shown_columns(page: Page, table: str = TABLE) -> list[str]:
    keys: list[str] = page.eval_on_selector_all(
        f"{table} thead tr.heads th", "heads => heads.filter(h => h.checkVisibility()).map(h => h.dataset.key)"
    )
    return keys


def countermeasures(page: Page) -> list[str]:
    return [key.removeprefix("cm:") for key in shown_columns(page) if key.startswith("cm:")]


def texts(page: Page, table: str = TABLE) -> list[list[str]]:
    """The visible cells of a table, row by row, as a reader sees them."""
    found: list[list[str]] = page.eval_on_selector_all(
        f"{table} tbody tr[data-name]",
        "rows => rows.filter(r => r.checkVisibility()).map(r => [...r.cells].filter(c => c.checkVisibility())"
        ".map(c => c.innerText.replace(/\\s+/g, ' ').trim()))",
    )
    return found


# Filter


@pytest.mark.parametrize(
    ("text", "rows", "columns", "said"),
    [
        ("jpeg", 5, ["jpeg[quality=10]", "jpeg[quality=30]", "jpeg[quality=50]"], "5 of 5 protectors, 3 of 6"),
        ("ops", 1, list(COLUMNS), "1 of 5 protectors, 6 of 6"),
        ("OPS jpeg quality=10", 1, ["jpeg[quality=10]"], "1 of 5 protectors, 1 of 6"),
        ("budget:linf", 2, list(COLUMNS), "2 of 5"),
        ("tag:training", 5, ["at"], "5 of 5 protectors, 1 of 6"),
        ("tag:surrogate-free", 1, list(COLUMNS), "1 of 5"),
        ("countermeasure:mixup", 5, ["mixup"], "1 of 6"),
        ("no-such-thing", 0, list(COLUMNS), "0 of 5"),
    ],
)
def test_filter_finds_protectors_and_countermeasures(
    visit: Open, text: str, rows: int, columns: list[str], said: str
) -> None:
    page = visit()
    page.fill("#filter", text)
    assert len(shown_rows(page)) == rows + 1  # the reference row stays
    assert countermeasures(page) == columns
    assert said in page.inner_text("#count")


def test_budget_and_tag_are_chosen_from_lists(visit: Open) -> None:
    page = visit()
    page.select_option("#class", "pixels")
    assert shown_rows(page) == ["none", "ops"]
    assert page.locator(f"{TABLE} tr.class:visible").all_inner_texts() == ["pixels\n1 protector"]
    page.select_option("#class", "")
    page.select_option("#tag", "countermeasure:augmentation")
    assert countermeasures(page) == ["mixup"]


def test_victims_and_datasets_filter_tables(visit: Open) -> None:
    page = visit("many")
    assert page.locator("section.panel:visible").count() == 4
    page.select_option("#victim", "vgg11")
    assert page.locator("section.panel:visible").count() == 1
    page.select_option("#victim", "")
    page.fill("#filter", "victim:vgg")
    assert page.locator("section.panel:visible").count() == 1
    assert page.inner_text("#count") == "1 of 3 protectors, 6 of 6 countermeasures"


# Order, groups, columns


def test_classes_are_groups_and_can_be_one_table(visit: Open) -> None:
    page = visit()
    assert page.locator(f"{TABLE} tbody").evaluate_all("all => all.map(b => b.dataset.class)") == [
        "reference", "Linf 8/255", "L2", "pixels", "unbounded",
    ]  # fmt: skip
    assert shown_rows(page)[-1] == "cuda"
    page.uncheck("#group")
    assert shown_rows(page)[:2] == ["none", "cuda"]  # without groups the lowest share leads
    assert page.locator(f"{TABLE} tr.class:visible").count() == 0
    page.check("#group")
    assert shown_rows(page)[-1] == "cuda"


def test_headers_sort_both_ways_and_missing_values_stay_last(visit: Open) -> None:
    page = visit(hash="#group=0")
    head = page.locator(f"{TABLE} th[data-key='cm:mixup'] button")
    head.click()
    assert shown_rows(page) == ["none", "cuda", "ops", "em", "lsp", "ar"]
    head.click()
    assert shown_rows(page) == ["none", "lsp", "em", "ops", "cuda", "ar"]
    assert page.get_attribute(f"{TABLE} th[data-key='cm:mixup']", "aria-sort") == "descending"


def test_columns_can_be_left_out(visit: Open) -> None:
    page = visit()
    page.click("#columns summary")
    page.uncheck("#columns input[value='cm:at']")
    page.uncheck("#columns input[value='psnr']")
    assert "at" not in countermeasures(page)
    assert "psnr" not in shown_columns(page)
    widths = page.eval_on_selector_all(f"{TABLE} tr:not([hidden])", "rows => rows.map(r => [...r.cells]"
        ".filter(c => !c.hidden).reduce((sum, c) => sum + c.colSpan, 0))")  # fmt: skip
    assert len(set(widths)) == 1  # groups of columns and classes of rows span what is left


def test_all_columns_go_and_come_back_at_once(visit: Open) -> None:
    page = visit()
    before = shown_columns(page)
    page.click("#columns summary")
    page.click("#columns button:text-is('None')")
    assert shown_columns(page) == ["name"]
    page.check("#columns input[value='cm:at']")
    assert shown_columns(page) == ["name", "cm:at"]
    page.click("#columns button:text-is('All')")
    assert shown_columns(page) == before


# Views


@pytest.mark.parametrize(
    ("view", "there"),
    [
        ("table", ["printed", "columns", "group"]),
        ("turned", ["printed", "columns"]),
        ("scatter", []),
        ("victims", ["group"]),
    ],
)
def test_tools_that_change_nothing_in_a_view_are_not_there(visit: Open, view: str, there: list[str]) -> None:
    page = visit("three", f"#view={view}&q=em")
    assert [name for name in ("printed", "columns", "group") if page.is_visible(f"#{name}")] == there
    assert ("countermeasures" in page.inner_text("#count")) == (view != "scatter")


def test_a_link_to_a_table_that_is_left_out_brings_it_back(visit: Open) -> None:
    page = visit("three", "#view=victims&q=lsp")
    page.click("nav[aria-label=Tables] a >> nth=1")
    page.wait_for_selector("#panel-2", state="visible")  # the address changes first, and then the page
    assert page.input_value("#filter") == "lsp"
    page.select_option("#victim", "vgg11")
    page.click("nav[aria-label=Tables] a >> nth=1")
    page.wait_for_selector("#panel-2", state="visible")  # the address changes first, and then the page
    assert page.input_value("#victim") == ""


def test_the_table_can_be_turned(visit: Open) -> None:
    page = visit()
    page.check("#views input[value=turned]", force=True)
    turned = "#panel-1 table.turned"
    assert not page.is_visible(TABLE)
    assert set(shown_rows(page, turned)) == set(COLUMNS)
    assert shown_rows(page, turned)[0] == "jpeg[quality=10]"  # what recovers most
    at = texts(page, turned)[shown_rows(page, turned).index("at")]
    assert at[1:3] == ["1 of 4", "51 %"]  # lsp has no result there
    page.click(f"{turned} [data-cell][aria-label^='em against at']")
    assert page.inner_text("#detail-title") == "em against at"


def test_printed_numbers_stand_in_the_same_cell(visit: Open) -> None:
    page = visit()
    assert not page.is_visible(".said")
    page.select_option("#printed", PRINTED)
    cell = page.locator(f"{TABLE} tr[data-name=em] td[data-label='jpeg[quality=10]']")
    assert cell.locator(".printed").inner_text() == "84.8"
    assert cell.locator("button").inner_text().startswith("8")
    assert "kappa" in page.inner_text("#panel-1 .said")
    page.select_option("#printed", "")
    assert page.locator(".printed").count() == 0


def test_scatter_has_a_point_a_protector(visit: Open) -> None:
    page = visit(hash="#view=scatter")
    points = page.locator("#panel-1 .chart .point[role=button]")
    names = ("em", "ops", "cuda")  # rows without a gap
    assert sorted(points.locator("text").all_text_contents()) == sorted(names)
    below = {name: box_of(page, name)["y"] for name in names}
    assert below["cuda"] > below["ops"] > 0  # it gives less back
    page.select_option(".choosers select >> nth=0", "seconds")
    across = {name: box_of(page, name)["x"] for name in names}
    assert across["ops"] < across["cuda"] < across["em"]
    points.first.click()
    assert page.inner_text("#detail-title") in names


def box_of(page: Page, name: str) -> dict[str, float]:
    mark = page.locator(f"#panel-1 .point[aria-label^='{name}:']").locator("circle, polygon").first
    box = mark.bounding_box()
    assert box is not None
    return {"x": box["x"], "y": box["y"]}


def test_curves_of_a_parameter_and_of_the_fraction(visit: Open) -> None:
    page = visit("many", "#view=curves")
    first = page.locator("#panel-1")
    names = first.locator(".choosers option").all_inner_texts()
    assert names[0] == "jpeg: quality"
    assert "fraction protected, vanilla" in names
    assert first.locator(".curve").count() == 3
    assert first.locator(".curve").first.locator("circle").count() == 3
    first.locator(".choosers select").select_option("fraction:vanilla")
    assert "fraction of the training set" in (first.locator(".chart .axis").first.text_content() or "")
    assert "curve=fraction" in page.url


def test_a_board_without_curves_does_not_offer_them(visit: Open) -> None:
    page = visit(hash="#view=curves&q=vanilla")
    assert page.locator("#views input").evaluate_all("all => all.map(one => one.value)") == [
        "table", "turned", "scatter", "curves",
    ]  # fmt: skip
    page = visit("many")
    page.evaluate("for (const panel of data.panels) { panel.families = []; panel.fraction = 1; }")
    assert page.evaluate("views().map(([name]) => name)") == ["table", "turned", "scatter", "victims"]


# Victims

VICTIMS_TABLE = "#victims-1 table.victims"


def victims_of(page: Page) -> list[str]:
    keys = shown_columns(page, VICTIMS_TABLE)
    return [key.removeprefix("v:") for key in keys if key.startswith("v:")]


def row_of(page: Page, name: str) -> list[str]:
    return texts(page, VICTIMS_TABLE)[shown_rows(page, VICTIMS_TABLE).index(name)]


def test_victims_stand_beside_one_another(visit: Open) -> None:
    page = visit("three")
    page.check("#views input[value=victims]", force=True)
    assert page.locator("section.panel:visible").count() == 0
    assert page.locator("section.across:visible").count() == 1
    assert victims_of(page) == list(VICTIMS)  # in the order of the board
    assert set(shown_rows(page, VICTIMS_TABLE)) == set(AGAINST)
    for name, accuracies in AGAINST.items():
        assert [text.rstrip("◆ ") for text in row_of(page, name)[-3:]] == [f"{accuracy:.1f}" for accuracy in accuracies]
    assert row_of(page, "em[surrogate=resnet18]")[1:5] == ["52 %", "95 % densenet121", "92", "1 of 3"]


def test_networks_that_a_protector_names_are_marked(visit: Open) -> None:
    page = visit("three", "#view=victims")
    marked = page.eval_on_selector_all(
        f"{VICTIMS_TABLE} td.named", "all => all.map(one => [one.closest('tr').dataset.name, one.dataset.label])"
    )
    assert sorted(marked) == [["em[surrogate=resnet18]", "resnet18"], ["em[surrogate=vgg11]", "vgg11"]]
    assert page.is_visible("#victims-1 li.named")


def test_victims_are_shown_under_any_countermeasure_and_over_all(visit: Open) -> None:
    page = visit("three", "#view=victims")
    page.focus("#victims-1 .choosers select")
    page.select_option("#victims-1 .choosers select", "cm:at")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"  # the focus is where it was
    assert "under=cm%3Aat" in page.url
    assert row_of(page, "lsp")[1:] == ["2 of 3 victims", *"–––", "29.0", "32.0", "–"]
    page.click(f"{VICTIMS_TABLE} tr[data-name=lsp] td[data-label=densenet121] button")
    assert page.inner_text("#detail-title") == "lsp against at"
    command = page.inner_text("#detail-body pre")
    assert "--victim 'densenet121'" in command
    assert "--countermeasure 'at'" in command
    page.keyboard.press("Escape")

    page.select_option("#victims-1 .choosers select", "mean")
    [panel] = [panel for panel in panels(THREE, VICTIMS_BOARD) if panel.victim == "vgg11"]
    recovery = next(row.recovery for row in panel.rows if row.protector == "cuda")
    assert recovery is not None
    assert row_of(page, "cuda")[-2] == f"{recovery.mean.mean:.0f} %"


def test_cells_and_names_of_the_view_of_victims_open(visit: Open) -> None:
    page = visit("three", "#view=victims")
    page.click(f"{VICTIMS_TABLE} tr[data-name='em[surrogate=vgg11]'] td[data-label=resnet18] button")
    assert page.inner_text("#detail-body .accuracy") == "47.0 %"
    assert "resnet18" in page.inner_text("#detail-body dl >> nth=0")
    page.keyboard.press("Escape")
    page.select_option("#victims-1 .choosers select", "worst")
    page.click(f"{VICTIMS_TABLE} tr[data-name=lsp] td[data-label=vgg11] button")
    assert page.inner_text("#detail-title") == "lsp"
    assert "panel=2" in page.url  # of the victim that was clicked
    page.keyboard.press("Escape")
    page.click("#compare")
    assert " beside " in page.inner_text("#detail-title")


def test_filter_order_and_groups_hold_for_victims(visit: Open) -> None:
    page = visit("three", "#view=victims&group=0")
    page.click(f"{VICTIMS_TABLE} th[data-key='v:vgg11'] button")
    assert shown_rows(page, VICTIMS_TABLE) == ["none", "cuda", "em[surrogate=vgg11]", "lsp", "em[surrogate=resnet18]"]
    page.keyboard.press("Enter")
    assert shown_rows(page, VICTIMS_TABLE)[1] == "em[surrogate=resnet18]"
    page.fill("#filter", "em jpeg")
    assert set(shown_rows(page, VICTIMS_TABLE)) == {"none", "em[surrogate=resnet18]", "em[surrogate=vgg11]"}
    assert page.locator("#victims-1 .choosers option").all_inner_texts()[0] == "jpeg[quality=10]"
    assert row_of(page, "em[surrogate=vgg11]")[-2] == "19.0 ◆"
    page.fill("#filter", "victim:vgg")
    assert victims_of(page) == ["vgg11"]
    page.fill("#filter", "victim:nothing")
    assert page.locator("section.across:visible").count() == 0


def test_the_view_of_victims_is_in_the_address_and_downloaded(visit: Open) -> None:
    page = visit("three", "#view=victims&under=cm:at&sort=-v%3Avgg11&q=em")
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "CSV"))))
    assert [row["protector"] for row in rows] == shown_rows(page, VICTIMS_TABLE)
    assert {row["setting"] for row in rows} == {
        "3 victims, protocol fast v1, fp32, 100 % of the training set protected, under at"
    }
    for row in rows:
        shown = row_of(page, row["protector"])[-3:]
        assert [f"{float(row[victim]):.1f}" for victim in VICTIMS] == [text.rstrip("◆ ") for text in shown]
        assert row["class"] == ("reference" if row["protector"] == "none" else "Linf 8/255")
    again = visit("three", "#" + page.url.partition("#")[2])
    assert texts(again, VICTIMS_TABLE) == texts(page, VICTIMS_TABLE)
    assert "densenet121" in downloaded(again, "LaTeX")


def test_one_victim_has_no_view_of_several(visit: Open) -> None:
    page = visit(hash="#view=victims")
    assert "victims" not in page.locator("#views input").evaluate_all("all => all.map(one => one.value)")
    assert page.is_visible(TABLE)


# The address


def test_the_address_restores_what_is_chosen(visit: Open) -> None:
    page = visit()
    page.fill("#filter", "jpeg")
    page.click(f"{TABLE} th[data-key='cm:jpeg[quality=30]'] button")
    page.uncheck("#group")
    page.click("#columns summary")
    page.uncheck("#columns input[value='ssim']")
    page.click(f"{TABLE} [data-cell][aria-label^='ops against jpeg[quality=50]']")
    again = visit(hash="#" + page.url.partition("#")[2])
    assert texts(again) == texts(page)
    assert shown_columns(again) == shown_columns(page)
    assert again.inner_text("#detail-title") == "ops against jpeg[quality=50]"
    assert again.input_value("#filter") == "jpeg"
    again.keyboard.press("Escape")
    again.click("#reset")
    assert again.url.partition("#")[2] == ""
    assert countermeasures(again) == list(COLUMNS)


ODD = [
    "#cell=%E0%A4%A", "#cell=unknown", "#row=nobody&with=nothing", "#view=nope&sort=&x=1",
    "#view=scatter&x=constructor&y=toString",
    "#class=none&tag=:&printed=x&victim=y&dataset=z", "#%%%", "#hide=cm%3Anope&hide=", "#group=no&panel=99&row=em",
    "#view=victims&under=nothing&sort=v:none",
    "#view=curves&curve=family:9", "#" + "a=b&" * 500, "#__proto__=1&q=%00", "#panel-7",
]  # fmt: skip


def test_odd_addresses_do_nothing_bad(visit: Open) -> None:
    page = visit()
    for address in ODD:
        page.evaluate("address => { location.hash = address; }", address)
        page.wait_for_timeout(20)
        page.keyboard.press("Escape")
        assert page.evaluate("1 + 1") == 2
    page.evaluate("location.hash = ''")
    page.wait_for_timeout(50)
    assert len(shown_rows(page)) == len(ROWS)
    for address in ODD[:4]:
        assert visit(hash=address).locator("section.panel:visible").count() == 1


# Downloads


def downloaded(page: Page, name: str) -> str:
    page.click("#export summary")
    with page.expect_download() as waiting:
        page.click(f"#export button:text-is('{name}')")
    text: str = waiting.value.path().read_text(encoding="utf-8")
    page.click("#export summary")
    return text


@pytest.fixture
def chosen(visit: Open) -> Page:
    """A page with a filter, an order, a column left out and printed numbers."""
    page = visit()
    page.select_option("#printed", PRINTED)
    page.fill("#filter", "budget:linf jpeg")
    page.click(f"{TABLE} th[data-key='cm:jpeg[quality=50]'] button")
    page.click("#columns summary")
    page.uncheck("#columns input[value='source']")
    page.keyboard.press("Escape")
    return page


def test_csv_and_json_are_the_table(chosen: Page) -> None:
    rows = list(csv.DictReader(io.StringIO(downloaded(chosen, "CSV"))))
    assert [row["protector"] for row in rows] == shown_rows(chosen) == ["none", "em", "lsp"]
    quality = [name for name in rows[0] if name.startswith("jpeg[quality=50]")]
    assert quality[0] == "jpeg[quality=50]"
    assert "printed: Deep Hiding" in quality[1]
    assert not {"vanilla", "source"} & set(rows[0])
    at = shown_columns(chosen).index("cm:jpeg[quality=50]")
    for row, line in zip(rows, texts(chosen), strict=True):
        assert abs(float(row["jpeg[quality=50]"]) - float(line[at].split(" ")[0].rstrip("^"))) < 0.051
    plain: dict[str, Any] = json.loads(downloaded(chosen, "JSON"))
    assert [{k: v for k, v in row.items() if v is not None} for row in plain["rows"]] == [
        {k: _number(v) for k, v in row.items() if v not in ("", "Infinity")}
        for row in rows  # no JSON holds infinity
    ]


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def test_latex_and_markdown_are_the_table(chosen: Page) -> None:
    tex = downloaded(chosen, "LaTeX")
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 1
    assert r"\multicolumn{" in tex
    assert r"\emph{Linf 8/255}" in tex
    lines = [line for line in tex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    columns = len(shown_columns(chosen))
    assert {len(line.split(" & ")) for line in lines} == {columns}
    assert f"{{l{'r' * (columns - 1)}}}" in tex
    assert not re.search(r"(?<!\\)[%&#_](?! )", "\n".join(lines).replace(" & ", " "))
    markdown = downloaded(chosen, "Markdown").splitlines()
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown if line.startswith("|")]
    assert {len(line) for line in table} == {columns}
    assert [line[0].split(" ")[1] for line in table[2:]] == shown_rows(chosen)


def test_the_turned_table_is_downloaded_as_it_stands(visit: Open) -> None:
    page = visit(hash="#view=turned&q=jpeg")
    rows = list(csv.DictReader(io.StringIO(downloaded(page, "CSV"))))
    assert [row["countermeasure"] for row in rows] == shown_rows(page, "#panel-1 table.turned")
    assert {"em", "cuda"} <= set(rows[0])
