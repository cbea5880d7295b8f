"""Limit the time that a check takes."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from ..contract.context import Context


class OutOfTime(BaseException):
    """A run that would take longer than the check may. No Exception: a plugin must not take it for a failure."""


AGAIN_SECONDS = 0.2
_running: list[bool] = []  # not empty while a method of a plugin runs, which may be stopped


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let an alarm stop what runs inside."""
    _running.append(True)
    try:
        yield
    finally:
        _running.pop()


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

    @contextlib.contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise OutOfTime in a plugin's method that reports nothing, where the system has signals for that."""
        main = threading.current_thread() is threading.main_thread()
        if self.seconds is None or not main or not hasattr(signal, "setitimer"):
            yield
            return

        def ring(number: int, frame: object) -> None:
            if _running:
                raise OutOfTime
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

        before = signal.signal(signal.SIGALRM, ring)
        timer = signal.setitimer(signal.ITIMER_REAL, max(self.left, AGAIN_SECONDS))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before)
