"""What only a GPU shows: that replayed steps do what steps do. Run with ``-m gpu``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sets import colours
from torch import nn

import ue_bench
from ue_bench.atomic import load_checkpoint, save_checkpoint
from ue_bench.engine import loop
from ue_bench.engine.loop import Outcome, train

from .test_replay import SELECTORS
from .test_resume import CLEAN, countermeasure, network
from .test_train import longer, silent

pytestmark = pytest.mark.gpu


def run(
    selector: str, precision: str = "fp32", state: Any = None, save: Any = None, **recipe: Any
) -> tuple[nn.Module, Outcome]:
    action = countermeasure(selector)
    return train(
        network, colours(), colours(30, 1), longer(**recipe), action, "cuda", precision, 0, silent, state, save,
        clean=CLEAN if action.clean_images else None,
    )  # fmt: skip


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().flatten().cpu() for value in model.state_dict().values()])


@pytest.mark.parametrize("recipe", [{}, {"crop": "resized"}, {"optimizer": "adamw", "clip": 0.1}], ids=str)
@pytest.mark.parametrize("selector", SELECTORS)
def test_replays_end_where_steps_do(selector: str, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same draws; sums may differ in their last digits, and eight steps enlarge that a little."""
    replayed, outcome = run(selector, **recipe)
    assert outcome.eager == ""
    monkeypatch.setattr(loop, "choose_recorder", lambda *arguments: (None, ""))
    stepped, expected = run(selector, **recipe)
    torch.testing.assert_close(flat(replayed), flat(stepped), rtol=1e-2, atol=1e-3)
    assert outcome.loss_train == pytest.approx(expected.loss_train, rel=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_is_continued(precision: str, tmp_path: Path) -> None:
    states: list[int] = []

    def save(state: dict[str, Any]) -> None:
        states.append(state["epoch"])
        if state["epoch"] == 2:
            save_checkpoint(tmp_path / "state.pt", state)

    whole, _ = run("gaussian-noise", precision, save=save)
    continued, outcome = run("gaussian-noise", precision, load_checkpoint(tmp_path / "state.pt", "cuda"))
    assert states == [1, 2, 3, 4]
    assert outcome.eager == ""
    torch.testing.assert_close(flat(continued), flat(whole), rtol=1e-2, atol=1e-3)


def test_a_whole_cell(tmp_path: Path) -> None:
    results = ue_bench.run(
        "demo", protectors="none", countermeasures="vanilla", seeds=0, devices="cuda", out=tmp_path / "out",
        cache_dir=tmp_path / "cache", progress=False,
    )  # fmt: skip
    assert not results.failures
    assert not results.missing
