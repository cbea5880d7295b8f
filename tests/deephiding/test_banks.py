"""Hidden images: drawn, dealt out, read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from ue_bench.api import Context, ImageSet, UserError
from ue_bench_deephiding import banks
from ue_bench_deephiding.protector import DeepHiding, assignment

from .helpers import smooth_set


def nearest_centroid_accuracy(features: NDArray[np.floating]) -> float:
    """``features`` is classes x images x values: centroids of one half, accuracy on the other."""
    half = features.shape[1] // 2
    centroids, rest = features[:, :half].mean(axis=1), features[:, half:]
    distances = np.square(rest[:, :, None] - centroids).sum(axis=-1)
    return float((distances.argmin(axis=-1) == np.arange(len(features))[:, None]).mean())


def gradient_maps(bank: banks.Bank) -> NDArray[np.floating]:
    gray = bank @ np.array([0.299, 0.587, 0.114])
    magnitude = np.hypot(*np.gradient(gray, axis=(2, 3)))
    flat = magnitude.reshape(*bank.shape[:2], -1)
    scaled: NDArray[np.floating] = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
    return scaled


def encoded(colour: int, size: tuple[int, int] = (20, 20), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, colour, colour)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def drawn() -> banks.Bank:
    return banks.procedural(10, 20, (64, 64), 0)


def test_edges_of_a_class_have_a_common_sign(drawn: banks.Bank) -> None:
    """Else the perturbations that carry them cancel, and sample-wise protection has no effect on a small net."""
    gray = drawn.astype(float) @ [0.299, 0.587, 0.114]
    edges = np.concatenate([np.diff(gray, axis=a).reshape(10, 20, -1) for a in (2, 3)], axis=2)
    assert np.square(edges.mean(axis=1)).mean() > 0.5 * np.square(edges).mean()


def test_shape_tells_the_class(drawn: banks.Bank) -> None:
    assert nearest_centroid_accuracy(gradient_maps(drawn)) >= 0.9


def test_colour_does_not_tell_the_class(drawn: banks.Bank) -> None:
    assert nearest_centroid_accuracy(drawn.mean(axis=(2, 3))) <= 3 / 10


def test_images_of_a_class_differ(drawn: banks.Bank) -> None:
    assert len({image.tobytes() for image in drawn.reshape(-1, 64, 64, 3)}) == 200


def test_large_banks_are_drawn_when_they_are_used(monkeypatch: pytest.MonkeyPatch, ctx: Context) -> None:
    whole, lazy = banks.procedural(3, 4, (12, 10), 7), banks.Drawn(3, 4, (12, 10), 7)
    labels, numbers = np.array([2, 0, 2]), np.array([1, 3, 1])
    assert lazy.shape == whole.shape
    assert lazy.nbytes == whole.nbytes
    np.testing.assert_array_equal(lazy[labels, numbers], whole[labels, numbers])

    data = smooth_set(12, (16, 16))
    protector = DeepHiding(mode="sample", bank_size=4)
    kept = protector.protect(data, ctx).images
    monkeypatch.setattr("ue_bench_deephiding.protector.LARGEST_BANK", 1000)
    monkeypatch.setattr(banks, "empty", lambda *arguments: pytest.fail("all of it was drawn"))
    np.testing.assert_array_equal(protector.protect(data, ctx).images, kept)


def test_drawing_depends_on_the_seed_only(drawn: banks.Bank) -> None:
    # A smaller bank is the beginning of a larger one.
    assert np.array_equal(banks.procedural(2, 3, (64, 64), 0), drawn[:2, :3])
    assert not np.array_equal(banks.procedural(2, 3, (64, 64), 1), drawn[:2, :3])


def test_small_images_are_reduced_with_antialiasing(drawn: banks.Bank) -> None:
    small = banks.procedural(1, 1, (32, 32), 0)[0, 0]
    box = drawn[0, 0].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert abs(small - box).mean() < 4


def test_resizing_takes_the_centre_and_keeps_proportions() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert (banks.resized(image, (20, 20)) == 200).all()
    assert banks.resized(image, (20, 50)).shape == (20, 50, 3)
    assert (banks.resized(image, (20, 50))[:, :10] == 0).all()


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    assert np.array_equal(banks.resized(image, (6, 10)), image)


def test_random_natural_is_the_same_photographs_for_every_class(tmp_path: Path) -> None:
    source = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(source):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    bank = banks.random_natural(tmp_path, 3, 4, (8, 8), np.random.default_rng(0))
    assert bank.shape == (3, 4, 8, 8, 3)
    assert (bank == bank[:1]).all()
    drawn = {image.tobytes() for image in bank[0]}
    assert len(drawn) == 4
    assert drawn <= {image.tobytes() for image in source}
    with pytest.raises(UserError, match="holds 6 images"):
        banks.random_natural(tmp_path, 3, 7, (8, 8), np.random.default_rng(0))


def test_a_logo_is_one_image_for_all(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "logo.png")
    bank = banks.logo(tmp_path / "logo.png", 3, (8, 8))
    assert bank.shape == (3, 1, 8, 8, 3)
    assert (bank == image).all()
    with pytest.raises(UserError, match="needs one image file"):
        banks.logo(tmp_path, 3, (8, 8))


def test_what_is_transparent_is_white_and_deep_images_are_refused(tmp_path: Path) -> None:
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[:, :3, 3] = 255  # black on the left, nothing on the right
    Image.fromarray(layer).save(tmp_path / "clear.png")
    Image.fromarray(layer).quantize(4).save(tmp_path / "palette.png")
    for name in ("clear.png", "palette.png"):
        pixels = banks.decode(banks.Picture(name, tmp_path / name))
        assert not pixels[:, :3].any()
        assert (pixels[:, 3:] == 255).all()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        banks.decode(banks.Picture("deep.png", tmp_path / "deep.png"))


def test_next_class_hides_clean_images_of_the_class_after() -> None:
    data = smooth_set(12, (8, 10), classes=3)
    bank = banks.next_class(data, 4, (8, 10), np.random.default_rng(0))
    for label in range(3):
        own = data.images[data.labels == (label + 1) % 3]
        assert {image.tobytes() for image in bank[label]} == {image.tobytes() for image in own}


def test_next_class_of_an_empty_class_is_an_error() -> None:
    data = smooth_set(4, classes=2)
    without = ImageSet(data.images, np.zeros(4, dtype=np.int64), data.class_names)
    with pytest.raises(UserError, match="'class1' has no image to hide"):
        banks.next_class(without, 1, (32, 32), np.random.default_rng(0))


def test_natural_images_are_each_used_once(tmp_path: Path) -> None:
    for colour in range(6):
        (tmp_path / f"{colour}.png").write_bytes(encoded(40 * colour, (30, 20)))
    (tmp_path / "notes.txt").write_text("not an image")
    bank = banks.natural(tmp_path, 3, 2, (16, 16), np.random.default_rng(0))
    assert sorted(bank[:, :, 0, 0, 0].ravel()) == [0, 40, 80, 120, 160, 200]


def test_natural_images_come_from_parquet_too(tmp_path: Path) -> None:
    rows = [{"bytes": encoded(10 * i), "path": None} for i in range(4)]
    pq.write_table(pa.table({"image": rows, "label": [0, 0, 1, 1]}), tmp_path / "a.parquet")
    bank = banks.natural(tmp_path / "a.parquet", 2, 2, (8, 8), np.random.default_rng(0))
    assert sorted(bank[:, :, 0, 0, 0].ravel()) == [0, 10, 20, 30]


def test_too_few_natural_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded(1))
    with pytest.raises(UserError, match="holds 1 images, but 2 classes x 1"):
        banks.natural(tmp_path, 2, 1, (8, 8), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.png", b"nonsense", "bad.png is not a readable image"),
        ("bad.parquet", b"nonsense", "bad.parquet is not a readable Parquet file"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        banks.natural(tmp_path, 1, 1, (8, 8), np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_parquet_without_images_and_rows_without_content_are_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [0]}), tmp_path / "labels.parquet")
    with pytest.raises(UserError, match="no image column"):
        banks.pictures(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"image": [{"bytes": encoded(3)}, {"bytes": None}]}), tmp_path / "gap.parquet")
    with pytest.raises(UserError, match="row 1 is not a readable image"):
        banks.natural(tmp_path / "gap.parquet", 2, 1, (8, 8), np.random.default_rng(0))


def test_folder_takes_the_first_images_of_each_class(tmp_path: Path) -> None:
    for name, colour in [("cat", 50), ("dog", 100)]:
        (tmp_path / name).mkdir()
        for index in range(3):
            (tmp_path / name / f"{index}.png").write_bytes(encoded(colour + index))
    bank = banks.folder(tmp_path, ("dog", "cat"), 2, (8, 12))
    assert bank.shape == (2, 2, 8, 12, 3)
    assert bank[:, :, 0, 0, 0].tolist() == [[100, 101], [50, 51]]
    with pytest.raises(UserError, match="holds 3 images, 4 are needed"):
        banks.folder(tmp_path, ("dog", "cat"), 4, (8, 8))
    with pytest.raises(UserError, match="bird holds 0 images"):
        banks.folder(tmp_path, ("bird",), 1, (8, 8))


def test_hidden_images_are_dealt_out_evenly_within_a_class() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 230)
    chosen = assignment(labels, 7, np.random.default_rng(1))
    for label in range(4):
        counts = np.bincount(chosen[labels == label], minlength=7)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(chosen, assignment(labels, 7, np.random.default_rng(2)))


def test_class_wise_assignment_gives_every_image_the_same() -> None:
    assert not assignment(np.array([0, 1, 1, 0]), 1, np.random.default_rng(0)).any()


def test_hidden_files_are_no_images_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    """A folder that was zipped on a Mac has ``._0.png`` beside ``0.png``."""
    for folder in (tmp_path, tmp_path / "cat", tmp_path / "__MACOSX"):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / "0.png")
        (folder / "._0.png").write_bytes(b"Mac OS X")

    expected = [str(tmp_path / name) for name in ("0.png", "cat/0.png")]
    assert [picture.name for picture in banks.pictures(tmp_path)] == expected
    assert [str(file) for file in banks.image_files(tmp_path)] == expected
    assert [picture.name for picture in banks.pictures_of_class(tmp_path, "cat", 0)] == expected[1:]

    (tmp_path / "cat" / "1.png").symlink_to("gone.png")
    for read in (banks.pictures, banks.image_files, lambda path: banks.pictures_of_class(path, "cat", 0)):
        with pytest.raises(UserError, match=r"cat/1\.png is a link to nothing"):
            read(tmp_path)
