from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ue_bench.cli.main import main
from ue_bench.schedule import local
from ue_bench.schedule.call import Report
from ue_bench.schedule.endings import ending_of
from ue_bench.schedule.executor import Event, Job

from . import invertible
from .helpers import random_image, write


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
    """The executor's part, without worker processes: every job in its turn, in this process."""

    computed: ClassVar[list[str]] = []
    detached = False

    def __init__(self, target: str, settings: dict[str, Any], slots: list[Any], logs: Path, options: Any) -> None:
        self.slots, self.settings = slots, settings
        self.ended: list[Event] = []

    def capacity(self) -> int:
        return 1 - len(self.ended)

    def submit(self, job: Job) -> None:
        from ue_bench.grid.work import run

        self.computed.append(job.task.label)
        self.ended.append(Event("started", job.task, self.slots[0].name))
        try:
            run(pickle.loads(job.payload), self.slots[0], self.settings, Unheard(), job.attempt)
        except Exception as error:
            self.ended.append(ending_of(error).event(job, self.slots[0].name))
        else:
            self.ended.append(Event("done", job.task))

    def events(self, timeout: float) -> list[Event]:
        ended, self.ended = self.ended, []
        return ended

    def retire(self, slot: str) -> None: ...

    def cancel(self, key: str) -> str:
        return ""

    def close(self) -> None: ...


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed, in this process rather than in workers."""
    monkeypatch.setattr(InProcess, "computed", [])
    monkeypatch.setattr(local, "open_executor", InProcess)
    return InProcess.computed


@pytest.fixture
def reversible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protectors that can be undone, and some that cannot."""
    invertible.register(monkeypatch)
    monkeypatch.setattr(invertible.Shuffled, "calls", [])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of three sizes in two classes, a text file, and three that cannot be used."""
    folder = tmp_path / "my photos"
    write(folder / "cat" / "1.png", random_image((8, 8), 1))
    write(folder / "cat" / "a b.bmp", random_image((8, 8), 2))
    write(folder / "cat" / "größe" / "3.jpg", random_image((8, 10), 3))
    write(folder / "dog" / "1.png", random_image((8, 8), 4))
    write(folder / "dog" / "1.bmp", random_image((8, 8), 5))
    write(folder / "dog" / "猫.tif", random_image((9, 12), 6))
    write(folder / "dog" / "gray.png", random_image((8, 8), 7)[..., 0])
    (folder / "dog" / "notes.txt").write_text("notes")
    (folder / "dog" / "broken.png").write_bytes(b"broken")
    (folder / "dog" / "photo.heic").write_bytes(b"?")
    write(folder / "stray.png", random_image())
    return folder
