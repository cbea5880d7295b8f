"""Images that come after the set: which protectors take them, and whether they get what the set got."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from ue_bench.api import Context, ImageSet, Protector
from ue_bench.catalogue.registry import registry
from ue_bench.testing import pictures
from ue_bench_baselines.tap import TAP

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = "preset=micro,surrogate_epochs=1"
SEP = f"sep[{SMALL},checkpoints=1,iterations=2]"
# Selector and the least share of the set's perturbation that the first images get again when they are asked for alone.
# Sums in another order may turn a sign of a gradient.
ALIKE = [
    ("noise", 1.0), ("noise[mode=class]", 1.0), ("lsp", 1.0), ("ops", 1.0), ("ar", 1.0), ("cuda", 1.0), ("spots", 1.0),
    ("pil[preset=micro]", 0.9), (f"tap[{SMALL},iterations=2]", 0.8), (f"entf[{SMALL},iterations=2]", 0.8),
    (SEP, 0.8), (f"{SEP[:-1]},variant=fa-vr]", 0.8), (f"hypo[{SMALL},iterations=2]", 0.8),
    (f"hypo[{SMALL},iterations=2,goal=universal-adversarial]", 0.8), ("deephiding", 0.95),
    ("deephiding[mode=sample]", 0.95), ("deephiding[hidden=next_class]", 0.95), ("rae-igsm[preset=micro]", 0.5),
    (f"dune[{SMALL},checkpoints=1,iterations=2]", 0.8), (f"aap[{SMALL},iterations=2]", 0.8), ("raeg", 0.95),
    ('gue[epochs=1,width=8,answers=1,surrogate="resnet9[blocks=1]"]', 0.95),
]  # fmt: skip
SILENT = ["em[preset=micro]", "em[mode=class]", "rem[preset=micro]", "sem[preset=micro]", "ntga", "tue", "deepconfuse"]


def protector(selector: str) -> Protector:
    [found] = registry().resolve("protector", selector)
    return cast(Protector, found)


@pytest.mark.parametrize(("selector", "share"), ALIKE)
def test_the_first_images_get_what_they_had(selector: str, share: float, ctx: Context) -> None:
    method, data = protector(selector), pictures(24, (16, 16), 4)
    assert method.answers_queries
    asked = data.first(5)  # of four classes, one twice
    in_set = method.protect(data, ctx)
    alone = method.protect(asked, replace(ctx, learn_from=data))
    clean = asked.images.astype(float)
    before, after = in_set.images[:5] - clean, alone.images - clean
    assert before.any()
    assert (before * after).sum() / (before**2).sum() >= share


def test_a_class_that_was_not_asked_for_counts(ctx: Context) -> None:
    """The class that an image is moved towards is one of the set, not one of those that are asked for."""
    method, data = protector(SEP), pictures(24, (16, 16), 4)
    in_set, alone = method.protect(data, ctx), method.protect(data.first(2), replace(ctx, learn_from=data))
    assert np.mean(in_set.images[:2] == alone.images) > 0.8


@pytest.mark.parametrize("seed", [0, 1])
def test_the_start_of_the_set_is_that_of_who_asks(seed: int, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of several starts is another one for a few images alone."""
    method, data = protector(f"tap[{SMALL},iterations=2,restarts=4]"), pictures(24, (16, 16), 4)
    ctx = replace(ctx, seed=seed)
    in_set = method.protect(data, ctx).images
    tried: list[int] = []
    whole = TAP._restart

    def noted(self: TAP, data: ImageSet, ctx: Context, network: Any, key: Any, number: int, of: int) -> Any:
        tried.append(number)
        return whole(self, data, ctx, network, key, number, of)

    monkeypatch.setattr(TAP, "_restart", noted)
    alone = [method.protect(data.first(count), replace(ctx, learn_from=data)).images for count in (1, 3)]
    assert len(tried) == 2  # one start each: the set's is known
    for images in alone:
        assert np.mean(images == in_set[: len(images)]) > 0.9


@pytest.mark.parametrize("selector", SILENT)
def test_who_optimises_images_together_does_not_answer(selector: str) -> None:
    assert not protector(selector).answers_queries
