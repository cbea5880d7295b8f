from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import PrivateAttr
from sets import colours
from torch import Tensor, nn

from ue_bench.catalogue.registry import registry
from ue_bench.contract.combination import combine
from ue_bench.contract.context import TrainContext
from ue_bench.contract.imageset import ImageSet
from ue_bench.contract.plugin import Countermeasure, Victim
from ue_bench.contract.protocol import Protocol
from ue_bench.engine import batches, loop, memory
from ue_bench.engine.crops import to_unit
from ue_bench.engine.loop import Outcome, Pixels, ShiftedInput, accuracy, make_optimizer, train

RECIPE = Protocol(
    name="tiny", version=1, summary="", source="", batch=16, epochs=4, learning_rate=0.1, schedule="cosine", pad=1
)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def silent(done: float, total: float, text: str) -> None:
    """Nobody listens."""


def run(
    data: ImageSet | None = None,
    recipe: Protocol = RECIPE,
    countermeasure: Countermeasure | None = None,
    seed: int = 0,
    build: Callable[[], nn.Module] = network,
    report: Any = silent,
) -> tuple[nn.Module, Outcome]:
    data = data or colours()
    return train(build, data, colours(30, 1), recipe, countermeasure or Countermeasure(), "cpu", "fp32", seed, report)


def weights(model: nn.Module) -> bytes:
    return b"".join(v.detach().contiguous().numpy().tobytes() for v in model.state_dict().values())


def longer(**changes: Any) -> Protocol:
    return RECIPE.model_copy(update=changes)


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_the_same_seed_gives_the_same_bits(crop: str) -> None:
    first, second = (run(recipe=longer(crop=crop)) for _ in range(2))
    assert weights(first[0]) == weights(second[0])
    assert first[1].accuracy_test == second[1].accuracy_test
    assert first[1].loss_train == second[1].loss_train


def test_another_seed_gives_another_network() -> None:
    assert weights(run(seed=0)[0]) != weights(run(seed=1)[0])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_has_no_influence() -> None:
    torch.manual_seed(5)
    first = weights(run()[0])
    torch.manual_seed(6)
    assert weights(run()[0]) == first


def test_colours_are_learnt() -> None:
    _, outcome = run(recipe=longer(epochs=25))
    assert outcome.accuracy_test[-1] == 100
    assert outcome.accuracy_train[-1] == 100
    assert outcome.loss_train[-1] < 0.3 * outcome.loss_train[0]


def test_the_curve_has_a_point_an_evaluation_and_one_at_the_end() -> None:
    assert run()[1].epochs == [1, 2, 3, 4]
    assert run(recipe=longer(eval_every=3))[1].epochs == [3, 4]
    # 40 images in batches of 16 are two steps an epoch
    assert run(recipe=longer(epochs=None, steps=5))[1].epochs == [1, 2, 2.5]
    outcome = run(recipe=longer(eval_every=3))[1]
    assert len(outcome.accuracy_test) == len(outcome.accuracy_train) == len(outcome.loss_train) == 2
    assert outcome.images_per_second == pytest.approx(8 * 16 / outcome.train_seconds)


class Watches(Countermeasure):
    """Remembers every batch."""

    _batches: list[tuple[Tensor, Tensor]] = PrivateAttr(default_factory=list)

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self._batches.append((x.clone(), y.clone()))
        return x, y


def test_augment_gets_every_batch_in_0_to_1_and_the_last_small_one_is_dropped() -> None:
    watch = Watches()
    run(countermeasure=watch)
    assert [x.shape for x, _ in watch._batches] == [(16, 3, 8, 8)] * 8  # 40 images: two batches an epoch
    assert all(x.min() >= 0 and 0.5 < x.max() <= 1 for x, _ in watch._batches)
    assert all(y.dtype == torch.int64 for _, y in watch._batches)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    watch = Watches()
    run(colours(10), countermeasure=watch)
    assert [len(y) for _, y in watch._batches] == [10] * 4


