from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from ue_bench.errors import EnvironmentProblem
from ue_bench.grid.work import Assignment, run
from ue_bench.schedule.devices import Slot


class Trained:
    """A stage of which a worker reads no more, because it fails before it begins."""

    uses_torch = True


def test_a_torch_that_does_not_work_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # which an import takes for one that fails
    stage, report = cast(Any, Trained()), cast(Any, None)
    with pytest.raises(EnvironmentProblem, match="torch does not work here: ModuleNotFoundError: import of torch") as e:
        run(Assignment(stage), Slot("cpu", "cpu", 1), {}, report, 1)
    assert e.value.hint == "see 'ue-bench doctor'"
