from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from toys import noting

from ue_bench.api import Countermeasure
from ue_bench_countermeasures import policies
from ue_bench_countermeasures.policies import (
    CIFAR10_POLICY,
    OPERATIONS,
    ROW,
    SIGNED,
    AutoAugment,
    RandAugment,
    Rotation,
    change,
    constant,
    magnitude,
    rotations,
    row,
    warp,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(32, 32), (17, 30), (2, 5)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int, seed: int = 1) -> Tensor:
    """uint8 images: noise, smooth, dark, gray and constant ones."""
    g = generator(seed)
    noise = torch.randint(256, (count, 3, height, width), generator=g, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    noise[1::5] = ((3 * x + 5 * y) % 256).to(torch.uint8)
    noise[2::5] //= 3
    noise[3::5] = noise[3::5, :1]
    noise[4::5] = 90
    return noise


def reference(images: Tensor, operation: str, amount: float) -> Tensor:
    """torchvision's own application of an operation to a uint8 image."""
    policy = v2.RandAugment()
    found: Tensor = policy._apply_image_or_video_transform(
        images, operation, amount, policy.interpolation, policy._fill
    )
    return found


def amounts(operation: str, height: int, width: int) -> list[float]:
    found = [magnitude(operation, s, 31, height, width) for s in range(31)]
    return found + [-a for a in found] if operation in SIGNED else found


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operation", [*OPERATIONS, "Invert"])
def test_operations_are_those_of_torchvision(operation: str, size: tuple[int, int]) -> None:
    levels = amounts(operation, *size)
    images = pictures(len(levels), *size)
    expected = torch.stack([reference(i, operation, a) for i, a in zip(images, levels, strict=True)])
    rows = constant(tuple(tuple(row(operation, a, *size)) for a in levels), images.device)
    changed = change(images.float(), rows)
    assert torch.equal(changed, expected.float())


@pytest.mark.parametrize(("bins", "policy"), [(31, v2.RandAugment()), (10, v2.AutoAugment())])
def test_magnitudes_are_those_of_torchvision(bins: int, policy: v2.Transform) -> None:
    for operation, (make, signed) in policy._AUGMENTATION_SPACE.items():
        expected = make(bins, 24, 40)
        assert signed == (operation in SIGNED)
        if expected is not None:
            assert [magnitude(operation, s, bins, 24, 40) for s in range(bins)] == expected.tolist()


def test_default_magnitude_on_small_images() -> None:
    found = {o: magnitude(o, 9, 31, 32, 32) for o in OPERATIONS}
    assert found["Rotate"] == pytest.approx(9)
    assert found["ShearX"] == pytest.approx(0.09)
    assert found["TranslateY"] == pytest.approx(4.35, abs=0.005)
    assert found["Brightness"] == pytest.approx(0.27)
    assert found["Posterize"] == 7


def test_policy_is_that_of_torchvision() -> None:
    known = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert [tuple((o, p, m or 0) for o, p, m in pair) for pair in known] == list(CIFAR10_POLICY)


def test_every_image_is_computed_elsewhere_than_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to apply an operation to some images agree."""
    images = pictures(29, 16, 16).float()
    drawn = [tuple(row(o, magnitude(o, 20, 31, 16, 16), 16, 16)) for o in [*OPERATIONS, "Invert"]]
    rows = constant(tuple((2 * drawn)[:29]), images.device)
    expected = change(images, rows)
    monkeypatch.setattr(
        policies, "only", lambda chosen, f, x, *a: torch.where(chosen[:, None, None, None], f(x, *a), x)
    )
    assert torch.equal(change(images, rows), expected)


ALL: list[Countermeasure] = [Rotation(), RandAugment(), AutoAugment()]


@pytest.mark.parametrize("countermeasure", ALL, ids=lambda c: c.name)
class TestEveryPolicy:
    @pytest.fixture
    def x(self) -> Tensor:
        return pictures(60, 12, 16).float() / 255

    def test_same_generator_same_result(self, countermeasure: Countermeasure, x: Tensor) -> None:
        y = torch.zeros(60)
        first, labels = countermeasure.augment(x, y, generator(5))
        assert labels is y
        assert torch.equal(first, countermeasure.augment(x, y, generator(5))[0])
        assert not torch.equal(first, countermeasure.augment(x, y, generator(6))[0])

    def test_global_generator_and_input_stay(self, countermeasure: Countermeasure, x: Tensor) -> None:
        state, before = torch.get_rng_state(), x.clone()
        countermeasure.augment(x, torch.zeros(60), generator())
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(x, before)

    def test_memory_format_stays(self, countermeasure: Countermeasure, x: Tensor) -> None:
        last = x.to(memory_format=torch.channels_last)
        changed, _ = countermeasure.augment(last, torch.zeros(60), generator())
        assert changed.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(changed, countermeasure.augment(x, torch.zeros(60), generator())[0])

    def test_values_stay_8_bit(self, countermeasure: Countermeasure, x: Tensor) -> None:
        changed, _ = countermeasure.augment(x, torch.zeros(60), generator())
        levels = (changed * 255).round()
        assert torch.equal(levels / 255, changed)
        assert 0 <= levels.min() <= levels.max() <= 255

    def test_images_get_draws_of_their_own(self, countermeasure: Countermeasure) -> None:
        x = pictures(1, 16, 16).expand(200, -1, -1, -1).float() / 255
        changed, _ = countermeasure.augment(x.contiguous(), torch.zeros(200), generator())
        assert len(changed.unique(dim=0)) > 25


class TestRotation:
    @pytest.mark.parametrize("size", [(32, 32), (20, 33)])
    def test_is_that_of_torchvision(self, size: tuple[int, int]) -> None:
        images = pictures(50, *size)
        angles = torch.linspace(-180, 170, 50).double() + 0.123
        expected = torch.stack([F.rotate(i, a.item()) for i, a in zip(images, angles, strict=True)])
        turned = warp(images.float(), rotations(angles * math.pi / 180))
        assert torch.equal(turned, expected.float())

    def test_no_angle_is_the_identity(self) -> None:
        x = pictures(5, 9, 14).float()
        assert torch.equal(warp(x, rotations(torch.zeros(5))), x)

    def test_angles_are_uniform_in_their_range(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[Tensor] = []
        monkeypatch.setattr(policies, "rotations", noting(drawn, rotations))
        Rotation(degrees=30).augment(torch.zeros(20000, 1, 1, 1), torch.zeros(20000), generator())
        quantiles = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
        expected = torch.tensor([-30.0, -24.0, 0.0, 24.0, 30.0])
        torch.testing.assert_close(drawn[0].rad2deg().quantile(quantiles), expected, atol=0.6, rtol=0)

    def test_corners_become_black(self) -> None:
        turned, _ = Rotation(degrees=20).augment(torch.ones(300, 3, 32, 32), torch.zeros(300), generator())
        assert (turned[:, :, 0, 0] == 0).float().mean() > 0.8
        assert (turned[:, :, 16, 16] == 1).all()


def names_of(rows: Tensor) -> Counter[str]:
    """How often each operation of RandAugment at its default occurs among rows for images of 16 x 16, without signs."""
    signed = [(o, sign) for o in OPERATIONS for sign in (1, -1) if sign == 1 or o in SIGNED]
    known = {tuple(row(o, magnitude(o, 9, 31, 16, 16) * sign, 16, 16)): o for o, sign in signed}
    return Counter(known[tuple(r)] for r in rows.tolist())


def test_operations_of_randaugment_are_equally_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(policies, "change", noting(seen, lambda levels, rows: levels, 1))
    RandAugment().augment(torch.zeros(14000, 3, 16, 16).expand(14000, 3, 16, 16), torch.zeros(14000), generator())
    assert len(seen) == 2
    for rows in seen:
        counts = names_of(rows)
        assert set(counts) == set(OPERATIONS)
        assert min(counts.values()) > 880  # 1000 expected, standard deviation 30
        assert max(counts.values()) < 1120
        turned = rows[rows[:, 1] != 0]
        assert (turned[:, 1] > 0).float().mean().item() == pytest.approx(0.5, abs=0.06)  # signs are fair


def test_steps_of_autoaugment_have_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(policies, "change", noting(seen, lambda levels, rows: levels, 1))
    AutoAugment().augment(torch.zeros(25000, 3, 4, 4), torch.zeros(25000), generator())
    for step, rows in enumerate(seen):
        share = (rows[:, ROW.index("equalize")] == 1).double().mean().item()
        expected = sum(pair[step][1] for pair in CIFAR10_POLICY if pair[step][0] == "Equalize") / 25
        assert share == pytest.approx(expected, abs=0.01)
        share = (rows[:, 6] != 1).double().mean().item()
        expected = sum(pair[step][1] for pair in CIFAR10_POLICY if pair[step][0] == "Brightness") / 25
        assert share == pytest.approx(expected, abs=0.01)
