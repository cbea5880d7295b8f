"""What a page shows behind a cell and behind a row."""

from __future__ import annotations

import numpy as np
import pytest

from ue_bench.leaderboard.intervals import t_quantile
from ue_bench.leaderboard.ranks import bootstrap_variance, paired
from ue_bench.leaderboard.statistics import panels

from .conftest import Open
from .made_up import BOARD, EVIDENCE, RESULTS

TABLE = "#panel-1 table.measured"


def test_a_cell_shows_how_it_was_made(visit: Open) -> None:
    page = visit()
    page.click(f"{TABLE} [data-cell][aria-label^='em against jpeg[quality=10]']")
    made = [r for r in RESULTS if (r.protector, r.countermeasure) == ("em", "jpeg[quality=10]")]
    text = page.inner_text("#detail-body")
    assert "ue-bench run --board made-up --protector 'em' --countermeasure 'jpeg[quality=10]' --precision fp32" in text
    assert "of the clean accuracy above chance is recovered: broken" in text
    links = page.locator("#detail-body a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert links == [EVIDENCE.files[r.key] for r in made]
    curve = page.locator("#detail-body svg").first.text_content() or ""
    assert f"last {made[0].metrics.accuracy_last:.1f}" in curve
    assert f"peak {made[0].metrics.accuracy_peak:.1f}" in curve
    whole = page.text_content("#detail-body") or ""
    assert all(r.key in whole for r in made)
    assert f"cell={made[0].key}" in page.url


def test_every_seed_of_a_cell_has_an_address(visit: Open) -> None:
    second = next(r for r in RESULTS if (r.protector, r.countermeasure, r.seed) == ("ops", "at", 1))
    assert visit(hash=f"#cell={second.key}").inner_text("#detail-title") == "ops against at"


def test_what_failed_and_what_is_missing_are_told_apart(visit: Open) -> None:
    page = visit()
    failed = page.locator(f"{TABLE} tr[data-name=ar] td[data-label=mixup]")
    missing = page.locator(f"{TABLE} tr[data-name=lsp] td[data-label=at]")
    assert (failed.inner_text(), missing.inner_text()) == ("failed", "–")
    failed.locator("button").click()
    text = page.inner_text("#detail-body")
    assert "Seed 0 failed after 2 attempts (diverged" in text
    assert "the loss is not finite at step 12" in text
    page.keyboard.press("Escape")
    missing.locator("button").click()
    text = page.inner_text("#detail-body")
    assert "Nobody has run this cell" in text
    assert "--protector 'lsp' --countermeasure 'at'" in text


def test_a_row_says_what_breaks_it(visit: Open) -> None:
    page = visit()
    page.click(f"{TABLE} [data-row=em]")
    assert page.locator("#detail-body h3").all_inner_texts()[1:] == ["Broken by 2: recovered share", "Holds against 4"]
    page.click("#detail-body .cells button >> nth=0")
    assert page.inner_text("#detail-title") in ("em against at", "em against jpeg[quality=10]")


@pytest.mark.parametrize(("first", "second"), [("em", "ops"), ("cuda", "ar")])
def test_the_difference_of_two_rows_is_that_of_the_ranks(visit: Open, first: str, second: str) -> None:
    page = visit(hash=f"#row={first}&with={second}")
    [panel] = panels(RESULTS, BOARD)
    rows = {row.protector: row for row in panel.rows}
    shares = {
        name: {
            c: {s: 100 * v / (panel.clean_by_column[c] - panel.chance) for s, v in cell.by_seed.items()}
            for c, cell in rows[name].cells.items()
        }
        for name in (first, second)
    }
    differences = paired(shares[first], shares[second])
    half = t_quantile(differences.shape[1] - 1) * float(np.sqrt(bootstrap_variance(differences)))
    mean = float(differences.mean())
    said = page.inner_text("#detail-body .accuracy")
    assert said == f"{'−' if mean < 0 else '+'}{abs(mean):.1f} ± {half:.1f} points of recovered share"
    sure = page.inner_text("#detail-body .recovers")
    assert sure == (
        f"{first if mean < 0 else second} protects better at 95 %."
        if abs(mean) > half
        else "The two cannot be told apart at 95 %."
    )
    lines = page.locator("#detail-body .differences tbody tr").all_inner_texts()
    assert len(lines) == len(rows[first].cells.keys() & rows[second].cells.keys())


def test_the_button_compares_the_first_two_rows(visit: Open) -> None:
    page = visit()
    page.click("#compare")
    assert page.inner_text("#detail-title") == "em beside lsp"
    page.select_option("#detail-body select >> nth=1", "cuda")
    assert page.inner_text("#detail-title") == "em beside cuda"
    assert "with=cuda" in page.url


def test_pictures_stand_behind_cells_and_rows_that_have_some(visit: Open) -> None:
    page = visit(hash="#row=em")
    image = page.locator("#detail-body img")
    assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") == 5
    page.click("#detail-body .cells button >> nth=0")
    assert image.count() == 1
    assert visit(hash="#row=ops").locator("#detail-body img").count() == 0
