"""What a worker notes beside its lease, for whoever looks into the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ue_bench.store import running
from ue_bench.store.running import NOTE_EVERY, PROGRESS, announced


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(running, "time", clock)
    return clock


def test_notes_are_written_now_and_then_and_go_with_the_work(tmp_path: Path, clock: Clock) -> None:
    heard: list[float] = []
    note = tmp_path / PROGRESS / "key"

    def fraction() -> float:
        return float(json.loads(note.read_text(encoding="utf-8"))["fraction"])

    with announced(tmp_path / "key", "cuda:1", lambda done, total, text: heard.append(done)) as report:
        assert json.loads(note.read_text(encoding="utf-8")) == {"slot": "cuda:1", "fraction": 0.0, "text": ""}
        for done in range(1, 31):
            clock.now += 1.0
            report(done, 30, f"epoch {done}")
            assert 0 <= done / 30 - fraction() <= NOTE_EVERY / 30
        assert fraction() > 0.6
    assert heard == list(range(1, 31))
    assert not note.exists()


def test_a_folder_that_takes_no_notes_stops_no_work(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / PROGRESS).write_text("no folder", encoding="utf-8")
    with announced(tmp_path / "key", "cpu#0", lambda *_: None) as report:
        report(float("nan"), 1, "odd")
