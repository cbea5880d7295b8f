from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from ue_bench.api import Context, ImageSet, UserError, ValidationError
from ue_bench.store.image_folders import natural_key
from ue_bench_baselines.noise import Noise
from ue_bench_baselines.precomputed import Precomputed

from .helpers import random_set

Save = Callable[[Path, NDArray[Any]], Path]


def save_png(folder: Path, images: NDArray[Any]) -> Path:
    path = folder / "protected"
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    return path


def save_npy(folder: Path, images: NDArray[Any]) -> Path:
    np.save(folder / "protected.npy", images)
    return folder / "protected.npy"


def save_npz(folder: Path, images: NDArray[Any]) -> Path:
    np.savez_compressed(folder / "protected.npz", images=images, labels=np.zeros(len(images)))
    return folder / "protected.npz"


def save_safetensors(folder: Path, images: NDArray[Any]) -> Path:
    save_file({"data": np.ascontiguousarray(images), "labels": np.zeros(len(images))}, folder / "protected.safetensors")
    return folder / "protected.safetensors"


ARRAYS = [save_npy, save_npz, save_safetensors]
arrays = pytest.mark.parametrize("save", ARRAYS)


@pytest.fixture
def data() -> ImageSet:
    return random_set()


@pytest.fixture
def protected(data: ImageSet, ctx: Context) -> NDArray[np.uint8]:
    return np.array(Noise().protect(data, ctx).images)


@pytest.mark.parametrize("save", [save_png, *ARRAYS])
def test_images_come_back_as_they_were_stored(
    save: Save, data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    result = Precomputed(path=save(tmp_path, protected)).protect(data, ctx)

    assert np.array_equal(result.images, protected)
    assert np.array_equal(result.labels, data.labels)


@arrays
def test_channels_may_come_first(
    save: Save, data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    result = Precomputed(path=save(tmp_path, protected.transpose(0, 3, 1, 2))).protect(data, ctx)

    assert np.array_equal(result.images, protected)


@arrays
@pytest.mark.parametrize("axis", [None, 1, 3])
def test_gray_arrays_become_rgb(save: Save, axis: int | None, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    gray = data.images[..., 1]
    rgb = np.repeat(gray[..., None], 3, axis=3)

    path = save(tmp_path, gray if axis is None else np.expand_dims(gray, axis))

    assert np.array_equal(Precomputed(path=path).protect(data.with_images(rgb), ctx).images, rgb)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_bfloat16_is_read_to_within_a_level(
    suffix: str, data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    tensor = torch.tensor(protected / 255).to(torch.bfloat16)
    path = tmp_path / f"images{suffix}"
    if suffix == ".pt":
        torch.save(tensor, path)
    else:
        save_torch({"images": tensor}, path)

    result = Precomputed(path=path).protect(data, ctx).images

    assert np.array_equal(result, np.floor(tensor.double().numpy() * 255 + 0.5))
    assert abs(result.astype(int) - protected).max() <= 1


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"images": t, "eps": 8}, lambda t: (t, torch.zeros(45, dtype=torch.int64))]
)
def test_images_in_a_file_of_pytorch(
    wrap: Any, legacy: bool, data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    path = tmp_path / "protected.pt"
    torch.save(wrap(torch.tensor(protected).permute(0, 3, 1, 2)), path, _use_new_zipfile_serialization=not legacy)

    assert np.array_equal(Precomputed(path=path).protect(data, ctx).images, protected)


def test_labels_of_another_length_are_refused(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=data.images, labels=data.labels[:-1])

    with pytest.raises(ValidationError, match=r"a\.npz has 45 images, but 44 labels"):
        Precomputed(path=tmp_path / "a.npz").protect(data, ctx)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt"])
def test_a_file_cut_short_is_named(suffix: str, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = tmp_path / f"protected{suffix}"
    if suffix == ".pt":
        torch.save(torch.tensor(data.images), path)
    else:
        {".npy": save_npy, ".npz": save_npz, ".safetensors": save_safetensors}[suffix](tmp_path, data.images)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ValidationError, match=f"cannot read protected{suffix}") as caught:
        Precomputed(path=path).protect(data, ctx)
    one_line(caught.value, path.name)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".pt"])
