"""The hiding network run backward: logos, ``ue-bench reveal`` and ``ue-bench deephiding logos``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from ue_bench.api import Context, ImageSet, UserError, digest_path
from ue_bench.cli.main import cli
from ue_bench_deephiding import banks, reveal
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.networks import load_network
from ue_bench_deephiding.protector import SHIPPED, DeepHiding
from ue_bench_deephiding.writing import write_network

from .helpers import randomised, smooth_set


@pytest.fixture(scope="module")
def network() -> HidingNetwork:
    found = load_network(SHIPPED)
    assert isinstance(found, HidingNetwork)
    return found


@pytest.fixture(scope="module")
def logos() -> NDArray[np.uint8]:
    return banks.procedural(4, 1, (32, 32), 11)[:, 0]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_similarity_ignores_brightness_and_contrast_only(logos: NDArray[np.uint8]) -> None:
    darker = (logos * 0.5 + 20).astype(np.uint8)
    scores = reveal.similarity(darker, logos)
    assert np.diag(scores).min() > 0.99
    assert np.array_equal(scores.argmax(axis=1), np.arange(4))
    assert reveal.similarity(255 - logos, logos).diagonal().max() < -0.99
    assert not reveal.similarity(np.full_like(logos, 7), logos).any()


def test_logos_come_out_of_marked_images(network: HidingNetwork, logos: NDArray[np.uint8]) -> None:
    found = {e.channel: e for e in reveal.extraction(network, smooth_set(20).images, logos)}
    assert list(found) == ["float", "8 bits", "jpeg 90", "jpeg 50", "blur", "crop"]
    assert found["8 bits"].images == 20
    assert found["8 bits"].identified == 1
    assert found["8 bits"].psnr > 20
    assert found["8 bits"].ssim > 0.7
    # Hidden in fine detail, they do not survive what removes it.
    assert found["jpeg 50"].psnr < found["jpeg 90"].psnr < found["8 bits"].psnr < found["float"].psnr + 0.5


def test_a_network_that_hides_nothing_reveals_nothing(logos: NDArray[np.uint8]) -> None:
    # At its start the network is the identity: what comes out depends on nothing.
    found = reveal.extraction(HidingNetwork(2, 4), smooth_set(20).images, logos)
    assert all(e.identified == 0.25 for e in found)


def test_channels_do_what_they_say() -> None:
    image = np.random.default_rng(0).integers(1, 256, (16, 32, 3), dtype=np.uint8)
    cropped = reveal.CHANNELS["crop"](image)
    assert np.array_equal(cropped[2:-2, 4:-4], image[2:-2, 4:-4])
    cropped[2:-2, 4:-4] = 0
    assert not cropped.any()
    assert np.array_equal(reveal.CHANNELS["8 bits"](image), image)
    change = {name: np.abs(reveal.CHANNELS[name](image).astype(int) - image).mean() for name in ("jpeg 90", "jpeg 50")}
    assert 0 < change["jpeg 90"] < change["jpeg 50"]
    assert reveal.CHANNELS["blur"](image).std() < image.std() / 2


@pytest.mark.parametrize("size", [(17, 12), (12, 17), (2, 2)])
def test_any_size_is_revealed_and_the_batch_does_not_matter(size: tuple[int, int]) -> None:
    network = randomised(HidingNetwork(2, 4)).eval()
    images = np.random.default_rng(0).integers(0, 256, (70, *size, 3), dtype=np.uint8)
    together = reveal.revealed(network, images)
    assert together.shape == images.shape
    assert np.abs(together[-1].astype(int) - reveal.revealed(network, images[-1:])[0]).max() <= 1


class TestRevealCommand:
    @pytest.fixture
    def marked(self, tmp_path: Path, ctx: Context, logos: NDArray[np.uint8]) -> Path:
        """Six images in which logo number 2 is hidden, in two folders with a space and an umlaut."""
        folder = tmp_path / "marked images"
        (folder / "größe").mkdir(parents=True)
        Image.fromarray(logos[2]).save(tmp_path / "logo.png")
        data = smooth_set(6)
        protected = DeepHiding(hidden="logo", hidden_images=tmp_path / "logo.png").protect(data, ctx)
        for number, image in enumerate(protected.images):
            Image.fromarray(image).save(folder / ("größe" if number % 2 else "") / f"{number}.png")
        return folder

    @pytest.fixture
    def shelf(self, tmp_path: Path, logos: NDArray[np.uint8]) -> Path:
        (tmp_path / "logos").mkdir()
        for number, logo in enumerate(logos):
            # At another size than the images, as logos are.
            Image.fromarray(logo).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "logos" / f"l{number}.png")
        return tmp_path / "logos"

    def test_names_the_hidden_logo(self, marked: Path, shelf: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        result = run("reveal", marked, out, "--logos", shelf)
        assert result.exit_code == 0, result.output
        assert "l2.png: 6 images" in result.stdout
        with (out / "matches.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = ["0.png", "2.png", "4.png", "größe/1.png", "größe/3.png", "größe/5.png"]
        assert [row["image"] for row in rows] == names
        assert {row["logo"] for row in rows} == {"l2.png"}
        assert min(float(row["correlation"]) for row in rows) > 0.7
        with Image.open(out / "größe" / "1.png.png") as image:
            assert image.size == (32, 32)

    def test_continues_and_keeps_what_is_there(self, marked: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run("reveal", marked, out).exit_code == 0
        first = (out / "0.png.png").read_bytes()
        (out / "2.png.png").unlink()
        (out / "größe" / "1.png.png").write_bytes(b"damaged")
        Image.new("RGB", (32, 32), "red").save(out / "4.png.png")
        kept = (out / "4.png.png").read_bytes()
        assert run("reveal", marked, out).exit_code == 0
        assert (out / "0.png.png").read_bytes() == first
        assert (out / "2.png.png").is_file()
        assert (out / "4.png.png").read_bytes() == kept
        with Image.open(out / "größe" / "1.png.png") as again:
            assert again.size == (32, 32)

    def test_other_images_of_the_same_names_are_not_taken_for_these(self, marked: Path, tmp_path: Path) -> None:
        assert run("reveal", marked, tmp_path / "out").exit_code == 0
        Image.new("RGB", (32, 32)).save(marked / "0.png")
        digest_path.cache_clear()  # another process
        error = run("reveal", marked, tmp_path / "out").exception
        assert isinstance(error, UserError)
        assert "holds something else" in str(error)

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1"])
    def test_a_damaged_record_is_something_else(self, content: bytes, marked: Path, tmp_path: Path) -> None:
        run("reveal", marked, tmp_path / "out")
        (tmp_path / "out" / "reveal.json").write_bytes(content)
        error = run("reveal", marked, tmp_path / "out").exception
        assert isinstance(error, UserError)
        assert "holds something else" in str(error)

    def test_logos_are_told_apart_by_folder_and_must_differ(
        self, marked: Path, shelf: Path, tmp_path: Path, logos: NDArray[np.uint8]
    ) -> None:
        nested = tmp_path / "nested"
        for name, number in (("acme", 0), ("other", 2)):
            (nested / name).mkdir(parents=True)
            Image.fromarray(logos[number]).save(nested / name / "logo.png")
        assert "other/logo.png: 6 images" in run("reveal", marked, tmp_path / "o", "--logos", nested).stdout
        for image, message in ((Image.fromarray(logos[0]), "are the same"), (Image.new("RGB", (9, 9)), "even surface")):
            image.save(nested / "more.png")
            error = run("reveal", marked, tmp_path / "p", "--logos", nested).exception
            assert isinstance(error, UserError)
            assert message in str(error)

    def test_unreadable_images_are_named_and_the_rest_is_done(self, marked: Path, tmp_path: Path) -> None:
        (marked / "broken.png").write_bytes(b"nothing")
        Image.new("RGB", (1, 5)).save(marked / "thin.png")
        result = run("reveal", marked, tmp_path / "out")
        assert result.exit_code == 1
        assert "2 of 8 images cannot be read: broken.png, thin.png" in result.stderr
        assert len(list((tmp_path / "out").rglob("*.png"))) == 6

    def test_transparency_does_not_hide_what_is_hidden(self, marked: Path, tmp_path: Path) -> None:
        glass = tmp_path / "glass"
        glass.mkdir()
        with Image.open(marked / "0.png") as image:
            image.putalpha(60)
            image.save(glass / "0.png")
        for folder, out in ((marked, tmp_path / "out"), (glass, tmp_path / "through glass")):
            assert run("reveal", folder, out).exit_code == 0
        assert (tmp_path / "through glass" / "0.png.png").read_bytes() == (tmp_path / "out" / "0.png.png").read_bytes()

    def test_single_image(self, marked: Path, tmp_path: Path) -> None:
        assert run("reveal", marked / "0.png", tmp_path / "out").exit_code == 0
        assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["0.png.png"]

    def test_weights_are_used(self, marked: Path, tmp_path: Path) -> None:
        write_network(
            tmp_path / "other.safetensors", randomised(HidingNetwork(2, 4)).state_dict(), {"blocks": 2, "growth": 4}
        )
        run("reveal", marked, tmp_path / "a")
        run("reveal", marked, tmp_path / "b", "--weights", tmp_path / "other.safetensors")
        assert (tmp_path / "a" / "0.png.png").read_bytes() != (tmp_path / "b" / "0.png.png").read_bytes()
        refused = run("reveal", marked, tmp_path / "a", "--weights", tmp_path / "other.safetensors")
        assert isinstance(refused.exception, UserError)
        assert "holds something else" in str(refused.exception)

    def test_refusals(self, marked: Path, shelf: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        cases = [
            (("reveal", tmp_path / "empty", tmp_path / "o"), "holds no image"),
            (("reveal", marked, tmp_path / "o", "--logos", tmp_path / "empty"), "holds 0 images"),
            (("reveal", marked, tmp_path / "o", "--weights", tmp_path / "no.safetensors"), "no file"),
            (("reveal", marked, tmp_path / "o", "--weights", tmp_path / "logo.png"), "is not a hiding network"),
            (("reveal", marked, marked / "größe" / "o"), "lies in"),
            (("reveal", tmp_path / "nowhere", tmp_path / "o"), "no file or folder"),
            (("reveal", marked, shelf), "holds something else"),
            (("reveal", marked, tmp_path / "logo.png"), "is a file"),
        ]
        for arguments, message in cases:
            error = run(*arguments).exception
            assert isinstance(error, UserError), arguments
            assert message in str(error)
        assert not (tmp_path / "o").exists()


class TestLogosCommand:
    @pytest.fixture
    def arguments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        data = smooth_set(12)
        np.savez(tmp_path / "x.npz", x_train=data.images, y_train=data.labels, x_test=data.images, y_test=data.labels)
        monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
        return ["deephiding", "logos", "-D", f"npz[path={tmp_path / 'x.npz'}]", "--device", "cpu"]

    def test_table_and_json(self, arguments: list[object]) -> None:
        result = run(*arguments, "--images", 8, "--count", 3)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("3 logos in 8 images of npz")
        assert result.stdout.count("\n") == 9
        record = json.loads(run(*arguments, "--images", 8, "--count", 3, "--json").stdout)
        assert [r["channel"] for r in record["results"]][:2] == ["float", "8 bits"]
        assert record["results"][1]["identified"] == 1

    def test_own_logos(self, arguments: list[object], tmp_path: Path, logos: NDArray[np.uint8]) -> None:
        (tmp_path / "own").mkdir()
        for number, logo in enumerate(logos):
            Image.fromarray(logo).save(tmp_path / "own" / f"{number}.png")
        record = json.loads(run(*arguments, "--images", 4, "--logos", tmp_path / "own", "--json").stdout)
        assert record["logos"] == 4
        assert record["results"][1]["identified"] == 1

    def test_refusals(self, arguments: list[object], tmp_path: Path) -> None:
        error = run(*arguments, "--images", 13).exception
        assert isinstance(error, UserError)
        assert "holds 12 training images" in str(error)
        odd = ImageSet(smooth_set(4, (9, 8)).images, np.arange(4) % 2, ("a", "b"))
        np.savez(tmp_path / "odd.npz", x_train=odd.images, y_train=odd.labels, x_test=odd.images, y_test=odd.labels)
        error = run("deephiding", "logos", "-D", f"npz[path={tmp_path / 'odd.npz'}]", "--images", 2).exception
        assert isinstance(error, UserError)
        assert "must be even" in str(error)
        error = run(*arguments, "--images", 4, "--logos", tmp_path, "--count", 3).exception
        assert isinstance(error, UserError)
        assert "procedural logos" in str(error)
