"""Every protector says how large an image it takes, before it begins."""

from __future__ import annotations

import pytest

from ue_bench.api import Context, ImageSet, Protector, UserError
from ue_bench.catalogue.registry import registry
from ue_bench.contract.plugin import check_size


class Small(Protector):
    name = "small"

    @property
    def largest_image(self) -> int:
        return 640 * 480

    def protect(self, data: ImageSet, ctx: Context) -> ImageSet:
        return data


class Trained(Small):
    @property
    def uses_networks(self) -> bool:
        return True

    @property
    def largest_image(self) -> int:
        return super(Small, self).largest_image


def test_an_image_of_the_limit_is_taken_and_a_larger_one_named() -> None:
    check_size(Small(), (480, 640))
    with pytest.raises(UserError, match=r"small takes images of up to 0\.307 megapixels, not 641x480") as raised:
        check_size(Small(), (480, 641))
    assert "554x554 or less" in raised.value.hint


def test_networks_take_less() -> None:
    assert Trained().largest_image == 512 * 512


def test_every_protector_states_a_limit() -> None:
    limits = {}
    for entry in registry().of_kind("protector"):
        if entry.complete:
            [found] = registry().resolve("protector", entry.name)
            assert isinstance(found, Protector)
            limits[entry.name] = found.largest_image
            assert (found.largest_image <= 2**18) == (found.uses_networks or entry.name in ("tue", "ntga", "pil")), (
                entry.name
            )
    assert limits["lsp"] == 100_000_000
    assert limits["ops"] == 2**23
