"""The neural tangent kernels of NTGA, and training by them in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ue_bench_baselines import ntk_conv
from ue_bench_baselines.ntga import LAYERS
from ue_bench_baselines.ntk import BIASES, WEIGHTS, differences, ntk, response, trained

from .kernels import one_hot, pixels, trained_by_exponential, with_ridge

pytestmark = pytest.mark.usefixtures("one_thread")

NODES, SHARES = np.polynomial.hermite_e.hermegauss(60)


def expectation(f: Callable[[Any], Any], covariance: Tensor) -> float:
    """E[f(u) f(v)] for normal u, v with a 2 x 2 covariance, by quadrature."""
    root = np.linalg.cholesky(covariance.numpy())
    u = root[0, 0] * NODES[:, None] + 0 * NODES
    v = root[1, 0] * NODES[:, None] + root[1, 1] * NODES
    shares = SHARES[:, None] * SHARES / (2 * math.pi)
    return float((f(torch.from_numpy(u)) * f(torch.from_numpy(v)) * torch.from_numpy(shares)).sum())


def erf_slope(u: Tensor) -> Tensor:
    return 2 / math.sqrt(math.pi) * torch.exp(-u.square())


def ntk_by_quadrature(x: Tensor, layers: int, readout: bool) -> float:
    """Of the two images in ``x``, layer by layer, as Jacot et al. define it."""
    covariance = WEIGHTS * x @ x.T / x.shape[1] + BIASES
    tangent = float(covariance[0, 1])
    for layer in range(layers):
        tangent *= expectation(erf_slope, covariance)
        own = [expectation(torch.erf, covariance[[i, i]][:, [i, i]] + 1e-12 * torch.eye(2)) for i in range(2)]
        pair = expectation(torch.erf, covariance)
        covariance = WEIGHTS * torch.tensor([[own[0], pair], [pair, own[1]]], dtype=torch.float64) + BIASES
        if layer < layers - 1 or readout:
            tangent = WEIGHTS * tangent + float(covariance[0, 1])
    return tangent


class TestKernel:
    @pytest.mark.parametrize("readout", [False, True])
    @pytest.mark.parametrize("layers", [1, 2, 5])
    def test_is_the_expectation_over_gaussians(self, layers: int, readout: bool) -> None:
        x = pixels(2, 30)
        assert float(ntk(x, x, layers, readout)[0, 1]) == pytest.approx(ntk_by_quadrature(x, layers, readout), rel=1e-9)

    @pytest.mark.parametrize("readout", [False, True])
    def test_is_what_finite_networks_have_on_average(self, readout: bool) -> None:
        """200 nets of width 100: the mean product of gradients is within four standard errors."""
        x, draws, width = pixels(3, 6), 200, 100
        generator = torch.Generator().manual_seed(3)
        sizes = [6, width, width, 1] if readout else [6, width, 1]

        def output(parameters: list[Tensor], image: Tensor) -> Tensor:
            h = image
            for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
                h = weight @ h * math.sqrt(WEIGHTS / len(h)) + bias * math.sqrt(BIASES)
                h = h if readout and len(h) == 1 else torch.erf(h)
            return h[0]

        shapes = [s for i, o in pairwise(sizes) for s in ((draws, o, i), (draws, o))]
        nets = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
        gradients = torch.vmap(torch.vmap(torch.func.grad(output), (None, 0)), (0, None))(nets, x)
        flat = torch.cat([g.flatten(2) for g in gradients], dim=2)  # draws x images x parameters
        found = flat @ flat.transpose(1, 2)

        error = (found.mean(0) - ntk(x, x, 2, readout)).abs()
        assert (error < 4 * found.std(0) / math.sqrt(draws)).all()
        assert (found.std(0) / math.sqrt(draws) < 0.1 * found.mean(0)).all()

    def test_is_symmetric_and_positive_definite(self) -> None:
        x = torch.cat([pixels(40), pixels(40) + 1e-3])
        kernel = ntk(x, x, LAYERS, False)
        assert torch.allclose(kernel, kernel.T, rtol=1e-13)
        assert torch.linalg.eigvalsh(kernel)[0] > 0
        assert torch.allclose(ntk(x[:7], x[5:], LAYERS, False), kernel[:7, 5:], rtol=1e-12)

    def test_has_the_derivative_of_its_values(self) -> None:
        x, other = pixels(3, 4).requires_grad_(), pixels(2, 4, seed=1)
        assert torch.autograd.gradcheck(lambda v: (ntk(v, v, LAYERS, True), ntk(other, v, LAYERS, False)), x)


class TestConvolutionalKernel:
    def waves(self, side: int) -> Tensor:
        """Three images that a formula draws: 0.5 + 0.5 sin(a (1 + i + 2 j + 3 c) / 10) for a = 1, 2, 3."""
        i, j, c = torch.meshgrid(torch.arange(side), torch.arange(side), torch.arange(3), indexing="ij")
        phase = (1 + i + 2 * j + 3 * c).double() / 10
        return torch.stack([0.5 + 0.5 * torch.sin(a * phase) for a in (1, 2, 3)]).permute(0, 3, 1, 2)

    @pytest.mark.parametrize(
        ("side", "values"),
        [
            (32, (12.34251456, 10.15705354, 10.05435138, 12.75393677, 10.36276616, 12.73428055)),
            (8, (12.24262524, 8.49622311, 7.69362978, 8.02171667, 6.57153907, 7.32101487)),
        ],
    )
    def test_is_that_of_neural_tangents(self, side: int, values: tuple[float, ...]) -> None:
        """Golden values, rounded to 8 decimals, of the release's network under neural-tangents 0.6.5."""
        x = self.waves(side)
        upper = ntk_conv.ntk_conv(x, x)[tuple(torch.triu_indices(3, 3))]
        assert upper.tolist() == pytest.approx(values, abs=6e-9)

    def test_is_what_finite_networks_have_on_average(self) -> None:
        """150 nets of width 48: the mean product of gradients is within four standard errors."""
        x, draws, width = torch.rand(2, 3, 5, 8, generator=torch.Generator().manual_seed(0)).double(), 150, 48
        generator = torch.Generator().manual_seed(3)
        shapes = [(width, 3, 5, 5), (width,), (width, width, 5, 5), (width,)]
        shapes += [s for i, o in ((width * 4, width), (width, width), (width, 1)) for s in ((o, i), (o,))]
        products = []
        for _ in range(draws):
            parts = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
            gradients = []
            for image in x:
                h = image[None]
                for weight, bias in zip(parts[:4:2], parts[1:4:2], strict=True):
                    fan_in = weight[0].numel()
                    h = F.conv2d(ntk_conv._padded(h), weight * math.sqrt(WEIGHTS / fan_in), None, 2)
                    h = (h + bias[:, None, None] * math.sqrt(BIASES)).relu()
                v = h.flatten()
                for weight, bias in zip(parts[4::2], parts[5::2], strict=True):
                    v = weight @ v * math.sqrt(WEIGHTS / len(v)) + bias * math.sqrt(BIASES)
                gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(v[0], parts)]))
            both = torch.stack(gradients)
            products.append(both @ both.T)
        found = torch.stack(products)
        error = (found.mean(0) - ntk_conv.ntk_conv(x, x)).abs()
        spread = found.std(0) / math.sqrt(draws)
        assert (error < 4 * spread).all()
        assert (spread < 0.1 * found.mean(0)).all()

    @pytest.mark.parametrize("size", [(8, 8), (13, 6), (1, 2)], ids=str)
    def test_is_symmetric_and_parts_do_not_matter(self, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.rand(5, 3, *size, generator=torch.Generator().manual_seed(0)).double()
        whole = ntk_conv.ntk_conv(x, x)
        assert torch.allclose(whole, whole.T, rtol=1e-13)
        assert torch.linalg.eigvalsh(whole)[0] > 0
        monkeypatch.setattr(ntk_conv, "MAP_BYTES", 1)
        assert torch.allclose(ntk_conv.ntk_conv(x[:3], x[2:]), whole[:3, 2:], rtol=1e-13)

    def test_has_the_derivative_of_its_values(self) -> None:
        """Of an image with itself too, where an angle of 0 has none."""
        x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        other = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(2)).double()
        assert torch.autograd.gradcheck(lambda v: (ntk_conv.ntk_conv(v, v), ntk_conv.ntk_conv(other, v)), x)