def test_an_epoch_takes_every_image_once_in_a_new_order() -> None:
    data = ImageSet(
        np.repeat(np.arange(32, dtype=np.uint8), 192).reshape(32, 8, 8, 3),
        np.zeros(32, dtype=np.int64),
        ("a", "b", "c"),
    )
    watch = Watches()
    run(data, recipe=longer(pad=0, flip=False), countermeasure=watch)
    seen = [(x[:, 0, 0, 0] * 255).round().int().tolist() for x, _ in watch._batches]
    epochs = [seen[i] + seen[i + 1] for i in range(0, 8, 2)]
    assert all(sorted(epoch) == list(range(32)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


class Blinds(Countermeasure):
    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), y


def test_what_augment_returns_is_trained_on() -> None:
    assert run(recipe=longer(epochs=25), countermeasure=Blinds())[1].accuracy_test[-1] < 60


def test_the_generator_of_a_countermeasure_belongs_to_the_seed() -> None:
    class Draws(Countermeasure):
        _drawn: list[float] = PrivateAttr(default_factory=list)

        def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            self._drawn.append(torch.rand(1, generator=generator).item())
            return x, y

    draws = []
    for seed in (0, 0, 1):
        countermeasure = Draws()
        run(countermeasure=countermeasure, seed=seed)
        draws.append(countermeasure._drawn)
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 8


class Only(nn.Module):
    """One weight, the same for every class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * 0 + self.weight


class Descends(Countermeasure):
    """The loss is the weight itself, so every step moves it by the learning rate."""

    _weights: list[float] = PrivateAttr(default_factory=list)
    _contexts: list[TrainContext] = PrivateAttr(default_factory=list)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, ctx: TrainContext) -> Tensor:
        assert isinstance(model, ShiftedInput)
        assert x.shape == (16, 3, 8, 8)
        weight = model.network.weight
        assert isinstance(weight, Tensor)
        self._weights.append(weight.item())
        self._contexts.append(ctx)
        return 1 * weight


@pytest.mark.parametrize("schedule", ["cosine", "multistep", "onecycle", "constant"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_each_step_takes_the_rate_of_the_protocol(schedule: str, clip: float | None) -> None:
    recipe = longer(schedule=schedule, milestones=(0.5,), momentum=0, weight_decay=0, clip=clip)
    descends = Descends()
    model, _ = run(recipe=recipe, countermeasure=descends, build=Only)
    path = np.array([*descends._weights, model.get_parameter("network.weight").item()])
    steps = (path[:-1] - path[1:]) / (clip or 1)
    assert steps == pytest.approx([recipe.rate(step, 8) for step in range(8)], rel=1e-3)


class Counts(Countermeasure):
    """Takes note of the size of every batch, and of what is in it."""

    _sizes: list[int] = PrivateAttr(default_factory=list)
    _labels: list[int] = PrivateAttr(default_factory=list)

    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self._sizes.append(len(x))
        self._labels += y.tolist()
        return x, y


def test_the_last_batch_of_an_epoch_is_kept_where_the_protocol_says_so() -> None:
    counts, data = Counts(), colours(39)
    _, outcome = run(data, longer(drop_last=False), counts)
    assert counts._sizes == [16, 16, 7] * 4
    assert sorted(counts._labels) == sorted(data.labels.tolist() * 4)
    assert outcome.epochs == [1.0, 2.0, 3.0, 4.0]
    assert outcome.accuracy_train[-1] is not None
    assert (outcome.accuracy_train[-1] * 39 / 100) % 1 == pytest.approx(0, abs=1e-3)  # of 39 images
    assert outcome.images_per_second * outcome.train_seconds == pytest.approx(4 * 39)
    dropped = Counts()
    run(data, RECIPE, dropped)
    assert dropped._sizes == [16, 16] * 4


def test_the_rate_changes_once_an_epoch_where_the_protocol_says_so() -> None:
    recipe = longer(rate_changes="epoch", momentum=0, weight_decay=0)
    descends = Descends()
    model, _ = run(recipe=recipe, countermeasure=descends, build=Only)
    path = np.array([*descends._weights, model.get_parameter("network.weight").item()])
    per_epoch = [0.1 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert path[:-1] - path[1:] == pytest.approx(np.repeat(per_epoch, 2), rel=1e-3)


def test_only_the_first_rows_are_trained_on() -> None:
    counts, data = Counts(), colours(60)
    run(data, longer(rows=32, epochs=1), counts)
    assert sorted(counts._labels) == sorted(data.labels[:32].tolist())


def test_colors_are_brought_to_mean_and_deviation() -> None:
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 0.125)
    model = ShiftedInput.under(longer(mean=mean, std=std), nn.Identity())
    x = torch.rand(2, 3, 4, 4)
    expected = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(model(x), expected)
    assert not model.state_dict()  # weights are those of the network alone
    trained, _ = run(recipe=longer(mean=mean, std=std))
    plain, _ = run()
    assert weights(trained) != weights(plain)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_each_step_of_adam_takes_the_rate_of_the_protocol(optimizer: str) -> None:
    """Under a gradient that never changes, Adam's steps are its rates."""
    recipe = longer(optimizer=optimizer, weight_decay=0)
    descends = Descends()
    model, _ = run(recipe=recipe, countermeasure=descends, build=Only)
    path = np.array([*descends._weights, model.get_parameter("network.weight").item()])
    assert path[:-1] - path[1:] == pytest.approx([recipe.rate(step, 8) for step in range(8)], rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "kind", "betas"),
    [
        ("sgd", torch.optim.SGD, None),
        ("adam", torch.optim.Adam, (0.7, 0.999)),
        ("adamw", torch.optim.AdamW, (0.7, 0.999)),
    ],
)
def test_fields_of_the_protocol_reach_the_optimizer(
    optimizer: str, kind: type[torch.optim.Optimizer], betas: tuple[float, float] | None
) -> None:
    found = make_optimizer(network(), longer(optimizer=optimizer, momentum=0.7, weight_decay=0.02))
    [group] = found.param_groups
    assert type(found) is kind
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.02)
    assert group.get("betas") == betas
    assert group.get("momentum") == (0.7 if betas is None else None)


