"""``ue-bench raeg train``."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ue_bench.api import UserError
from ue_bench.cli.main import cli
from ue_bench_raeg import training
from ue_bench_raeg.fit import weights_checksum
from ue_bench_raeg.keys import load_generator

from .helpers import patterned_set

SETTINGS = "targets=linear,targets_epochs=1,width=2,gan=off,steps=2,validate_every=1,validation=8,batch=4"

pytestmark = pytest.mark.usefixtures("one_block")


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    data = patterned_set(24)
    np.savez(
        tmp_path / "small.npz", x_train=data.images, y_train=data.labels, x_test=data.images[:6], y_test=data.labels[:6]
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # it is the test process' own
    monkeypatch.setenv("UE_BENCH_CACHE", str(tmp_path / "cache"))
    dataset, protector = f"npz[path={tmp_path / 'small.npz'}]", f"raeg[preset=micro,{SETTINGS}]"
    out = str(tmp_path / "new.safetensors")
    return ["raeg", "train", "--dataset", dataset, "--protector", protector, "--device", "cpu", "--out", out]


def test_help_and_loading_import_no_torch() -> None:
    code = "import sys; from ue_bench.cli.main import cli; "
    code += "cli(['raeg', 'train', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--protector" in done.stdout


def test_it_writes_weights_and_a_record_and_can_be_given_again(
    arguments: list[str], tmp_path: Path, one_thread: None
) -> None:
    out = tmp_path / "new.safetensors"
    done = CliRunner().invoke(cli, [*arguments, "--seed", "3"], catch_exceptions=False)
    assert done.stdout == f"{out}\n"
    assert "train generator, loss" in done.stderr
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["precision"] == "fp32"
    assert record["recipe"]["steps"] == 2
    assert record["checksum"] == weights_checksum(load_generator(out).state_dict())
    assert sorted(p.name for p in tmp_path.glob("new*")) == ["new.json", "new.safetensors"]
    out.rename(tmp_path / "old.safetensors")
    again = shlex.split(record["command"].replace("small.npz", str(tmp_path / "small.npz")))[1:]
    CliRunner().invoke(cli, [*again[:-1], f"--out={out}"], catch_exceptions=False)
    assert out.read_bytes() == (tmp_path / "old.safetensors").read_bytes()
    assert json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["command"] == record["command"]


def test_an_interrupted_command_continues(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    steps: list[int] = []
    draw = training.Batches.draw

    def drawing(self: training.Batches, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return draw(self, step)

    monkeypatch.setattr(training.Batches, "draw", drawing)
    CliRunner().invoke(cli, arguments)
    assert (tmp_path / "new.safetensors.unfinished" / "generator.pt").exists()
    assert not (tmp_path / "new.safetensors").exists()
    CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert steps == [0, 1, 1]
    assert (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize("selector", ["lsp", "raeg[weights=small.npz]"])
def test_only_a_raeg_to_train_is_taken(
    arguments: list[str], selector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments[arguments.index("--protector") + 1] = selector
    with pytest.raises(UserError, match="is no raeg to train"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_what_is_there_is_not_overwritten(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "new.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert (tmp_path / "new.safetensors").read_bytes() == b"mine"
