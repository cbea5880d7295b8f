from __future__ import annotations

from typing import Any

import pytest

from ue_bench.api import EnvironmentProblem
from ue_bench_victims.stem import torchvision_models


@pytest.fixture
def torchvision() -> Any:
    """torchvision's models; skips where torchvision does not work."""
    try:
        return torchvision_models("it")
    except EnvironmentProblem as problem:
        pytest.skip(problem.message)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Weights after training are compared with bounds that were seen on one thread."""