def test_adamw_shrinks_weights_whatever_the_gradient() -> None:
    """Adam's decay is part of the gradient, which it scales; AdamW's is not: w *= 1 - rate * decay."""
    ends = {}
    for name in ("adam", "adamw"):
        module = Only()
        nn.init.constant_(module.weight, 4.0)
        optimizer = make_optimizer(module, longer(optimizer=name, weight_decay=0.5))
        module.weight.grad = torch.zeros(())
        optimizer.step()
        ends[name] = module.weight.item()
    assert ends == pytest.approx({"adam": 4 - 0.1, "adamw": 4 * (1 - 0.1 * 0.5)})


@pytest.mark.parametrize("joined", [False, True])
def test_a_procedure_gives_the_loss_and_knows_the_epoch(joined: bool) -> None:
    descends = Descends()
    countermeasure = combine(descends, Watches()) if joined else descends
    _, outcome = run(countermeasure=countermeasure, build=Only)
    assert [c.epoch for c in descends._contexts] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {c.epochs for c in descends._contexts} == {4}
    assert outcome.accuracy_train == [None] * 4  # images and labels may have changed inside the loss


def test_a_combination_without_a_procedure_trains_as_its_parts_do() -> None:
    model, outcome = run(countermeasure=combine(Jitter(), Countermeasure()))
    assert weights(model) == weights(run(countermeasure=Jitter())[0])
    assert None not in outcome.accuracy_train


def test_a_memory_mapped_set_trains_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = colours()
    np.save(tmp_path / "x.npy", data.images)
    mapped = ImageSet(np.load(tmp_path / "x.npy", mmap_mode="r"), data.labels, data.class_names)
    monkeypatch.setattr(loop, "RELEASE_BYTES", 1)  # pages are given back after every batch
    first, second = run(data), run(mapped)
    assert weights(first[0]) == weights(second[0])
    assert first[1].accuracy_test == second[1].accuracy_test


def test_pixels_are_taken_by_index(tmp_path: Path) -> None:
    data = colours()
    np.save(tmp_path / "x.npy", data.images)
    mapped = ImageSet(np.load(tmp_path / "x.npy", mmap_mode="r"), data.labels, data.class_names)
    where = torch.tensor([5, 0, 39])
    for source in (data, mapped):
        pixels = Pixels(source, torch.device("cpu"))
        assert torch.equal(pixels.take(where), torch.tensor(data.images[[5, 0, 39]]))
        assert pixels.labels[where].tolist() == [2, 0, 0]
        assert pixels.resident is None


