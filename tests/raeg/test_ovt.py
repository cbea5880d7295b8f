"""Optimal value transfer: that it is optimal, that it is the same everywhere, and that all comes back."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ue_bench.api import UserError
from ue_bench_raeg import ovt_transfer, rae_code, rdh, rdh_ovt
from ue_bench_raeg.ovt_transfer import REACH, SCALES, TEMPERATURES, TOTAL, geometric, optimum, transfer
from ue_bench_raeg.rae import RaeIgsm, RitIgsm

from .helpers import smooth_images

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float64]


def entropy(masses: Numbers) -> float:
    kept = masses[masses > 0]
    return float(-(kept * np.log(kept)).sum())


def transport(host: Numbers, marked: Numbers) -> float:
    """The mean squared change of the monotone coupling, by its definition."""
    ends = np.unique(np.concatenate([np.cumsum(host), np.cumsum(marked)]))
    middles = (ends + np.concatenate([[0], ends[:-1]])) / 2
    x, y = (np.searchsorted(np.cumsum(m), middles).clip(0, len(host) - 1) for m in (host, marked))
    return float((np.diff(ends, prepend=0) * (x - y) ** 2).sum())


class TestTransfer:
    @pytest.mark.parametrize(("ratio", "factor"), [(0.3, 0.4), (0.6, 0.6), (0.8, 0.93), (0.5, 0.95)])
    def test_nothing_near_it_is_better(self, ratio: float, factor: float) -> None:
        """The objective W - T H is convex: where no small move of mass lowers it, it is lowest."""
        reach, price = 30, -1 / np.log(factor)
        host = geometric(ratio, reach)
        found = optimum(ovt_transfer._tail(host), factor)
        assert found.sum() == pytest.approx(1)
        best = transport(host, found) - price * entropy(found)
        rng = np.random.default_rng(0)
        for _ in range(300):
            a, b = rng.integers(0, len(found), 2)
            moved = found.copy()
            amount = min(found[a], 10.0 ** rng.uniform(-5, -2))
            moved[a] -= amount
            moved[b] += amount
            assert transport(host, moved) - price * entropy(moved) > best - 1e-9
        assert best < transport(host, host) - price * entropy(host)

    def test_a_cold_host_stays_as_it_is(self) -> None:
        """No mass moves while a nat is worth less than the ratio of neighbours asks for: exp(-1 / T) < ratio."""
        host = geometric(0.7, 40)
        assert np.allclose(optimum(ovt_transfer._tail(host), 0.69), host, atol=1e-4)
        assert transport(host, optimum(ovt_transfer._tail(host), 0.75)) > 0.01

    def test_more_is_hidden_at_a_higher_temperature(self) -> None:
        tables = [transfer(8, t) for t in range(4, 24, 3)]
        assert all(np.diff([t.gain for t in tables]) > 0)
        assert all(np.diff([t.distortion for t in tables]) > 0)

    @pytest.mark.parametrize(("scale", "temperature"), [(0, 0), (5, 8), (12, 20), (23, 31), (0, 31), (23, 0)])
    def test_couplings_are_whole_and_every_value_may_stay(self, scale: int, temperature: int) -> None:
        table = transfer(scale, temperature)
        joint: dict[tuple[int, int], int] = {}
        for x, (values, counts, total) in enumerate(table.rows):
            assert x - REACH in values
            assert sum(counts) == total
            assert min(counts) > 0
            joint |= {(x - REACH, y): count for y, count in zip(values, counts, strict=True)}
        back = {
            (x, y - REACH): count
            for y, (values, counts, _) in enumerate(table.columns)
            for x, count in zip(values, counts, strict=True)
        }
        assert {pair for pair in joint if pair[0] != pair[1]} == {pair for pair in back if pair[0] != pair[1]}
        assert all(back[pair] == count for pair, count in joint.items() if pair[0] != pair[1])
        assert TOTAL <= sum(joint.values()) <= TOTAL + 2 * REACH + 1
        order = sorted(joint)
        moving = [pair for pair in order if joint[pair] > 1]
        assert all(a[1] <= b[1] for a, b in pairwise(moving))  # nothing crosses

    def test_tables_are_those_of_other_machines(self) -> None:
        """Images that were marked elsewhere must be read: the integers may never change."""
        digest = hashlib.sha256()
        for scale in range(0, len(SCALES), 4):
            for temperature in range(0, len(TEMPERATURES), 4):
                table = transfer(scale, temperature)
                digest.update(repr((table.rows, table.columns, table.margin)).encode())
        assert digest.hexdigest()[:16] == "6cdf697ef45c1a34"


def noisy(seed: int = 0, size: tuple[int, int] = (32, 36), spread: int = 4) -> Pixels:
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, (*size, 3))
    found: Pixels = np.clip(smooth_images(1, size, seed)[0] + noise, 0, 255).astype(np.uint8)
    return found


def psnr(one: Pixels, other: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))


def message(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(length)


class TestHiding:
    @settings(max_examples=25)
    @given(
        st.integers(0, 2**32 - 1),
        st.sampled_from(["noise", "smooth", "black", "white", "stripes", "saturated"]),
        st.tuples(st.integers(15, 33), st.integers(15, 33)),
        st.binary(max_size=60),
    )
    def test_any_image_comes_back_or_is_refused(
        self, seed: int, kind: str, size: tuple[int, int], hidden: bytes
    ) -> None:
        rng = np.random.default_rng(seed)
        image = {
            "noise": rng.integers(0, 256, (*size, 3)),
            "smooth": noisy(seed % 1000, size, 2),
            "black": np.zeros((*size, 3)),
            "white": np.full((*size, 3), 255),
            "stripes": np.broadcast_to((np.arange(size[1]) % 2 * 255)[None, :, None], (*size, 3)),
            "saturated": np.clip(noisy(seed % 1000, size, 60).astype(int) * 2 - 128, 0, 255),
        }[kind].astype(np.uint8)
        before = image.copy()
        try:
            marked = rdh_ovt.embed(image, hidden, 10.0)
        except rdh.NoRoom:
            assert np.array_equal(image, before)
            return
        assert np.array_equal(image, before)
        found, told = rdh_ovt.extract(marked)
        assert told == hidden
        assert np.array_equal(found, image)

    @pytest.mark.parametrize("length", [0, 1, 50, 150])
    def test_messages_of_any_length(self, length: int) -> None:
        image = noisy()
        marked = rdh_ovt.embed(image, message(length), 10.0)
        found, told = rdh_ovt.extract(marked)
        assert (told, found.tobytes()) == (message(length), image.tobytes())

    def test_zeros_at_both_ends_of_a_message_come_back(self) -> None:
        for hidden in (bytes(9), bytes(4) + b"x", b"x" + bytes(4)):
            assert rdh_ovt.extract(rdh_ovt.embed(noisy(), hidden, 10.0))[1] == hidden

    @pytest.mark.parametrize("length", [40, 110, 190])
    def test_it_distorts_less_than_prediction_error_expansion(self, length: int) -> None:
        for seed in range(3):
            image = noisy(seed)
            ours, theirs = rdh_ovt.embed(image, message(length), 10.0), rdh.embed(image, message(length))
            assert psnr(ours, image) > psnr(theirs, image)

    def test_longer_messages_distort_more(self) -> None:
        found = [psnr(rdh_ovt.embed(noisy(), message(n), 10.0), noisy()) for n in (20, 80, 160, 240)]
        assert all(np.diff(found) < 0)

    def test_what_would_distort_too_much_is_refused(self) -> None:
        marked = rdh_ovt.embed(noisy(), message(150), 10.0)
        bound = psnr(marked, noisy())
        assert np.array_equal(rdh_ovt.embed(noisy(), message(150), bound - 0.01), marked)
        with pytest.raises(rdh.NoRoom):
            rdh_ovt.embed(noisy(), message(150), bound + 0.01)

    def test_room_is_an_estimate_from_above(self) -> None:
        for seed in range(4):
            image = noisy(seed)
            room = rdh_ovt.room(image, 30.0)
            fits = [n for n in range(0, 900, 30) if self.fits(image, n)]
            assert max(fits) <= room <= 1.3 * max(fits) + 30
        assert rdh_ovt.room(noisy(), 40.0) < rdh_ovt.room(noisy(), 30.0)
        assert rdh_ovt.room(np.zeros((5, 5, 3), np.uint8), 30.0) == 0

    def fits(self, image: Pixels, length: int) -> bool:
        try:
            rdh_ovt.embed(image, message(length), 30.0)
        except rdh.NoRoom:
            return False
        return True

    def test_a_changed_pixel_is_told(self) -> None:
        marked = rdh_ovt.embed(noisy(), message(100), 10.0)
        refused = 0
        for place in range(0, 30 * 34, 37):
            changed = marked.copy()
            changed[1 + place // 34, 1 + place % 34, place % 3] ^= 1
            try:
                rdh_ovt.extract(changed)
            except UserError as error:
                refused += "nothing is hidden" in error.message
        assert refused == 28

    @pytest.mark.parametrize("image", [noisy(), np.zeros((20, 20, 3), np.uint8), np.zeros((4, 3, 3), np.uint8)])
    def test_images_as_they_are_hold_nothing(self, image: Pixels) -> None:
        with pytest.raises(UserError, match="nothing is hidden"):
            rdh_ovt.extract(image)

    def test_small_images_have_no_room(self) -> None:
        with pytest.raises(rdh.NoRoom):
            rdh_ovt.embed(np.full((9, 9, 3), 128, np.uint8), b"", 10.0)


class TestProtectors:
    def moved(self, image: Pixels, eps: int) -> Pixels:
        signs = np.random.default_rng(1).integers(0, 2, image.shape) * 2 - 1
        found: Pixels = np.clip(image + eps * signs, 0, 255).astype(np.uint8)
        return found

    @pytest.mark.parametrize("protector", [RaeIgsm(rdh="ovt"), RitIgsm(rdh="ovt")], ids=lambda p: p.name)
    def test_they_hide_and_recover_by_it(self, protector: Any) -> None:
        image = noisy(3, (64, 64), 2)
        hidden = protector.hidden(image, self.moved(image, 4))
        before, told = rdh_ovt.extract(hidden)
        back = protector.undone(before, told)
        exact = isinstance(protector, RitIgsm) or rae_code.HEAD.unpack_from(told)[1] == 1
        assert np.array_equal(back, image) == exact
        assert psnr(back, image) > psnr(self.moved(image, 4), image) + 1 if not exact else True
        with pytest.raises(UserError, match="nothing is hidden"):
            rdh.extract(hidden)

    def test_exact_recovery_fits_where_expansion_has_no_room(self) -> None:
        """Signs of one level are one bit a value; in one pass expansion takes 0.9 at most."""
        image = noisy(2, (64, 64), 1)
        hidden = RaeIgsm(rdh="ovt", scale=1, least_psnr=20).hidden(image, self.moved(image, 1))
        protector = RaeIgsm(rdh="ovt", scale=1)
        assert np.array_equal(protector.undone(*rdh_ovt.extract(hidden)), image)
        with pytest.raises(rdh.NoRoom):
            RaeIgsm(scale=1).hidden(image, self.moved(image, 1))

    @pytest.mark.parametrize(
        "given", [{"rdh": "ovt", "passes": 2}, {"rdh": "ovt", "max_threshold": 8}, {"least_psnr": 30}], ids=str
    )
    def test_what_would_be_ignored_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="would do nothing with rdh="):
            RaeIgsm(**given)
