"""LSP on photographs: golden digests are of the release's generator as it was called before it was drawn in blocks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ue_bench.api import Context, UserError
from ue_bench_baselines import lsp_points
from ue_bench_baselines.lsp import LSP
from ue_bench_baselines.lsp_points import Cloud, corners, places, sampled

from .helpers import difference, image_set

GOLDEN: list[tuple[int, tuple[int, int], int, dict[str, Any], str]] = [
    (1000, (32, 32), 10, {}, "959cffc3006458ad2861bc3b0dd79399a335f986e0b92e08bc30952ba0e09751"),
    (500, (32, 32), 100, {}, "1aefd8c5119dac79719073abfdf0d5ff721b083929be5f1a127c29b71a6a9afa"),
    (200, (64, 64), 7, {}, "bc4b040f901e96db756d79021eb1da6fd371d57980ec94881b04d246a5e7e734"),
    (60, (96, 96), 3, {}, "a7d9185c882cc13472f6a37dfbfb03837c8d16919c588969c6da9082c7659683"),
    (20, (224, 224), 10, {}, "7ec0dde3ce259320aa5dabce334ccc7cbc62513b0cb87e48ba7e91a00d163856"),
    (40, (20, 33), 4, {}, "03c70a7b3c9247ebff6edcd3e929e6dbd7a03033523cd8f191e43bf073e3332a"),
    (30, (57, 131), 5, {}, "7f690c43d457f677244e136c0758e3577b6a7ba9911569ae3432dd2d8df11b1f"),
    (25, (32, 32), 3, {"seed": 7, "rounding": "round"},
     "6679328c1a96e2a13524a061a3be608d55333ba3e89f3ff0c868a1373522e42f"),
    (9, (101, 203), 2, {"patch": 5}, "c6ad35c452d99671e58789564a082ed9e274b34c2063e91b3fe9a9dbbfeea3e1"),
    (12, (32, 32), 2, {"class_sep": 1.5, "eps": 8 / 255},
     "af40f99f2ace2617688001f4fc7aab013d5f8038aeb62156f9aecb6e22fe36c7"),
    (3, (300, 280), 3, {}, "6bbee8789958ea164e2391910d012c7afad6ad4828d57d89e374c0e58470b90e"),
    (1, (224, 224), 1, {}, "e8fc10805d954dbb5e1504374434a13ae6e3b0538200aa62f869672fecd040c3"),
]  # fmt: skip


@pytest.mark.parametrize(("count", "size", "classes", "parameters", "expected"), GOLDEN, ids=lambda v: str(v)[:20])
def test_a_board_s_bytes_are_as_ever(
    count: int, size: tuple[int, int], classes: int, parameters: dict[str, Any], expected: str, ctx: Context
) -> None:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    data = image_set(images, rng.integers(0, classes, count), classes)

    protected = LSP(**parameters).protect(data, ctx)

    assert hashlib.sha256(np.ascontiguousarray(protected.images).data).hexdigest() == expected


def test_a_matrix_in_blocks_gives_the_points_of_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import make_classification

    monkeypatch.setattr(lsp_points, "BLOCK_VALUES", 5_000)
    points, owners = sampled(3, 147, 30, 10.0, 1)
    expected, classes = make_classification(
        30, 147, n_informative=147, n_redundant=0, n_classes=3, n_clusters_per_class=1, flip_y=0, class_sep=10.0,
        random_state=1,
    )  # fmt: skip

    assert owners.tolist() == classes.tolist()
    assert points == pytest.approx(expected, rel=1e-5, abs=1e-5)


PEAK = """
import sys
from pathlib import Path
import numpy as np
from ue_bench.api import Context, ImageSet
from ue_bench_baselines.lsp import LSP

