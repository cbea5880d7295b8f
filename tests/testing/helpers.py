from __future__ import annotations

from collections.abc import Iterable

from ue_bench.testing import Finding


def broken(findings: Iterable[Finding]) -> set[str]:
    """``stage check`` of everything that failed."""
    return {f"{f.stage} {f.check}" for f in findings if f.state == "fail"}


def found(findings: Iterable[Finding], stage: str, check: str) -> Finding:
    [one] = [f for f in findings if (f.stage, f.check) == (stage, check)]
    return one
