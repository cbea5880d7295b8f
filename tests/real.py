"""Where tests look for real images and for what others published; they are skipped where it is not.

``UE_BENCH_TEST_DATA`` names the folder of images; the published figures are in ``reference`` beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("UE_BENCH_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
REFERENCE = DATA.parent / "reference"
