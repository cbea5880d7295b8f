"""The protector: 8-bit images there and back, with and without sidecars."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError as BadParameters

from ue_bench.api import Context, ImageSet, UserError, ValidationError
from ue_bench.catalogue.registry import registry
from ue_bench.store.perturbation import check
from ue_bench_raeg import generator
from ue_bench_raeg import protector as module
from ue_bench_raeg.fit import weights_checksum
from ue_bench_raeg.generator import Generator
from ue_bench_raeg.keys import load_generator, write_generator
from ue_bench_raeg.protector import Raeg

from .helpers import patterned_set, randomised, smooth_images
from .test_raeg_training import TINY

pytestmark = pytest.mark.usefixtures("one_block")


def file_of(tmp_path: Path, std: float) -> Path:
    network = randomised(Generator(4, spectral=False), std)
    path = tmp_path / f"generator-{std}.safetensors"
    write_generator(path, network.plain_weights(), network.settings, {})
    return path


@pytest.fixture
def trained(tmp_path: Path) -> Raeg:
    """Not trained, but it changes images as a trained one does: by some gray levels, which it can take back."""
    return Raeg(weights=file_of(tmp_path, 0.002))


def as_set(images: NDArray[np.uint8]) -> ImageSet:
    return ImageSet(images, np.arange(len(images)) % 2, ("a", "b"))


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB."""
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("size", [(16, 16), (13, 22), (3, 5)])
def test_the_identity_is_exact(tmp_path: Path, ctx: Context, size: tuple[int, int]) -> None:
    raeg = Raeg(weights=file_of(tmp_path, 0.0))
    data = as_set(np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    protected = raeg.protect(data, ctx)
    assert np.array_equal(protected.images, data.images)
    assert np.array_equal(raeg.recover(protected.images, ctx), data.images)


@pytest.mark.parametrize("size", [(32, 32), (28, 45)])
def test_images_are_changed_and_come_back(trained: Raeg, ctx: Context, size: tuple[int, int]) -> None:
    data = as_set((smooth_images(4, size) * 0.6 + 50).astype(np.uint8))
    protected = trained.protect(data, ctx)
    check(trained, data, protected)
    assert difference(protected.images, data.images) < 35
    recovered = trained.recover(protected.images, ctx)
    inner = (slice(None), slice(0, size[0] // 8 * 8 - 8), slice(0, size[1] // 8 * 8 - 8))  # what mirroring leaves alone
    assert difference(recovered[inner], data.images[inner]) > 45


@pytest.mark.parametrize("size", [(32, 32), (28, 45), (9, 16), (4, 3)])
def test_sidecars_make_it_exact(trained: Raeg, ctx: Context, size: tuple[int, int]) -> None:
    data = as_set(smooth_images(4, size))  # with values that are clipped
    protected = trained.protect(data, ctx)
    assert not np.array_equal(trained.recover(protected.images, ctx), data.images)
    sidecars = trained.sidecars(data, protected, ctx)
    assert np.array_equal(trained.restore(protected.images, sidecars, ctx), data.images)


def test_sidecars_of_photographs_are_small(trained: Raeg, ctx: Context, photos: NDArray[np.uint8]) -> None:
    data = as_set(photos[:, :61, :57])
    protected = trained.protect(data, ctx)
    sidecars = trained.sidecars(data, protected, ctx)
    assert np.array_equal(trained.restore(protected.images, sidecars, ctx), data.images)
    bits = 8 * sum(map(len, sidecars)) / data.images[..., 0].size
    assert bits < 8  # a pixel, where the image itself has 24


def test_batches_do_not_matter(trained: Raeg, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_set(smooth_images(5, (16, 24)))
    protected = trained.protect(data, ctx)
    recovered, sidecars = trained.recover(protected.images, ctx), trained.sidecars(data, protected, ctx)
    monkeypatch.setattr(module, "PIXELS", 2 * 16 * 24)
    assert np.array_equal(trained.protect(data, ctx).images, protected.images)
    assert np.array_equal(trained.recover(protected.images, ctx), recovered)
    assert trained.sidecars(data, protected, ctx) == sidecars
    assert np.array_equal(trained.restore(protected.images, sidecars, ctx), data.images)


def test_recovery_is_in_double_precision(trained: Raeg, ctx: Context) -> None:
    assert trained.weights is not None
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)  # many chances to round apart
    protected = trained.protect(as_set(noise), ctx).images
    network = load_generator(trained.weights).double()
    with torch.no_grad():
        x = torch.from_numpy(protected.copy()).permute(0, 3, 1, 2).double() / 255
        expected = (network.inverse(x).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(trained.recover(protected, ctx), expected)


def test_a_sidecar_tells_a_changed_image(trained: Raeg, ctx: Context) -> None:
    data = as_set(smooth_images(3, (12, 16)))
    protected = trained.protect(data, ctx)
    sidecars = trained.sidecars(data, protected, ctx)
    changed = protected.images.copy()
    changed[1, 5, 5, 0] ^= 16
    with pytest.raises(ValidationError, match="image 1 does not fit its sidecar"):
        trained.restore(changed, sidecars, ctx)
    with pytest.raises(ValidationError, match="image 0 does not fit"):
        trained.restore(protected.images, sidecars[::-1], ctx)
    with pytest.raises(ValidationError, match="2 sidecars for 3 images"):
        trained.restore(protected.images, sidecars[:2], ctx)
    for broken in (sidecars[2][:9], sidecars[2][:-3], b"PNG" + sidecars[2][3:]):
        with pytest.raises(ValidationError, match="sidecar 2 is not one of an image of 12 x 16"):
            trained.restore(protected.images, [*sidecars[:2], broken], ctx)
    with pytest.raises(ValidationError, match="sidecar 0 is not one of an image of 8 x 16"):
        trained.restore(protected.images[:, :8], sidecars, ctx)


def test_no_images_at_all(trained: Raeg, ctx: Context) -> None:
    none = np.zeros((0, 16, 16, 3), np.uint8)
    assert trained.recover(none, ctx).shape == none.shape
    assert trained.restore(none, [], ctx).shape == none.shape


def test_the_key_recovers_without_the_file(trained: Raeg, ctx: Context) -> None:
    data = as_set(smooth_images(3))
    protected = trained.protect(data, ctx).images
    arrays = trained.recovery_key(data, ctx)
    with_key = Raeg(preset="micro").recover(protected, replace(ctx, recovery_key=arrays))
    assert np.array_equal(with_key, trained.recover(protected, ctx))
    assert trained.recovery_key(as_set(smooth_images(1, (8, 8))), ctx).keys() == arrays.keys()
    with pytest.raises(UserError, match="recovery needs the generator"):
        Raeg(preset="micro").recover(protected, ctx)
    with pytest.raises(UserError, match="this key holds no generator"):
        Raeg(preset="micro").recover(protected, replace(ctx, recovery_key={"bank": arrays["settings"]}))


def test_files_hold_half_precision_and_settings(tmp_path: Path) -> None:
    network = randomised(Generator(3, 1, 0.5, "channel", "haar_first", spectral=False), 0.01)
    path = tmp_path / "x.safetensors"
    write_generator(path, network.plain_weights(), network.settings, {"seconds": 1})
    found = load_generator(path)
    assert found.settings == network.settings
    assert not found.training
    expected = {name: value.half().float() for name, value in network.state_dict().items()}
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == {"seconds": 1}


@pytest.mark.parametrize("change", [{"width": 5}, {"order": "rows"}, {"clamp": 0}, {"speed": 1}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    network = Generator(3, spectral=False)
    write_generator(tmp_path / "x.safetensors", network.plain_weights(), network.settings | change, {})
    with pytest.raises(UserError, match=r"x\.safetensors is not a generator"):
        load_generator(tmp_path / "x.safetensors")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a generator"):
        load_generator(tmp_path / "none.safetensors")


def test_without_weights_one_is_trained_and_kept(ctx: Context, one_thread: None) -> None:
    data, raeg = patterned_set(), Raeg(**TINY)
    protected = raeg.protect(data, ctx)
    assert not any((ctx.artifacts / "unfinished").iterdir())
    [file] = (ctx.artifacts / "plugin").glob("*/generator.safetensors")
    record = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["recipe"]["steps"] == 4
    stamp = file.stat().st_mtime_ns
    assert np.array_equal(Raeg(weights=file).protect(data, ctx).images, protected.images)
    assert np.array_equal(raeg.protect(data, ctx).images, protected.images)
    assert file.stat().st_mtime_ns == stamp
    assert raeg.recovery_key(data, ctx).keys() == Raeg(weights=file).recovery_key(data, ctx).keys()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("weights=x,gamma=1.0", "gamma would do nothing"),
        ("weights=x,preset=micro", "preset would do nothing"),
        ("gamma=1.0,steps=3", "the shipped generator is trained: gamma, steps needs preset=paper or preset=micro"),
        ("preset=paper,cls_form=log,cls_cap=5", "cls_cap needs cls_form=cap"),
        ("preset=paper,gan=off,delta=0.1", "delta needs gan"),
        ("preset=paper,gan=off,gan_width=8", "gan_width needs gan"),
        ("preset=micro,alpha=0.1", "alpha needs perceptual"),
        ("preset=paper,attacks=blur,noise_sigma=0.1", "noise_sigma needs attacks=noise"),
        ("preset=paper,attacks=blur,jpeg_mask=mbrs", "jpeg_mask needs attacks=jpeg"),
        ("preset=paper,steps=5,epochs=2", "epochs needs steps=null"),
        ("preset=paper,attacks=blur,scaling_low=0.4", "scaling_low needs attacks=scaling"),
        ("preset=paper,scaling_low=0.9,scaling_high=0.8", "scaling_low is above"),
        ("attacks=blurr", "String should match pattern"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(parameters: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry().resolve("protector", f"raeg[{parameters}]")


def test_presets_and_lengths() -> None:
    paper, micro = Raeg(preset="paper").recipe(54_000, 0), Raeg(preset="micro").recipe(50_000, 0)
    assert paper.steps == 50 * ((54_000 - 256) // 8)
    assert (paper.alpha, paper.beta, paper.gamma, paper.delta, paper.eps) == (0.01, 1, 0.005, 0.01, 2)
    assert (paper.batch, paper.learning_rate, paper.width) == (8, 1e-4, 64)
    assert Raeg(preset="paper").target_names == ["vgg16", "resnet50", "resnet101", "densenet121"]
    assert micro.steps == Raeg.PRESETS["micro"]["steps"]
    assert Raeg(preset="micro", epochs=2).recipe(1256, 0).steps == 2 * (1000 // micro.batch)
    assert Raeg(preset="paper", steps=7).recipe(1256, 0).steps == 7
    assert Raeg(preset="micro", targets="linear+resnet9[blocks=1]").target_names == ["linear", "resnet9[blocks=1]"]
    with pytest.raises(BadParameters):
        Raeg(preset="paper", clamp=0)


def test_it_declares_no_bound_and_says_what_it_needs(trained: Raeg) -> None:
    assert trained.budget == "none"
    assert not trained.uses_networks
    assert trained.cost(1000) is None
    assert Raeg(preset="paper").uses_networks
    assert not Raeg().uses_networks
    cost = Raeg(preset="micro", steps=100, batch=10).cost(1000)
    assert cost is not None
    assert (cost.victim, cost.passes) == ("resnet9[blocks=1]", 2 * (8 + 3))
    assert Raeg.recovers()


class TestShipped:
    """The generator that comes with the package; whole, not the small one of these tests."""

    @pytest.fixture(autouse=True)
    def four_blocks(self, one_block: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(generator, "BLOCKS", 4)

    def test_images_are_protected_at_once_and_come_back(self, ctx: Context) -> None:
        data = as_set((smooth_images(6, (32, 32)) * 0.6 + 50).astype(np.uint8))
        raeg = Raeg()
        assert (raeg.classes_needed, raeg.uses_networks, raeg.one_size, raeg.cost(9)) == (1, False, False, None)
        protected = raeg.protect(data, replace(ctx, networks=None))
        assert 15 < difference(protected.images, data.images) < 40
        assert difference(raeg.recover(protected.images, ctx), data.images) > 35
        keyed = replace(ctx, recovery_key=raeg.recovery_key(data, ctx))
        assert np.array_equal(raeg.recover(protected.images, keyed), raeg.recover(protected.images, ctx))

    def test_the_file_is_small_and_says_how_it_was_made(self) -> None:
        assert module.SHIPPED.stat().st_size < 8_000_000
        record = json.loads(module.SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
        network = load_generator(module.SHIPPED)
        assert record["checksum"] == weights_checksum(network.state_dict())
        assert record["recipe"]["width"] == network.settings["width"]
        assert record["command"].startswith("ue-bench raeg train")
        assert str(Path.home()) not in module.SHIPPED.with_suffix(".json").read_text(encoding="utf-8")

    def test_its_weights_are_in_the_identity(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        before = Raeg().identity()
        assert before != Raeg(preset="micro").identity()
        monkeypatch.setattr(module, "SHIPPED", file_of(tmp_path, 0.002))
        assert Raeg().identity() != before
