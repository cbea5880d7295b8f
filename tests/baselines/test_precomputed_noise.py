"""Perturbations that were released without the images: added, rounded and clipped as the docstring says."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from ue_bench.api import Context, ImageSet, UserError, ValidationError
from ue_bench_baselines.precomputed import Precomputed

from .helpers import random_set

Save = Callable[[Path, NDArray[Any]], Path]


def save_npy(folder: Path, noise: NDArray[Any]) -> Path:
    np.save(folder / "noise.npy", noise)
    return folder / "noise.npy"


def save_npz(folder: Path, noise: NDArray[Any]) -> Path:
    np.savez(folder / "noise.npz", perturbation=noise, eps=np.array(8 / 255))
    return folder / "noise.npz"


def save_pt(folder: Path, noise: NDArray[Any]) -> Path:
    torch.save(torch.tensor(noise), folder / "perturbation.pt")
    return folder / "perturbation.pt"


def save_list(folder: Path, noise: NDArray[Any]) -> Path:
    torch.save([torch.tensor(one) for one in noise], folder / "perturbation.pth")
    return folder / "perturbation.pth"


def save_safetensors(folder: Path, noise: NDArray[Any]) -> Path:
    save_file({"noise": torch.tensor(noise)}, folder / "noise.safetensors")
    return folder / "noise.safetensors"


FILES = [save_npy, save_npz, save_pt, save_list, save_safetensors]


@pytest.fixture
def data() -> ImageSet:
    return random_set()


@pytest.fixture
def noise(data: ImageSet) -> NDArray[np.int64]:
    """Whole levels within -8..8, which lead out of 0..255 in places."""
    return np.random.default_rng(1).integers(-8, 9, data.images.shape)


def added(data: ImageSet, noise: NDArray[np.int64]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.clip(data.images + noise, 0, 255)
    return found


def read(path: Path, data: ImageSet, ctx: Context, **parameters: Any) -> NDArray[np.uint8]:
    return Precomputed(path=path, content="noise", **parameters).protect(data, ctx).images


@pytest.mark.parametrize("save", FILES)
@pytest.mark.parametrize(
    "store",
    [
        lambda n: n.astype(np.int8),
        lambda n: n.astype(np.int16),
        lambda n: (n / 255).astype(np.float32),
        lambda n: n / 255,
        lambda n: (n / 255).astype(np.float16),
        lambda n: (n / 255).astype(np.float32).transpose(0, 3, 1, 2).copy(),
    ],
    ids=["int8", "int16", "float32", "float64", "float16", "channels first"],
)
def test_noise_is_added_to_its_image(
    save: Save, store: Any, data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    assert np.array_equal(read(save(tmp_path, store(noise)), data, ctx), added(data, noise))


@pytest.mark.parametrize("save", FILES)
def test_noise_of_a_class_is_added_to_its_images(
    save: Save, data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    classwise = noise[: data.num_classes]

    result = read(save(tmp_path, (classwise / 255).astype(np.float32)), data, ctx)

    assert np.array_equal(result, added(data, classwise[data.labels]))


def test_gray_noise_is_added_to_all_channels(
    data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    gray = noise[..., 0]
    expected = added(data, np.repeat(gray[..., None], 3, axis=3))

    for index, stored in enumerate((gray, gray[..., None], gray[:, None])):
        (tmp_path / str(index)).mkdir()
        path = save_npy(tmp_path / str(index), stored.astype(np.int16))
        assert np.array_equal(read(path, data, ctx), expected)


def test_the_sum_is_clipped_and_then_rounded_with_halves_up(ctx: Context, tmp_path: Path) -> None:
    clean = np.array([0, 255, 255, 100, 100, 100, 100], dtype=np.uint8)
    levels = np.array([-3.0, 3.0, -0.5, 0.5, 0.49, -0.5, -0.51])
    data = random_set(1, (1, 7)).with_images(np.repeat(clean[None, None, :, None], 3, axis=3))
    path = save_npy(tmp_path, np.repeat(levels[None, None, :, None], 3, axis=3) / 255)

    assert read(path, data, ctx)[0, 0, :, 0].tolist() == [0, 255, 255, 101, 100, 100, 99]


def test_noise_may_be_bfloat16(data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path) -> None:
    save_file({"noise": torch.tensor(noise / 255).to(torch.bfloat16)}, tmp_path / "noise.safetensors")
    torch.save(torch.tensor(noise / 255).to(torch.bfloat16), tmp_path / "noise.pt")

    for name in ("noise.safetensors", "noise.pt"):
        assert np.array_equal(read(tmp_path / name, data, ctx), added(data, noise))


def test_a_declared_budget_is_checked(data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path) -> None:
    path = save_npy(tmp_path, noise.astype(np.int8))

    read(path, data, ctx, linf="8/255")
    with pytest.raises(ValidationError, match=r"differs by 8/255 from the clean one, more than linf 7/255"):
        read(path, data, ctx, linf="7/255")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: (n + 8).astype(np.uint8), "holds uint8 values, which cannot be a perturbation"),
        (lambda n: n.astype(np.float32), "holds a perturbation from -8 to 8"),
        (lambda n: (n * 100).astype(np.int16), "holds a perturbation from -800 to 800"),
        (lambda n: np.where(n == 8, np.nan, n / 255), "holds a perturbation from nan to nan"),
        (lambda n: n[:-1].astype(np.int8), "has 44 images, but the dataset has 45"),
        (lambda n: n[:, :-1].astype(np.int8), r"shape \(19, 33, 3\), but the dataset's are \(20, 33, 3\)"),
    ],
    ids=["bytes", "levels as floats", "too large", "nan", "count", "size"],
)
def test_what_cannot_be_noise_is_one_line(
    change: Any, message: str, data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        read(save_npy(tmp_path, change(noise)), data, ctx)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_folder_is_no_noise(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder of images, not a perturbation"):
        read(tmp_path, data, ctx)


@pytest.mark.parametrize("save", FILES)
@pytest.mark.parametrize("part", ["images", "classes"])
@pytest.mark.parametrize("store", [lambda n: n.astype(np.int8), lambda n: (n / 255).astype(np.float32)])
def test_noise_that_is_given_as_images_is_called_so(
    save: Save, part: str, store: Any, data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    path = save(tmp_path, store(noise[: data.num_classes] if part == "classes" else noise))

    with pytest.raises(ValidationError, match="a perturbation, not images") as caught:
        Precomputed(path=path).protect(data, ctx)
    assert f"precomputed[path={path},content=noise]" in caught.value.hint


def test_one_image_a_class_may_be_noise(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    """A perturbation without negative values cannot be told from images; their number can."""
    path = save_npy(tmp_path, np.full((data.num_classes, *data.images.shape[1:]), 0.03, dtype=np.float32))

    with pytest.raises(ValidationError, match="has 4 images, but the dataset has 45") as caught:
        Precomputed(path=path).protect(data, ctx)
    assert "content=noise" in caught.value.hint


def test_noise_without_negative_values_fails_as_an_order_does(data: ImageSet, ctx: Context, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).random(data.images.shape) * 16 / 255

    with pytest.raises(ValidationError, match="the order does not match the dataset") as caught:
        Precomputed(path=save_npy(tmp_path, noise)).protect(data, ctx)
    assert "content=noise" in caught.value.hint


def test_levels_as_floats_are_not_called_images_to_shift(
    data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match="holds floats from -8 to 8, which images do not have") as caught:
        Precomputed(path=save_npy(tmp_path, noise.astype(np.float32))).protect(data, ctx)
    assert "content=noise" in caught.value.hint


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("name", ["noise.pkl", "noise.pickle", "noise.pt", "noise.pth"])
@pytest.mark.parametrize("content", ["images", "noise"])
def test_pickles_are_not_opened(
    name: str, content: Any, data: ImageSet, ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Harmful()))
    if name.endswith(("pt", "pth")):
        torch.save(Harmful(), tmp_path / name)

    with pytest.raises(UserError, match=f"{name} is a pickle of Python objects") as caught:
        Precomputed(path=tmp_path / name, content=content).protect(data, ctx)
    assert "numpy.save('noise.npy'" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


def test_how_to_convert_a_pickle_is_right(
    data: ImageSet, noise: NDArray[np.int64], ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.pkl").write_bytes(pickle.dumps(noise.astype(np.int8)))
    with pytest.raises(UserError) as caught:
        read(tmp_path / "noise.pkl", data, ctx)

    subprocess.run([sys.executable, "-c", caught.value.hint.partition(' -c "')[2].removesuffix('"')], check=True)

    assert np.array_equal(read(tmp_path / "noise.npy", data, ctx), added(data, noise))


def test_content_enters_the_key_only_when_it_is_noise(tmp_path: Path, noise: NDArray[np.int64]) -> None:
    path = save_npy(tmp_path, noise.astype(np.int8))

    assert set(Precomputed(path=path).identity()["parameters"]) == {"path"}
    assert Precomputed(path=path, content="noise").identity()["parameters"]["content"] == "noise"
