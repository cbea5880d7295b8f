from __future__ import annotations

import sys
import zlib
from typing import Any

import numpy as np
import pytest

from ue_bench.api import Context, Countermeasure, EnvironmentProblem, Preprocessing, UserError
from ue_bench_countermeasures.denoising import PrincipalComponents, TotalVariation, Wavelet, chambolle, noise, to_levels

from .helpers import Images, Purify, image_set, is_kept

ALL: list[Countermeasure] = [TotalVariation(), Wavelet(), Wavelet(wavelet="db2"), PrincipalComponents(components=20)]


@pytest.fixture
def blurred() -> Images:
    """Images of 11 x 18, smooth with noise on top."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:11, :18]
    phases = rng.uniform(0, 6, (40, 1, 1, 3))
    smooth = 128 + 80 * np.sin(x[..., None] / 7 + phases) * np.cos(y[..., None] / 5 + phases)
    found: Images = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    return found


def total_variation(images: Images) -> float:
    levels = images.astype(int)
    return float(np.abs(np.diff(levels, axis=1)).sum() + np.abs(np.diff(levels, axis=2)).sum())


@pytest.mark.parametrize("countermeasure", ALL, ids=lambda c: c.selector)
class TestEveryDenoising:
    def test_labels_names_and_input_stay(self, countermeasure: Countermeasure, blurred: Images, ctx: Context) -> None:
        before = image_set(blurred.copy())
        after = countermeasure.purify(before, ctx)
        assert after.labels is before.labels
        np.testing.assert_array_equal(before.images, blurred)

    def test_same_images_same_result(self, countermeasure: Countermeasure, blurred: Images, purify: Purify) -> None:
        np.testing.assert_array_equal(purify(countermeasure, blurred), purify(countermeasure, blurred))

    def test_images_become_smoother_and_stay_close(
        self, countermeasure: Countermeasure, blurred: Images, purify: Purify
    ) -> None:
        clean = purify(countermeasure, blurred)
        assert total_variation(clean) < 0.95 * total_variation(blurred)
        assert np.abs(clean.astype(int) - blurred).mean() < 15
        assert clean.mean() == pytest.approx(blurred.mean(), abs=0.5)

    @pytest.mark.parametrize("level", [0, 200, 255])
    def test_constant_images_stay(self, countermeasure: Countermeasure, level: int, purify: Purify) -> None:
        image = np.full((3, 8, 11, 3), level, np.uint8)
        np.testing.assert_array_equal(purify(countermeasure, image), image)

    def test_result_is_kept(self, countermeasure: Countermeasure) -> None:
        assert is_kept(countermeasure)


@pytest.mark.parametrize("countermeasure", ALL[:3], ids=lambda c: c.selector)
class TestEveryDenoisingByItself:
    def test_each_image_is_treated_by_itself(
        self, countermeasure: Countermeasure, blurred: Images, purify: Purify
    ) -> None:
        together = purify(countermeasure, blurred)
        for at in (0, 17, 39):
            np.testing.assert_array_equal(purify(countermeasure, blurred[at : at + 1])[0], together[at])

    def test_each_channel_is_treated_by_itself(
        self, countermeasure: Countermeasure, blurred: Images, purify: Purify
    ) -> None:
        swapped = purify(countermeasure, blurred[..., ::-1])
        np.testing.assert_array_equal(swapped[..., ::-1], purify(countermeasure, blurred))

    def test_test_images_are_left_alone_unless_asked(
        self, countermeasure: Preprocessing, blurred: Images, ctx: Context
    ) -> None:
        data = image_set(blurred)
        asked = countermeasure.model_copy(update={"apply_to_test": True})
        assert not countermeasure.apply_to_test
        assert asked.identity() != countermeasure.identity()
        np.testing.assert_array_equal(asked.purify(data, ctx).images, countermeasure.purify(data, ctx).images)


class TestTotalVariation:
    def test_energy_is_lower_than_nearby(self) -> None:
        """The minimiser of a convex function: no small step from it leads down by more than the tolerance."""
        plane = np.random.default_rng(0).random((1, 12, 15))

        def energy(u: Any) -> float:
            rows, columns = np.zeros_like(u), np.zeros_like(u)
            rows[:, :-1], columns[:, :, :-1] = np.diff(u, axis=1), np.diff(u, axis=2)
            return float(((u - plane) ** 2).sum() / 2 + 0.1 * np.sqrt(rows**2 + columns**2).sum())

        found = chambolle(plane, 0.1)
        rng = np.random.default_rng(1)
        nearby = [energy(found + rng.normal(0, 0.02, plane.shape)) for _ in range(20)]
        assert energy(found) < min(nearby)
        assert energy(found) < 0.8 * energy(plane)

    def test_noise_on_a_ramp_goes(self, purify: Purify) -> None:
        ramp = np.broadcast_to(np.linspace(40, 210, 32)[None, :, None], (32, 32, 3))
        noisy = np.clip(ramp + np.random.default_rng(0).normal(0, 8, ramp.shape), 0, 255).astype(np.uint8)
        errors = [((image - ramp) ** 2).mean() for image in (noisy, purify(TotalVariation(), noisy[None])[0])]
        assert errors[1] < errors[0] / 3

    def test_larger_weights_are_smoother(self, blurred: Images, purify: Purify) -> None:
        smoothness = [total_variation(purify(TotalVariation(weight=w), blurred[:5])) for w in (0.01, 0.03, 0.1)]
        assert smoothness == sorted(smoothness, reverse=True)

    def test_a_plane_that_comes_to_rest_early_is_as_if_alone(self) -> None:
        planes = np.stack([np.random.default_rng(0).random((9, 9)), np.full((9, 9), 0.3), np.eye(9)])
        alone = np.concatenate([chambolle(plane[None], 0.05) for plane in planes])
        np.testing.assert_allclose(chambolle(planes, 0.05), alone, atol=1e-14)


class TestWavelet:
    def test_known_result(self, purify: Purify) -> None:
        """Made with scikit-image 0.26."""
        y, x, c = np.indices((32, 32, 3))
        image = 4 * x + 3 * y + 20 * c + (31 * x * x + 17 * y * y * x + 7 * c + 13 * x * y) % 41
        [clean] = purify(Wavelet(), image[None].astype(np.uint8))
        assert (int(clean.sum()), zlib.crc32(clean.tobytes())) == (445036, 0xF9570580)

    def test_noise_goes_and_structure_stays(self, purify: Purify) -> None:
        image = np.full((32, 32, 3), 60.0)
        image[:, 16:] = 180
        noisy = np.clip(image + np.random.default_rng(0).normal(0, 10, image.shape), 0, 255).astype(np.uint8)
        clean = purify(Wavelet(), noisy[None])[0]
        assert ((clean - image) ** 2).mean() < 0.5 * ((noisy - image) ** 2).mean()

    def test_noise_is_the_median_of_details_that_are_not_zero(self) -> None:
        details = np.zeros((2, 2, 3, 3))
        details[0, :, :, 0] = [[-1, 0, 5], [2, 0, 3]]  # 1 2 3 5
        details[0, 0, :, 1] = [4, -1, 2]
        estimate = noise(details)
        assert estimate.shape == (2, 1, 1, 3)
        assert estimate[0].ravel() * 0.67448975 == pytest.approx([2.5, 2, 0])
        assert (estimate[1] == 0).all()

    def test_odd_sides_keep_their_size(self, purify: Purify) -> None:
        image = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), dtype=np.uint8)
        assert purify(Wavelet(wavelet="sym2"), image).shape == image.shape

    def test_images_too_small_for_the_wavelet_are_refused(self, purify: Purify) -> None:
        with pytest.raises(UserError, match=r"8 x 11 are too small for wavelet coif3"):
            purify(Wavelet(wavelet="coif3"), np.zeros((1, 8, 11, 3), np.uint8))

    def test_missing_library_is_named(self, purify: Purify, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pywt", None)
        with pytest.raises(EnvironmentProblem, match="PyWavelets"):
            purify(Wavelet(), np.zeros((1, 8, 8, 3), np.uint8))

    def test_every_wavelet_that_the_pattern_admits_is_known(self) -> None:
        pywt = pytest.importorskip("pywt")
        admitted = [f"{family}{order}" for family in ("db", "sym", "coif") for order in range(45)]
        for name in admitted:
            try:
                Wavelet(wavelet=name)
            except ValueError:
                assert name not in pywt.wavelist(kind="discrete")
            else:
                assert pywt.Wavelet(name).orthogonal


class TestPrincipalComponents:
    def test_agrees_with_scikit_learn(self, blurred: Images, purify: Purify) -> None:
        from sklearn.decomposition import PCA

        flat = blurred[:, :6, :8].reshape(40, -1) / 255
        model = PCA(7, svd_solver="full").fit(flat)
        expected = to_levels(model.inverse_transform(model.transform(flat)).reshape(40, 6, 8, 3))
        np.testing.assert_array_equal(purify(PrincipalComponents(components=7), blurred[:, :6, :8]), expected)

    def test_all_components_are_the_identity(self, purify: Purify) -> None:
        images = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 3), dtype=np.uint8)
        np.testing.assert_array_equal(purify(PrincipalComponents(components=36), images), images)

    def test_fit(self, blurred: Images, ctx: Context) -> None:
        mean, basis = PrincipalComponents(components=5).fit(image_set(blurred[:, :6, :8]), ctx)
        flat = blurred[:, :6, :8].reshape(40, -1)
        np.testing.assert_allclose(mean, flat.mean(axis=0))
        np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
        error = (flat - mean) - (flat - mean) @ basis @ basis.T
        np.testing.assert_allclose(error @ basis, 0, atol=1e-9)
        # what is left is the sum of the other eigenvalues of the covariance
        values = np.linalg.eigvalsh(np.cov(flat.T, bias=True))
        assert (error**2).sum() / 40 == pytest.approx(values[:-5].sum())

    def test_sums_do_not_depend_on_the_size_of_parts(
        self, blurred: Images, ctx: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = image_set(blurred[:, :6, :8])
        _, basis = PrincipalComponents(components=5).fit(data, ctx)
        monkeypatch.setattr(type(data), "chunks", lambda self, at_most: [slice(i, i + 7) for i in range(0, 40, 7)])
        np.testing.assert_array_equal(PrincipalComponents(components=5).fit(data, ctx)[1], basis)

    def test_test_images_cannot_be_treated_alike(self) -> None:
        assert not issubclass(PrincipalComponents, Preprocessing)

    def test_images_too_large_are_refused(self, purify: Purify) -> None:
        with pytest.raises(UserError, match="64 x 65"):
            purify(PrincipalComponents(), np.zeros((1, 64, 65, 3), np.uint8))

    def test_too_many_components_are_refused(self, purify: Purify) -> None:
        with pytest.raises(UserError, match="12 principal components"):
            purify(PrincipalComponents(components=13), np.zeros((1, 2, 2, 3), np.uint8))
