"""Limit the time that a check takes."""

from __future__ import annotations

import time
from dataclasses import replace

from ..contract.context import Context


class OutOfTime(BaseException):
    """A run that would take longer than the check may. No Exception: a plugin must not take it for a failure."""


class Clock:
    """The seconds that are left of a check; None is no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self._started = seconds, time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left, infinitely many without a limit."""
        return float("inf") if self.seconds is None else self.seconds - (time.monotonic() - self._started)

    def limit(self, ctx: Context) -> Context:
        """Return ``ctx`` whose reports of progress raise OutOfTime when no time is left."""

        def report(done: float, total: float, text: str) -> None:
            ctx.report(done, total, text)
            if self.left <= 0:
                raise OutOfTime

        return replace(ctx, report=report)
