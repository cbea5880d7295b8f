from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ue_bench.leaderboard.build import build, check, render
from ue_bench.leaderboard.published import readable_tables
from ue_bench.store.schema import Result

from .factory import BOARD, grid, result

ROWS = {"none": (94.56, 85.21), "em": (10.04, 84.8), "ar": (13.31, 20.0)}


class Page(HTMLParser):
    """Tags with their attributes, the text, and the data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = "json" if dict(attrs).get("id") == "data" else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self.data += data
        elif self._inside not in ("script", "style"):
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def page(results: list[Result], **changes: Any) -> Page:
    return Page(render(results, replace(BOARD, **changes))["index.html"])


def details(found: Page, protector: str, countermeasure: str) -> dict[str, object]:
    cells = json.loads(found.data)["cells"].values()
    [cell] = [c for c in cells if (c["protector"], c["countermeasure"]) == (protector, countermeasure)]
    assert isinstance(cell, dict)
    return cell


def test_build_writes_its_files_and_check_agrees(tmp_path: Path) -> None:
    out = tmp_path / "leaderboards" / "tiny"
    names = ["README.md", "leaderboard.csv", "protectors.csv", "index.html"]
    assert build(grid(ROWS), BOARD, out) == [out / name for name in names]
    assert check(grid(ROWS), BOARD, out) == []


def test_same_results_give_the_same_bytes() -> None:
    results = grid(ROWS) + grid(ROWS, seed=1) + grid(ROWS, victim="vgg11")
    shuffled = random.Random(1).sample(results, len(results))
    assert render(shuffled, BOARD) == render(results, BOARD)


@pytest.mark.parametrize("name", ["README.md", "leaderboard.csv", "index.html"])
def test_check_detects_a_number_made_nicer(tmp_path: Path, name: str) -> None:
    build(grid(ROWS), BOARD, tmp_path)
    tampered = (tmp_path / name).read_text(encoding="utf-8").replace("13.3", "11.3")
    (tmp_path / name).write_text(tampered, encoding="utf-8")
    [difference] = check(grid(ROWS), BOARD, tmp_path)
    assert difference.startswith(f"{name} differs from the results in line ")
    assert "11.3" in difference


def test_check_detects_a_missing_page_and_a_cut_one(tmp_path: Path) -> None:
    build(grid(ROWS), BOARD, tmp_path)
    (tmp_path / "README.md").unlink()
    whole = (tmp_path / "leaderboard.csv").read_bytes()
    (tmp_path / "leaderboard.csv").write_bytes(whole[:-1])
    missing, cut = check(grid(ROWS), BOARD, tmp_path)
    assert missing == "README.md is missing"
    assert "leaderboard.csv differs" in cut


def test_check_detects_a_new_result(tmp_path: Path) -> None:
    build(grid(ROWS), BOARD, tmp_path)
    assert len(check([*grid(ROWS), result("ops")], BOARD, tmp_path)) == 4


HOSTILE = ["<b>", "</script><script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "é√猫"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_never_markup(name: str) -> None:
    texts = {"title": name, "description": name, "notes": (name,)}
    plain = page(grid({"em": (1.0, 2.0)}), title="t", description="d", notes=("n",))
    found = page([*grid({name: (1.0, 2.0)}, source=name, device=name, declared=name)], **texts)
    assert [tag for tag, _ in found.tags if tag != "wbr"] == [tag for tag, _ in plain.tags if tag != "wbr"]
    assert name in found.attributes("data-name")
    assert found.text.count(name) >= 5
    assert details(found, name, "vanilla")["protector"] == name


def test_page_loads_nothing_from_outside() -> None:
    text = render(grid(ROWS), BOARD)["index.html"]
    found = Page(text)
    assert "src" not in {name for _, attributes in found.tags for name in attributes}
    assert set(found.attributes("href")) == {"data:,", "#panel-1", "leaderboard.csv", "protectors.csv", "README.md"}
    assert not re.search(r"https?:|//\w|url\(|@import", text)
    [policy] = [a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_page_shows_every_cell_with_its_colour() -> None:
    found = page(grid(ROWS))
    buttons = [attributes for _, attributes in found.tags if "data-cell" in attributes]
    assert len(buttons) == 6
    labels = {a["aria-label"]: a["class"] for a in buttons}
    assert labels["em against vanilla: 10.0 %, 0 % recovered, n = 1"] == "h0"
    assert labels["em against jpeg[quality=10]: 84.8 %, 99 % recovered, n = 1"] == "h49"  # 74.8 of 75.2 points
    assert labels["ar against jpeg[quality=10]: 20.0 %, 13 % recovered, n = 1"] == "h6"


def test_a_column_in_which_clean_training_fails_has_no_colour() -> None:
    found = page(grid({"none": (94.56, 13.0), "em": (10.04, 12.0)}))
    classes = {a["aria-label"]: a["class"] for _, a in found.tags if "data-cell" in a}
    assert classes["em against vanilla: 10.0 %, 0 % recovered, n = 1"] == "h0"
    assert classes["em against jpeg[quality=10]: 12.0 %, n = 1"] == "hx"


def test_headline_rank_and_class_stand_in_the_table() -> None:
    rows = {"none": (94.56, 85.21), "em": (10.0, 84.8), "cuda": (10.0, 10.0)}
    results = grid({k: v for k, v in rows.items() if k != "cuda"}) + grid({"cuda": rows["cuda"]}, declared="none")
    found = page(results)
    assert "Linf 8/2551 protector" in found.text.replace("\n", "")
    assert [a["data-class"] for _, a in found.tags if "data-class" in a] == ["reference", "Linf 8/255", "unbounded"]
    assert "1 of 2" in found.text


def test_headers_can_be_sorted_by_keyboard() -> None:
    found = page(grid(ROWS), countermeasures=("vanilla", "jpeg[quality=10]"))
    following = [found.tags[i + 1][0] for i, (_, a) in enumerate(found.tags) if "aria-sort" in a]
    assert set(following) == {"button"}
    printed = sum("cifar10" in table.published for table in readable_tables())
    assert found.attributes("aria-sort").count("ascending") == 1 + printed  # the mean, measured and in print


def test_detail_tells_how_a_cell_was_made() -> None:
    results = grid(ROWS)
    cell = details(page(results), "em", "jpeg[quality=10]")
    assert cell["command"] == (
        "ue-bench run --board tiny --protector 'em' --countermeasure 'jpeg[quality=10]' --precision fp32"
    )
    assert cell["accuracy"] == "84.8 %"
    assert cell["certainty"] == (
        "n = 1: nothing is known of the spread over seeds; 95 % interval of the test set alone 84.08 to 85.49"
    )
    [made] = [r for r in results if (r.protector, r.countermeasure) == ("em", "jpeg[quality=10]")]
    shown = json.dumps(cell, ensure_ascii=False)
    for expected in (made.id, made.key, "84.80 %", "85.80 % at epoch 7", "99.00 %", "38.0 s", "2,210 MB", "Some GPU"):
        assert expected in shown


def test_shared_facts_of_a_panel() -> None:
    [panel] = json.loads(page(grid(ROWS)).data)["panels"]
    shared = panel["facts"]
    assert ["fingerprint", "f" * 32] in shared
    assert ["protocol", "fast, version 1"] in shared
    assert ["precision", "fp32"] in shared


@pytest.mark.parametrize("others", [[], grid(ROWS)], ids=["alone", "beside the board's"])
def test_command_names_what_is_not_the_boards_whatever_else_is_there(others: list[Result]) -> None:
    odd: dict[str, Any] = {
        "victim": "vgg11",
        "fraction": 0.25,
        "seed": 3,
        "selector": "cifar10[size=8]",
        "fingerprint": "0" * 32,
    }
    command = details(page([*others, result("ops", **odd, protocol="full")]), "ops", "vanilla")["command"]
    assert command == (
        "ue-bench run --board tiny --protector 'ops' --countermeasure 'vanilla' --dataset 'cifar10[size=8]' "
        "--victim 'vgg11' --protocol 'full' --seeds 3 --fraction 0.25 --precision fp32"
    )


def test_command_quotes_for_the_shell() -> None:
    command = details(page([result("it's")]), "it's", "vanilla")["command"]
    assert "--protector 'it'\"'\"'s'" in str(command)


def test_page_without_results_says_so() -> None:
    found = page([])
    assert "There are 0 results on this board yet." in found.text
    assert "table" not in {tag for tag, _ in found.tags}


def test_page_states_n_source_and_what_is_missing() -> None:
    text = page([result("em", "vanilla", 10.0)]).text
    assert "n = 1 seed per cell: nothing is known of the spread over seeds" in text
    assert "CIFAR-10 (test copy)" in text
    assert "No result yet: none, ar." in text
    assert "incomplete" in text
    assert "≥ 10.0" in text


def test_no_op_column_is_noted_with_the_noise_it_measures() -> None:
    results = [result("em", "vanilla", 10.0), result("em", "gaussian-filter", 10.7)]
    found = page(results, countermeasures=("vanilla", "gaussian-filter"))
    assert "No-op: at sigma 0.1" in found.text
    assert "Here the two differ by at most 0.7 points." in found.text
    assert "No-op" in str(details(found, "em", "gaussian-filter")["notes"])
    assert details(found, "em", "vanilla")["notes"] == []


def test_published_numbers_stand_apart_and_only_where_there_are_some() -> None:
    text = page(grid(ROWS)).text
    assert "Published (Deep Hiding, Table 1; ResNet-18, 40,000 steps)" in text
    assert "Protocol and victim differ" in text
    assert "Published" not in page(grid(ROWS, selector="demo")).text


def test_importing_needs_nothing_heavy() -> None:
    code = (
        "import sys; import ue_bench.leaderboard.build, ue_bench.leaderboard.tables;"
        "heavy = {'torch', 'pandas', 'jinja2', 'tabulate', 'ue_bench.engine', 'ue_bench.schedule'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_page_says_where_training_accuracy_does_not_exist() -> None:
    adversarial = result("em", "at", accuracy_train=None)

    assert "not measured" in render([adversarial], BOARD)["index.html"]
