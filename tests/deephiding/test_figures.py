"""``ue-bench deephiding sheet`` and ``curves``."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from ue_bench.api import EnvironmentProblem, UserError, ValidationError
from ue_bench.catalogue.registry import registry
from ue_bench.cli.main import cli
from ue_bench.contract.context import silent
from ue_bench.contract.plugin import Dataset, Protector
from ue_bench.grid.data import stored_dataset
from ue_bench.grid.environment import RunEnvironment
from ue_bench.grid.stages.base import Work
from ue_bench.grid.stages.protect import ProtectStage
from ue_bench.leaderboard import figures
from ue_bench_deephiding import curves
from ue_bench_deephiding.protector import SHIPPED, DeepHiding

from .helpers import smooth_set

SIZE = (7, 9)  # odd and not square: hidden images are 8 x 10
RECORD = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
RECORD.pop("start", None)  # what it began from has tests of its own


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


class TestSheet:
    @pytest.fixture(autouse=True)
    def archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """``set.npz``: 45 images of three classes, one of which has a name beyond ASCII."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
        data = smooth_set(45, SIZE)
        np.savez("set.npz", x_train=data.images, y_train=data.labels, x_test=data.images[:3], y_test=data.labels[:3],
                 class_names=np.array(["cat", "猫", "ship"]))  # fmt: skip

    def draw(self, selector: str, *arguments: str) -> Result:
        words = ["deephiding", "sheet", selector, "--dataset", "npz[path=set.npz]", "--out", "sheet.png", *arguments]
        return CliRunner().invoke(cli, words)

    def hidden(self, selector: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
        """What a run with this seed hides, taken from the protector at work."""
        banks = []
        bank = DeepHiding.bank

        def kept(self: DeepHiding, *arguments: Any) -> NDArray[np.uint8]:
            banks.append(bank(self, *arguments))
            return banks[-1]

        [dataset], [protector] = (
            registry().resolve("dataset", "npz[path=set.npz]"),
            registry().resolve("protector", selector),
        )
        assert isinstance(dataset, Dataset)
        assert isinstance(protector, Protector)
        env = RunEnvironment(Path("cache").absolute(), Path("cache").absolute(), Path("out").absolute())
        data = stored_dataset(dataset, env, silent)
        with monkeypatch.context() as patched:
            patched.setattr(DeepHiding, "bank", kept)
            ProtectStage(data, protector, seed, "fp32").run(Work(env))
        [found] = banks
        return found

    @pytest.mark.parametrize(
        ("selector", "columns", "seed"),
        [
            ("deephiding", 1, 0),
            ("deephiding[mode=sample,bank_size=3]", 3, 0),
            ("deephiding[mode=sample,bank_size=12]", 10, 4),
            ("deephiding[mode=sample,bank_size=12,hidden=next_class]", 10, 0),
            ("deephiding[mode=sample,bank_size=12,hidden=next_class]", 10, 4),
        ],
    )
    def test_shows_what_a_run_hides(
        self, selector: str, columns: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn = self.draw(selector, *(["--seed", str(seed)] if seed else []))
        assert drawn.exit_code == 0, drawn.output
        assert drawn.stdout == "sheet.png\n"
        assert f"{columns} hidden images a class, 10 x 8 pixels" in drawn.stderr
        bank = self.hidden(selector, seed, monkeypatch)
        assert bank.shape[:2] == (3, 12 if columns == 10 else columns)
        assert bank.shape[2:4] == (8, 10)
        sheet = pixels(tmp_path / "sheet.png")
        height, width = 80, 100  # ten times as large
        names = sheet.shape[1] - columns * (width + figures.GAP)  # pixels to the left of the first column
        for label, index in np.ndindex(3, columns):
            top = figures.GAP + label * (height + figures.GAP)
            left = names + index * (width + figures.GAP)
            shown = sheet[top : top + height, left : left + width]
            assert np.array_equal(shown, np.kron(bank[label, index], np.ones((10, 10, 1), np.uint8)))
        assert len(sheet) == figures.GAP + 3 * (height + figures.GAP)
        for label in range(3):  # a name to the left of every line
            top = figures.GAP + label * (height + figures.GAP)
            assert (sheet[top : top + height, :names] < 100).any()

    def test_size_is_the_longer_side(self, tmp_path: Path) -> None:
        drawn = self.draw("deephiding", "--size", "198")
        assert "198 x 154 pixels" in drawn.stderr
        large = pixels(tmp_path / "sheet.png")
        assert len(large) == figures.GAP + 3 * (154 + figures.GAP)
        # Drawn at that size, not enlarged: neighbours differ where small pictures have squares of one colour.
        picture = large[figures.GAP : figures.GAP + 154, -198 - figures.GAP : -figures.GAP]
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 8 * 10

    @pytest.mark.parametrize(
        ("selector", "arguments", "code", "message"),
        [
            ("lsp", [], 2, "lsp hides no images"),
            ("deephiding[mode=[class,sample]]", [], 2, "is 2 protectors"),
            ("deephidin", [], 2, "no protector 'deephidin'"),
            ("deephiding", ["--dataset", "demo,cifar10"], 2, "is 2 datasets"),
            ("deephiding", ["--out", "sheet.pdf"], 2, "does not end in .png"),
            ("deephiding", ["--out", "set.npz/sheet.png"], 3, "Not a directory"),
            ("deephiding[hidden=natural,hidden_images=.]", [], 2, ". holds 0 images, but 3 classes x 1 are to be"),
        ],
    )
    def test_refusals(self, selector: str, arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
        error = self.draw(selector, *arguments).exception
        assert isinstance(error, UserError)
        assert error.exit_code == code
        assert message in error.message
        assert "\n" not in str(error)
        assert error.hint
        assert not (tmp_path / "sheet.png").exists()

    def test_a_sheet_is_never_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "sheet.png").write_bytes(b"mine")
        with pytest.raises(UserError, match="exists already"):
            raise self.draw("deephiding").exception or AssertionError
        assert (tmp_path / "sheet.png").read_bytes() == b"mine"


def record(path: Path, change: Callable[[dict[str, Any]], object] = lambda point: None) -> Path:
    """The record of the shipped network, every point of its curve changed."""
    changed = copy.deepcopy(RECORD)
    for point in changed["curve"]:
        change(point)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(changed), encoding="utf-8")
    return path


def plot(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["deephiding", "curves", *map(str, arguments)])


def has(picture: NDArray[np.uint8], colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((picture == wanted).all(axis=2).any())


class TestCurves:
    def test_lines_are_the_columns_of_the_record(self, tmp_path: Path) -> None:
        found = curves.read_curve(record(tmp_path / "a.json"))
        losses, psnr = curves.draw({"a.json": found}).axes
        assert (losses.get_yscale(), psnr.get_yscale()) == ("log", "linear")
        assert [line.get_label() for line in losses.lines] == ["total", "hide", "reveal", "freq", "conc"]
        assert [line.get_label() for line in psnr.lines] == ["stego", "revealed"]
        names = ["total", "hide", "reveal", "freq", "conc", "psnr", "psnr_reveal"]
        for name, line in zip(names, [*losses.lines, *psnr.lines], strict=True):
            assert np.asarray(line.get_xdata()).tolist() == [point["step"] for point in RECORD["curve"]]
            assert np.asarray(line.get_ydata()).tolist() == [point[name] for point in RECORD["curve"]]

    def test_a_training_that_began_from_another_ones_weights(self, tmp_path: Path) -> None:
        """Weights of step 200 of 300 were kept and trained on: the lines go on from there."""
        point = {"total": 1.0, "psnr": 20.0, "psnr_reveal": 10.0}
        first = {"curve": [{**point, "step": k} for k in (100, 200, 300)], "achieved": {"step": 200}}
        second = {
            "curve": [{**point, "step": k} for k in (50, 100)],
            "achieved": {"step": 100},
            "start": {"record": first},
        }
        third = {"curve": [{**point, "step": 10}], "achieved": {"step": 10}, "start": {"record": second}}
        (tmp_path / "a.json").write_text(json.dumps(third), encoding="utf-8")
        assert curves.read_curve(tmp_path / "a.json")["step"].tolist() == [100, 200, 250, 300, 310]
        (tmp_path / "b.json").write_text(json.dumps(third | {"start": {"record": None}}), encoding="utf-8")
        assert curves.read_curve(tmp_path / "b.json")["step"].tolist() == [10]

    def test_a_picture_has_every_colour_of_its_lines_and_no_other(self, tmp_path: Path) -> None:
        whole, without = record(tmp_path / "a.json"), record(tmp_path / "b.json", lambda p: p.update(conc=0.0))
        done = plot(whole, "--out", tmp_path / "a.png")
        assert done.exit_code == 0, done.output
        assert done.stdout == f"{tmp_path / 'a.png'}\n"
        plot(without, "--out", tmp_path / "b.png")
        first, second = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
        assert first.shape == (900, 2160, 3)
        assert [has(first, colour) for colour in curves.LOSSES.values()] == [True] * 5
        assert [has(second, colour) for colour in curves.LOSSES.values()] == [True] * 4 + [False]

    def test_records_are_overlaid_and_named(self, tmp_path: Path) -> None:
        paths = [record(tmp_path / name, lambda p: p.update(psnr=20)) for name in ("a/x.json", "b/x.json", "_$y$.json")]
        named = curves.labels(paths)
        assert list(named) == [str(paths[0]), str(paths[1]), "_$y$.json"]
        figure = curves.draw({name: curves.read_curve(path) for name, path in named.items()})
        assert len(figure.axes[0].lines) == 15
        styles = [line.get_linestyle() for line in figure.axes[1].lines]
        assert styles[0] == styles[1] != styles[2]
        [legend] = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == list(named)
        assert not any(text.get_parse_math() for text in legend.get_texts())

    @pytest.mark.parametrize("kept", [["hide", "reveal"], []])
    def test_losses_that_a_network_is_trained_without_are_left_out(self, kept: list[str], tmp_path: Path) -> None:
        def less(point: dict[str, Any]) -> None:
            for name in {"hide", "reveal", "freq", "conc"} - set(kept):
                del point[name]

        figure = curves.draw({"a": curves.read_curve(record(tmp_path / "a.json", less))})
        assert [line.get_label() for line in figure.axes[0].lines] == ["total", *kept]

    def test_one_validation_is_a_dot(self, tmp_path: Path) -> None:
        curve = {name: values[:1] for name, values in curves.read_curve(record(tmp_path / "a.json")).items()}
        assert {line.get_marker() for line in curves.draw({"a": curve}).axes[0].lines} == {"."}

    @pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")])
    def test_the_suffix_says_the_format(
        self, suffix: str, start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import matplotlib

        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # it would raise ImportError
        path, settings = record(tmp_path / "a.json"), matplotlib.rcParams.copy()
        twice = []
        for name in ("one", "two"):
            assert plot(path, "--out", tmp_path / (name + suffix)).exit_code == 0
            twice.append((tmp_path / (name + suffix)).read_bytes())
        assert twice[0].startswith(start)
        assert twice[0] == twice[1]
        assert matplotlib.rcParams.copy() == settings

    @pytest.mark.parametrize("name", ["飛行機.json", "\udcff.json", "$x^.json", "n" * 240 + ".json"])
    def test_files_of_any_name(self, name: str, tmp_path: Path) -> None:
        with warnings.catch_warnings(record=True) as caught:
            done = plot(record(tmp_path / name), record(tmp_path / "b.json"), "--out", tmp_path / "a.png")
        assert done.exit_code == 0, done.exception
        assert caught == []
        assert (pixels(tmp_path / "a.png")[:, [0, -1]] == 255).all()  # nothing is cut off

    @pytest.mark.parametrize("value", [float("nan"), -1.0])
    def test_a_curve_of_which_nothing_can_be_shown(self, value: float, tmp_path: Path) -> None:
        def spoil(point: dict[str, Any]) -> None:
            point.update({name: value for name in point if name != "step"})

        path = record(tmp_path / "a.json", spoil)
        assert plot(path, "--out", tmp_path / "a.png").exit_code == 0
        assert curves.draw({"a": curves.read_curve(path)}).axes[0].lines[:] == []

    @pytest.mark.parametrize(
        "content",
        [
            b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000,
            b'{"curve": []}', b'{"curve": 1}', b'{"curve": "ab"}', b'{"curve": {"0": 1}}', b'{"curve": [1, 2]}',
            b'{"curve": [{"step": 1}]}',
            b'{"curve": [{"step": 1, "total": "much", "psnr": 1, "psnr_reveal": 1}]}',
            b'{"curve": [{"step": [1], "total": [1], "psnr": [1], "psnr_reveal": [1]}]}',
        ],
    )  # fmt: skip
    def test_what_is_not_a_record(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(content)
        error = plot(tmp_path / "a.json", "--out", tmp_path / "a.png").exception
        assert isinstance(error, ValidationError)
        assert error.message == f"{tmp_path / 'a.json'} is not a training record with a curve"
        assert error.hint
        assert not (tmp_path / "a.png").exists()

    def test_refusals(self, tmp_path: Path) -> None:
        path = record(tmp_path / "a.json")
        (tmp_path / "old.png").write_bytes(b"mine")
        many = [record(tmp_path / f"{n}.json") for n in range(7)]
        for arguments, code, message in [
            ([tmp_path / "none.json", "--out", tmp_path / "a.png"], 2, "No such file or directory"),
            ([tmp_path, "--out", tmp_path / "a.png"], 2, "Is a directory"),
            ([path, "--out", tmp_path / "a.jpg"], 2, "does not end in .png or .pdf or .svg"),
            ([path, "--out", tmp_path / "old.png"], 2, "exists already"),
            ([path, "--out", tmp_path / "none" / "a.png"], 3, "cannot write"),
            ([*many, "--out", tmp_path / "a.png"], 2, "7 records, but 6 kinds of line"),
        ]:
            error = plot(*arguments).exception
            assert isinstance(error, UserError)
            assert error.exit_code == code
            assert message in error.message
            assert error.hint
        assert (tmp_path / "old.png").read_bytes() == b"mine"
        assert plot("--out", tmp_path / "a.png").exit_code == 2

    def test_without_matplotlib(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        error = plot(record(tmp_path / "a.json"), "--out", tmp_path / "a.png").exception
        assert isinstance(error, EnvironmentProblem)
        assert error.hint == "pip install 'ue-bench[figures]'"
        assert not (tmp_path / "a.png").exists()
