"""Rows of docs/protocols-and-boards.md as the program's own files give them."""

from __future__ import annotations

from ue_bench.boards import Board
from ue_bench.engine.protocol import Protocol


def protocol_row(p: Protocol) -> list[str]:
    return [
        f"`{p.name}`",
        str(p.version),
        f"{p.steps:,} steps" if p.steps else f"{p.epochs} epochs",
        str(p.batch),
        f"{p.learning_rate:g}",
        _schedule(p),
        f"{p.momentum:g}{', Nesterov' if p.nesterov else ''}",
        f"{p.weight_decay:g}",
        "none" if p.clip is None else f"{p.clip:g}",
        f"pad {p.pad}" if p.crop == "pad" else p.crop,
        f"{p.shift:g}",
        str(p.eval_every),
    ]


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
