from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from toys import Brighter, Doubler, Halver, Plain, Procedure, random_set

from ue_bench.contract.combination import combine, parts, purifiers
from ue_bench.contract.context import Context, TrainContext
from ue_bench.contract.plugin import Countermeasure


def context(tmp_path: Path) -> Context:
    return Context("cpu", 0, tmp_path, tmp_path, tmp_path)


def test_purifiers_act_in_the_order_they_are_written(tmp_path: Path) -> None:
    data = random_set()
    first = combine(Brighter(by=3), Doubler()).purify(data, context(tmp_path))
    second = combine(Doubler(), Brighter(by=3)).purify(data, context(tmp_path))
    assert np.array_equal(first.images, (data.images + 3) * 2)
    assert np.array_equal(second.images, data.images * 2 + 3)


def test_every_member_that_augments_does() -> None:
    x, y = torch.ones(2, 3, 4, 4), torch.zeros(2, dtype=torch.long)
    joined = combine(combine(Halver(), Brighter()), Halver())
    changed, _ = joined.augment(x, y, torch.Generator())
    assert torch.equal(changed, x / 4)
    assert [m.name for m in parts(joined)] == ["halver", "brighter", "halver"]
    assert purifiers(joined) == [Brighter()]


def test_only_a_combination_with_a_procedure_has_a_loss_of_its_own() -> None:
    """Anything else would be trained with a loss it does not have."""
    assert not combine(Brighter(), Halver()).overrides("loss")
    assert combine(Brighter(), Procedure()).overrides("loss")
    assert combine(combine(Procedure(), Brighter()), Halver()).overrides("loss")


def test_the_procedure_of_a_combination_gives_the_loss() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    x, y = torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 0])
    ctx = TrainContext(torch.Generator(), 0, 1, torch.no_grad)
    joined = combine(Halver(), Procedure()).loss(model, x, y, ctx)
    assert torch.equal(joined, Procedure().loss(model, x, y, ctx))


def test_a_combination_costs_what_its_dearest_member_does() -> None:
    class Dear(Countermeasure):
        @property
        def passes(self) -> float:
            return 11.0

    assert combine(Plain(), Dear()).passes == 11.0
