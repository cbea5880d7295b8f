"""``ue-bench deephiding train``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ue_bench.api import UserError, open_dataset
from ue_bench.cli.main import cli
from ue_bench_deephiding import banks, retrain
from ue_bench_deephiding.commands import ProgressLine
from ue_bench_deephiding.protector import load_network
from ue_bench_deephiding.recipe import Recipe

from .helpers import smooth_set


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    data = smooth_set(24, (12, 12))
    path = tmp_path / "small.npz"
    np.savez(path, x_train=data.images, y_train=data.labels, x_test=data.images[:6], y_test=data.labels[:6])
    return path


@pytest.fixture
def arguments(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(retrain, "TRAINING_BANK", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # it is the test process' own
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
    return ["deephiding", "train", "--dataset", f"npz[path={archive}]", "--steps", "2", "--size", "8",
            "--learning-rate", "1e-4", "--device", "cpu", "--precision", "fp32",
            "--out", str(tmp_path / "new.safetensors")]  # fmt: skip


def test_help_and_loading_import_no_torch() -> None:
    code = "import sys; from ue_bench.cli.main import cli; "
    code += "cli(['deephiding', 'train', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--learning-rate" in done.stdout


def test_switches_reach_the_recipe_and_the_command(arguments: list[str], tmp_path: Path) -> None:
    switches = ["--omega-freq=10", "--omega-reveal=0.5", "--omega-conc=0", "--lfc-input=scaled",
                "--lfc-pairs=unordered", "--sampler=pk", "--per-image"]  # fmt: skip
    CliRunner().invoke(cli, [*arguments, *switches], catch_exceptions=False)
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    expected = {"omega_freq": 10, "omega_reveal": 0.5, "omega_conc": 0, "lfc_input": "scaled",
                "lfc_pairs": "unordered", "sampler": "pk", "per_image": True}  # fmt: skip
    assert expected.items() <= record["recipe"].items()
    words = set(record["command"].split())
    assert {"--omega-freq=10.0", "--omega-conc=0.0", "--sampler=pk", "--per-image"} <= words


def test_training_writes_weights_and_a_record_that_gives_the_command(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.stdout.strip() == str(tmp_path / "new.safetensors")
    assert "loss" in result.stderr
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    assert record["command"].startswith("ue-bench deephiding train '--dataset=npz[path=small.npz]' --steps=2 ")
    assert str(tmp_path) not in json.dumps(record)
    assert record["seconds"] > 0
    assert not (tmp_path / "new.safetensors.unfinished").exists()

    # The same as training by hand with the same arrays, bank and recipe.
    _, data = open_dataset(f"npz[path={tmp_path / 'small.npz'}]")
    recipe = Recipe(steps=2, size=8, learning_rate=1e-4)
    by_hand, _ = retrain.fit(data, banks.procedural(3, 2, (8, 8), 0), recipe, "cpu", False, tmp_path / "x", _silent)
    written = load_network(tmp_path / "new.safetensors").state_dict()
    assert all(torch.equal(written[name], value.half().float()) for name, value in by_hand.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--size": "9"}, "is odd"),
        ({"--out": "weights.pt"}, "does not end in .safetensors"),
        ({"--device": "cuda:99"}, "no device 'cuda:99'"),
        ({"--dataset": "demo,cifar10"}, "is 2 datasets"),
        ({"--dataset": "nothing_like_it"}, "no dataset"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], change: dict[str, str], message: str) -> None:
    for option, value in change.items():
        arguments[arguments.index(option) + 1] = value
    with pytest.raises(UserError, match=message) as caught:
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_weights_are_never_overwritten(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "new.safetensors").write_bytes(b"hours of work")
    with pytest.raises(UserError, match="exists already"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_off_a_terminal_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(stream, clock)
    for done in range(100, 201):  # continued at 100
        line(done, 200, f"train, loss {done / 100:.2f}")
        clock.now += 1
    shown = stream.getvalue().splitlines()
    assert shown[0] == "train, loss 1.00, 100/200"
    assert shown[1] == "train, loss 1.30, 130/200, eta 0:01:10"
    assert shown[-1] == "train, loss 2.00, 200/200"
    assert len(shown) == 5


def test_progress_on_a_terminal_rewrites_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    line = ProgressLine(stream)
    line(1, 2, "train")
    line(2, 2, "train")
    assert stream.getvalue() == "\rtrain, 1/2\x1b[K\rtrain, 2/2\x1b[K\n"


def _silent(*_: Any) -> None: ...
