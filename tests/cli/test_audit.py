"""``ue-bench audit``."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from .conftest import Command
from .helpers import random_image, write


@pytest.fixture
def both(tmp_path: Path) -> tuple[str, str]:
    for label in ("cat", "dog"):
        for number in range(3):
            image = np.clip(random_image(seed=number), 0, 240)
            write(tmp_path / "photos" / label / f"{number} ä.png", image)
            write(tmp_path / "out" / label / f"{number} ä.png", image + 5)
    return "photos", "out"


def test_report(ue_bench: Command, both: tuple[str, str]) -> None:
    found = ue_bench("audit", *both, "--budget", "linf 5/255", "--budget", "psnr 34")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0] == "images      6, 2 classes, 12x10 px"
    assert lines[1].startswith("Linf        5/255 at most, 5.00/255 in the mean")
    assert "budget      linf 5/255: kept" in lines
    assert "mean change +5.00 red, +5.00 green, +5.00 blue, in gray levels" in lines
    assert "order       6 of 6 are nearest to their own clean image" in lines


def test_a_broken_budget_is_exit_code_4(ue_bench: Command, both: tuple[str, str]) -> None:
    found = ue_bench("audit", *both, "--budget", "linf 4/255")
    assert found.code == 4
    assert "budget      linf 4/255: BROKEN by 6 images: cat/0 ä.png" in found.out


def test_sets_that_do_not_belong_together_are_exit_code_4(
    ue_bench: Command, both: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "out" / "cat" / "1 ä.png").unlink()
    found = ue_bench("audit", *both)
    assert found.code == 4
    assert "PROBLEM     1 without a protected version: cat/1 ä.png" in found.out


def test_json(ue_bench: Command, both: tuple[str, str]) -> None:
    found = ue_bench("audit", *both, "--budget", "linf 4/255", "--json")
    assert found.code == 4
    assert found.json["measured"]["linf_max"] == 5
    assert found.json["budgets"][0]["broken"]["count"] == 6
    assert found.json["passed"] is False


def test_a_dataset_against_a_file(ue_bench: Command, tmp_path: Path) -> None:
    clean, labels = np.stack([random_image(seed=k) for k in range(8)]), np.arange(8) % 2
    np.savez(tmp_path / "c.npz", x_train=clean, y_train=labels, x_test=clean, y_test=labels)
    np.save(tmp_path / "p.npy", clean)
    for name in (f"npz[path={tmp_path / 'c.npz'}]", "c.npz"):
        found = ue_bench("audit", name, "p.npy", "--budget", "linf 1/255")
        assert found.code == 0
        assert "unchanged   8 images" in found.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["photos", "nowhere"], "no file or folder at nowhere"),
        (["nowhere", "out"], "no file or folder at nowhere, and no dataset of that name"),
        (["photos", "out", "--budget", "linf 8"], "is on the [0, 1] scale"),
        (["photos", "out", "--labels", "no.csv"], "cannot read no.csv"),
        (["c.npy", "c.npy", "--labels", "no.csv"], "--labels is for folders"),
        (["photos", "c.npy"], "no PNG files directly in photos"),
    ],
)
def test_errors_are_one_line_with_a_hint(
    ue_bench: Command, both: tuple[str, str], tmp_path: Path, arguments: list[str], reason: str
) -> None:
    np.save(tmp_path / "c.npy", np.zeros((2, 4, 4, 3), np.uint8))
    found = ue_bench("audit", *arguments)
    assert found.code == 2
    first, hint = found.err.splitlines()
    assert reason in first
    assert hint.startswith("  hint: ")


def test_two_forms_of_one_letter_are_two_files(ue_bench: Command, tmp_path: Path) -> None:
    names = unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")
    for number, name in enumerate(names):
        image = np.clip(random_image(seed=number), 0, 240)
        write(tmp_path / "photos" / "a" / name, image)
        write(tmp_path / "out" / "a" / name, image + 5)
        write(tmp_path / "photos" / "b" / f"{number}.png", random_image(seed=9 + number))
        write(tmp_path / "out" / "b" / f"{number}.png", random_image(seed=9 + number))
    if len(list((tmp_path / "out" / "a").iterdir())) < 2:
        pytest.skip("this file system has one form of a letter")
    found = ue_bench("audit", "photos", "out", "--json")
    assert (found.code, found.json["images"], found.json["measured"]["linf_max"]) == (0, 4, 5)


def test_another_form_of_a_letter_still_finds_its_file(ue_bench: Command, tmp_path: Path) -> None:
    for number in range(2):
        image = np.clip(random_image(seed=number), 0, 240)
        write(tmp_path / "photos" / "a" / unicodedata.normalize("NFC", f"é{number}.png"), image)
        write(tmp_path / "out" / "a" / unicodedata.normalize("NFD", f"é{number}.png"), image + 5)
    assert ue_bench("audit", "photos", "out", "--budget", "linf 5/255").code == 0


def test_a_file_of_labels_by_another_name_is_compared(ue_bench: Command, tmp_path: Path) -> None:
    for number in range(4):
        image = np.clip(random_image(seed=number), 0, 240)
        write(tmp_path / "photos" / f"{number}.png", image)
        write(tmp_path / "out" / f"{number}.png", image + 5)
    text = "0.png,a\n1.png,a\n2.png,b\n3.png,b\n"
    (tmp_path / "photos" / "kinds.csv").write_text(text, encoding="utf-8")
    (tmp_path / "out" / "kinds.csv").write_text(text, encoding="utf-8")
    same = ue_bench("audit", "photos", "out", "--labels", "photos/kinds.csv")
    assert same.code == 0
    (tmp_path / "out" / "kinds.csv").write_text(text.replace("3.png,b", "3.png,a"), encoding="utf-8")
    swapped = ue_bench("audit", "photos", "out", "--labels", "photos/kinds.csv")
    assert swapped.code == 4
    assert "with another label: 3.png" in swapped.out
