"""True results of a committed board, and the same ones changed by somebody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ue_bench.keys import digest

BOARD = Path(__file__).resolve().parents[2] / "leaderboards" / "cifar10-micro"
Plain = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]


def plain(protector: str = "em-preset-micro", countermeasure: str = "gray") -> Plain:
    """A true result of the committed board, as plain data."""
    [path] = (BOARD / "results" / protector).glob(f"{countermeasure}-resnet9*-s0-*.json")
    found: Plain = json.loads(path.read_text(encoding="utf-8"))
    return found


def set_in(fields: Plain, where: str, value: Any) -> None:
    *outer, last = where.split(".")
    for name in outer:
        fields = fields[name]
    fields[last] = value


def changed(**values: Any) -> str:
    """A result in which fields are changed, ``__`` standing for a dot; its key is that of its cell again."""
    fields = plain()
    for where, value in values.items():
        set_in(fields, where.replace("__", "."), value)
    fields["key"] = digest(fields["cell"])
    return json.dumps(fields, ensure_ascii=False)


def text(old: str, new: str) -> str:
    """A result in whose text something is replaced."""
    whole = json.dumps(plain())
    assert old in whole
    return whole.replace(old, new, 1)


def lacking(name: str) -> str:
    fields = plain()
    del fields[name]
    return json.dumps(fields)


def without_reference() -> str:
    """A true cell of a column that the board has no clean cell of: a sound one of two countermeasures together."""
    fields = plain()
    gray, jpeg = fields["cell"]["countermeasure"], plain(countermeasure="jpeg-quality-10")["cell"]["countermeasure"]
    fields["cell"]["countermeasure"] = {"combination": [gray, jpeg]}
    fields |= {"countermeasure": "gray+jpeg[quality=10]", "key": digest(fields["cell"])}
    fields["id"] = fields["id"].replace("/gray/", "/gray+jpeg[quality=10]/")
    return json.dumps(fields)


def reference(accuracy: float) -> str:
    """A clean cell of another seed, with that accuracy."""
    fields = plain("none", "vanilla")
    fields["seed"] = fields["cell"]["seed"] = 7
    fields["id"] = fields["id"].removesuffix("s0") + "s7"
    fields["metrics"] |= {"accuracy_last": accuracy, "accuracy_peak": accuracy}
    fields["key"] = digest(fields["cell"])
    return json.dumps(fields)


def clean_but_changed() -> str:
    """A clean cell of another seed, whose images were changed."""
    fields = json.loads(reference(71.0))
    fields["budget"] |= {"linf_max": 80, "linf_mean": 80.0, "rms": 50.0, "l2_mean": 9.0, "psnr": 14.15}
    return json.dumps(fields)


def on_board(*more: str | Path, out: Path = BOARD) -> tuple[str | Path, ...]:
    return ("--board", "cifar10-micro", "--out", out, *more)
