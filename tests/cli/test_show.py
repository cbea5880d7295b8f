"""``list``, ``show``, ``doctor`` and ``cache``: commands that compute nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import Install

from ue_bench.catalogue import loading
from ue_bench.catalogue.registry import registry
from ue_bench.errors import EnvironmentProblem
from ue_bench.grid import cost
from ue_bench.leases import FOLDER, Leases

from .conftest import Command

KINDS = ["protectors", "countermeasures", "victims", "datasets", "boards", "protocols", "tables"]
FIELDS = {"name", "summary", "parameters", "tags", "distribution", "available", "reason"}


@pytest.mark.parametrize("kind", KINDS)
def test_list_as_json_has_the_promised_fields(ue_bench: Command, kind: str) -> None:
    rows = ue_bench("list", kind, "--json").json
    assert rows
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["available"] is True
        assert row["distribution"].startswith("ue-bench ")
        assert row["summary"]


def test_list_shows_names_tags_and_sets(ue_bench: Command) -> None:
    lines = ue_bench("list", "countermeasures").out.splitlines()
    assert any(line.startswith("jpeg ") and line.endswith("[preprocessing squeezing]") for line in lines)
    assert any(line.startswith("@dh12: ") and "jpeg[quality=10]" in line for line in lines)
    assert ue_bench("list", "countermeasure").out.splitlines() == lines


TABLE = """
from ue_bench.api import hookimpl

@hookimpl
def ue_bench_register(register):
    register.table("printed", "bringing_tables:printed", "Numbers")
    register.table("broken", "bringing_tables:missing", "Numbers")
    register.board("half", {"dataset": "demo"})

def printed(colour="red"):
    from ue_bench.api import Line, Setting, Table
    lines = (Line(("a", "1"), {"x": 1.0}), Line(("b", "2")))
    settings = (Setting("colour", "of what", "red", ("red", "blue")),)
    return Table("printed", "numbers", "a paper", ("one", "two"), lines, ("a note",), settings)
