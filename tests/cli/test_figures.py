"""``figures perturbations``, and the drawing of grids: what is seen is looked for pixel by pixel."""

from __future__ import annotations

import dataclasses
import io
import re
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from leaderboard.factory import result
from numpy.typing import NDArray
from PIL import Image

from ue_bench.catalogue import boards
from ue_bench.errors import UserError
from ue_bench.grid.grid import Request, resolve
from ue_bench.leaderboard import figures
from ue_bench.store.results import ResultStore
from ue_bench.store.schema import Curve

from .conftest import Command

Picture = NDArray[np.uint8]
SVG = "{http://www.w3.org/2000/svg}"
HEIGHT, WIDTH, SCALE = 5, 7, 14  # 14 * 7 is the first multiple of 7 that reaches 96
LEVELS = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) % 6  # what is added to every image


@pytest.fixture
def clean(tmp_path: Path) -> Picture:
    """Twelve images of three classes in turn, which ``set.npz`` holds; ``protected.npz`` holds them plus LEVELS."""
    images = np.random.default_rng(0).integers(0, 200, (12, HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = np.arange(12) % 3
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3],
             class_names=np.array(["cat", "дом", "ship"]))  # fmt: skip
    np.savez(tmp_path / "protected.npz", images=(images + LEVELS).astype(np.uint8))
    return images


DRAW = ["figures", "perturbations", "-D", "npz[path=set.npz]", "--devices", "cpu", "--out", "new.png"]
ADDED = "precomputed[path=protected.npz]"


def read(content: bytes | Path) -> Picture:
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image)


def places(picture: Picture, image: Picture, scale: int = SCALE) -> list[tuple[int, int]]:
    """Left and top of every ``image`` in ``picture``, enlarged ``scale`` times."""
    block = np.kron(image, np.ones((scale, scale, 1), np.uint8))
    height, width = block.shape[:2]
    found = []
    first = block[0].tobytes()
    for top in range(len(picture) - height + 1):
        row, at = picture[top].tobytes(), -1
        while (at := row.find(first, at + 1)) >= 0:
            left = at // 3
            if at % 3 == 0 and np.array_equal(picture[top : top + height, left : left + width], block):
                found.append((left, top))
    return found


def test_rows_are_images_and_columns_protectors(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path
) -> None:
    drawn = ue_bench(*DRAW, "-P", f"none,{ADDED}", "--images", "12")
    assert drawn.code == 0, drawn.err
    assert drawn.out == "new.png\n"
    assert "min-max stretched to [0, 1] per image" in drawn.err.splitlines()[-1]
    picture = read(tmp_path / "new.png")
    known = np.rint(LEVELS / 5 * 255).astype(np.uint8)
    black = np.zeros_like(known)
    columns, tops = set(), []
    for image in clean:
        (first, top), (unprotected, second) = places(picture, image)  # clean, and what 'none' makes of it
        [(protected, third)] = places(picture, (image + LEVELS).astype(np.uint8))
        assert top == second == third
        columns.add((first, unprotected, protected))
        tops.append(top)
    [(first, unprotected, protected)] = columns
    assert first < unprotected < protected
    beside = WIDTH * SCALE + figures.GAP
    assert places(picture, known) == [(protected + beside, top) for top in sorted(tops)]
    assert places(picture, black) == [(unprotected + beside, top) for top in sorted(tops)]
    # Images of a class stand together: the k-th image is of class k mod 3.
    assert [int(row) % 3 for row in np.argsort(tops)] == [0] * 4 + [1] * 4 + [2] * 4
    # A heading above every group of columns, and a name left of every row.
    head = picture[: min(tops)]
    for left, right in ((first, first + beside), (unprotected, unprotected + 2 * beside), (protected, len(picture[0]))):
        assert (head[:, left:right] < 100).any()
    assert all((picture[top : top + HEIGHT * SCALE, :first] < 100).any() for top in tops)
    assert (head[:, :first] == 255).all()


