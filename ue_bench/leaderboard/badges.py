"""Name where a result is from: see :mod:`.submission`."""

from __future__ import annotations

from typing import Literal

Badge = Literal["measured here", "self-reported", "reproduced"]
HERE: Badge = "measured here"
REPORTED: Badge = "self-reported"
REPRODUCED: Badge = "reproduced"
