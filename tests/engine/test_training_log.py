"""What the training of a plugin's network keeps and records."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ue_bench.contract.imageset import ImageSet
from ue_bench.engine.training_log import TrainingLog, best_validation, describe_data, describe_environment
from ue_bench.errors import Diverged, ValidationError


def new_log(network: nn.Linear) -> TrainingLog:
    def weights() -> dict[str, Tensor]:
        return {name: value.clone() for name, value in network.state_dict().items()}

    return TrainingLog(network, "painter", "pictures", "psnr", weights, "slow down", "train longer")


@pytest.fixture
def network() -> nn.Linear:
    return nn.Linear(1, 1).requires_grad_(False)


def test_the_weights_of_the_first_lowest_validation_are_kept(network: nn.Linear) -> None:
    log = new_log(network)
    for step, (total, psnr) in enumerate([(2.0, 30.0), (1.0, 25.0), (1.0, 40.0), (float("nan"), 50.0)]):
        network.weight.fill_(step)
        log.add(step, {"total": total, "psnr": psnr})
    best, curve = log.result()
    assert best["weight"].item() == 1
    assert best_validation(curve) == {"step": 2, "skipped": 0, "total": 1.0, "psnr": 25.0}


def test_a_curve_may_begin_with_what_is_not_a_number() -> None:
    curve = [{"step": 1.0, "total": float("nan")}, {"step": 2.0, "total": 2.0}, {"step": 3.0, "total": 3.0}]
    assert best_validation(curve)["step"] == 2


def test_images_that_end_too_weak_are_refused(network: nn.Linear) -> None:
    log = new_log(network)
    log.add(0, {"total": 1.0, "psnr": 19.9})
    with pytest.raises(ValidationError, match=r"painter failed: its pictures are at 19\.9 dB, under 20 dB") as error:
        log.result()
    assert error.value.hint == "train longer"


def test_one_step_in_ten_and_ten_more_may_be_skipped(network: nn.Linear) -> None:
    log = new_log(network)
    for step in range(11):
        log.skip(step)
    with pytest.raises(Diverged, match="12 of 12 training steps of the painter were not finite") as error:
        log.skip(11)
    assert error.value.hint == "slow down"


def test_a_weight_that_is_not_finite_is_never_kept(network: nn.Linear) -> None:
    log = new_log(network)
    network.bias.fill_(torch.inf)
    with pytest.raises(Diverged, match="at step 1: weight bias of the painter not finite"):
        log.add(0, {"total": 0.5, "psnr": 30.0})
    assert log.best == {}


def test_a_resumed_log_goes_on_where_it_was(network: nn.Linear) -> None:
    log = new_log(network)
    log.skip(0)
    log.add(0, {"total": 1.0, "psnr": 30.0})
    again = new_log(network)
    again.resume(log.state())
    again.add(1, {"total": 1.5, "psnr": 30.0})
    assert [point["skipped"] for point in again.result()[1]] == [1, 1]
    assert best_validation(again.curve)["step"] == 1
    assert len(log.curve) == 1


def test_records_name_the_images_and_the_versions() -> None:
    data = ImageSet(np.zeros((3, 4, 5, 3), np.uint8), np.array([0, 1, 1]), ("a", "b"), "here")
    assert describe_data(data) == {
        "source": "here", "images": 3, "classes": 2, "size": [4, 5], "fingerprint": data.fingerprint,
    }  # fmt: skip
    environment = describe_environment("cpu", "numpy")
    assert list(environment) == ["ue_bench", "torch", "numpy", "device", "threads"]
    assert environment["device"] == "cpu"
    assert re.match(r"\d", environment["numpy"])