def test_a_file_that_is_a_link_to_nothing_is_named(suffix: str, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").symlink_to("gone")

    with pytest.raises(ValidationError, match=f"a{suffix} is a link to nothing"):
        Precomputed(path=tmp_path / f"a{suffix}").protect(data, ctx)


@arrays
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_level(
    save: Save,
    dtype: type[np.floating[Any]],
    data: ImageSet,
    protected: NDArray[np.uint8],
    ctx: Context,
    tmp_path: Path,
) -> None:
    unit = np.clip((protected + 0.4) / 255, 0, 1).astype(dtype)

    assert np.array_equal(Precomputed(path=save(tmp_path, unit)).protect(data, ctx).images, protected)


def test_png_files_are_in_natural_order() -> None:
    names = ["10.png", "2.png", "a10.png", "a9b2.png", "a9b10.png", "1.png"]

    assert [p.name for p in sorted(map(Path, names), key=natural_key)] == [
        "1.png", "2.png", "10.png", "a9b2.png", "a9b10.png", "a10.png",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["images", "data", "arr_0", "x", "anything"])
def test_the_only_array_may_have_any_name(
    name: str, data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    arrays: dict[str, Any] = {name: protected}
    np.savez(tmp_path / "a.npz", **arrays)

    assert np.array_equal(Precomputed(path=tmp_path / "a.npz").protect(data, ctx).images, protected)


def test_several_arrays_without_a_known_name(
    data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", first=protected, second=protected)

    with pytest.raises(UserError, match=r"a\.npz has arrays first, second \(call the images images or data"):
        Precomputed(path=tmp_path / "a.npz").protect(data, ctx)


def one_line(error: BaseException, name: str) -> str:
    text = str(error)
    assert "\n" not in text
    assert name in text
    return text


@pytest.mark.parametrize("save", [save_png, *ARRAYS])
def test_wrong_count(save: Save, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path, data.images[:-1])

    with pytest.raises(ValidationError, match="has 44 images, but the dataset has 45") as caught:
        Precomputed(path=path).protect(data, ctx)
    one_line(caught.value, path.name)


@pytest.mark.parametrize("save", [save_png, *ARRAYS])
def test_wrong_size(save: Save, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path, np.ascontiguousarray(data.images[:, :, :-1]))

    with pytest.raises(ValidationError, match=r"shape \(20, 32, 3\), but the dataset's are \(20, 33, 3\)") as caught:
        Precomputed(path=path).protect(data, ctx)
    one_line(caught.value, path.name)


@arrays
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.int64), "holds int64 values"),
        (lambda x: x.astype(np.float32), "holds floats from 0 to 255"),
        (lambda x: x / 255 - 0.5, "holds floats from -0.5 to 0.5"),
        (lambda x: np.where(x > 254, np.nan, x / 255), "holds floats from nan"),
    ],
    ids=["integers", "gray levels as floats", "centred", "nan"],
)
def test_wrong_values(save: Save, change: Any, message: str, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save(tmp_path, change(data.images))

    with pytest.raises(ValidationError, match=message) as caught:
        Precomputed(path=path).protect(data, ctx)
    one_line(caught.value, path.name)


def test_one_png_of_another_size(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save_png(tmp_path, data.images)
    Image.new("RGB", (5, 6)).save(path / "17.png")

    with pytest.raises(ValidationError, match=r"protected/17\.png is 6 x 5 pixels, but the first image is 20 x 33"):
        Precomputed(path=path).protect(data, ctx)


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_one_png_that_is_not_rgb(mode: str, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    path = save_png(tmp_path, data.images)
    Image.new(mode, (33, 20)).save(path / "3.png")

    with pytest.raises(ValidationError, match=rf"protected/3\.png is of mode {mode}, not RGB or L"):
        Precomputed(path=path).protect(data, ctx)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors", "a.pt", "folder/1.png"])
def test_broken_and_unknown_files(name: str, data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"not what it says")

    with pytest.raises(UserError) as caught:
        Precomputed(path=file.parent if file.suffix == ".png" else file).protect(data, ctx)
    assert "has no known format" in one_line(caught.value, name) or "cannot read" in str(caught.value)


def test_pickled_objects_are_not_loaded(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}] * 45, dtype=object))

    with pytest.raises(UserError, match=r"cannot read a\.npy"):
        Precomputed(path=tmp_path / "a.npy").protect(data, ctx)


