"""Values of parameters that no plugin may accept: those that do nothing, and those that no budget can say."""

from __future__ import annotations

import numpy as np
import pytest

from ue_bench.catalogue.registry import registry
from ue_bench.contract.bounds import read_bound
from ue_bench.contract.context import Context
from ue_bench.errors import UserError
from ue_bench.grid.opening import find_protector
from ue_bench.testing import pictures
from ue_bench_raeg.attacks import attack
from ue_bench_raeg.protector import Raeg


@pytest.mark.parametrize(
    ("kind", "selector", "names"),
    [
        ("protector", "sep[variant=sep,inner=7]", "inner"),
        ("protector", "rem[adv_eps=0,adv_steps=3]", "adv_steps"),
        ("protector", "sem[adv_eps=0,adv_step=1/255]", "adv_step"),
        ("protector", "entf[surrogate_steps=0,surrogate_eps=2/255]", "surrogate_eps"),
        ("protector", "dune[iterations=0,step=1/255]", "step"),
        ("protector", "dune[colour=0,images=5]", "images"),
        ("countermeasure", "ueraser[variant=lite,copies=64]", "copies"),
        ("countermeasure", "diffpure[t=0,steps=7]", "steps"),
        ("countermeasure", "sdaan[eps=0,width=9]", "width"),
        ("countermeasure", "spot-removal[method=class-mean,sigma=2]", "sigma"),
    ],
)
def test_what_would_do_nothing_is_refused(kind: str, selector: str, names: str) -> None:
    with pytest.raises(UserError, match=f"{names} would do nothing with "):
        registry().resolve(kind, selector)


@pytest.mark.parametrize(
    "selector", ["hypo[norm=linf,eps=2]", "hypo[goal=universal-random,norm=linf,eps=200]", "ar[p=inf,eps=2]"]
)
def test_pixels_have_a_range(selector: str) -> None:
    with pytest.raises(UserError, match="is over 1, all that a pixel can change"):
        registry().resolve("protector", selector)


@pytest.mark.parametrize("selector", ["lsp[eps=1]", "pil[eps=1,rounding=truncate]", "ar[p=inf,eps=1]", "tap[eps=1]"])
def test_the_widest_budget_can_be_read(selector: str) -> None:
    assert read_bound(find_protector(selector).budget).limit == 1


def test_a_bound_between_levels_is_kept(ctx: Context) -> None:
    data = pictures(12, (12, 12), 3)
    moved = find_protector("ar[p=inf,eps=8.5/255]").protect(data, ctx).images
    assert np.abs(moved.astype(int) - data.images).max() == 8


def test_a_crop_leaves_a_pixel() -> None:
    import torch

    recipe = Raeg(preset="micro", attacks="crop", crop_low=0.01).recipe(100, 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        assert attack(torch.rand(1, 3, 16, 16), "crop", recipe, generator).shape == (1, 3, 16, 16)
