"""``check``: what plugins do and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.contract.registration import PluginRecord

from .conftest import Command

SMALL = ("-D", "demo[train_per_class=4,test_per_class=2]", "--images", "16", "--devices", "cpu")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """The command puts the number of threads back."""


def findings(rows: list[dict[str, Any]], selector: str) -> dict[str, dict[str, Any]]:
    return {f"{r['stage']} {r['check']}": r for r in rows if r["selector"] == selector}


def test_a_line_a_finding(ue_bench: Command) -> None:
    found = ue_bench("check", *SMALL, "jpeg[quality=10]", "gray+cutout")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0] == "jpeg[quality=10] (countermeasure)"
    assert "gray+cutout (countermeasure)" in lines
    assert any(line.startswith("  ok    purify   labels ") for line in lines)
    assert any(line.startswith("  note  augment  cost ") and "measured here (cpu, " in line for line in lines)
    assert found.err.splitlines()[-1].endswith(" checks, 0 failed")


def test_json_has_the_numbers(ue_bench: Command) -> None:
    rows = ue_bench("check", *SMALL, "median", "gaussian-filter", "ops", "linear", "--json").json
    assert {row["kind"] for row in rows} == {"protector", "countermeasure", "victim"}
    assert rows[0].keys() == {"selector", "kind", "stage", "check", "state", "text", "values"}
    median, idle = findings(rows, "median"), findings(rows, "gaussian-filter")
    assert median["purify changes"]["values"]["percent"] > 20
    assert median["purify randomness"]["values"] == {"random": False}
    assert idle["purify changes"]["values"]["max"] == 0
    assert "returns every 8-bit image unchanged" in idle["declares identity"]["text"]
    assert findings(rows, "ops")["protect budget"]["values"] == {"declared": "pixels 1", "measured": 1.0}
    assert findings(rows, "linear")["build parameters"]["values"] == {"parameters": 30730}


def test_the_number_of_images_is_that_asked_for(ue_bench: Command) -> None:
    rows = ue_bench("check", *SMALL, "gray", "--images", "7", "--json").json
    assert findings(rows, "gray")["purify images"]["values"]["shape"] == [7, 32, 32, 3]


FAULTY = """
from ue_bench.api import Countermeasure, Protector
import numpy as np

class Turned(Countermeasure):
    "Turns the order."
    name = "turned"
    def purify(self, data, ctx):
        return data.with_images(np.roll(data.images, 1, axis=0))

class Bold(Protector):
    "Turns a bit."
    name = "bold"
    @property
    def budget(self):
        return "linf 1/255"
    def protect(self, data, ctx):
        return data.with_images(data.images ^ np.uint8(4))

class Needy(Countermeasure):
    "Needs a package."
    name = "needy"
    def purify(self, data, ctx):
        from ue_bench.api import EnvironmentProblem
        raise EnvironmentProblem("needy needs a package", "pip install it")
"""


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins of a stranger that break rules."""
    (tmp_path / "faulty_plugins.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, name in (("countermeasure", "turned"), ("protector", "bold"), ("countermeasure", "needy")):
        entry = PluginRecord(kind, name, f"faulty_plugins:{name.capitalize()}", "faulty", (), "stranger 1.0")
        monkeypatch.setitem(registry().entries, (kind, name), entry)


@pytest.mark.usefixtures("faulty")
class TestFaults:
    @pytest.mark.parametrize(("name", "line"), [("turned", "fail  purify   order"), ("bold", "fail  protect  budget")])
    def test_exit_code_4(self, ue_bench: Command, name: str, line: str) -> None:
        found = ue_bench("check", *SMALL, name)
        assert found.code == 4
        assert line in found.out
        assert " checks, 0 failed" not in found.err

    def test_one_that_cannot_be_tried_is_one_line(self, ue_bench: Command) -> None:
        found = ue_bench("check", *SMALL, "needy")
        assert (found.code, found.out) == (3, "")
        assert "ue-bench: needy needs a package\n  hint: pip install it\n" in found.err

    def test_the_others_are_tried_all_the_same(self, ue_bench: Command) -> None:
        found = ue_bench("check", *SMALL, "needy,gray")
        assert found.code == 3
        assert "gray (countermeasure)" in found.out
        assert "ue-bench: needy cannot be checked: needy needs a package (pip install it)" in found.err
        assert ue_bench("check", *SMALL, "needy,turned").code == 4

    def test_a_file_that_is_not_there_does_not_stop_the_others(self, ue_bench: Command) -> None:
        found = ue_bench("check", *SMALL, "precomputed[path=nowhere.npy]", "gray")
        assert found.code == 2
        assert "gray (countermeasure)" in found.out
        assert "ue-bench: precomputed cannot be checked: no file or folder at nowhere.npy" in found.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jpg", "no protector, countermeasure, victim or dataset 'jpg'\n  hint: did you mean jpeg"),
        ("cifar11", "no protector, countermeasure, victim or dataset 'cifar11'"),
        ("@dh13", "no protector, countermeasure, victim or dataset '@dh13'"),
        ("jpeg[quality=0]", "jpeg[quality=0]: Input should be greater than or equal to 1"),
        ("lsp+gray", "'lsp'"),
    ],
)
def test_names_that_are_none(ue_bench: Command, name: str, message: str) -> None:
    found = ue_bench("check", *SMALL, name)
    assert found.code == 2
    assert message in found.err
    assert found.out == ""


def test_train_gives_the_price_on_clean_images(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    command = ("check", *SMALL, "gray", "lsp", "--train", "--json", "--out", str(tmp_path / "out"))
    rows = ue_bench(*command).json
    gray, lsp = (findings(rows, name)["train accuracy"] for name in ("gray", "lsp"))
    assert gray["values"].keys() == {"accuracy", "n", "reference", "difference"}
    assert gray["values"]["difference"] == pytest.approx(gray["values"]["accuracy"] - gray["values"]["reference"])
    assert lsp["values"]["reference"] == gray["values"]["reference"]  # one cell, trained once
    assert "n=1, demo[train_per_class=4,test_per_class=2], smoke, resnet9[blocks=1]" in gray["text"]
    trained = sorted(label.split("/")[1:3] for label in computed if label.startswith("demo["))
    assert trained == [["lsp", "vanilla"], ["none", "gray"], ["none", "vanilla"]]
    computed.clear()
    ue_bench(*command)
    assert computed == []


def test_train_of_a_victim_is_its_own_accuracy(ue_bench: Command, computed: list[str]) -> None:
    rows = ue_bench("check", *SMALL, "linear", "--train", "--json").json
    accuracy = findings(rows, "linear")["train accuracy"]
    assert accuracy["values"].keys() == {"accuracy", "n"}
    assert [label.split("/")[1:4] for label in computed if label.startswith("demo[")] == [["none", "vanilla", "linear"]]
