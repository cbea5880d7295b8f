from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

import pytest

from ue_bench import machine

LINUX_PC = sys.platform == "linux" and platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(not LINUX_PC, reason="elsewhere torch is asked")


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in machine.VISIBLE:
        monkeypatch.delenv(name, raising=False)
    for node in ("null", "tty0", "kmsg"):
        (tmp_path / node).touch()
    return tmp_path


def flags(folder: Path, words: str) -> Path:
    info = folder / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu {words}\nbugs\t\t: spectre_v1\n")
    return info


@pytest.mark.parametrize(
    ("words", "precision"),
    [("avx512f", "fp32"), ("avx512f avx512_bf16", "bf16"), ("avx512f amx_bf16 amx_tile", "bf16")],
)
def test_a_processor_without_accelerator_is_found_without_torch(words: str, precision: str, dev: Path) -> None:
    [device] = machine._processor_alone(dev, flags(dev, words))
    assert (device.name, device.precision) == ("cpu", precision)


@pytest.mark.parametrize("node", ["nvidia0", "nvidiactl", "nvhost-ctrl-gpu", "kfd", "dxg"])
def test_torch_is_asked_where_an_accelerator_may_be(node: str, dev: Path) -> None:
    (dev / node).touch()
    assert machine._processor_alone(dev, flags(dev, "avx512f")) == ()


def test_torch_is_asked_where_a_device_was_chosen(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert machine._processor_alone(dev, flags(dev, "avx512f")) == ()


def test_torch_is_asked_where_linux_does_not_tell(dev: Path) -> None:
    assert machine._processor_alone(dev, dev / "nothing") == ()
    (dev / "short").write_text("processor\t: 0\n")
    assert machine._processor_alone(dev, dev / "short") == ()


def test_a_missing_torch_is_left_to_the_process_that_imports_it(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert machine._processor_alone(dev, flags(dev, "avx512f")) == ()


@pytest.mark.skipif(not machine._processor_alone(), reason="torch is asked here anyhow")
def test_linux_tells_of_this_machine_what_torch_finds() -> None:
    assert machine._processor_alone() == machine.ask_torch()
