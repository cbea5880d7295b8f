"""``ue-bench deephiding train``."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ue_bench.api import EnvironmentProblem, ProgressLine, UserError, ValidationError, open_dataset
from ue_bench.cli.main import cli
from ue_bench_deephiding import banks, extractor, retrain
from ue_bench_deephiding.hinet import HidingNetwork
from ue_bench_deephiding.isgan import Isgan
from ue_bench_deephiding.networks import load_network
from ue_bench_deephiding.recipe import Recipe
from ue_bench_deephiding.writing import write_network

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
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))  # a machine without ImageNet weights
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
    switches = ["--omega1=10", "--omega2=0.5", "--omega3=0.01", "--lfc-input=scaled", "--extractor=own",
                "--lfc-pairs=unordered", "--sampler=pk", "--per-image"]  # fmt: skip
    CliRunner().invoke(cli, [*arguments, *switches], catch_exceptions=False)
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    expected = {"omega_freq": 10, "omega_reveal": 0.5, "omega_conc": 0.01, "lfc_input": "scaled",
                "lfc_pairs": "unordered", "sampler": "pk", "per_image": True}  # fmt: skip
    assert expected.items() <= record["recipe"].items()
    words = set(record["command"].split())
    assert {"--omega1=10.0", "--omega3=0.01", "--extractor=own", "--sampler=pk", "--per-image"} <= words


def test_the_recorded_command_can_be_given_again(arguments: list[str], tmp_path: Path) -> None:
    first = ["--omega1=10", "--recompute", "--schedule=cosine", "--seed=3"]
    CliRunner().invoke(cli, [*arguments, *first], catch_exceptions=False)
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    (tmp_path / "new.safetensors").rename(tmp_path / "old.safetensors")
    again = shlex.split(record["command"].replace("small.npz", str(tmp_path / "small.npz")))[1:]
    CliRunner().invoke(cli, [*again[:-1], f"--out={tmp_path / 'new.safetensors'}"], catch_exceptions=False)
    assert json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["command"] == record["command"]
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "old.safetensors").read_bytes()


def test_hide_only_learns_nothing_and_ends_at_once(arguments: list[str], tmp_path: Path) -> None:
    """Equation 5's floor has no gradient at the identity, where training starts."""
    arguments[arguments.index("--steps") + 1] = "4000"
    CliRunner().invoke(cli, [*arguments, "--hide-only"], catch_exceptions=False)
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    assert record["curve"][-1]["step"] == 20
    assert record["achieved"]["mse"] < 1e-12
    network = load_network(tmp_path / "new.safetensors")
    x = torch.rand(1, 3, 8, 8)
    assert torch.allclose(network.hide(x, torch.rand(1, 3, 8, 8)), x, atol=1e-6)


