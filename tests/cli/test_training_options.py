"""The options that every command shares which trains a network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ue_bench.api import TrainingOptions, training_options
from ue_bench.cli.main import cli
from ue_bench.errors import EnvironmentProblem

TRAININGS = ("deephiding train", "raeg train", "purifier train", "purifier comdefend")


def options(**changed: Any) -> TrainingOptions:
    given = {"dataset": "demo", "out": Path("folder", "new.safetensors"), "seed": 3, "device": "cpu", "threads": 1}
    return TrainingOptions(**{**given, "data_dir": None, "cache_dir": None, **changed})


def read(arguments: list[str], **settings: bool) -> tuple[TrainingOptions, int]:
    """What a command with ``training_options`` and one option of its own is called with."""
    got = []

    @click.command()
    @training_options("New file.", **settings)
    @click.option("--steps", type=int, default=5)
    def train(training: TrainingOptions, steps: int) -> None:
        """Train."""
        got.append((training, steps))

    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return got[0]


def find(words: str) -> click.Command:
    command: click.Command = cli
    for word in words.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(cli), word)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("words", TRAININGS)
def test_every_training_has_the_same_options(words: str) -> None:
    @click.command()
    @training_options("New file.", precision=words != "purifier comdefend")
    def bare() -> None: ...

    shared = {p.name: p for p in bare.params}
    own = {p.name: p for p in find(words).params}
    assert set(shared) <= set(own)
    for name, option in shared.items():
        assert (own[name].opts, own[name].default, own[name].required) == (option.opts, option.default, option.required)


def test_values_and_defaults_reach_the_command_beside_its_own() -> None:
    training, steps = read(["-D", "cifar10", "--out", "new.safetensors", "--seed=7", "--steps=9"])
    assert steps == 9
    assert training == TrainingOptions("cifar10", Path("new.safetensors"), 7, "auto", 1, None, None, "auto")


def test_precision_is_offered_where_it_is_used() -> None:
    training, _ = read(["-D", "demo", "--out", "new"], precision=False)
    assert training.precision is None
    assert not training.bf16


@pytest.mark.parametrize(
    ("precision", "device", "bf16"),
    [("auto", "cpu", False), ("auto", "cuda:1", True), ("fp32", "cuda", False), ("bf16", "cpu", True)],
)
def test_auto_is_bf16_on_a_gpu_only(precision: str, device: str, bf16: bool) -> None:
    assert options(precision=precision, device=device).bf16 is bf16


def test_settled_options_have_no_auto_and_refuse_a_device_that_is_not_there() -> None:
    settled = options(precision="auto").settled()
    assert (settled.device, settled.precision) == ("cpu", "fp32")
    with pytest.raises(EnvironmentProblem, match="no device 'cuda:99' here"):
        options(device="cuda:99").settled()


def test_the_command_repeats_the_training_without_folders() -> None:
    training = options(precision="fp32")
    words = shlex.split(training.command("x train", "npz[path=a b.npz]", {"steps": 5, "recompute": True}))
    assert words == [
        *("ue-bench", "x", "train", "--dataset=npz[path=a b.npz]", "--steps=5", "--recompute", "--seed=3"),
        *("--precision=fp32", "--device=cpu", "--threads=1", "--out=new.safetensors"),
    ]


def test_the_state_lies_beside_what_is_written() -> None:
    assert options().unfinished == Path("folder", "new.safetensors.unfinished")
