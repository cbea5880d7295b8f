"""``benchmarks/gpu.py`` ends on a CPU at toy size, and goes on where it was stopped. Its numbers mean nothing here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_of_a_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_of_a_gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return module


@pytest.mark.usefixtures("one_thread")
def test_it_measures_every_part_once(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    call = ["--toy", "--out", str(out), "--data-dir", str(tmp_path)]
    assert script.main([*call, "--minutes", "-1"]) == 0
    assert "copy: no time left" in capsys.readouterr().err
    assert not out.exists()
    assert script.main(call) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    bench = script.Bench(torch.device("cpu"), script.TOY, "demo", tmp_path)
    assert list(found["parts"]) == [name for name, _ in bench.parts()]
    assert found["toy"]
    assert all(said == "not replayed" for said in found["verdicts"].values())
    gone = found["parts"].pop("copy")
    out.write_text(json.dumps(found), encoding="utf-8")
    capsys.readouterr()
    assert script.main(call) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["copy"]
    again = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert again["copy"].keys() == gone.keys()
    assert again["cell"] == found["parts"]["cell"]


def test_without_a_gpu_only_a_toy_is_measured(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 3
    assert "no CUDA device here" in capsys.readouterr().err


def test_a_file_of_another_device_is_not_continued(script: Any, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"device": "another", "torch": torch.__version__, "toy": True, "parts": {}}))
    with pytest.raises(SystemExit, match="another device"):
        script.main(["--toy", "--out", str(out)])


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("replay of a", {"gain": 1.49, "replayed": True}, "1.49x, at least 1.5x asked: dropped"),
        ("replay of a", {"gain": 1.5, "replayed": True}, "1.50x, at least 1.5x asked: kept"),
        ("replay of a", {"gain": 9.0, "replayed": False}, "not replayed"),
        ("lanes", {"gain": 1.14, "replayed": True}, "1.14x, at least 1.15x asked: dropped"),
        ("lanes", {"gain": 1.2, "replayed": True}, "1.20x, at least 1.15x asked: kept"),
    ],
)
def test_what_does_not_pay_is_dropped(name: str, numbers: dict[str, Any], said: str, script: Any) -> None:
    assert script.verdicts({name: numbers, "copy": {"bytes": 1}}) == {name: said}
