"""Sets that protection leaves as they were: refused for a data owner, warned of in a grid."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from toys import tree

from ue_bench.api import find_protector
from ue_bench.catalogue import boards
from ue_bench.errors import UserError
from ue_bench.store.perturbation import check_classes

from . import invertible
from .conftest import Command, Finished
from .helpers import random_image, write

# What the loss of a classifier, or the difference to other classes, moves.
NEED_TWO = [
    "em", "em[mode=class]", "pue", "rem", "hypo", "hypo[goal=adversarial]", "tap", "advin-like", "sep", "tensorclog",
    "sem", "pil", "aue", "aap", "dune", "gue", "ntga", "deepconfuse", "entf[variant=pull]", "rae-igsm", "rae-cw",
    "rit-igsm", "raeg[preset=micro]", "recovered[of=rae-igsm]",
]  # fmt: skip
NEED_ONE = [
    "lsp", "ops", "spots", "ar", "cuda", "tue", "noise", "none", "entf[variant=push]", "deephiding", "uc", "raeg",
    "hypo[goal=universal-random]",
]  # fmt: skip


@pytest.fixture(autouse=True)
def protectors(monkeypatch: pytest.MonkeyPatch) -> None:
    invertible.register(monkeypatch)
    monkeypatch.setattr(invertible.Careless, "calls", [])


def protect(ue_bench: Command, protector: str, *arguments: str) -> Finished:
    return ue_bench("protect", "-P", protector, "--device", "cpu", "--threads", "1", *arguments)


@pytest.mark.parametrize("selector", NEED_TWO)
def test_protectors_that_need_two_classes_say_so(selector: str) -> None:
    protector = find_protector(selector)
    check_classes(protector, [3, 3, 5])
    with pytest.raises(UserError, match=f"^{protector.name} needs images of two classes"):
        check_classes(protector, [3, 3, 3])


@pytest.mark.parametrize("selector", NEED_ONE)
def test_the_others_take_one(selector: str) -> None:
    check_classes(find_protector(selector), [0, 0])


def test_one_class_is_refused_before_anything_is_done(ue_bench: Command, tmp_path: Path) -> None:
    write(tmp_path / "in" / "me" / "1.png", random_image())
    (tmp_path / "in" / "nobody").mkdir()
    found = protect(ue_bench, "careless", "in", "out")
    assert found.code == 2
    assert "ue-bench: careless needs images of two classes" in found.err
    assert invertible.Careless.calls == []
    assert [name for name in tree(tmp_path) if name.startswith("out")] == []


def test_a_set_that_is_unchanged_is_an_error_and_nothing_is_written(ue_bench: Command, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a" / "1.png", random_image())
    write(tmp_path / "in" / "b" / "1.png", random_image((8, 8)))
    for _ in range(2):  # the first one leaves nothing in the way of the second
        found = protect(ue_bench, "idle", "in", "out")
        assert found.code == 4
        assert "ue-bench: idle left all 2 images as they were" in found.err
        assert "protected by" not in found.out
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "in"]
    assert not any((tmp_path / "cache" / "unfinished").iterdir())


def test_jpeg_does_not_pass_for_protection(ue_bench: Command, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a" / "1.png", random_image())
    assert protect(ue_bench, "idle", "in", "out", "--format", "jpeg").code == 4


def test_an_image_that_is_unchanged_is_not_published(ue_bench: Command, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a" / "black.png", np.zeros((8, 8, 3), np.uint8))
    write(tmp_path / "in" / "b" / "1.png", random_image((8, 8)))
    found = protect(ue_bench, "careless", "in", "out")
    assert found.code == 1
    assert "  a/black.png: protection left it as it was" in found.err.splitlines()
    assert tree(tmp_path / "out") == ["b/1.png"]


def test_protectors_that_are_meant_to_change_nothing_may(ue_bench: Command, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a" / "1.png", random_image())
    assert protect(ue_bench, "none", "in", "out").code == 0
    assert tree(tmp_path / "out") == ["a/1.png"]


@pytest.fixture
def one_cell(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    small = dataclasses.replace(boards.board("demo"), reference=("none",))
    monkeypatch.setattr(boards, "board", lambda name: small)
    return [
        *("-D", "demo[train_per_class=4,test_per_class=3]", "-V", "resnet9[width=4]", "--protocol", "smoke"),
        *("-C", "vanilla", "--devices", "cpu", "--precision", "fp32", "--out", "out"),
    ]  # fmt: skip


def test_a_grid_warns_of_them(ue_bench: Command, computed: list[str], one_cell: list[str]) -> None:
    for _ in range(2):  # computed, and read from what was
        found = ue_bench("run", "-P", "idle,shuffled", *one_cell)
        assert found.code == 0, found.err
        warnings = [line for line in found.err.splitlines() if "warning" in line]
        assert warnings == ["ue-bench: warning: idle left every image as it was, its results are those of clean images"]
    assert len(computed) == 6


@pytest.mark.usefixtures("computed")
def test_a_grid_refuses_one_class_too(ue_bench: Command, one_cell: list[str]) -> None:
    images = np.stack([random_image((8, 8), seed) for seed in range(6)])
    labels = np.zeros(6, np.int64)
    np.savez("one.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    one_cell[1] = "npz[path=one.npz]"
    found = ue_bench("run", "-P", "careless", *one_cell)
    assert found.code == 1
    assert invertible.Careless.calls == []