def test_the_other_network_is_trained_by_the_same_command(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = arguments.index("--learning-rate")
    del arguments[rate : rate + 2]
    with pytest.raises(ValidationError, match="under 20 dB"):  # two steps are not enough, but they are taken
        CliRunner().invoke(cli, [*arguments, "--hider=isgan"], catch_exceptions=False)
    assert not (tmp_path / "new.safetensors").exists()

    def trained(network: Isgan, *_: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        return network.state_dict(), [{"step": 2, "total": 1.0, "psnr": 30.0, "psnr_reveal": 30.0, "mse": 1e-3}]

    monkeypatch.setattr(retrain, "train_isgan", trained)
    CliRunner().invoke(cli, [*arguments, "--hider=isgan"], catch_exceptions=False)
    network, fresh = load_network(tmp_path / "new.safetensors"), Isgan(seed=0).eval()
    assert isinstance(network, Isgan)
    x, h = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network.hide(x, h), fresh.hide(x, h), atol=5e-3)  # half precision
    assert "--hider=isgan" in json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["command"]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (["--hider=isgan"], "--learning-rate would do nothing with --hider isgan"),
        (["--hide-only", "--omega2=1"], "--omega2 would do nothing with --hide-only"),
        (["--omega3=0", "--lfc-pairs=ordered"], "--lfc-pairs would do nothing"),
        (["--hide-only", "--extractor=own"], "--extractor would do nothing"),
    ],
)
def test_options_that_would_be_ignored_are_refused(arguments: list[str], switches: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(cli, [*arguments, *switches], catch_exceptions=False)


def test_imagenet_weights_are_taken_when_they_are_there(arguments: list[str], tmp_path: Path) -> None:
    assert extractor.imagenet_file() == tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    extractor.imagenet_file().parent.mkdir(parents=True)
    weights = extractor.resnet18(1000).state_dict()
    torch.save(weights, extractor.imagenet_file())
    CliRunner().invoke(cli, arguments, catch_exceptions=False)
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    assert record["recipe"]["extractor"] == "imagenet"
    assert "--extractor=imagenet" in record["command"]
    full = extractor.resnet18(1000)
    full.load_state_dict(weights)
    assert record["extractor"] == extractor.checksum(extractor.last_convolution(full))


def test_imagenet_weights_that_cannot_be_had_are_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(EnvironmentProblem, match="cannot be had: <urlopen error no network>"):
        CliRunner().invoke(cli, [*arguments, "--extractor=imagenet"], catch_exceptions=False)


def test_training_writes_weights_and_a_record_that_gives_the_command(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.stdout.strip() == str(tmp_path / "new.safetensors")
    assert "loss" in result.stderr
    record = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    start = r"ue-bench deephiding train '--dataset=npz\[path=small\.npz#[0-9a-f]{8}\]' --steps=2 "
    assert re.match(start, record["command"])
    assert str(tmp_path) not in json.dumps(record)
    assert record["seconds"] > 0
    assert not (tmp_path / "new.safetensors.unfinished").exists()

    # The same as training by hand with the same arrays, bank and recipe.
    _, data = open_dataset(f"npz[path={tmp_path / 'small.npz'}]")
    recipe = Recipe(steps=2, size=8, learning_rate=1e-4)
    by_hand, _ = retrain.fit(data, banks.procedural(3, 2, (8, 8), 0), recipe, "cpu", False, tmp_path / "x", _silent)
    written = load_network(tmp_path / "new.safetensors").state_dict()
    assert all(torch.equal(written[name], value.half().float()) for name, value in by_hand.items())


def test_training_goes_on_from_given_weights(arguments: list[str], tmp_path: Path) -> None:
    CliRunner().invoke(cli, arguments, catch_exceptions=False)
    first = load_network(tmp_path / "new.safetensors").state_dict()
    out = tmp_path / "second.safetensors"
    arguments[arguments.index("--out") + 1] = str(out)
    arguments[arguments.index("--learning-rate") + 1] = "1e-6"
    CliRunner().invoke(cli, [*arguments, f"--start={tmp_path / 'new.safetensors'}"], catch_exceptions=False)
    second = load_network(out).state_dict()
    fresh = HidingNetwork(seed=0).state_dict()
    moved = [float((second[name] - first[name]).abs().max()) for name in first]
    assert 0 < max(moved) < 1e-3
    assert max(float((second[name] - fresh[name]).abs().max()) for name in first) > max(moved)
    record = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    before = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    assert record["start"]["record"] == before
    assert " --start=new.safetensors " in record["command"]
    assert str(tmp_path) not in json.dumps(record)


def test_weights_to_begin_from_are_of_the_same_network(arguments: list[str], tmp_path: Path) -> None:
    other = Isgan(seed=0)
    write_network(tmp_path / "isgan.safetensors", other.state_dict(), {"kind": "isgan", "width": 32})
    with pytest.raises(UserError, match="of another kind or size"):
        CliRunner().invoke(cli, [*arguments, f"--start={tmp_path / 'isgan.safetensors'}"], catch_exceptions=False)
    with pytest.raises(UserError, match="is not a hiding network"):
        CliRunner().invoke(cli, [*arguments, f"--start={tmp_path / 'no.safetensors'}"], catch_exceptions=False)


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
