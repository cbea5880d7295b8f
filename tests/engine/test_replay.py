"""What a GPU records and replays, tried on a CPU: a recorder that takes the step again stands in for CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from ue_bench.atomic import load_checkpoint
from ue_bench.contract.combination import combine
from ue_bench.contract.context import TrainContext
from ue_bench.contract.plugin import Countermeasure
from ue_bench.engine import loop, numerics
from ue_bench.engine.loop import make_optimizer
from ue_bench.engine.replay import StepRunner, optimizer_tensors, unchanged
from ue_bench.errors import Diverged

from .test_resume import Training, countermeasure, curve, network
from .test_train import RECIPE, Jitter, longer, run, weights


class Repeated:
    """Takes a recorded step again at each replay, and writes its loss to the one place where a graph has it."""

    made: list[Repeated]

    def __init__(self) -> None:
        self.warmed = self.recorded = self.replayed = 0
        self.made.append(self)

    def warm_up(self, step: Callable[[], Tensor]) -> None:
        self.warmed += 1
        for _ in range(3):
            step()

    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        loss = torch.zeros(())

        def replay() -> Tensor:
            self.replayed += 1
            return loss.copy_(step())

        return replay


class Refuses(Repeated):
    def record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


Record = Callable[..., None]


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Let trainings record their steps from now on."""

    def start(recorder: type[Repeated] = Repeated) -> None:
        recorder.made = []
        monkeypatch.setattr(loop, "choose_recorder", lambda *arguments: (recorder(), ""))

    return start


SELECTORS = [
    "vanilla", "cutout", "cutmix", "mixup[variant=standard]", "gaussian-noise", "coin", "rotation", "autoaugment",
    "at[steps=2]", "fgsm-rs", "ueraser[copies=2]", "cutout+at[steps=1]", "early-stopping[clean=20]",
    "deep-feature-reweighting[clean=20]",
]  # fmt: skip


@pytest.mark.parametrize("selector", SELECTORS)
def test_replays_end_in_the_same_bits(selector: str, record: Record) -> None:
    """With batch normalisation, dropout, momentum, a schedule and crops, in eight steps of four epochs."""
    direct, expected = Training(selector).run()
    record()
    model, outcome = Training(selector).run()
    assert weights(model) == weights(direct)
    assert curve(outcome) == curve(expected)
    [recorder] = Repeated.made
    assert recorder.replayed == 8
    assert recorder.warmed == recorder.recorded == (2 if "ueraser" in selector else 1)


@pytest.mark.parametrize(
    "recipe",
    [{"crop": "resized"}, {"optimizer": "adam"}, {"optimizer": "adamw", "clip": 0.1}, {"momentum": 0.0},
     {"nesterov": True, "schedule": "onecycle"}, {"eval_every": 3}, {"drop_last": False, "optimizer": "adam"},
     {"rotation": 20.0, "rate_changes": "epoch"}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}],
    ids=str,
)  # fmt: skip
def test_replays_follow_the_recipe(recipe: dict[str, Any], record: Record) -> None:
    direct, expected = Training(**recipe).run()
    record()
    model, outcome = Training(**recipe).run()
    assert weights(model) == weights(direct)
    assert curve(outcome) == curve(expected)


