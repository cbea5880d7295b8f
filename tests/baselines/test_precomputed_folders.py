"""Images in one folder a class: numbered through the dataset, in each class, or called as the dataset's files are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ue_bench.api import Context, ImageSet, UserError, ValidationError
from ue_bench_baselines.noise import Noise
from ue_bench_baselines.precomputed import Precomputed

from .helpers import image_set

COUNT = 60
NAMES = tuple(f"class{k}" for k in range(12))


def dataset(labels: Sequence[int] | NDArray[Any], classes: int = 12) -> ImageSet:
    images = np.random.default_rng(3).integers(0, 256, (len(labels), 6, 8, 3), dtype=np.uint8)
    return image_set(images, labels, classes)


@pytest.fixture
def mixed() -> ImageSet:
    """Classes in no order, as CIFAR has them."""
    return dataset(np.random.default_rng(4).permutation(np.arange(COUNT) % 12))


@pytest.fixture
def ordered() -> ImageSet:
    """Class by class, as folders are read."""
    return dataset(np.sort(np.arange(COUNT) % 12))


def save(folder: Path, images: NDArray[np.uint8], names: Sequence[str]) -> Path:
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def protected(data: ImageSet, ctx: Context) -> NDArray[np.uint8]:
    return np.array(Noise().protect(data, ctx).images)


def within(data: ImageSet) -> list[int]:
    """The place of every image in its class."""
    return [int(np.sum(data.labels[:i] == data.labels[i])) for i in range(len(data))]


LAYOUTS: dict[str, Callable[[ImageSet, int, int], str]] = {
    "number of the dataset": lambda data, i, k: f"class{data.labels[i]}/{i}.png",
    "folders of other names": lambda data, i, k: f"kind_{data.labels[i] * 7 % 12}/{i}.png",
    "number and class": lambda data, i, k: f"class{data.labels[i]}/{i}_{data.labels[i]}.png",
    "class and number": lambda data, i, k: f"class{data.labels[i]}/label{data.labels[i]}-{i}.png",
    "number in the class": lambda data, i, k: f"class{data.labels[i]}/{k}.png",
    "folders with numbers only": lambda data, i, k: f"{data.labels[i]}/{k}.png",
    "deeper folders": lambda data, i, k: f"class{data.labels[i]}/part/{k:05}.png",
}


@pytest.mark.parametrize("order", ["mixed", "ordered"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_come_in_the_order_of_the_dataset(
    order: str, layout: str, request: pytest.FixtureRequest, ctx: Context, tmp_path: Path
) -> None:
    data: ImageSet = request.getfixturevalue(order)
    images, places = protected(data, ctx), within(data)
    path = save(tmp_path / "mine", images, [LAYOUTS[layout](data, i, places[i]) for i in range(len(data))])

    assert np.array_equal(Precomputed(path=path).protect(data, ctx).images, images)


def test_files_called_as_those_of_the_dataset_come_in_its_order(
    ordered: ImageSet, ctx: Context, tmp_path: Path
) -> None:
    """A folder is read by path, where 10 comes before 2, though the numbers say otherwise."""
    images = protected(ordered, ctx)
    names = sorted(f"class{label}/{i}.png" for i, label in enumerate(ordered.labels))
    names.sort(key=lambda name: (int(name.split("/")[0].removeprefix("class")), name))
    path = save(tmp_path / "mine", images, names)

    assert np.array_equal(Precomputed(path=path).protect(ordered, ctx).images, images)


def test_another_order_within_classes_is_refused(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    images, places = protected(mixed, ctx), within(mixed)
    names = [f"class{label}/{(place + 2) % 5}.png" for label, place in zip(mixed.labels, places, strict=True)]

    with pytest.raises(ValidationError, match="the order does not match the dataset"):
        Precomputed(path=save(tmp_path / "mine", images, names)).protect(mixed, ctx)


def test_a_class_with_another_number_of_images_is_named(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    names = [f"class{label}/{place}.png" for label, place in zip(mixed.labels, within(mixed), strict=True)]
    path = save(tmp_path / "mine", mixed.images, names)
    (path / "class3" / "4.png").unlink()

    with pytest.raises(ValidationError, match="mine has 4 images of class 'class3', but the dataset has 5"):
        Precomputed(path=path).protect(mixed, ctx)


def test_folders_that_are_no_classes_are_named(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path / "mine", mixed.images, [f"part{i % 2}/{i}.png" for i in range(len(mixed))])

    with pytest.raises(ValidationError, match="folders in mine are not the classes of the dataset: part0, part1"):
        Precomputed(path=path).protect(mixed, ctx)


def test_splits_are_no_classes(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path / "mine", mixed.images[:2], ["train/class0/0.png", "test/class0/0.png"])

    with pytest.raises(UserError, match="holds test and train, which are no classes"):
        Precomputed(path=path).protect(mixed, ctx)


@pytest.mark.parametrize("layout", ["{i}.png", "class{label}/{i}.png"])
def test_hidden_files_are_left_out(layout: str, mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    images = protected(mixed, ctx)
    names = [layout.format(i=i, label=label) for i, label in enumerate(mixed.labels)]
    path = save(tmp_path / "png", images, names)
    for folder in {(path / name).parent for name in names}:
        (folder / "._0.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (path / "__MACOSX").mkdir()
    (path / "__MACOSX" / "._0.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")

    assert np.array_equal(Precomputed(path=path).protect(mixed, ctx).images, images)


@pytest.mark.parametrize("layout", ["{i}.png", "class{label}/{i}.png"])
@pytest.mark.parametrize(("target", "where"), [("gone.png", "nothing"), ("900.png", "itself")])
def test_a_link_to_nothing_is_named(
    layout: str, target: str, where: str, mixed: ImageSet, ctx: Context, tmp_path: Path
) -> None:
    path = save(
        tmp_path / "png", mixed.images, [layout.format(i=i, label=label) for i, label in enumerate(mixed.labels)]
    )
    link = path / layout.format(i=900, label=1)
    link.symlink_to(target)

    with pytest.raises(ValidationError, match=rf"900\.png is a link to {where}"):
        Precomputed(path=path).protect(mixed, ctx)


@pytest.mark.parametrize("layout", ["{i}.png", "class{label}/{i}.png"])
def test_links_to_folders_are_not_followed(layout: str, mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    images = protected(mixed, ctx)
    names = [layout.format(i=i, label=label) for i, label in enumerate(mixed.labels)]
    path = save(tmp_path / "png", images, names)
    ((path / names[0]).parent / "up").symlink_to(tmp_path)

    assert np.array_equal(Precomputed(path=path).protect(mixed, ctx).images, images)


def test_gray_files_become_rgb(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    gray = mixed.images[..., 1]
    path = save(tmp_path / "png", gray, [f"{i}.png" for i in range(len(mixed))])

    result = Precomputed(path=path).protect(mixed.with_images(np.repeat(gray[..., None], 3, axis=3)), ctx)

    assert np.array_equal(result.images, np.repeat(gray[..., None], 3, axis=3))


def test_jpeg_files_are_read_where_there_are_no_png_files(mixed: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path / "jpeg", mixed.images, [f"{i}.jpg" for i in range(len(mixed))])
    with Image.open(path / "7.jpg") as image:
        seventh = np.asarray(image)

    assert np.array_equal(Precomputed(path=path).protect(mixed, ctx).images[7], seventh)
    save(path, mixed.images, [f"{i}.png" for i in range(len(mixed))])
    assert np.array_equal(Precomputed(path=path).protect(mixed, ctx).images, mixed.images)
