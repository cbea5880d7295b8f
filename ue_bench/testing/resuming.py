"""Kill a plugin's work once it has saved its state, and check that it goes on to the same end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ..contract.context import Context
from ..contract.imageset import ImageSet
from .findings import Findings
from .trials import Stop, fresh, trial


class Killed(BaseException):
    """Stands for a killed process: no Exception, because nothing may catch it."""


def _saved(ctx: Context) -> int:
    """Return how many files of states there are."""
    return sum(path.is_file() for path in (ctx.artifacts / "unfinished").rglob("*"))


def check_resuming(
    findings: Findings, work: Callable[[Context], ImageSet], whole: ImageSet, ctx: Context, seed: int
) -> None:
    """Compare ``work`` that was killed and done again with ``whole``, which was done at once with the same ``seed``."""
    once = fresh(ctx, seed)

    def kill(done: float, total: float, text: str) -> None:
        ctx.report(done, total, text)
        if _saved(once):
            raise Killed

    try:
        trial(partial(work, replace(once, report=kill)), ctx.device, 1, findings)
    except Killed:
        pass
    else:
        findings.note("state", "keeps no state that a report of progress would follow")
        return
    saved = _saved(once)
    again = trial(partial(work, once), ctx.device, 2, findings).result
    if not isinstance(again, ImageSet):
        raise Stop
    same = np.array_equal(whole.images, again.images)
    text = "killed and done again, it comes to" + (" the same images" if same else " other images")
    findings.check("result", same, text, files=saved)
    left = _saved(once)
    findings.check("state", not left, f"{left} files of its state are left behind" if left else "removed at the end")
