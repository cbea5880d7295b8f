from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ue_bench.cli.main import main
from ue_bench.schedule import local
from ue_bench.schedule.worker import Report


@dataclass(frozen=True)
class Finished:
    """What a command left: exit code, stdout (data) and stderr (everything for the user)."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Finished]


@pytest.fixture
def ue_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run ``ue-bench`` with these arguments, in a folder and with a cache of its own."""
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UE_BENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["ue-bench", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        return Finished(int(end.value.code or 0), shown.out, shown.err)

    return run


class Unheard(Report):
    """A report that goes nowhere."""

    def __init__(self) -> None: ...

    def __call__(self, done: float, total: float, text: str) -> None: ...

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)


class InProcess:
    """The scheduler's part, without worker processes: every task in its turn, in this process."""

    computed: ClassVar[list[str]] = []

    def __init__(self, slots: list[Any], target: str, settings: dict[str, Any], on_event: Any) -> None:
        self.slots, self.settings, self.on_event = slots, settings, on_event

    def run(self, tasks: list[local.Task]) -> dict[str, str]:
        from ue_bench.errors import UserError
        from ue_bench.grid.work import run

        failed: dict[str, str] = {}
        for task in tasks:
            self.computed.append(task.label)
            try:
                run(task.payload, self.slots[0], self.settings, Unheard(), 1)
            except UserError as error:
                failed[task.key] = str(error)
                self.on_event(local.Event("failed", task, text=str(error), attempt=1, failure=error.kind))
                continue
            except Exception as error:
                failed[task.key] = f"{type(error).__name__}: {error}"
                self.on_event(local.Event("failed", task, text=failed[task.key], trace="Traceback: here", attempt=1))
                continue
            self.on_event(local.Event("done", task))
        return failed


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed, in this process rather than in workers."""
    monkeypatch.setattr(InProcess, "computed", [])
    monkeypatch.setattr(local, "Scheduler", InProcess)
    return InProcess.computed
