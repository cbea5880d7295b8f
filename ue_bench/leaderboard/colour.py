"""Choose the colours of the heatmap, by recovered share: blue is protected, orange is broken.

What is protected runs from strong to faint, and lightness rises or falls all along, so that the order can be read
without telling hues apart; between the stops it is interpolated in OKLab. From the share on that counts as broken there
is another hue, and a step. On a dark page lightness runs the other way, so that strength stands out from the ground
there too.
"""

from __future__ import annotations

from dataclasses import dataclass

from .headline import BROKEN

STEP = 2  # percent of the clean accuracy above chance that a colour stands for


@dataclass(frozen=True)
class Ramp:
    """Colours at equal distances: from a share of 0 to ``BROKEN`` percent, and from there to 100 percent."""

    kept: tuple[str, ...]
    broken: tuple[str, ...]


# The blue part of the light ramp runs close to ColorBrewer's YlGnBu, reversed.
LIGHT = Ramp(("#16377f", "#2166ac", "#2f95c0", "#86cdbd", "#b2d9bb"), ("#ffcda6", "#ffdcc2"))
DARK = Ramp(("#9ad6ff", "#57a9e6", "#3180b5", "#2c6573", "#2f5048"), ("#653420", "#522b1c"))

Vector = tuple[float, float, float]


def levels(ramp: Ramp) -> list[tuple[str, str]]:
    """Return (background, text) for recovered shares of 0, STEP, 2 STEP, ... 100 %."""
    colours = [
        _between(ramp.kept, share / BROKEN)
        if share < BROKEN
        else _between(ramp.broken, (share - BROKEN) / (100 - BROKEN))
        for share in range(0, 101, STEP)
    ]
    return [(c, text_on(c)) for c in colours]


def level(share: float) -> int:
    """Return the index into ``levels`` of a share in percent: of the step it lies in, so that what is broken shows."""
    return int(min(max(share, 0.0), 100.0) / STEP)


def text_on(background: str) -> str:
    """Return black or white, whichever reads better: at least 4.5 to 1 on any colour."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, background))


def contrast(first: str, second: str) -> float:
    """Return the WCAG 2 contrast ratio of two colours, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _between(stops: tuple[str, ...], position: float) -> str:
    scaled = position * (len(stops) - 1)
    i = min(int(scaled), len(stops) - 2)
    a, b = _oklab(stops[i]), _oklab(stops[i + 1])
    t = scaled - i
    return _hex(_mix(a, b, t))


def _mix(a: Vector, b: Vector, t: float) -> Vector:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def _linear(colour: str) -> Vector:
    """Return the linear light of ``#rrggbb`` (sRGB, IEC 61966-2-1)."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _expand(r), _expand(g), _expand(b)


def _expand(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)


def _compress(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return float(12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)


def _luminance(colour: str) -> float:
    r, g, b = _linear(colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _oklab(colour: str) -> Vector:
    """Return the OKLab of ``#rrggbb`` (Ottosson 2020, "A perceptual color space for image processing")."""
    r, g, b = _linear(colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _hex(lab: Vector) -> str:
    """Return ``#rrggbb`` of an OKLab colour, the inverse of ``_oklab``."""
    lightness, a, b = lab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    rgb = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _compress(value)):02x}" for value in rgb)