def test_a_smaller_batch_is_recorded_on_its_own(record: Record) -> None:
    record()
    Training(drop_last=False).run()
    [recorder] = Repeated.made
    assert (recorder.recorded, recorder.replayed) == (2, 12)


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("step", [3, 4, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_is_continued_from_the_middle(
    optimizer: str,
    step: int,
    before: bool,
    after: bool,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Recorded or not, before the kill and after it."""
    whole, expected = Training("gaussian-noise", optimizer=optimizer).run()
    training = Training("gaussian-noise", optimizer=optimizer)
    if before:
        record()
    training.killed_after(step, tmp_path / "state.pt")
    monkeypatch.undo()
    if after:
        record()
    model, outcome = training.run(load_checkpoint(tmp_path / "state.pt"))
    assert weights(model) == weights(whole)
    assert curve(outcome) == curve(expected)


def test_one_that_diverges_says_the_same_step(record: Record) -> None:
    """The loss of every step is kept, not the place where the last one lies."""
    recipe: dict[str, Any] = {"learning_rate": 1e30, "batch": 8}
    with pytest.raises(Diverged) as expected:
        Training(**recipe).run()
    record()
    with pytest.raises(Diverged) as found:
        Training(**recipe).run()
    assert str(found.value) == str(expected.value)


def test_what_cannot_be_recorded_runs_as_it_is(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    direct, expected = Training("mixup").run()
    record(Refuses)
    model, outcome = Training("mixup").run()
    assert weights(model) == weights(direct)
    assert curve(outcome) == curve(expected) | {"eager": "failed"}
    assert "operation not permitted when stream is capturing" in caplog.text
    [recorder] = Refuses.made
    assert recorder.warmed == 1  # it is not tried again


class Halves(Countermeasure):
    """Scales the loss in the second half of the epochs; says so, or does not."""

    replayable = True
    says: bool = True
    _seen: list[int] = PrivateAttr(default_factory=list)

    def phase(self, epoch: int, epochs: int) -> Hashable:
        return 2 * epoch >= epochs if self.says else None

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        factor = 3.0 if 2 * ctx.epoch >= ctx.epochs else 1.0
        return factor * nn.functional.cross_entropy(model(x), y)


@pytest.mark.parametrize("joined", [False, True])
def test_a_step_is_recorded_once_a_phase(joined: bool, record: Record) -> None:
    halves: Countermeasure = combine(Halves(), Jitter()) if joined else Halves()
    direct, _ = run(countermeasure=halves)
    record()
    model, _ = run(countermeasure=halves)
    assert weights(model) == weights(direct)
    [recorder] = Repeated.made
    assert recorder.recorded == 2
    record()
    run(countermeasure=Halves(says=False))
    [recorder] = Repeated.made
    assert recorder.recorded == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("fresh", [True, False])
def test_warming_up_changes_nothing(optimizer: str, fresh: bool) -> None:
    """Not a bit, and no tensor moves; what the optimizer has only since is zero."""
    torch.manual_seed(0)
    model, drawing = network().train(), torch.Generator().manual_seed(3)
    updates = make_optimizer(model, longer(optimizer=optimizer))
    total = torch.tensor(5.0)

    def step() -> None:
        x = torch.rand(4, 3, 8, 8, generator=drawing)
        loss = model(x).square().mean()  # dropout draws from torch's own generator
        updates.zero_grad()
        loss.backward()
        updates.step()
        total.add_(loss.detach())

    if not fresh:
        step()
    generators = (drawing, torch.default_generator)

    def state() -> tuple[bytes, list[Tensor], list[int]]:
        tensors = [*model.state_dict().values(), *optimizer_tensors(updates), total]
        drawn = [generator.get_state() for generator in generators]
        return weights(model), [t.clone() for t in tensors[len(model.state_dict()) :]] + drawn, [
            t.data_ptr() for t in tensors
        ]  # fmt: skip

    before = state()
    with unchanged(model, updates, (total,), generators):
        for _ in range(3):
            step()
        assert weights(model) != before[0]
    after = state()
    assert after[0] == before[0]
    if fresh:
        assert all(not t.any() for t in optimizer_tensors(updates))
        assert torch.equal(total, torch.tensor(5.0))
        assert all(map(torch.equal, after[1][-2:], before[1][-2:]))
    else:
        assert all(map(torch.equal, after[1], before[1]))
        assert after[2] == before[2]


def test_indices_and_rates_reach_a_recorded_step() -> None:
    model = nn.Linear(1, 1)
    seen: list[tuple[list[int], float]] = []

    def step(where: Tensor, rate: float | Tensor) -> Tensor:
        seen.append((where.tolist(), float(rate)))
        return where.sum().float()

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    Repeated.made = []
    runner = StepRunner(step, model, optimizer, (), (), Repeated())
    losses = [runner(torch.tensor([number, 2]), 0.1 * number) for number in range(3)]
    assert seen[-3:] == [([number, 2], 0.1 * number) for number in range(3)]
    assert [loss.item() for loss in losses] == [2, 3, 4]


def test_the_reason_for_steps_that_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Resident(loop.Pixels):
        def __init__(self, device: str, fits: bool) -> None:
            self.device, self.resident = torch.device(device), torch.zeros(1) if fits else None

    class Undeclared(Countermeasure):
        name = "undeclared"

        def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return x, y

    recorder = Repeated.__new__(Repeated)
    monkeypatch.setattr(loop, "CudaGraphs", lambda device, generators: recorder)

    def chosen(countermeasure: Countermeasure, device: str = "cuda", fits: bool = True) -> tuple[object, str]:
        return loop.choose_recorder(countermeasure, Resident(device, fits), ())

    for selector in ("cutout", "gray+cutmix", "vanilla", "early-stopping"):
        assert chosen(countermeasure(selector)) == (recorder, "")
    for unknown in (Undeclared(), combine(countermeasure("gray"), Undeclared())):
        assert chosen(unknown) == (None, "plugin")
    assert chosen(countermeasure("cutout"), fits=False) == (None, "memory")
    assert chosen(countermeasure("cutout"), "cpu") == (None, "")


def test_nothing_is_said_of_replays_on_a_cpu() -> None:
    assert asdict(run(recipe=RECIPE)[1])["eager"] == ""


class TestFullFloat32:
    FLAGS = (
        (torch.backends.cudnn, "allow_tf32"), (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cudnn, "benchmark"), (torch.backends.cudnn, "deterministic"),
    )  # fmt: skip

    def flags(self) -> list[bool]:
        return [getattr(where, name) for where, name in self.FLAGS]

    def test_tensor_floats_are_off_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        before = self.flags()
        assert before[0]  # torch's default, which is why this is needed
        with numerics.full_float32():
            assert self.flags() == [False, False, True, False]
        assert self.flags() == before

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_without_a_gpu_nothing_is_set(self, device: str) -> None:
        before = self.flags()
        with numerics.full_float32(device):
            assert self.flags() == before or torch.cuda.is_available()

    def test_a_training_runs_in_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        seen: list[list[bool]] = []

        class Looks(Countermeasure):
            def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
                seen.append(TestFullFloat32().flags())
                return x, y

        run(countermeasure=Looks())
        assert seen == [[False, False, True, False]] * 8
