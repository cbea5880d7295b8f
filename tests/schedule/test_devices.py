from __future__ import annotations

import pytest

from ue_bench.errors import EnvironmentProblem, UserError
from ue_bench.schedule import devices
from ue_bench.schedule.devices import Slot
from ue_bench.schedule.local import LocalExecutor


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two GPUs and six cores."""
    monkeypatch.setattr(devices, "available", lambda: ["cuda:0", "cuda:1", "cpu"])
    monkeypatch.setattr(devices, "usable_cores", lambda: 6)
    return monkeypatch


@pytest.mark.parametrize(
    ("asked", "jobs", "threads", "names"),
    [
        ("auto", None, 1, ["cuda:0", "cuda:1"]),
        ("auto", 2, 1, ["cuda:0#0", "cuda:0#1", "cuda:1#0", "cuda:1#1"]),
        ("cuda:1", None, 1, ["cuda:1"]),
        ("cuda", None, 1, ["cuda:0", "cuda:1"]),
        ("cuda:0, cuda:0", None, 1, ["cuda:0"]),
        ("cpu", None, 2, ["cpu#0", "cpu#1", "cpu#2"]),
        ("cpu", None, 8, ["cpu"]),
        ("cpu,cuda:0", 1, 1, ["cpu", "cuda:0"]),
    ],
)
def test_slots(machine: pytest.MonkeyPatch, asked: str, jobs: int | None, threads: int, names: list[str]) -> None:
    found = devices.slots(asked, jobs, threads)
    assert [s.name for s in found] == names
    assert {s.threads for s in found} == {threads}


def test_auto_without_gpu_is_the_cpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(devices, "available", lambda: ["cpu"])
    assert [s.device for s in devices.slots("auto", 1, 1)] == ["cpu"]


@pytest.mark.parametrize("asked", ["cuda:7", "", "tpu"])
def test_device_that_is_not_there(machine: pytest.MonkeyPatch, asked: str) -> None:
    with pytest.raises(EnvironmentProblem, match="available: cuda:0"):
        devices.slots(asked, None, 1)


def test_torch_is_not_asked_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, of a run that may find everything stored."""
    monkeypatch.setattr(devices, "available", None)
    assert devices.slots("cpu", 1, 2) == [Slot("cpu", "cpu", 2)]


def test_packed_slots_of_an_accelerator_say_so(machine: pytest.MonkeyPatch) -> None:
    assert [(s.name, s.packed) for s in devices.slots("cuda:1", None, 1, 2)] == [("cuda:1#0", 2), ("cuda:1#1", 2)]
    assert {s.packed for s in devices.slots("cuda:1", 3, 1)} == {3}  # --jobs shares it as well
    assert len(devices.slots("cuda:1", None, 1, "auto")) == devices.LARGEST_PACK
    assert {s.packed for s in devices.slots("cpu", 4, 1)} == {1}
    with pytest.raises(UserError, match="nothing to pack"):
        devices.slots("cpu", None, 1, 2)


def test_packing_by_memory_begins_with_one_and_takes_what_the_largest_leaves_room_for() -> None:
    places = [Slot(f"cuda:0#{number}", "cuda:0", 1, 8) for number in range(8)]
    executor = LocalExecutor(places, "none:run", {}, measure_memory=True)
    assert executor.capacity() == 1
    for peak, room in [(0.2, 4), (0.05, 8), (0.5, 1), (0.44, 2)]:
        executor._peak["cuda:0"] = peak
        assert executor.capacity() == room
