"""Try plugins on sets of other shapes and classes than the usual ones, and on images out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..contract.imageset import ImageSet
from ..errors import Diverged, UserError, ValidationError
from .clock import Clock
from .findings import Findings
from .pictures import pictures
from .trials import Stop, Watch

SIDES_AND_CLASSES = (((32, 32), 2), ((48, 64), 10), ((96, 96), 3), ((1, 50), 3), ((32, 32), 100))


def odd_sets() -> Iterator[tuple[str, ImageSet]]:
    """Yield small sets with a name each: other sides and numbers of classes, gray and flat images, unequal classes."""
    for size, classes in SIDES_AND_CLASSES:
        count = max(12, classes)
        yield f"{size[0]}x{size[1]}/{classes}", pictures(count, size, classes)
    gray = pictures(12)
    yield "gray levels", gray.with_images(np.repeat(gray.images[..., :1], 3, axis=3))
    levels = np.array([0, 255, 128], dtype=np.uint8)[np.arange(12) % 3]
    yield "flat", gray.with_images(np.broadcast_to(levels[:, None, None, None], gray.images.shape).copy())
    some = pictures(29, (13, 9), 5)
    labels = np.repeat([0, 1, 3, 4], [15, 1, 7, 6])
    yield "classes", ImageSet(some.images, labels, some.class_names, some.source)  # one of one image, one of none


@dataclass(frozen=True)
class Usual:
    """What is left of a check's time, and the seconds that a run with so many pixels took."""

    clock: Clock
    seconds: float
    pixels: int

    def too_long(self, pixels: int, runs: int = 1) -> str:
        """Return why ``runs`` with so many pixels are not tried, or an empty text when there is time for them."""
        expected, left = runs * self.seconds * max(1.0, pixels / self.pixels), max(0.0, self.clock.left)
        return f"not tried: some {expected:.0f} s, of which {left:.0f} are left" if expected > left else ""


def is_refusal(error: UserError) -> bool:
    """Return whether a plugin says that it does not take such images, not that something is no set of images."""
    return not isinstance(error, ValidationError) or isinstance(error, Diverged)


def check_odd_sets(findings: Findings, run: Callable[[ImageSet, Findings], None], usual: Usual) -> None:
    """Let ``run(data, findings)`` check each of the sets; what it finds wrong is a line a set.

    A UserError is a refusal, which is noted, and so are sets for which there is no time.
    """
    for name, data in odd_sets():
        untried = usual.too_long(data.images[..., 0].size)
        if untried:
            findings.note(name, untried)
            continue
        found, watch = Findings(findings.stage), Watch(data)
        try:
            run(data, found)
        except Stop:
            pass
        except UserError as error:
            if is_refusal(error):
                findings.note(name, f"refused: {error.message}")
                continue
            found.check("valid", False, error.message)  # what it returned is no set of images
        watch.check(found)
        wrong = [f.text for f in found.collected if f.state == "fail"]
        late = [f.text for f in found.collected if f.check == "time"]
        if late and not wrong:
            findings.note(name, late[0])
            continue
        height, width = data.size
        text = f"{len(data)} of {height} x {width} px in {data.num_classes} classes"
        findings.check(name, not wrong, f"{text}: {'; '.join(wrong)}" if wrong else text)
