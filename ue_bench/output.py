"""Make standard output print whatever it is given."""

from __future__ import annotations

import io
import sys


def printable() -> None:
    """Let stdout and stderr replace what their encoding does not have, as in a batch job whose locale is C.

    An error after hours of work, because of a dash in the head of a table, would be worse.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")
