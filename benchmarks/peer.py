"""A training loop as releases of unlearnable examples have it, to compare with.

One PIL image after the other through torchvision's transforms in a DataLoader, the column's preprocessing among them
and done anew in every epoch; float32, channels first; the loss read after every step; evaluation after every epoch.
Network, optimizer and rates are those of the recipe it is given, so that only the loop differs.

    python benchmarks/peer.py --data set.npz --victim 'resnet9[blocks=1]' --column vanilla --threads 2 --workers 0
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ue_bench.api import Victim
from ue_bench.catalogue.protocols import protocol
from ue_bench.catalogue.registry import registry
from ue_bench.contract.protocol import Protocol


@dataclass(frozen=True)
class Arrays:
    """Images N x H x W x 3, uint8, and labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images that are opened and transformed when they are asked for."""

    def __init__(self, arrays: Arrays, transform: Callable[[Image.Image], Tensor]) -> None:
        self.arrays, self.transform = arrays, transform

    def __len__(self) -> int:
        return len(self.arrays.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays.images[index])), int(self.arrays.labels[index])


class Jpeg10:
    """A JPEG file of quality 10 in memory, and back."""

    def __call__(self, image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=10)
        file.seek(0)
        return Image.open(file).convert("RGB")


def transform(column: str, recipe: Protocol) -> Callable[[Image.Image], Tensor]:
    """Return the transforms of a training image under ``column``: vanilla, gray or jpeg[quality=10]."""
    from torchvision import transforms as T

    steps: list[object] = {"vanilla": [], "gray": [T.Grayscale(3)], "jpeg[quality=10]": [Jpeg10()]}[column]
    if recipe.pad:
        steps.append(T.RandomCrop(32, padding=recipe.pad))
    if recipe.flip:
        steps.append(T.RandomHorizontalFlip())
    return cast(Callable[[Image.Image], Tensor], T.Compose([*steps, T.ToTensor()]))


def train(
    build: Callable[[], nn.Module],
    train_set: Arrays,
    test_set: Arrays | None,
    recipe: Protocol,
    column: str = "vanilla",
    workers: int = 0,
    steps: int | None = None,
) -> list[float]:
    """Train and return the test accuracy in percent after every epoch. ``steps`` ends it early."""
    from torchvision import transforms as T

    def loader(arrays: Arrays, change: Callable[[Image.Image], Tensor], training: bool) -> DataLoader[list[Tensor]]:
        pictures = cast(Dataset[list[Tensor]], Pictures(arrays, change))  # what its batches are
        batch = min(recipe.batch, len(arrays.images)) if training else 128
        return DataLoader(pictures, batch, shuffle=training, drop_last=training, num_workers=workers)

    model = build()
    training = loader(train_set, transform(column, recipe), True)
    testing = loader(test_set, T.ToTensor(), False) if test_set is not None else None
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )  # fmt: skip
    total, step, curve = recipe.length(len(training)), 0, list[float]()
    while step < min(total, steps or total):
        model.train()
        running = 0.0
        for x, y in training:
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step, total)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x - recipe.shift), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
            step += 1
            if step == min(total, steps or total):
                break
        if testing is not None:
            curve.append(accuracy(model, testing, recipe.shift))
    return curve


@torch.no_grad()
def accuracy(model: nn.Module, batches: DataLoader[list[Tensor]], shift: float) -> float:
    model.eval()
    right = seen = 0
    for x, y in batches:
        right += (model(x - shift).argmax(1) == y).sum().item()
        seen += len(y)
    return 100 * right / seen


def builder(victim: str, classes: int = 10) -> Callable[[], nn.Module]:
    [plugin] = registry().resolve("victim", victim)
    return lambda: cast(Victim, plugin).build(classes, (32, 32))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one cell as releases do, and print its accuracies.")
    parser.add_argument("--data", type=Path, required=True, help="train_images, train_labels, test_images, test_labels")
    parser.add_argument("--victim", default="resnet9[blocks=1]")
    parser.add_argument("--column", default="vanilla")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--steps", type=int, help="end early")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = protocol("micro")
    if given.epochs:
        recipe = recipe.model_copy(update={"epochs": given.epochs})
    with np.load(given.data) as stored:
        train_set, test_set = (Arrays(stored[f"{s}_images"], stored[f"{s}_labels"]) for s in ("train", "test"))
    curve = train(builder(given.victim), train_set, test_set, recipe, given.column, given.workers, given.steps)
    print(" ".join(f"{value:.2f}" for value in curve))


if __name__ == "__main__":
    main()
