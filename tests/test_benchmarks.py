"""What the scripts of ``benchmarks`` make of results."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from leaderboard.factory import result


@pytest.fixture(scope="module")
def precision() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "precision.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_precision", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_cell_has_moved_when_its_difference_is_beyond_the_noise_of_seeds(precision: ModuleType) -> None:
    accuracies = {
        ("lsp", "fp32"): [20.0, 21.0, 22.0], ("lsp", "bf16"): [22.0, 21.0, 23.0],
        ("none", "fp32"): [70.0, 71.0, 72.0], ("none", "bf16"): [75.0, 74.0, 76.0],
    }  # fmt: skip
    found = precision.shifts(
        result(protector, accuracy=accuracy, precision=which, seed=seed)
        for (protector, which), values in accuracies.items()
        for seed, accuracy in enumerate(values)
    )
    lsp, none = found
    assert (lsp.name, lsp.n, lsp.fp32, lsp.difference) == ("lsp / vanilla", 3, 21.0, 1.0)
    assert lsp.noise == pytest.approx(2.776 * math.sqrt(2 / 3), abs=1e-3)  # both have a standard deviation of 1
    assert (lsp.moved, none.moved) == (False, True)
    assert precision.table(found).splitlines()[-1].startswith("1 of 2 beyond it")


def test_only_seeds_of_both_precisions_are_compared(precision: ModuleType) -> None:
    one = [result("em", accuracy=20.0, precision="fp32", seed=0), result("em", accuracy=90.0, precision="fp32", seed=1)]
    [shift] = precision.shifts([*one, result("em", accuracy=23.0, precision="bf16", seed=0)])
    assert (shift.n, shift.difference) == (1, 3.0)
    assert math.isnan(shift.noise)
    assert not shift.moved
    assert precision.shifts(one) == []
