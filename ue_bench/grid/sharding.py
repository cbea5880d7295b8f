"""Parts of a grid for machines that share nothing: which cells each of them computes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError
from .stages.base import Stage


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``, the first of which is 1.

    A cell belongs to the same shard whatever else is in the grid. Cells with one protected set stay together, so that
    each set is computed in one shard.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``2/8`` means. Raises UserError when it cannot be read."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise UserError(f"cannot read the shard {text!r}", "write 1/4 to 4/4 for the four parts of a grid")
        return cls(index, count)

    def holds(self, target: Stage) -> bool:
        """Return whether ``target`` belongs to this shard."""
        needs = target.needs()
        return int((needs[0] if needs else target).key, 16) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
