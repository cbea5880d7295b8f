"""``figures gradcam``, ``tsne``, ``distances`` and ``processed`` on a few images of the demo set and a tiny network."""

from __future__ import annotations

import io
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ue_bench.leaderboard import figures

from .conftest import Command

IMAGES = ["-D", "demo[train_per_class=4,test_per_class=3]", "--devices", "cpu", "--precision", "fp32",
          "-P", "none,noise"]  # fmt: skip
CELLS = [*IMAGES, "-V", "resnet9[width=4]"]


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def texts(path: Path) -> str:
    return "\n".join(re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8")))


def test_networks_are_trained_once_for_all_figures(ue_bench: Command, computed: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    both = ["-C", "vanilla,gray"]
    drawn = ue_bench("figures", "gradcam", *CELLS, *both, "--images", "2", "--out", "cam.png")
    assert drawn.code == 0, drawn.err
    assert "4 networks trained on demo[train_per_class=4,test_per_class=3]" in drawn.err
    assert sum(label.startswith("network ") for label in computed) == 4
    # Two rows a protector; the protected image and one under each countermeasure.
    height, width, _ = read(tmp_path / "cam.png").shape
    assert height > 4 * figures.SIDE
    assert 3 * figures.SIDE < width < 6 * figures.SIDE

    plotted = ue_bench("figures", "distances", *CELLS, *both, "--out", "far.svg")
    assert plotted.code == 0, plotted.err
    assert (
        len(re.findall(r"(?:none|noise) under (?:vanilla|gray): within 0\.\d{4}, between \d\.\d{4}", plotted.err)) == 4
    )
    assert {"none", "noise", "vanilla", "gray"} <= set(texts(tmp_path / "far.svg").split("\n"))

    drawn = ue_bench("figures", "tsne", *CELLS, "--points", "40", "--perplexity", "5", "--out", "tsne.svg")
    assert drawn.code == 0, drawn.err
    assert {"none: images", "noise: perturbations"} <= set(texts(tmp_path / "tsne.svg").split("\n"))
    assert len(computed) == 6  # two protected sets and four networks
    again = ue_bench("figures", "tsne", *CELLS, "--points", "40", "--perplexity", "5", "--out", "again.svg")
    assert again.code == 0
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "tsne.svg").read_bytes()
    assert not (tmp_path / "ue-bench-results" / "demo" / "results").exists()

    text = (files("ue_bench.boards") / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "grey.toml").write_text(f"plain = 'gray'\n{text}", encoding="utf-8")
    for name in ("tsne", "distances"):
        more = ["--points", "40", "--perplexity", "5"] if name == "tsne" else []
        drawn = ue_bench("figures", name, *CELLS, *more, "--board", "./grey.toml", "--out", f"grey-{name}.svg")
        assert drawn.code == 0, drawn.err
    assert len(computed) == 6  # under gray, whose networks are there: it is what that board calls plain
    told = re.findall(r"(?:none|noise) under (\w+):", drawn.err)
    assert told == ["gray", "gray"]


def test_processed_images_are_those_of_the_countermeasure(
    ue_bench: Command, computed: list[str], tmp_path: Path
) -> None:
    drawn = ue_bench(
        "figures", "processed", *IMAGES, "-C", "gray,jpeg[quality=[5,95]]", "--images", "1", "--out", "p.png"
    )
    assert drawn.code == 0, drawn.err
    assert not [label for label in computed if label.startswith("network ")]
    picture = read(tmp_path / "p.png").astype(int)
    coloured = (np.ptp(picture, axis=2) > 12).sum(0)  # pixels with a hue, by column of the picture
    assert coloured.max() > 0
    # Columns: protected, gray, JPEG 5, JPEG 95, from the right end each SIDE wide and WIDE_GAP apart.
    ends = [picture.shape[1] - figures.GAP - i * (figures.SIDE + figures.WIDE_GAP) for i in range(4)]
    hues = [coloured[end - figures.SIDE : end].sum() for end in reversed(ends)]
    assert hues[1] == 0
    assert min(hues[0], hues[3]) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["processed"], "there is no countermeasure to show"),
        (["processed", "-C", "cutout"], "cutout does not change stored images"),
        (["gradcam", "--images", "41"], "there are 40 training images, not 41"),
        (["tsne", "--points", "40"], "40 points are too few for a perplexity of 30"),
        (["distances", "-C", "jepg"], "no countermeasure 'jepg'"),
    ],
)
def test_errors_are_one_line_with_a_hint(
    ue_bench: Command, computed: list[str], tmp_path: Path, arguments: list[str], said: str
) -> None:
    ending = "svg" if arguments[0] in ("tsne", "distances") else "png"
    cells = IMAGES if arguments[0] == "processed" else CELLS
    found = ue_bench("figures", *arguments, *cells, "--out", f"x.{ending}")
    assert found.code == 2
    first, hint = found.err.splitlines()[-2:]
    assert first.startswith(f"ue-bench: {said}")
    assert hint.startswith("  hint: ")
    assert not (tmp_path / f"x.{ending}").exists()


def test_heat_is_blue_where_it_is_low_and_red_where_it_is_high() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)

    found = figures.heat_overlay(image, np.array([[0.0, 0.5, 1.0]]))

    low, middle, high = found[0].tolist()
    assert low == [50, 50, 114]  # half of 100, and half of (0, 0, 128)
    assert middle[1] == max(middle) == 178
    assert high == [114, 50, 50]