"""


def test_list_and_show_what_other_distributions_register(ue_bench: Command, install: Install) -> None:
    install("bringing-tables", TABLE)
    [row] = [r for r in ue_bench("list", "tables", "--json").json if r["name"] == "printed"]
    assert row.keys() >= FIELDS
    assert (row["summary"], row["distribution"], row["available"]) == ("Numbers", "bringing-tables 1.0", True)
    assert row["parameters"] == {
        "colour": {"type": "string", "description": "of what", "default": "red", "enum": ["red", "blue"]}
    }
    [row] = [r for r in ue_bench("list", "tables", "--json").json if r["name"] == "broken"]
    assert row["available"] is False
    assert "table 'broken' of bringing-tables 1.0 cannot be made: AttributeError" in row["reason"]
    assert any(line.split() == ["printed", "Numbers"] for line in ue_bench("list", "tables").out.splitlines())
    shown = ue_bench("show", "printed").out.splitlines()
    assert shown[:4] == [
        "printed (table)",
        "  summary: numbers",
        "  source: a paper",
        "  distribution: bringing-tables 1.0",
    ]
    assert "  lines: a 1, b 2" in shown
    assert shown[-2] == "    colour: red|blue, default red. of what"
    assert ue_bench("show", "broken").code == 3
    [board] = [r for r in ue_bench("list", "boards", "--json").json if r["name"] == "half"]
    reason = "board 'half' of bringing-tables 1.0: protocol is missing"
    assert (board["available"], board["reason"]) == (False, reason)
    assert ue_bench("show", "half").code == 4


def test_show_takes_the_file_of_a_board_or_protocol(ue_bench: Command, tmp_path: Path) -> None:
    recipe = "batch = 32\nepochs = 2\nlearning_rate = 0.1\nschedule = 'cosine'\n"
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    board = "title = 'Mine'\ndataset = 'demo'\nprotocol = 'recipe.toml'\nvictims = ['linear']\n"
    board += "protectors = ['lsp']\ncountermeasures = ['vanilla']\n"
    (tmp_path / "mine.toml").write_text(board, encoding="utf-8")
    [found] = ue_bench("show", "./mine.toml", "--json").json
    assert (found["kind"], found["name"], found["title"]) == ("board", "mine", "Mine")
    [found] = ue_bench("show", "recipe.toml", "--json").json
    assert (found["kind"], found["epochs"]) == ("protocol", 2)
    assert ue_bench("show", found["name"], "--json").json == [found]
    selector = "imagefolder[path=photos/2020]"  # a slash, and yet no file
    assert ue_bench("show", selector, "--json").json[0]["name"] == "imagefolder"
    assert ue_bench("show", "gone.toml").err == "ue-bench: no file gone.toml\n  hint: check the path\n"


def test_list_reports_broken_distributions(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry(), "problems", [loading.Problem("stranger 1.0", "OSError: no")])
    found = ue_bench("list", "victims")
    assert found.err == "ue-bench: stranger 1.0 cannot be used: OSError: no\n"
    assert "stranger" not in found.out


def test_list_says_why_a_plugin_is_not_available(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from ue_bench.contract.registration import PluginRecord

    broken = PluginRecord("victim", "net", "nowhere_at_all:Net", "gone", (), "stranger 1.0")
    monkeypatch.setitem(registry().entries, ("victim", "net"), broken)
    [row] = [r for r in ue_bench("list", "victims", "--json").json if r["name"] == "net"]
    assert row["available"] is False
    assert "stranger 1.0 cannot be loaded: ModuleNotFoundError" in row["reason"]


def test_show_says_that_the_published_gaussian_filter_changes_nothing(ue_bench: Command) -> None:
    found = ue_bench("show", "gaussian-filter")
    assert found.out.startswith("gaussian-filter (countermeasure)\n")
    assert "changes nothing" in found.out
    assert "  note: " in found.out
    assert "sigma: number 0..100, default 0.1" in found.out


def test_show_gives_the_paper_and_the_ranges(ue_bench: Command) -> None:
    found = ue_bench("show", "at")
    assert "  paper: " in found.out
    assert "eps: number 0..1, default 8/255. Linf radius" in found.out


def test_show_takes_a_selector(ue_bench: Command) -> None:
    assert ue_bench("show", "jpeg[quality=10]").out.startswith("jpeg (countermeasure)\n")


def test_show_explains_a_set(ue_bench: Command) -> None:
    shown = ue_bench("show", "@extended18").out.splitlines()
    assert shown[0] == "@extended18 (set of countermeasures)"
    assert shown[1].startswith("  summary: Our reading of the 18")
    assert shown[2].startswith("  members: vanilla, cutout, ")
    assert ue_bench("show", "@iss", "--json").json[0]["members"][0] == "gray"
    assert "did you mean @dh12?" in ue_bench("show", "@dh2").err


def test_show_as_json(ue_bench: Command) -> None:
    [thing] = ue_bench("show", "gaussian-filter", "--json").json
    assert thing["name"] == "gaussian-filter"
    assert thing["note"]
    assert "sigma" in thing["parameters"]


def test_show_gives_everything_of_that_name(ue_bench: Command) -> None:
    found = {thing["kind"]: thing for thing in ue_bench("show", "demo", "--json").json}
    assert found.keys() == {"dataset", "board"}
    assert found["board"]["protocol"] == "smoke"
    [paper] = ue_bench("show", "paper", "--json").json
    assert (paper["kind"], paper["steps"]) == ("protocol", 40_000)


def test_show_says_what_a_victim_changes_of_the_protocol(ue_bench: Command) -> None:
    shown = ue_bench("show", "vit[learning_rate=0.0003]").out
    assert "  protocol: optimizer=adamw, learning_rate=0.0003, weight_decay=0.05\n" in shown
    assert "protocol:" not in ue_bench("show", "resnet18").out
    assert ue_bench("show", "linear", "--json").json[0]["protocol"] == "learning_rate=0.003"
    assert ue_bench("show", "paper", "--json").json[0]["optimizer"] == "sgd"


def test_doctor_says_what_is_there(ue_bench: Command) -> None:
    found = ue_bench("doctor")
    assert found.code == 0
    assert "  torch " in found.out
    assert "  device cpu: " in found.out


def test_cache_clear_removes_its_own_kinds_and_nothing_else(ue_bench: Command, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    for name in ("datasets/k", "protected/k", "data/downloads", "photographs/2020"):
        (root / name).mkdir(parents=True)
        (root / name / "x").write_bytes(b"x" * 1000)
    assert "protected       1        0.0 MB" in ue_bench("cache", "info").out
    assert ue_bench("cache", "clear", "--kind", "protected").code == 0
    assert not (root / "protected").exists()
    assert (root / "datasets" / "k" / "x").exists()
    assert ue_bench("cache", "clear").code == 0
    assert sorted(p.name for p in root.iterdir()) == ["data", "photographs"]


def test_cache_commands_beside_others_and_links(ue_bench: Command, tmp_path: Path) -> None:
    root, disk = tmp_path / "cache", tmp_path / "disk"
    (disk / "k").mkdir(parents=True)
    (disk / "k" / "x").write_bytes(b"x" * 1000)
    root.mkdir()
    (root / "datasets").symlink_to(disk)
    leases = Leases(root / FOLDER)
    with leases.hold(f"driver.{leases.owner}", "a driver", lambda: None):
        refused = ue_bench("cache", "clear")
        assert (refused.code, "1 commands work with" in refused.err) == (2, True), refused.err
        assert (disk / "k" / "x").exists()
    cleared = ue_bench("cache", "clear")
    assert (cleared.code, "removed 1 datasets" in cleared.err) == (0, True), cleared.err
    assert (list(disk.iterdir()), (root / "datasets").is_symlink()) == ([], True)

    for command in ("info", "clear", "verify"):
        missing = ue_bench("cache", command, "--cache-dir", "typo")
        assert (missing.code, "there is no folder typo" in missing.err) == (2, True), missing.err
    assert not Path("typo").exists()


def test_show_and_list_say_who_needs_clean_data(ue_bench: Command) -> None:
    assert "  needs clean data: 1,234 images\n" in ue_bench("show", "early-stopping[clean=1234]").out
    assert ue_bench("show", "early-stopping", "--json").json[0]["clean_images"] == 1000
    assert "needs" not in ue_bench("show", "jpeg").out
    rows = {row["name"]: row for row in ue_bench("list", "countermeasures", "--json").json}
    assert (rows["deep-feature-reweighting"]["clean_images"], rows["jpeg"]["clean_images"]) == (5000, 0)
    lines = ue_bench("list", "countermeasures").out.splitlines()
    assert any(line.startswith("early-stopping ") and line.endswith(" needs-clean-data]") for line in lines)


def test_show_takes_one_thing_at_a_time(ue_bench: Command) -> None:
    found = ue_bench("show", "vit[learning_rate=[0.1,0.2]]")
    assert (found.code, found.err.splitlines()[0]) == (2, "ue-bench: 'vit[learning_rate=[0.1,0.2]]' is 2 victims")


def test_show_says_what_protection_costs(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "seconds", lambda *asked: 3600.0)
    shown = ue_bench("show", "tap[preset=micro]").out
    assert "cost: some 75 training passes an image through resnet9[blocks=1]; for 50,000 images of 32 x 32 px" in shown
    assert "1:00:00 on one worker here (" in shown
    assert ue_bench("show", "tap", "--json").json[0]["cost"].startswith("some 1,373 training passes")
    assert "cost:" not in ue_bench("show", "lsp").out
    assert "cost:" not in ue_bench("show", "precomputed").out  # it needs a path


def test_show_needs_no_weights(ue_bench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(*args: object) -> float:
        raise EnvironmentProblem("weights cannot be downloaded", "bring them")

    monkeypatch.setattr(cost, "seconds", seconds)
    out = ue_bench("show", "uc").out
    assert "training passes an image through resnet50[pretrained=true]; how long they take here is not known" in out
    assert "weights cannot be downloaded" in out


def test_show_says_how_large_an_image_a_protector_takes(ue_bench: Command) -> None:
    assert "largest image: 100 megapixels" in ue_bench("show", "lsp").out
    assert "largest image: 0.262 megapixels" in ue_bench("show", "em").out
    assert "largest image" not in ue_bench("show", "resnet18").out
