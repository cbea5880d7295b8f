"""Hiding networks on a GPU that is none."""

from __future__ import annotations

import pytest
from fake_cuda import FakeGpu

from ue_bench_deephiding.hinet import HidingNetwork, to_pixels, to_unit
from ue_bench_deephiding.isgan import Isgan

from .helpers import smooth_set


@pytest.mark.parametrize("kind", [HidingNetwork, Isgan])
def test_pictures_are_hidden_and_revealed(kind: type[HidingNetwork] | type[Isgan], fake_gpu: FakeGpu) -> None:
    data = smooth_set(4)
    with fake_gpu():
        network = kind().eval().to("cuda")
        x = to_unit(data.images, "cuda")
        stego = network.hide(x, x)
        assert (stego.shape, stego.device.type) == (x.shape, "cuda")
        assert network.reveal(stego).device.type == "cuda"
        assert to_pixels(stego).shape == data.images.shape
