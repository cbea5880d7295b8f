"""What every protector here promises: bytes in the same order, labels kept, nothing but the seed matters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ue_bench_baselines
from ue_bench.api import Context, ImageSet, Protector, UserError
from ue_bench.catalogue.registry import Registry
from ue_bench.contract.registration import Register
from ue_bench_baselines.ar import AR
from ue_bench_baselines.lsp import LSP
from ue_bench_baselines.noise import Noise
from ue_bench_baselines.none import NoProtection
from ue_bench_baselines.ops import OPS
from ue_bench_baselines.spots import Spots

from .helpers import difference, image_set, random_set

ALL = [
    NoProtection(),
    Noise(),
    Noise(mode="class"),
    LSP(),
    LSP(patch=7, rounding="round"),
    AR(),
    AR(p="inf"),
    OPS(),
    OPS(sparsity=3),
    Spots(),
    Spots(color="gray"),
]
SEEDED = [Noise(), Noise(mode="class"), AR(), Spots()]

each = pytest.mark.parametrize("protector", ALL, ids=lambda p: p.selector)


@dataclass(frozen=True)
class SmallBatches(Context):
    """A context whose batches are of seven images, whatever is asked for."""

    def map_images(
        self,
        data: ImageSet,
        change: Callable[[NDArray[np.uint8], slice], NDArray[np.uint8]],
        text: str,
        batch: int = 500,
    ) -> ImageSet:
        return super().map_images(data, change, text, 7)


@each
def test_images_keep_their_shape_type_order_and_labels(protector: Protector, ctx: Context) -> None:
    data = random_set()

    protected = protector.protect(data, ctx)

    assert protected.images.shape == data.images.shape
    assert protected.images.dtype == np.uint8
    assert np.array_equal(protected.labels, data.labels)
    assert protected.class_names == data.class_names
    squared = (difference(protected, data).astype(float) ** 2).mean(axis=(1, 2, 3))
    assert squared.max() < 20**2  # random images in another order differ by about 104 levels


@each
def test_the_input_is_left_alone(protector: Protector, ctx: Context) -> None:
    data = random_set()
    before = data.images.copy()

    protector.protect(data, ctx)

    assert np.array_equal(data.images, before)


@each
def test_all_images_change(protector: Protector, ctx: Context) -> None:
    data = random_set(low=20, high=236)

    changed = difference(protector.protect(data, ctx), data).any(axis=(1, 2, 3))

    assert changed.all() == (protector.name != "none")


@each
def test_same_seed_gives_the_same_bytes(protector: Protector, ctx: Context) -> None:
    data = random_set()

    assert protector.protect(data, ctx).fingerprint == protector.protect(data, ctx).fingerprint


@pytest.mark.parametrize("protector", SEEDED, ids=lambda p: p.selector)
def test_another_seed_gives_other_bytes(protector: Protector, ctx: Context) -> None:
    data = random_set()

    assert protector.protect(data, ctx).fingerprint != protector.protect(data, replace(ctx, seed=1)).fingerprint


@each
def test_batches_do_not_matter(protector: Protector, ctx: Context) -> None:
    data = random_set()
    small = SmallBatches(ctx.device, ctx.seed, ctx.scratch, ctx.artifacts, ctx.data_dir)

    assert protector.protect(data, small).fingerprint == protector.protect(data, ctx).fingerprint


@each
def test_memory_mapped_images_give_the_same_bytes(protector: Protector, ctx: Context, tmp_path: Path) -> None:
    data = random_set()
    np.save(tmp_path / "images.npy", data.images)
    mapped = data.with_images(np.load(tmp_path / "images.npy", mmap_mode="r"))

    assert protector.protect(mapped, ctx).fingerprint == protector.protect(data, ctx).fingerprint


@each
@pytest.mark.parametrize("labels", [[0], [1, 1, 1], [2, 0, 0, 0, 1]], ids=str)
def test_few_images_and_classes_without_any(protector: Protector, labels: list[int], ctx: Context) -> None:
    data = image_set(np.full((len(labels), 9, 16, 3), 100, np.uint8), labels, classes=3)

    protected = protector.protect(data, ctx)

    assert np.array_equal(protected.labels, data.labels)


@pytest.mark.parametrize(
    ("protector", "levels"),
    [
        (Noise(), 8),
        (Noise(mode="class"), 8),
        (Noise(eps=7.6 / 255), 7),
        (AR(p="inf"), 8),
        (AR(p="inf", eps="4/255"), 4),
    ],
    ids=lambda value: getattr(value, "selector", value),
)
def test_linf_budgets_hold_after_rounding_and_are_used(protector: Protector, levels: int, ctx: Context) -> None:
    data = random_set(size=(32, 32))

    assert np.abs(difference(protector.protect(data, ctx), data)).max() == levels


@pytest.mark.parametrize(
    ("protector", "text"),
    [
        (NoProtection(), "none"),
        (Noise(), "linf 8/255"),
        (Noise(eps=0.05), "linf 0.05"),
        (LSP(), "rms 7/255"),
        (LSP(eps="3/255", rounding="round"), "rms 3.5/255"),
        (AR(), "l2 1.0 at 32x32"),
        (AR(eps=2), "l2 2.0"),
        (AR(p="inf"), "linf 8/255"),
        (AR(p="inf", eps="4/255"), "linf 4/255"),
        (OPS(), "pixels 1"),
        (OPS(sparsity=3), "pixels 3"),
        (Spots(), "rms 8/255"),
        (Spots(eps="6/255"), "rms 6/255"),
    ],
    ids=lambda value: getattr(value, "selector", value),
)
def test_declared_budgets(protector: Protector, text: str) -> None:
    assert protector.budget == text


def test_class_noise_is_one_pattern_a_class(ctx: Context) -> None:
    data = random_set(low=20, high=236)

    noise = difference(Noise(mode="class").protect(data, ctx), data)

    patterns = [noise[data.labels == k] for k in np.unique(data.labels)]
    assert all((of_class == of_class[0]).all() for of_class in patterns)
    assert len({of_class[0].tobytes() for of_class in patterns}) == len(patterns)


def test_sample_noise_is_uniform_and_differs_between_images(ctx: Context) -> None:
    data = random_set(low=20, high=236)

    noise = difference(Noise().protect(data, ctx), data)

    assert len({image.tobytes() for image in noise}) == len(data)
    # U(-8, 8) rounded: seventeen values, the outer ones half as frequent; 89 100 draws
    assert np.bincount(noise.ravel() + 8) / noise.size == pytest.approx([1 / 32, *[1 / 16] * 15, 1 / 32], abs=0.004)


def test_no_protection_is_the_very_same_set(ctx: Context) -> None:
    data = random_set()

    assert NoProtection().protect(data, ctx) is data


def _registered() -> Registry:
    registry = Registry()
    ue_bench_baselines.ue_bench_register(Register(registry, "test"))
    return registry


@pytest.mark.parametrize("name", ["none", "noise", "lsp", "ar", "ops", "spots", "precomputed"])
def test_registered_under_its_own_name(name: str) -> None:
    assert _registered().find("protector", name).plugin_class.name == name


@pytest.mark.parametrize(
    ("selector", "parameter", "value"),
    [
        ("ar[p=inf]", "p", "inf"),
        ("ar[p=2]", "p", "2"),
        ("ar[eps=4/255,p=inf]", "eps", 4 / 255),
        ("ar[eps=null]", "eps", None),
        ("lsp[eps=12/255]", "eps", 12 / 255),
        ("noise[mode=class]", "mode", "class"),
    ],
)
def test_parameters_as_written_in_selectors(selector: str, parameter: str, value: Any) -> None:
    (protector,) = _registered().resolve("protector", selector)

    assert getattr(protector, parameter) == value


@pytest.mark.parametrize(
    "selector",
    [
        "ar[eps=-1]",
        "ar[p=3]",
        "ar[threshold=0]",
        "lsp[patch=0]",
        "noise[eps=0]",
        "ops[sparsity=0]",
        "spots[eps=0]",
        "spots[color=blue]",
        "spots[rest=none]",
        "precomputed[path=a,linf=2]",
    ],
)
def test_parameters_out_of_range_are_refused(selector: str) -> None:
    with pytest.raises(UserError, match="parameters: "):
        _registered().resolve("protector", selector)


@each
def test_selectors_name_the_same_protector_again(protector: Protector) -> None:
    assert _registered().resolve("protector", protector.selector) == [protector]


def test_importing_the_modules_imports_neither_torch_nor_sklearn() -> None:
    code = (
        "import sys; from ue_bench_baselines import none, noise, lsp, ar, ar_search, ops, spots, precomputed; "
        "assert not {'torch', 'sklearn', 'PIL', 'safetensors'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})
