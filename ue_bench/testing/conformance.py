"""Check everything that is asked of a plugin of any kind, in limited time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from ..contract.context import Context
from ..contract.imageset import ImageSet
from ..contract.plugin import Countermeasure, Dataset, Plugin, Protector, Victim
from .clock import Clock
from .countermeasures import check_countermeasure, check_odd_countermeasure
from .datasets import check_dataset
from .declared import check_declared
from .findings import Finding, Findings
from .odd_sets import Usual
from .protectors import check_odd_protector, check_protector
from .training import Build, small_network
from .trials import Stop
from .victims import check_odd_victim, check_victim

SECONDS = 100.0  # of a check, so that it ends within two minutes
RUNS = 3  # of the usual checks, at least


def check_plugin(
    plugin: Plugin,
    data: ImageSet,
    ctx: Context,
    images: int = 200,
    seed: int = 0,
    build: Build = small_network,
    seconds: float | None = SECONDS,
) -> list[Finding]:
    """Check what ``plugin`` declares, what it does to ``images`` of ``data``, and what it does to odd sets.

    A run is stopped after ``seconds``, and sets that would take longer are not tried: both
    are noted. Raises UserError when the plugin cannot be used, TypeError for another kind.
    """
    clock = Clock(seconds)
    limited = clock.limit(ctx)
    findings = check_declared(plugin)
    usual: Callable[[], list[Finding]]
    odd: Callable[[Findings, Usual], None]
    match plugin:
        case Protector() as protector:
            usual = partial(check_protector, protector, data, limited, images, seed)
            odd = lambda more, of: check_odd_protector(more, protector, limited, seed, of)  # noqa: E731
        case Countermeasure() as countermeasure:
            usual = partial(check_countermeasure, countermeasure, data, limited, images, seed, build)
            odd = lambda more, of: check_odd_countermeasure(more, countermeasure, limited, seed, of)  # noqa: E731
        case Victim() as victim:
            usual = partial(check_victim, victim, data, limited, seed)
            odd = lambda more, of: check_odd_victim(more, victim, limited, seed, of)  # noqa: E731
        case Dataset():
            return findings + check_dataset(plugin, limited)
        case _:
            raise TypeError(f"a {plugin.kind or type(plugin).__name__} cannot be checked")
    started = time.monotonic()
    with clock.alarm():
        found = usual()
    findings += found
    if _stopped(found):
        return findings
    pixels = min(images, len(data)) * data.size[0] * data.size[1]
    more, measured = Findings("sets"), Usual(clock, (time.monotonic() - started) / RUNS, pixels)
    with clock.alarm(), contextlib.suppress(Stop):
        odd(more, measured)
    return findings + more.collected


def _stopped(findings: Sequence[Finding]) -> bool:
    """Return whether a run failed or was stopped: others would be as well."""
    return any(f.check == "time" or (f.check == "runs" and f.state == "fail") for f in findings)