def test_missing_path_and_empty_folder(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder"):
        Precomputed(path=tmp_path / "nowhere").protect(data, ctx)
    with pytest.raises(UserError, match="no PNG files in"):
        Precomputed(path=tmp_path).protect(data, ctx)


def refuse_order(images: NDArray[np.uint8], data: ImageSet, ctx: Context, folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"protected\.npy: the order does not match the dataset") as caught:
        Precomputed(path=save_npy(folder, images)).protect(data, ctx)
    one_line(caught.value, "dataset order")


def test_another_order_is_refused(data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path) -> None:
    refuse_order(np.random.default_rng(0).permutation(protected), data, ctx, tmp_path)


def test_reversed_order_is_refused(data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path) -> None:
    refuse_order(protected[::-1], data, ctx, tmp_path)


def test_names_without_leading_zeros_sorted_as_text_are_refused(
    data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path
) -> None:
    refuse_order(protected[sorted(range(len(data)), key=str)], data, ctx, tmp_path)


def test_another_order_within_classes_is_refused(ctx: Context, tmp_path: Path) -> None:
    """Classes of very different brightness: a shuffled set is still nearer to its class than to the others."""
    data = random_set(high=60)
    data = data.with_images(data.images + (40 * data.labels[:, None, None, None]).astype(np.uint8))
    order = np.arange(len(data))
    for label in np.unique(data.labels):
        order[data.labels == label] = np.roll(order[data.labels == label], 5)

    refuse_order(data.images[order], data, ctx, tmp_path)


def test_heavy_protection_in_the_right_order_is_accepted(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    heavy = Noise(eps=64 / 255).protect(data, ctx).images

    assert np.array_equal(Precomputed(path=save_npy(tmp_path, heavy)).protect(data, ctx).images, heavy)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_tiny_sets_are_accepted(count: int, ctx: Context, tmp_path: Path) -> None:
    data = random_set(count)

    assert Precomputed(path=save_npy(tmp_path, data.images)).protect(data, ctx).fingerprint == data.fingerprint


def test_declared_budget_is_checked(data: ImageSet, protected: NDArray[np.uint8], ctx: Context, tmp_path: Path) -> None:
    path = save_npy(tmp_path, protected)

    Precomputed(path=path, linf="8/255").protect(data, ctx)
    with pytest.raises(ValidationError, match=r"image 0 differs by 8/255 from the clean one, more than linf 7/255"):
        Precomputed(path=path, linf="7/255").protect(data, ctx)


def test_budget_is_none_unless_declared(tmp_path: Path) -> None:
    assert Precomputed(path=tmp_path).budget == "none"
    assert Precomputed(path=tmp_path, linf="8/255").budget == "linf 8/255"


def test_content_and_not_the_name_enters_the_key(data: ImageSet, tmp_path: Path) -> None:
    for name, images in (("a", data.images), ("b", data.images), ("c", data.images[::-1])):
        np.save(tmp_path / f"{name}.npy", images)

    first, same, other = (Precomputed(path=tmp_path / f"{name}.npy").identity() for name in "abc")

    assert first == same
    assert first != other
