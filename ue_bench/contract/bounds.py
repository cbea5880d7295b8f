"""Budgets as protectors declare them, read: of what kind a bound is, and how large."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from ..errors import UserError

Kind = Literal["linf", "l2", "pixels", "rms", "mse", "psnr", "ssim"]
FORMS = "linf 8/255, l2 1.0, pixels 1, rms 6/255, mse (8/255)^2, psnr 30, ssim 0.9"
ROUNDING = 1 / (255 * math.sqrt(3))  # root mean square of fractions of a gray level, all of them equally frequent


@dataclass(frozen=True)
class Bound:
    """A declared budget. ``limit`` is on the [0, 1] scale, in pixels, or in dB.

    linf, l2 and pixels hold for every image; rms and mse for all values together; psnr (of all values together) and
    ssim (mean over images) are lower limits.
    """

    kind: Kind
    limit: float
    text: str

    @property
    def upper(self) -> float:
        """The limit, with room for the rounding of floats and none for that of pixels."""
        return self.limit * (1 + 1e-6)


def read_bound(text: str) -> Bound:
    """Read a budget as protectors declare it. Raises UserError when it cannot be read."""
    number = r"([0-9.]+(?:e-?[0-9]+)?)(?:/([0-9.]+))?"
    match = re.fullmatch(rf"(linf|l2|pixels|rms|psnr|ssim) {number}|mse \({number}\)\^2|mse {number}", text.strip())
    if match is None:
        raise UserError(f"cannot read budget {text!r}", f"write it like one of: {FORMS}")
    kind, *numbers = match.groups()
    above, below = next(pair for pair in zip(numbers[::2], numbers[1::2], strict=True) if pair[0])
    try:
        limit = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"cannot read budget {text!r}", f"write it like one of: {FORMS}") from None
    if kind in ("linf", "rms") and limit > 1:
        raise UserError(f"budget {text!r} is on the [0, 1] scale", f"write {kind} {above}/255 for gray levels")
    if numbers[2]:
        limit = limit**2
    return Bound(cast(Kind, kind or "mse"), limit, text.strip())


def over_by_rounding(bound: Bound, reached: float, values: int = 1) -> bool:
    """Return whether what exceeds a bound on the norm of ``values`` values may all come from rounding them.

    Papers give the norm of what is added; cutting off the fractions of gray levels adds up to ROUNDING to a root mean
    square. False for other bounds, which a protector can keep whatever it rounds.
    """
    if bound.kind not in ("l2", "rms", "mse"):
        return False

    def rms(norm: float) -> float:
        return {"l2": norm / math.sqrt(values), "rms": norm, "mse": math.sqrt(norm)}[bound.kind]

    return rms(reached) <= rms(bound.limit) + ROUNDING
