"""Reversible data hiding: out comes what went in, and the image itself, bit by bit."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ue_bench.api import UserError
from ue_bench_raeg import rdh, rdh_coder

from .helpers import DATA, smooth_images, thresholds_of

Pixels = NDArray[np.uint8]


@cache
def hundred(side: int) -> list[Pixels]:
    """100 photographs, or images of the size of photographs with gradients and noise where there are none."""
    files = sorted((DATA / "photos-256").glob("*.parquet"))
    if not files:
        print(f"no photographs at {DATA / 'photos-256'}: generated images")
        noise = np.random.default_rng(0).integers(-6, 7, (100, side, side, 3))
        return list(np.clip(smooth_images(100, (side, side)) + noise, 0, 255).astype(np.uint8))
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(files[0]).slice(0, 100).column("image").to_pylist()
    images = [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows]
    return [np.asarray(i if i.width == side else i.resize((side, side), Image.Resampling.BOX)) for i in images]


def message(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def distance(a: Pixels, b: Pixels) -> float:
    """PSNR in dB."""
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def test_a_hundred_photographs() -> None:
    for number, photo in enumerate(hundred(64)):
        hidden = message(photo.size // 8 * (1 + number % 3) // 10, number)  # 0.1, 0.2 or 0.3 bits a value
        try:
            marked = rdh.embed(photo, hidden)
        except rdh.NoRoom:
            assert number % 3 == 2  # three photographs of noise-like texture
            continue
        assert not np.array_equal(marked, photo)
        image, found = rdh.extract(marked)
        assert found == hidden
        assert np.array_equal(image, photo)


@pytest.mark.slow
def test_a_hundred_photographs_in_full() -> None:
    fits = 0
    for number, photo in enumerate(hundred(256)):
        for share, passes in ((0.05, 1), (0.4, 1), (0.7, 1), (1.1, 2)):
            hidden = message(int(photo.size * share / 8), number)
            try:
                marked = rdh.embed(photo, hidden, passes)
            except rdh.NoRoom:
                continue
            image, found = rdh.extract(marked)
            assert found == hidden
            assert np.array_equal(image, photo)
            fits += 1
    assert fits > 340


class TestCapacity:
    """Specification, 7.3: bits a value and PSNR of embedding alone, on natural photographs; ours are other ones."""

    @pytest.mark.parametrize(
        ("threshold", "low", "high", "psnr"), [(1, 0.1, 0.5, 47), (4, 0.4, 0.8, 38), (16, 0.6, 0.95, 31)]
    )
    def test_of_photographs(self, threshold: int, low: float, high: float, psnr: float) -> None:
        rates, distances = [], []
        for photo in hundred(64)[:10]:
            short, long, best = 0, photo.size // 8, photo
            while long - short > 40:  # bytes
                middle = (short + long) // 2
                try:
                    best, short = rdh.embed(photo, message(middle), max_threshold=threshold), middle
                except rdh.NoRoom:
                    long = middle
            rates.append(8 * short / photo.size)
            if short:
                distances.append(distance(best, photo))
        assert low < np.mean(rates) < high
        assert np.mean(distances) > psnr

    def test_more_passes_hold_more_and_distort_more(self) -> None:
        photo = smooth_images(1, (64, 64))[0] // 2 + 60
        one, two = message(1000), message(2500)
        with pytest.raises(rdh.NoRoom):
            rdh.embed(photo, two)
        marked = rdh.embed(photo, two, passes=2)
        image, found = rdh.extract(marked)
        assert found == two
        assert np.array_equal(image, photo)
        assert distance(marked, photo) < distance(rdh.embed(photo, one), photo)

    def test_small_messages_distort_little(self) -> None:
        photo = hundred(64)[0]
        psnr = [distance(rdh.embed(photo, message(length)), photo) for length in (1, 300, 900)]
        assert psnr[0] > psnr[1] > psnr[2]
        assert psnr[0] > 55

    def test_room_is_a_guess_from_above(self) -> None:
        for photo in hundred(64)[:20]:
            with pytest.raises(rdh.NoRoom):
                rdh.embed(photo, message(rdh.room(photo) + 1))


def odd_images() -> dict[str, Pixels]:
    rng = np.random.default_rng(0)
    mixed = rng.integers(100, 110, (24, 31, 3), dtype=np.uint8)
    mixed[:12] = 255
    mixed[:6, :9] = 0
    return {
        "black": np.zeros((24, 31, 3), np.uint8),
        "white": np.full((24, 31, 3), 255, np.uint8),
        "noise": rng.integers(0, 256, (24, 31, 3), dtype=np.uint8),
        "black and white": rng.integers(0, 2, (24, 31, 3), dtype=np.uint8) * 255,
        "nearly white": rng.integers(252, 256, (24, 31, 3), dtype=np.uint8),
        "nearly black": rng.integers(0, 3, (24, 31, 3), dtype=np.uint8),
        "saturated areas": mixed,
        "one channel": np.dstack([mixed[..., 0], np.zeros((24, 31, 2), np.uint8)]),
    }


# White cannot become whiter, and neighbours of noise say nothing.
HOPELESS = {"white", "noise", "black and white", "nearly white"}


@pytest.mark.parametrize("name", odd_images())
@pytest.mark.parametrize("length", [0, 1, 20, 60])
def test_odd_images(name: str, length: int) -> None:
    image, fits = odd_images()[name], 0
    for passes in (1, 3):
        try:
            marked = rdh.embed(image, message(length), passes)
        except rdh.NoRoom:
            continue
        back, found = rdh.extract(marked)
        assert found == message(length)
        assert np.array_equal(back, image)
        fits += 1
    assert (fits > 0) == (name not in HOPELESS)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), height=st.integers(10, 24), width=st.integers(10, 24), low=st.integers(0, 255),
    spread=st.integers(0, 10), length=st.integers(0, 24), passes=st.integers(1, 4),
    threshold=st.sampled_from(rdh.THRESHOLDS),
)  # fmt: skip
def test_any_image(
    seed: int, height: int, width: int, low: int, spread: int, length: int, passes: int, threshold: int
) -> None:
    rng = np.random.default_rng(seed)
    image = np.clip(low + rng.integers(-spread, spread + 1, (height, width, 3)), 0, 255).astype(np.uint8)
    try:
        marked = rdh.embed(image, message(length, seed), passes, threshold)
    except rdh.NoRoom:
        reject()  # one in four; of smaller or rougher images nearly all
    assert marked.shape == image.shape
    back, found = rdh.extract(marked)
    assert found == message(length, seed)
    assert np.array_equal(back, image)


class TestNothingHidden:
    def test_in_images_as_they_are(self) -> None:
        for image in [*hundred(64)[:20], *odd_images().values(), np.zeros((3, 3, 3), np.uint8)]:
            with pytest.raises(UserError, match="nothing is hidden"):
                rdh.extract(image)

    def test_after_any_change(self) -> None:
        photo = hundred(64)[0]
        marked = rdh.embed(photo, message(200))
        rng = np.random.default_rng(0)
        for _ in range(50):
            changed = marked.copy()
            row, column, channel = (int(rng.integers(n)) for n in marked.shape)
            changed[row, column, channel] ^= 1 << int(rng.integers(3))
            try:
                back, found = rdh.extract(changed)
            except UserError:
                continue
            # A pixel that carries nothing of the message: the change is in the image then.
            assert found == message(200)
            assert np.abs(back.astype(int) - photo).max() <= 8

    def test_after_jpeg(self) -> None:
        from PIL import Image

        marked = rdh.embed(hundred(64)[0], message(200))
        stream = io.BytesIO()
        Image.fromarray(marked).save(stream, "JPEG", quality=95, subsampling=0)
        with pytest.raises(UserError, match="nothing is hidden"):
            rdh.extract(np.asarray(Image.open(stream)))


def test_thresholds_are_the_smallest_at_which_it_fits() -> None:
    photo = hundred(64)[0]
    found = [thresholds_of(rdh.embed(photo, message(length))) for length in range(20, 1000, 70)]
    assert found[0] == (1, 1)
    assert sorted(t for t, _ in found) == [t for t, _ in found]
    assert found[-1][0] > 4
    assert all(last <= threshold for threshold, last in found)
    assert any(last < threshold for threshold, last in found)  # that of the last layer may be smaller still
    with pytest.raises(rdh.NoRoom):
        rdh.embed(photo, message(950), max_threshold=found[-1][0] - 1)


class TestCoder:
    @settings(max_examples=60)
    @given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), max_size=300))))
    def test_any_symbols_come_back(self, drawn: tuple[int, list[int]]) -> None:
        alphabet, symbols = drawn
        assert rdh_coder.decode(rdh_coder.encode(symbols, alphabet), len(symbols), alphabet) == symbols

    @pytest.mark.parametrize("share", [0.5, 0.05, 0.001])
    def test_long_runs_and_carries(self, share: float) -> None:
        rng = np.random.default_rng(1)
        symbols = np.where(rng.random(60_000) < share, rng.integers(0, 5, 60_000), 4).tolist()  # counts are halved
        assert rdh_coder.decode(rdh_coder.encode(symbols, 5), len(symbols), 5) == symbols

    def test_symbols_that_come_late(self) -> None:
        symbols = [0] * 200_000 + [2, 1, 2]  # counts were halved many times, and none is zero
        assert rdh_coder.decode(rdh_coder.encode(symbols, 3), len(symbols), 3) == symbols

    @pytest.mark.parametrize(
        ("weights", "size"), [((0.45, 0.1, 0.45), 3072), ((0.02, 0.96, 0.02), 3072), ((1 / 17,) * 17, 768)]
    )
    def test_length_is_near_the_entropy(self, weights: tuple[float, ...], size: int) -> None:
        symbols = np.random.default_rng(0).choice(len(weights), size, p=weights)
        bits = 8 * len(rdh_coder.encode(symbols.tolist(), len(weights)))
        # Half the logarithm of the number of symbols is the price of each count (Krichevsky and Trofimov).
        price = (len(weights) - 1) / 2 * np.log2(size)
        assert rdh_coder.entropy(symbols) <= bits < rdh_coder.entropy(symbols) + price + 24

    def test_nothing_costs_nothing(self) -> None:
        assert rdh_coder.encode([], 7) == b""
        assert rdh_coder.encode([0] * 1000, 1) == b""
        assert rdh_coder.entropy(np.zeros(0, np.int64)) == 0

    def test_folding(self) -> None:
        values = np.arange(-300, 301)
        assert rdh_coder.folded(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]
        assert np.array_equal(rdh_coder.unfolded(rdh_coder.folded(values)), values)