def test_accuracy_counts_in_eval_mode_and_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return x.mean((2, 3))

    monkeypatch.setattr(batches, "EVAL_BATCH", 14)
    monkeypatch.setattr(batches, "ONE_CORE_PARTS", 2)
    data = colours()
    wrong = ImageSet(data.images, np.where(np.arange(40) < 10, (data.labels + 1) % 3, data.labels), data.class_names)
    assert accuracy(Reads(), Pixels(wrong, torch.device("cpu")), lambda: torch.autocast("cpu", enabled=False)) == 75


@pytest.mark.parametrize(
    ("images", "device", "sizes"),
    [
        (2300, "cpu", [250] * 8 + [300]),
        (2300, "cuda", [1000, 1000, 300]),
        (1001, "cpu", [250] * 4 + [1]),
        (7, "cpu", [7]),
        (0, "cpu", []),
    ],
)
def test_only_whole_thousands_are_cut_smaller_on_a_cpu(images: int, device: str, sizes: list[int]) -> None:
    cut = list(batches.evaluation_batches(images, torch.device(device)))
    assert [len(batch) for batch in cut] == sizes
    assert [where for batch in cut for where in batch] == list(range(images))


@pytest.mark.parametrize(("threads", "size"), [(1, 250), (2, 1000), (16, 1000)])
def test_threads_share_a_batch(threads: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert {len(batch) for batch in batches.evaluation_batches(2000, torch.device("cpu"))} == {size}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("selector", ["resnet9[width=8,blocks=1]", "vit[width=24,depth=1,heads=2]", "linear", "mlp"])
def test_logits_are_the_same_to_the_bit_in_batches_for_a_cpu(selector: str, precision: str) -> None:
    [victim] = registry().resolve("victim", selector)
    assert isinstance(victim, Victim)
    torch.manual_seed(0)
    model = victim.build(10, (16, 16)).to(memory_format=torch.channels_last).eval()
    x = to_unit(torch.randint(256, (batches.EVAL_BATCH, 16, 16, 3), dtype=torch.uint8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        assert torch.equal(
            torch.cat([model(part) for part in x.split(batches.EVAL_BATCH // batches.ONE_CORE_PARTS)]), model(x)
        )


def test_the_shift_is_taken_off_the_pixels() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(ShiftedInput(nn.Identity(), 0.5)(x), x - 0.5)
    assert torch.equal(ShiftedInput(nn.Identity(), 0.0)(x), x)


def test_progress_is_reported_in_steps_and_says_the_epoch() -> None:
    reports: list[tuple[float, float, str]] = []
    run(recipe=longer(epochs=10), report=lambda *r: reports.append(r))
    assert reports == [(10, 20, "epoch 5/10"), (20, 20, "epoch 10/10")]


def test_memory_of_this_process() -> None:
    memory.reset("cpu")
    assert memory.peak_mb("cpu") > 1


@pytest.mark.parametrize(("eval_every", "optimizer"), [(1, "sgd"), (2, "sgd"), (1, "adamw")])
def test_a_run_that_is_continued_ends_as_if_it_had_not_stopped(eval_every: int, optimizer: str) -> None:
    """With momentum, a schedule, crops, and a countermeasure that draws from its generator."""
    recipe = RECIPE.model_copy(update={"eval_every": eval_every, "optimizer": optimizer})
    states: list[dict[str, Any]] = []

    def go(state: dict[str, Any] | None) -> tuple[bytes, Outcome]:
        model, outcome = train(
            network, colours(), colours(30, 1), recipe, Jitter(), "cpu", "fp32", 0, silent, state,
            lambda found: states.append(copy.deepcopy(found)),
        )  # fmt: skip
        return weights(model), outcome

    whole, outcome = go(None)
    assert len(states) == 4
    for state in states[:3]:
        continued, curve = go(state)
        assert continued == whole
        assert (curve.epochs, curve.accuracy_test, curve.loss_train) == (
            outcome.epochs, outcome.accuracy_test, outcome.loss_train
        )  # fmt: skip


def test_nothing_is_measured_without_a_test_set() -> None:
    model, outcome = train(network, colours(), None, RECIPE, Countermeasure(), "cpu", "fp32", 0, silent)
    assert weights(model) == weights(run()[0])
    assert outcome.accuracy_test == []


class Jitter(Countermeasure):
    def augment(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return x + 0.1 * torch.rand(x.shape, generator=generator), y
