"""Simulated attacks: JPEG against Pillow and the specification's table, the others against what they claim."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from ue_bench_raeg import attacks, jpeg
from ue_bench_raeg.attacks import attack, quantise
from ue_bench_raeg.recipe import ATTACKS, Attack, Recipe

from .helpers import generator, psnr, smooth_images, unit_images

# PSNR in dB to Pillow's JPEG without subsampling, and to the input, on 64-px photographs (the specification's).
TABLE = {
    ("rounding", 10): (40.6, 23.7), ("rounding", 50): (42.4, 28.5), ("rounding", 90): (43.1, 35.1),
    ("ss", 10): (30.2, 25.3), ("ss", 50): (35.2, 30.1), ("ss", 90): (39.1, 37.8),
    ("mask", 10): (25.3, 28.1), ("mask", 50): (28.6, 28.1), ("mask", 90): (27.8, 28.1),
}  # fmt: skip


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double() / 255


def pillow(images: NDArray[np.uint8], quality: int) -> Tensor:
    found = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
        found.append(np.asarray(Image.open(buffer)))
    return to_tensor(np.stack(found))


@pytest.mark.parametrize(("kind", "quality"), TABLE)
def test_table_of_the_specification(photos: NDArray[np.uint8], kind: jpeg.Simulator, quality: int) -> None:
    x = to_tensor(photos)
    out = jpeg.simulate(x, kind, quality)
    to_pillow, to_input = TABLE[kind, quality]
    assert psnr(out, pillow(photos, quality)) == pytest.approx(to_pillow, abs=1.25)  # of other photographs
    assert psnr(out, x) == pytest.approx(to_input, abs=1.25)


@pytest.mark.parametrize("quality", [10, 50, 90])
def test_simulators_are_in_order_on_generated_images(quality: int) -> None:
    images = smooth_images(8, (40, 48))
    noise = np.random.default_rng(1).integers(-12, 13, images.shape)
    images = np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)
    real, x = pillow(images, quality), to_tensor(images)
    rounding, ss, mask = (psnr(jpeg.simulate(x, kind, quality), real) for kind in ("rounding", "ss", "mask"))
    assert rounding >= 36
    assert rounding > ss
    assert quality == 10 or ss > mask  # at 10 Pillow's is nearer to a mask on these


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 100])
def test_tables_are_those_of_libjpeg(quality: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth_images(1)[0]).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer)
    assert isinstance(written, JpegImageFile)
    luma, chroma = (np.reshape(t, (8, 8)) for t in written.quantization.values())
    assert np.array_equal(jpeg.tables(quality).numpy(), np.stack([luma, chroma, chroma]))


def test_dct_is_orthonormal() -> None:
    matrix = jpeg.dct_matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), atol=1e-14)


def test_masks() -> None:
    hidden, mbrs = jpeg.mask("hidden"), jpeg.mask("mbrs")
    assert hidden.sum((1, 2)).tolist() == [25, 9, 9]
    assert mbrs.sum((1, 2)).tolist() == [25, 9, 9]
    zigzag = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1)]
    assert {tuple(place) for place in hidden[1].nonzero().tolist()} == set(zigzag)
    assert {tuple(place) for place in mbrs[1].nonzero().tolist()} == {(i, j) for i in range(3) for j in range(3)}


@pytest.mark.parametrize("form", ["hidden", "mbrs"])
def test_masks_know_no_quality(form: Any) -> None:
    x = unit_images(2)
    assert torch.equal(jpeg.simulate(x, "mask", 10, form), jpeg.simulate(x, "mask", 90, form))


@pytest.mark.parametrize("kind", jpeg.SIMULATORS)
def test_any_size_and_a_gradient(kind: jpeg.Simulator) -> None:
    x = unit_images(2, (19, 26)).requires_grad_()
    out = jpeg.simulate(x, kind, 50)
    assert out.shape == x.shape
    [gradient] = torch.autograd.grad((out * unit_images(2, (19, 26), 1)).sum(), x)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().max()) > 0.01


def test_rounding_has_the_gradient_of_the_identity() -> None:
    x = unit_images(1, (16, 16)).requires_grad_()
    weights = unit_images(1, (16, 16), 1)
    [gradient] = torch.autograd.grad((jpeg.simulate(x, "rounding", 10) * weights).sum(), x)
    assert torch.allclose(gradient, weights, atol=1e-9)


def test_soft_rounding() -> None:
    assert jpeg.surrogate_rounding(torch.tensor([-0.4, 0.2, 0.5, 1.7])).tolist() == pytest.approx(
        [-0.064, 0.008, 0.5, 1.7]
    )


def test_mixture_is_convex_and_of_its_draw() -> None:
    x = unit_images(2, (16, 16))
    kinds_seen, qualities_seen = set(), set()
    for seed in range(60):
        weights, kinds, qualities = jpeg.draw_mixture(generator(seed), 3)
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0
        assert all(10 <= quality <= 100 for quality in qualities)
        kinds_seen |= set(kinds)
        qualities_seen |= set(qualities)
    assert kinds_seen == {"ss", "mask", "rounding"}
    assert min(qualities_seen) < 20
    assert max(qualities_seen) > 90
    weights, kinds, qualities = jpeg.draw_mixture(generator(7), 3)
    terms = [w * jpeg.simulate(x, k, q) for w, k, q in zip(weights, kinds, qualities, strict=True)]
    assert torch.allclose(jpeg.mixture(x, generator(7), 3), terms[0] + terms[1] + terms[2], atol=1e-12)


def test_quantise_rounds_with_a_straight_gradient() -> None:
    x = torch.tensor([-0.2, 0.1, 0.5011, 1.3], dtype=torch.float64, requires_grad=True)
    out = quantise(x)
    assert (out * 255).tolist() == pytest.approx([0, 26, 128, 255])
    [gradient] = torch.autograd.grad(out.sum(), x)
    assert gradient.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("kind", ATTACKS)
def test_attacks_keep_size_and_range_and_are_of_their_draw(kind: Any) -> None:
    x = quantise(unit_images(2, (24, 40)).float())
    one, same, other = (attack(x, kind, Recipe(), generator(seed)) for seed in (0, 0, 1))
    assert one.shape == x.shape
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, x)
    assert torch.equal(quantise(one), one)


def test_noise_is_as_strong_as_asked() -> None:
    x = torch.full((4, 3, 64, 64), 0.5)
    assert float((attacks.gaussian_noise(x, 0.05, generator()) - x).std()) == pytest.approx(0.05, rel=0.02)
    strengths = [float((attack(x, "noise", Recipe(), generator(s)) - x).std()) for s in range(20)]
    assert max(strengths) < 0.053
    assert max(strengths) - min(strengths) > 0.02


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_blur_of_a_point(kernel: int) -> None:
    x = torch.zeros(1, 3, 15, 15, dtype=torch.float64)
    x[:, :, 7, 7] = 1
    out = attacks.gaussian_blur(x, kernel, 2.0)[0, 0]
    assert float(out.sum()) == pytest.approx(1)
    assert int((out > 0).sum()) == kernel**2
    assert float(out[7, 8] / out[7, 7]) == pytest.approx(np.exp(-1 / 8))
    assert torch.allclose(out, out.T)
    assert torch.allclose(attacks.gaussian_blur(torch.ones_like(x), kernel, 2.0), torch.ones_like(x))


def test_scaling_and_crop() -> None:
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 3, 32, 32)
    assert torch.equal(attacks.scaling(ramp, 1.0), ramp)
    inner = slice(4, -4)
    assert torch.allclose(attacks.scaling(ramp, 0.5)[..., inner], ramp[..., inner], atol=1e-9)
    checks = (torch.arange(32)[:, None] + torch.arange(32)).double().remainder(2).expand(1, 3, 32, 32)
    assert torch.allclose(attacks.scaling(checks, 0.5), torch.full_like(checks, 0.5))
    out = attacks.crop(ramp, 0, 8, 16, 16)
    assert out.shape == ramp.shape
    assert float(out.min()) == pytest.approx(float(ramp[0, 0, 0, 8]))
    assert float(out.max()) == pytest.approx(float(ramp[0, 0, 0, 23]))
    assert torch.equal(attacks.crop(ramp, 0, 0, 32, 32), ramp)


def test_attacks_are_drawn_from_those_of_the_recipe() -> None:
    recipe = Recipe(attacks=("noise", "jpeg"))
    assert {attacks.draw(recipe, generator(seed)) for seed in range(30)} == {"noise", "jpeg"}


def test_strengths_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    functions: dict[Attack, str] = {"blur": "gaussian_blur", "scaling": "scaling", "crop": "crop", "jpeg": "mixture"}
    asked: dict[Attack, list[Any]] = {name: [] for name in functions}

    def listening(name: Attack) -> Any:
        def answer(x: Tensor, *given: Any) -> Tensor:
            asked[name].append(given)
            return x

        return answer

    for name, function in functions.items():
        monkeypatch.setattr(attacks, function, listening(name))
    recipe = Recipe(blur_kernel=5, blur_sigma=1.5, scaling_low=0.8, scaling_high=0.9, crop_low=0.75, jpeg_mixed=2)
    for seed in range(40):
        for name in asked:
            attack(torch.zeros(1, 3, 16, 40), name, recipe, generator(seed))
    assert set(asked["blur"]) == {(3, 1.5), (5, 1.5)}
    ratios = [ratio for (ratio,) in asked["scaling"]]
    assert 0.8 <= min(ratios) < 0.82 < 0.88 < max(ratios) <= 0.9
    for top, left, height, width in asked["crop"]:
        assert 12 <= height <= 16
        assert 30 <= width <= 40
        assert 0 <= top <= 16 - height
        assert 0 <= left <= 40 - width
    assert {terms for _, terms, _ in asked["jpeg"]} == {2}

    weak = attack(torch.full((1, 3, 64, 64), 0.5), "noise", Recipe(noise_sigma=0.01), generator())
    assert float((weak - 0.5).abs().max()) < 0.05


def test_edges_are_repeated_not_dark() -> None:
    gray = torch.full((1, 3, 19, 26), 0.6, dtype=torch.float64)
    assert float((jpeg.simulate(gray, "mask", 50) - gray).abs().max()) < 1e-3
