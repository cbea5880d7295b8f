"""The command ``protect`` on the folder ``photos``, and what comes out of it."""

from __future__ import annotations

from .conftest import Command, Finished

NEW_NAMES = ["cat/1.png", "cat/a b.png", "cat/größe/3.png", "dog/1.bmp.png", "dog/1.png", "dog/gray.png", "dog/猫.png"]


def protect(ue_bench: Command, *arguments: str, protector: str = "shuffled") -> Finished:
    return ue_bench("protect", "-P", protector, "--device", "cpu", "--threads", "1", *arguments)
