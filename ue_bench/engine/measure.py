"""Measure a network that no protocol trains, because it has learned all there is before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from ..contract.imageset import ImageSet
from ..seeds import derive
from .batches import evaluation_batches
from .crops import to_unit
from .generators import leaves_generators_alone
from .loop import Outcome, Pixels, ShiftedInput, above_chance, accuracy, sample_of
from .numerics import full_float32


@leaves_generators_alone
@full_float32()
def measure(
    build: Callable[[], nn.Module],
    train_set: ImageSet,
    test_set: ImageSet,
    shift: float,
    device: str,
    precision: str,
    seed: int,
) -> tuple[nn.Module, Outcome]:
    """Return the network that ``build`` makes, and its accuracy: a curve of one point, after no epochs.

    Accuracy and loss on training images are those of a sample of them. Raises Diverged when an output is not finite.
    """
    on = torch.device(device)
    torch.manual_seed(derive(seed, "initial weights"))
    model = ShiftedInput(build(), shift).to(on).to(memory_format=torch.channels_last).eval()

    def autocast() -> torch.autocast:
        return torch.autocast(on.type, torch.bfloat16, enabled=precision == "bf16")

    sample = Pixels(sample_of(train_set, seed), on)
    on_train, on_test = accuracy(model, sample, autocast), accuracy(model, Pixels(test_set, on), autocast)
    loss = 0.0
    with torch.no_grad():
        for batch in evaluation_batches(len(sample.data), on):
            where = torch.arange(batch.start, batch.stop, device=on)
            with autocast():
                logits = model(to_unit(sample.take(where)))
            loss += float(F.cross_entropy(logits.float(), sample.labels[where], reduction="sum"))
    return model, Outcome(
        epochs=[0.0],
        accuracy_test=[on_test],
        accuracy_train=[on_train],
        loss_train=[loss / len(sample.data)],
        accuracy_last=on_test,
        learned=above_chance(on_train, train_set.labels, len(sample.data)),
    )
