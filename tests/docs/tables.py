"""Rows of docs/protocols-and-boards.md as the program's own files give them."""

from __future__ import annotations

from ue_bench.api import Victim
from ue_bench.contract.board import Board
from ue_bench.contract.protocol import Protocol
from ue_bench.contract.registration import PluginRecord

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def protocol_row(p: Protocol) -> list[str]:
    return [
        f"`{p.name}`",
        str(p.version),
        f"{p.steps:,} steps" if p.steps else f"{p.epochs} epochs",
        str(p.batch),
        f"{p.learning_rate:g}",
        _schedule(p),
        f"{OPTIMIZERS[p.optimizer]} {p.momentum:g}{', Nesterov' if p.nesterov else ''}",
        f"{p.weight_decay:g}",
        "none" if p.clip is None else f"{p.clip:g}",
        f"pad {p.pad}" if p.crop == "pad" else p.crop,
        f"{p.shift:g}",
        str(p.eval_every),
    ]


def release_row(p: Protocol) -> list[str]:
    """What released codes do and our own protocols do not: last batch, rates by epoch, rows, colors, rotation."""
    colors = "none" if p.mean is None or p.std is None else f"{_numbers(p.mean)} / {_numbers(p.std)}"
    return [
        f"`{p.name}`",
        "dropped" if p.drop_last else "kept",
        p.rate_changes,
        "all" if p.rows is None else f"the first {p.rows:,}",
        colors,
        f"{p.rotation:g}",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _schedule(p: Protocol) -> str:
    if p.schedule == "multistep":
        return f"x{p.factor:g} at {', '.join(f'{m:g}' for m in p.milestones)}"
    return f"one-cycle, warm-up {p.warmup:g}" if p.schedule == "onecycle" else p.schedule


def board_row(b: Board) -> list[str]:
    def names(selectors: tuple[str, ...]) -> str:
        return " ".join(f"`{s}`" for s in selectors)

    return [
        f"`{b.name}`",
        f"`{b.dataset}`",
        f"`{b.protocol}`",
        names(b.victims),
        names(b.reference),
        names(b.protectors),
        names(b.countermeasures),
        ", ".join(map(str, b.seeds)),
    ]


def victim_row(entry: PluginRecord) -> list[str]:
    """Name and parameters at 32 px and 10 classes, and at 224 px and 1,000; the page says the rest in words."""
    import torch

    given = {"features": "random"} if entry.name in ("linear-probe", "probe") else {}  # in place of downloaded weights
    counts = []
    for size, classes in ((32, 10), (224, 1000)):
        with torch.device("meta"):
            victim = entry.plugin_class.model_validate(given)
            assert isinstance(victim, Victim)
            network = victim.build(classes, (size, size))
        counts.append(f"{sum(p.numel() for p in network.parameters()):,}")
    return [f"`{entry.name}`", *counts]
