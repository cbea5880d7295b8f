from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sets import OneLine

from ue_bench.api import UserError, ValidationError
from ue_bench.contract.context import Context
from ue_bench_datasets.imagefolder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two classes, three training images and one test image each; values tell the images apart."""
    root = tmp_path / "my photos"
    for label, name in enumerate(["Äpfel und Birnen", "猫"]):
        for i in range(3):
            write_image(root / "train" / name / f"{i} ü.png", 100 * label + i)
        write_image(root / "test" / name / "0.png", 100 * label + 50)
    return root


def test_reads_train_and_test_in_order_of_class_and_name(folder: Path, ctx: Context) -> None:
    data = ImageFolder(path=folder)
    train, test = data.load("train", ctx), data.load("test", ctx)
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.class_names == test.class_names == ("Äpfel und Birnen", "猫")
    assert test.images[:, 0, 0, 0].tolist() == [50, 150]
    assert train.source == "my photos"


def test_val_serves_as_test(folder: Path, ctx: Context) -> None:
    (folder / "test").rename(folder / "val")
    assert len(ImageFolder(path=folder).load("test", ctx)) == 2


def test_limits_take_the_first_images_of_each_class(folder: Path, ctx: Context) -> None:
    data = ImageFolder(path=folder, limit_per_class=2)
    assert data.load("train", ctx).images[:, 0, 0, 0].tolist() == [0, 1, 100, 101]
    assert len(data.load("test", ctx)) == 2


def test_images_reach_the_disk_as_one_mapped_array(folder: Path, ctx: Context) -> None:
    images = ImageFolder(path=folder).load("train", ctx).images
    assert isinstance(images.base, np.memmap) or isinstance(images, np.memmap)


def test_held_out_share_is_stratified_disjoint_and_seeded(
    tmp_path: Path, write_image: Callable[..., Path], ctx: Context
) -> None:
    for label, name in enumerate("ab"):
        for i in range(10):
            write_image(tmp_path / "flat" / name / f"{i}.png", 100 * label + i)
    values = {}
    for seed in (0, 1):
        data = ImageFolder(path=tmp_path / "flat", test_fraction=0.3, split_seed=seed)
        train, test = (set(data.load(s, ctx).images[:, 0, 0, 0].tolist()) for s in ("train", "test"))
        assert train | test == {*range(10), *range(100, 110)}
        assert not train & test
        assert sum(v < 100 for v in test) == sum(v >= 100 for v in test) == 3
        values[seed] = test
    assert values[0] != values[1]


def test_flat_folder_without_fraction_has_no_test_images(
    tmp_path: Path, write_image: Callable[..., Path], ctx: Context, one_line: OneLine
) -> None:
    write_image(tmp_path / "flat" / "a" / "0.png")
    assert len(ImageFolder(path=tmp_path / "flat").load("train", ctx)) == 1
    with pytest.raises(UserError) as caught:
        ImageFolder(path=tmp_path / "flat").load("test", ctx)
    assert "test_fraction=" in one_line(caught)


def test_a_class_too_small_to_hold_out_is_named(
    tmp_path: Path, write_image: Callable[..., Path], ctx: Context, one_line: OneLine
) -> None:
    write_image(tmp_path / "flat" / "lonely" / "0.png")
    with pytest.raises(ValidationError) as caught:
        ImageFolder(path=tmp_path / "flat", test_fraction=0.5).load("train", ctx)
    assert "'lonely'" in one_line(caught)


def test_hidden_and_other_files_are_ignored(folder: Path, ctx: Context) -> None:
    place = folder / "train" / "猫"
    for name in (".hidden.png", "Thumbs.db", "notes.txt", "no_extension"):
        (place / name).write_bytes(b"nothing")
    (folder / "train" / ".git").mkdir()
    (place / ".cache").mkdir()
    (place / ".cache" / "x.png").write_bytes(b"nothing")
    assert len(ImageFolder(path=folder).load("train", ctx)) == 6


def test_mixed_extensions_and_deeper_folders_are_read(
    folder: Path, write_image: Callable[..., Path], ctx: Context
) -> None:
    for i, name in enumerate(["x.JPEG", "y.bmp", "z.webp", "deeper/w.PNG"]):
        write_image(folder / "train" / "猫" / name, 200 + i)
    assert len(ImageFolder(path=folder).load("train", ctx)) == 10


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not an image"])
def test_a_damaged_image_is_named(folder: Path, ctx: Context, one_line: OneLine, content: bytes) -> None:
    (folder / "train" / "猫" / "bad.png").write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    assert str(folder / "train" / "猫" / "bad.png") in one_line(caught)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(
    folder: Path, write_image: Callable[..., Path], ctx: Context, one_line: OneLine, suffix: str
) -> None:
    bad = folder / "train" / "猫" / f"bad.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size * 3 // 4])
    with pytest.raises(ValidationError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    assert str(bad) in one_line(caught)


def test_an_empty_class_is_named(folder: Path, ctx: Context, one_line: OneLine) -> None:
    for split in ("train", "test"):
        (folder / split / "empty").mkdir()
    with pytest.raises(ValidationError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    assert "'empty'" in one_line(caught)


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_class_in_one_split_only_is_named(
    folder: Path, write_image: Callable[..., Path], ctx: Context, one_line: OneLine, split: str, other: str
) -> None:
    write_image(folder / split / "extra" / "0.png")
    with pytest.raises(ValidationError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    assert f"'extra' of my photos is in {split} but not in {other}" in one_line(caught)


def test_mixed_sizes_name_two_files(
    folder: Path, write_image: Callable[..., Path], ctx: Context, one_line: OneLine
) -> None:
    write_image(folder / "train" / "猫" / "wide.png", 7, (8, 12, 3))
    with pytest.raises(UserError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    message = one_line(caught)
    assert "0 ü.png is 8x8" in message
    assert "wide.png is 12x8" in message
    assert "size=" in message


def test_size_resizes_the_shorter_side_and_crops_the_centre(tmp_path: Path, ctx: Context) -> None:
    picture = np.zeros((16, 48, 3), dtype=np.uint8)
    picture[:, 16:32] = 200  # the centre square
    place = tmp_path / "flat" / "a"
    place.mkdir(parents=True)
    Image.fromarray(picture).save(place / "0.png")
    image = ImageFolder(path=tmp_path / "flat", size=8).load("train", ctx).images[0]
    assert image.shape == (8, 8, 3)
    assert (image[:, 2:6] > 195).all()


def test_images_of_the_asked_size_are_untouched(tmp_path: Path, ctx: Context) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    place = tmp_path / "flat" / "a"
    place.mkdir(parents=True)
    Image.fromarray(noise).save(place / "0.png")
    np.testing.assert_array_equal(ImageFolder(path=tmp_path / "flat", size=8).load("train", ctx).images[0], noise)


def test_downscaling_is_antialiased(tmp_path: Path, ctx: Context) -> None:
    stripes = np.zeros((32, 32, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    place = tmp_path / "flat" / "a"
    place.mkdir(parents=True)
    Image.fromarray(stripes).save(place / "0.png")
    image = ImageFolder(path=tmp_path / "flat", size=8).load("train", ctx).images[0]
    assert abs(image.astype(int) - 128).max() < 30


def _modes() -> dict[str, tuple[Image.Image, dict[str, Any], tuple[int, int, int]]]:
    """Pictures in unusual modes, how they are saved, and the colour they must come out with."""
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    clear = palette.copy()
    return {
        "gray.png": (Image.new("L", (8, 8), 77), {}, (77, 77, 77)),
        "gray alpha.png": (Image.new("LA", (8, 8), (0, 51)), {}, (204, 204, 204)),
        "rgba.png": (Image.new("RGBA", (8, 8), (255, 0, 0, 51)), {}, (255, 204, 204)),
        "palette.png": (palette, {}, (10, 200, 30)),
        "clear palette.png": (clear, {"transparency": 1}, (255, 255, 255)),
        "animation.gif": (palette, {"save_all": True, "append_images": [clear]}, (10, 200, 30)),
        "16 bit.png": (Image.fromarray(np.full((8, 8), 257 * 90, dtype=np.uint16)), {}, (90, 90, 90)),
        "16 bit.tif": (Image.fromarray(np.full((8, 8), 257 * 90, dtype=np.uint16)), {}, (90, 90, 90)),
        "cmyk.jpg": (Image.new("CMYK", (8, 8), (0, 255, 0, 0)), {"quality": 100}, (255, 0, 255)),
        "one bit.png": (Image.new("1", (8, 8), 1), {}, (255, 255, 255)),
    }


@pytest.mark.parametrize("name", _modes())
def test_every_mode_becomes_rgb(tmp_path: Path, ctx: Context, name: str) -> None:
    image, options, expected = _modes()[name]
    place = tmp_path / "flat" / "a"
    place.mkdir(parents=True)
    image.save(place / name, **options)
    found = ImageFolder(path=tmp_path / "flat").load("train", ctx).images[0]
    assert abs(found.astype(int) - expected).max() <= 2


def test_exif_orientation_is_applied(tmp_path: Path, ctx: Context) -> None:
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    picture[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    place = tmp_path / "flat" / "a"
    place.mkdir(parents=True)
    Image.fromarray(picture).save(place / "0.jpg", exif=exif, quality=95)
    found = ImageFolder(path=tmp_path / "flat").load("train", ctx).images[0]
    assert found.shape == (16, 8, 3)
    assert found[:8].min() > 200
    assert found[8:].max() < 50


@pytest.mark.parametrize(
    ("make", "message"), [(lambda p: None, "no folder at"), (lambda p: p.mkdir(), "no class folders")]
)
def test_a_folder_without_classes_is_refused(
    tmp_path: Path, ctx: Context, one_line: OneLine, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(UserError) as caught:
        ImageFolder(path=tmp_path / "nothing").load("train", ctx)
    assert message in one_line(caught)


def test_test_folder_without_train_folder_is_refused(folder: Path, ctx: Context, one_line: OneLine) -> None:
    (folder / "train").rename(folder / "training")
    with pytest.raises(UserError) as caught:
        ImageFolder(path=folder).load("train", ctx)
    assert "no train/" in one_line(caught)


def test_an_unknown_split_is_refused(folder: Path, ctx: Context, one_line: OneLine) -> None:
    with pytest.raises(UserError) as caught:
        ImageFolder(path=folder).load("dev", ctx)
    assert "'dev'" in one_line(caught)


def test_shards_of_a_web_dataset_are_named(tmp_path: Path, ctx: Context) -> None:
    (tmp_path / "train-000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="WebDataset shards: unpack them first"):
        ImageFolder(path=tmp_path, test_fraction=0.5).load("train", ctx)