def test_columns_keep_the_order_they_are_given_in(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path
) -> None:
    ue_bench(*DRAW, "-P", ADDED, "-P", "none", "--images", "3")
    picture = read(tmp_path / "new.png")
    shown = [image for image in clean if places(picture, image)]
    assert len(shown) == 3
    [(protected, _)] = places(picture, (shown[0] + LEVELS).astype(np.uint8))
    assert [left < protected for left, _ in places(picture, shown[0])] == [True, False]


def test_the_rows_of_the_board_are_shown_and_made_once(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(boards.board("demo"), reference=("none",), protectors=("noise",))
    monkeypatch.setattr(boards, "board", lambda name: small)
    first = ue_bench(*DRAW)
    assert first.code == 0, first.err
    assert [label.split("/")[-2:] for label in computed] == [["none", "s0"], ["noise", "s0"]]
    assert len(places(read(tmp_path / "new.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))) == 6
    again = (tmp_path / "new.png").rename(tmp_path / "first.png").read_bytes()
    assert ue_bench(*DRAW).code == 0
    assert len(computed) == 2
    assert (tmp_path / "new.png").read_bytes() == again

    other = ue_bench(*DRAW[:-1], "other.png", "--seed", "1", "-P", "noise")
    assert other.code == 0
    assert [re.sub("#[0-9a-f]{8}", "", label) for label in computed[2:]] == ["protect npz[path=set.npz]/noise/s1"]


def test_a_protector_that_fails_leaves_no_figure(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path
) -> None:
    np.savez(tmp_path / "short.npz", images=clean[:5])
    failed = ue_bench(*DRAW, "-P", "none,precomputed[path=short.npz]")
    assert failed.code == 1
    assert failed.err.splitlines()[-1] == "ue-bench: no figure without these sets"
    assert "Traceback" not in failed.err
    assert not (tmp_path / "new.png").exists()


def test_pages_show_pictures_of_the_protected_sets_that_are_there(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path
) -> None:
    made, missing = ADDED, "lsp"
    assert ue_bench(*DRAW, "-P", made).code == 0
    store = ResultStore(tmp_path / "ue-bench-results" / "demo")
    request = Request(protectors=[made, missing], countermeasures=["vanilla"], dataset=DRAW[3], devices="cpu")
    grid = resolve(dataclasses.replace(request, reference=False))
    for cell in grid.cells:
        one = result(cell.protector.selector, protocol="smoke", victim="resnet9[blocks=1]")
        one = one.model_copy(update={"dataset": grid.data.info})
        curve = Curve(key=one.key, epoch=[1.0], accuracy_test=[20.0], accuracy_train=[20.0], loss_train=[1.0])
        store.write(one, curve)

    built = ue_bench("leaderboard", "build", "--pictures")

    assert built.code == 0, built.err
    assert "no picture of lsp: its protected set is not in the cache" in built.err
    [path] = (store.out / "pictures").iterdir()
    assert str(path.relative_to(tmp_path)) in built.out
    picture = read(path)
    assert picture.shape == (3 * HEIGHT + 4, 4 * WIDTH + 6, 3)
    for left in range(0, 4 * WIDTH + 6, WIDTH + 2):
        before, after, change = (picture[t : t + HEIGHT, left : left + WIDTH] for t in range(0, 3 * HEIGHT, HEIGHT + 2))
        assert any(np.array_equal(before, image) for image in clean)
        assert np.array_equal(after, before + LEVELS)
        assert np.array_equal(change, 128 + 10 * LEVELS)
    assert f"pictures/{path.name}" in (store.out / "index.html").read_text(encoding="utf-8")
    assert ue_bench("leaderboard", "check").code == 0
    assert ue_bench("leaderboard", "build", "--pictures", "--all").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--out", "new.jpg"], 2, "--out new.jpg does not end in .png"),
        (["--out", "old.PNG"], 2, "old.PNG exists already"),
        (["--out", "nowhere/new.png"], 3, "cannot write nowhere/new.png: No such file or directory"),
        (["--out", "set.npz/new.png"], 3, "cannot write set.npz/new.png: Not a directory"),
        (["--images", "13"], 2, "holds 12 training images, not 13"),
        (["-P", "noize"], 2, "no protector 'noize'"),
        (["-P", "none,^none"], 5, "the selection of protectors is empty"),
        (["--board", "demoo"], 2, "no board 'demoo'"),
    ],
)
def test_errors_are_one_line_with_a_hint(
    ue_bench: Command, computed: list[str], clean: Picture, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    (tmp_path / "old.PNG").write_bytes(b"mine")
    found = ue_bench(*DRAW, *arguments)
    assert found.code == code
    first, hint = found.err.splitlines()
    assert reason in first
    assert hint.startswith("  hint: ")
    assert computed == []
    assert (tmp_path / "old.PNG").read_bytes() == b"mine"
    assert not (tmp_path / "new.png").exists()


@pytest.mark.parametrize("arguments", [["--images", "0"], ["--seed", "-1"], ["-C", "jpeg"]])
def test_wrong_options_are_usage_errors(ue_bench: Command, arguments: list[str]) -> None:
    assert ue_bench(*DRAW, *arguments).code == 2


class TestSpread:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50 + [4] * 1)

    @pytest.mark.parametrize(
        ("count", "each"),
        [(4, [1, 1, 1, 0, 1]), (7, [2, 2, 2, 0, 1]), (30, [13, 3, 13, 0, 1]), (104, [50, 3, 50, 0, 1])],
    )
    def test_is_even_over_classes(self, count: int, each: list[int]) -> None:
        chosen = figures.spread(self.labels, count, 0)
        assert len(set(chosen.tolist())) == count
        counts = np.bincount(self.labels[chosen], minlength=5)
        assert np.abs(counts - each).max() <= 1
        assert counts[[1, 3, 4]].tolist() == [each[1], each[3], each[4]]

    def test_is_in_the_order_of_labels(self) -> None:
        mixed = np.arange(40) % 4
        assert mixed[figures.spread(mixed, 8, 0)].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_depends_on_the_seed_alone(self) -> None:
        first, again, other = (figures.spread(self.labels, 6, seed).tolist() for seed in (0, 0, 1))
        assert first == again != other

    def test_other_seeds_choose_other_classes(self) -> None:
        ten = np.repeat(np.arange(10), 5)
        chosen = {tuple(ten[figures.spread(ten, 2, seed)]) for seed in range(5)}
        assert len(chosen) > 1


class TestPerturbationMap:
    def test_is_stretched_from_its_smallest_to_its_largest_value(self) -> None:
        clean = np.full((1, 4, 3), 100, np.uint8)
        protected = clean.copy()
        protected[0, :, 0] = [98, 102, 104, 106]  # changes of 2, 2, 4 and 6 gray levels
        protected[0, :, 1:] = [102, 98]
        assert figures.perturbation_map(clean, protected)[0].tolist() == [
            [0, 0, 0], [0, 0, 0], [128, 0, 0], [255, 0, 0],
        ]  # fmt: skip

    def test_of_nothing_is_black_and_of_an_even_change_white(self) -> None:
        clean = np.array([[[0, 128, 255]]], np.uint8)
        assert figures.perturbation_map(clean, clean).tolist() == [[[0, 0, 0]]]
        assert figures.perturbation_map(clean, np.array([[[3, 125, 252]]], np.uint8)).tolist() == [[[255, 255, 255]]]

    def test_the_largest_change_there_is_fits(self) -> None:
        black, mixed = np.zeros((1, 1, 3), np.uint8), np.array([[[255, 0, 51]]], np.uint8)
        assert figures.perturbation_map(black, mixed).tolist() == [[[255, 0, 51]]]


class TestGrid:
    def draw(self, name: str = "", heading: str = "", shape: tuple[int, int] = (4, 4)) -> Picture:
        picture = np.full((*shape, 3), 7, np.uint8)
        return read(figures.picture_grid([[picture]], [name], [(heading, 1)], "hint"))

    @pytest.mark.parametrize(
        ("shape", "scale"), [((1, 1), 96), ((32, 32), 3), ((33, 20), 3), ((64, 3), 2), ((96, 96), 1), ((3, 224), 1)]
    )
    def test_small_pictures_are_enlarged_by_a_whole_factor(self, shape: tuple[int, int], scale: int) -> None:
        grid = self.draw(shape=shape)
        assert (grid == 7).all(axis=2).sum() == shape[0] * shape[1] * scale**2

    @pytest.mark.parametrize("name", ["猫", "سلام", "a\x00b\nc\td", "\udcff", "🐈" * 300, "x" * 5000, "", " "])
    def test_any_name_can_be_drawn(self, name: str) -> None:
        for grid in (self.draw(name), self.draw(heading=name)):
            assert (grid == 7).all(axis=2).sum() == 96 * 96
            assert (grid[:, 0] == 255).all()
            assert (grid[:, -1] == 255).all()
            assert (grid[0] == 255).all()

    def test_letters_without_a_glyph_lose_their_accents(self) -> None:
        assert np.array_equal(self.draw("caf\u00e9"), self.draw("cafe"))
        assert not np.array_equal(self.draw("caf\u00e9"), self.draw("caf"))

    def test_long_headings_are_broken_not_cut(self) -> None:
        def ink(heading: str) -> int:
            return int((255 - self.draw(heading=heading).astype(int))[:-100].sum())  # what stands above the picture

        selector = "deephiding[mode=sample,projection=linf]"
        parts = ["deephiding[", "mode=sample,", "projection=", "linf]"]
        assert ink(selector) == sum(map(ink, parts))

    def test_a_row_may_end_early(self) -> None:
        picture = np.full((96, 96, 3), 7, np.uint8)
        grid = read(figures.picture_grid([[picture] * 3, [picture]], ["a", "b"], [("", 3)], "hint"))
        assert (grid == 7).all(axis=2).sum() == 4 * 96 * 96

    def test_svg_holds_the_same_pixels_and_texts_at_the_same_places(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
        rows = [[picture, picture[::-1]], [picture]]
        given = rows, ["a<b", "second"], [("clean", 1), ("jpeg & co", 1)], "hint"
        root = ElementTree.fromstring(figures.picture_grid(*given, ".svg"))
        drawn = read(figures.picture_grid(*given))

        assert (int(root.attrib["width"]), int(root.attrib["height"])) == drawn.shape[1::-1]
        assert [text.text for text in root.iter(f"{SVG}text")] == ["clean", "jpeg & co", "a<b", "second"]
        places = []
        for image in root.iter(f"{SVG}image"):
            left, top, width, height = (int(image.attrib[name]) for name in ("x", "y", "width", "height"))
            inside = read(b64decode(image.attrib["{http://www.w3.org/1999/xlink}href"].partition(",")[2]))
            scale = width // inside.shape[1]
            enlarged = np.kron(inside, np.ones((scale, scale, 1), np.uint8))
            assert np.array_equal(enlarged, drawn[top : top + height, left : left + width])
            places.append((left, top))
        assert len(set(places)) == 3

    def test_a_picture_too_large_to_open_is_refused(self) -> None:
        rows = [[np.zeros((1000, 1000, 3), np.uint8)] * 9] * 9
        with pytest.raises(UserError, match="too large to be of use") as refused:
            figures.picture_grid(rows, [""] * 9, [("", 9)], "give fewer")
        assert refused.value.hint == "give fewer"