folder, height, width, secret = Path(sys.argv[1]), *map(int, sys.argv[2:])
images = np.load(folder / "images.npy", mmap_mode="r")
data = ImageSet(images, np.arange(len(images)), tuple("ab"))
ctx = Context("cpu", 1, folder, folder / "artifacts", folder, secret=bool(secret))
LSP().protect(data, ctx)
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)  # in KiB; ru_maxrss would be that of the parent, where it was larger
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("secret", [0, 1])
@pytest.mark.parametrize("size", [(830, 830), (1080, 1920), (4000, 6000)], ids=str)
def test_photographs_take_a_few_times_their_own_memory(size: tuple[int, int], secret: int, tmp_path: Path) -> None:
    """Two of 1920 x 1080 asked for 70 GiB before, of 24 megapixels for 9 TiB."""
    shape = (2, *size, 3)
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)  # a file of zeros

    ran = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), *map(str, size), str(secret)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) * 1024 < 500 * 2**20 + 3 * size[0] * size[1]


def cloud_set(
    sizes: list[tuple[int, int]], classes: int, ctx: Context
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Perturbations of one image of each size as an owner's are made, one size at a time, brought to 8 x 8."""
    from PIL import Image

    labels = np.arange(len(sizes)) % classes
    found = []
    for label, size in zip(labels.tolist(), sizes, strict=True):
        data = image_set(np.full((1, *size, 3), 128, np.uint8), [label], classes)
        change = difference(LSP().protect(data, ctx), data)[0].astype(np.float32)
        channels = [Image.fromarray(change[..., c]).resize((8, 8), Image.Resampling.BOX) for c in range(3)]
        found.append(np.stack([np.asarray(channel, dtype=np.float64) for channel in channels]).ravel())
    return np.stack(found), labels


def test_images_of_which_each_has_its_own_size_stay_separable(ctx: Context) -> None:
    """A linear classifier had 0.67 of images it had not seen when points were drawn by size."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    sizes = [(int(height), int(width)) for height, width in rng.integers(20, 150, (200, 2))]
    values, labels = cloud_set(sizes, 10, replace(ctx, seed=4, secret=True))

    fitted = LogisticRegression(max_iter=500).fit(values[:100], labels[:100])

    assert fitted.score(values[100:], labels[100:]) >= 0.99


def test_points_beyond_the_sampler_are_separable_and_as_wide_as_at_32_pixels(ctx: Context) -> None:
    cloud = Cloud(1, 5, (105, 105), 10.0)
    points = np.stack([np.concatenate([b for _, b in cloud.blocks(label, n)]) for label in range(5) for n in range(4)])
    by_class = points.reshape(5, 4, -1)

    assert by_class.std(axis=1, ddof=1).mean() == pytest.approx(4 * 0.9213, rel=0.02)  # c4 of four values
    assert np.abs(by_class.mean(axis=1)).mean() == pytest.approx(10, rel=0.02)
    data = image_set(np.full((1, 840, 840, 3), 128, np.uint8), [0], 1)  # 33,075 patch colours
    change = difference(LSP(rounding="round").protect(data, ctx), data)
    assert np.sqrt(np.square(change).mean()) == pytest.approx(6, abs=0.1)


def test_corners_differ_also_where_few_patches_show_them() -> None:
    found = corners(8, 3)

    for rows in range(1, 5):
        for columns in range(1, 5):
            part = found[:, places(rows)][:, :, places(columns)]
            assert len({corner.tobytes() for corner in part}) == 8
    assert len({corner.tobytes() for corner in corners(1000, 3)}) == 1000


def test_an_owner_s_images_of_too_few_patches(ctx: Context) -> None:
    data = image_set(np.zeros((9, 8, 8, 3), np.uint8), list(range(9)), 9)

    with pytest.raises(UserError, match="3 patch colours cannot separate 9 classes"):
        LSP().protect(data, replace(ctx, secret=True))


def test_cut_patches_count_as_far_as_they_are_shown(ctx: Context) -> None:
    data = image_set(np.full((4, 37, 53, 3), 128, np.uint8), [0, 1, 0, 1], 2)

    change = difference(LSP(rounding="round").protect(data, replace(ctx, secret=True)), data)

    assert np.sqrt(np.square(change).mean(axis=(1, 2, 3))) == pytest.approx(np.full(4, 6), abs=0.1)
    assert (change[:, 32:, 48:] == change[:, 32:33, 48:49]).all()
