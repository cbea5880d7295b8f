"""``python -m ue_bench``, where the ``ue-bench`` script is not on the path."""

from __future__ import annotations

from .cli.main import main

if __name__ == "__main__":  # workers import this module too
    main()
