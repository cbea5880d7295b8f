"""Choose a device and show progress on stderr, for commands that plugins bring."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from .errors import EnvironmentProblem, first_line


def usable_device(name: str) -> str:
    """Return ``name``, or the best there is for ``auto``. Raises EnvironmentProblem when ``name`` does not work."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise EnvironmentProblem(f"no device {name!r} here: {reason}", "use --device cpu") from error
    return name


class ProgressLine:
    """A line on stderr that shows what is being done, how far it is and how long it will take.

    A live line on a terminal, elsewhere a line now and then. Call it with the steps done, their total and a text; a
    text is the name of the work, a comma, and whatever else is worth seeing.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.live = stream.isatty()
        self.interval = 0.2 if self.live else 30.0
        self.work = ""
        self.begun, self.first, self.shown = 0.0, 0.0, 0.0

    def __call__(self, done: float, total: float, text: str) -> None:
        now, work = self.clock(), text.partition(",")[0]
        finished = done >= total
        if work != self.work:
            self.work, self.begun, self.first = work, now, done
        elif not finished and now - self.shown < self.interval:
            return
        self.shown = now
        line = f"{text}, {done:g}/{total:g}"
        if done > self.first and not finished:
            line += f", eta {_clock((now - self.begun) / (done - self.first) * (total - done))}"
        self.stream.write(f"\r{line}\x1b[K" + ("\n" if finished else "") if self.live else f"{line}\n")
        self.stream.flush()


def _clock(seconds: float) -> str:
    """Write seconds as ``0:03:10``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