TIMES = [1e-3, 1.0, 64.0, 4096.0, 1e6]


class TestTraining:
    def test_is_gradient_descent_on_the_mean_squared_error(self) -> None:
        """Many short steps; half the mean over all targets, as the library's learning rate counts."""
        kernel, targets = ntk(pixels(6), pixels(6), LAYERS, False), one_hot([0, 1, 2, 0, 1, 1], 3)
        predictions, length = torch.zeros_like(targets), 0.02
        step = length * with_ridge(kernel)
        for _ in range(800):
            predictions = predictions - step @ (predictions - targets) / targets.numel()
        assert torch.allclose(with_ridge(kernel) @ trained(kernel, targets, 16.0), predictions, atol=1e-3)
        assert (predictions - targets).abs().max() > 0.1

    @pytest.mark.parametrize("time", TIMES)
    def test_agrees_with_a_matrix_exponential(self, time: float) -> None:
        kernel, targets = ntk(pixels(9), pixels(9), LAYERS, False), one_hot([0, 1, 2] * 3, 4)
        assert torch.allclose(trained(kernel, targets, time), trained_by_exponential(kernel, targets, time), rtol=1e-7)

    def test_ends_with_the_solution(self) -> None:
        kernel, targets = ntk(pixels(9), pixels(9), LAYERS, False), one_hot([0, 1, 2] * 3, 3)
        assert torch.allclose(with_ridge(kernel) @ trained(kernel, targets, 1e12), targets, atol=1e-9)

    @pytest.mark.parametrize("time", TIMES)
    @pytest.mark.parametrize("copies", [0, 2])
    def test_has_the_derivative_of_the_exponential_also_where_eigenvalues_coincide(
        self, time: float, copies: int
    ) -> None:
        """Three copies of two images have eigenvalues that differ by rounding alone."""
        few = pixels(2 if copies else 6)
        targets, slopes = one_hot([0, 1, 2, 0, 1, 1], 3), pixels(6, 3, seed=1) - 0.5
        x = torch.cat([few] * (copies + 1)).requires_grad_()
        kernel = ntk(x, x, LAYERS, False)
        [found], [expected] = (
            torch.autograd.grad((way(kernel, targets, time) * slopes).sum(), x, retain_graph=True)
            for way in (trained, trained_by_exponential)
        )
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-8 * float(expected.abs().max()))

    def test_divided_differences(self) -> None:
        values = torch.tensor([0.1, 0.7, 0.7, 3.0, 400.0], dtype=torch.float64)
        found, steps = differences(values, 2.0), response(values, 2.0)
        for i, j in [(0, 1), (1, 3), (4, 0), (3, 4)]:
            assert found[i, j] == pytest.approx(float((steps[i] - steps[j]) / (values[i] - values[j])))
        slope = torch.func.vmap(torch.func.grad(lambda v: response(v, 2.0)))(values)
        assert torch.allclose(found.diagonal(), slope)
        assert found[1, 2] == pytest.approx(float(slope[1]))
        assert float(differences(values[:1], 1e-6)[0, 0]) == pytest.approx(-(1e-6**2) / 2, rel=1e-3)
