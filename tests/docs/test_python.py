"""The examples of docs/python.md, run one after the other in one session, on a smaller board."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ue_bench
from ue_bench import library
from ue_bench.catalogue import boards
from ue_bench.contract.board import Board

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
RECIPE = """
version = 1
summary = "two steps"
source = "tests"
batch = 20
steps = 2
learning_rate = 0.1
schedule = "cosine"
"""


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.toml").write_text(RECIPE, encoding="utf-8")
    for number in range(4):
        target = Path("photos", f"class {number % 2}", f"{number}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(target)
    small = replace(
        boards.board("demo"), dataset="demo[train_per_class=4,test_per_class=2]", protocol="./two.toml",
        victims=("resnet9[width=4,blocks=1]",), countermeasures=("vanilla", "jpeg[quality=10]"),
    )  # fmt: skip

    def load(name: Any) -> Board:
        assert name == "demo"
        return small

    monkeypatch.setattr(library, "load_board", load)
    monkeypatch.setattr(ue_bench, "load_board", load, raising=False)

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "[3 rows x" in shown
    assert names["results"].complete
    assert len(names["again"]) == len(names["results"]) == 6
    assert names["protected"].images == 4


def test_every_name_of_the_package_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(ue_bench.__all__) - {"__version__"}:
        assert f"ue_bench.{name}(" in text, name
