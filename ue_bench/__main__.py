"""``python -m ue_bench``, where the ``ue-bench`` script is not on the path."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # workers import this module too
    # Python looks into the current folder first, where a random.py or types.py of the user's may lie: look there last.
    if sys.path[0] == os.getcwd():  # noqa: PTH109  pathlib is not imported yet
        sys.path.append(sys.path.pop(0))

    from .cli.main import main

    main()
